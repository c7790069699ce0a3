"""What Python has built in, and `arrays.py` for machine code, as instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dlsim.engine.native.arrays import bits_of, either, lowest_bit
from dlsim.engine.native.builder import Builder
from dlsim.engine.native.memory import length_of
from dlsim.engine.native.values import BOOL, FLOAT, INT, ONE, ZERO, Range, Several, Value


def _range(b: Builder, *given: Value) -> Value:
    first, last, each = {1: (ZERO, *given, ONE), 2: (*given, ONE), 3: given}[len(given)]
    parts = tuple(b.to(number, INT).parts[0] for number in (first, last, each))
    return Value(Range(down=parts[2].startswith("-")), parts)


def _first(sign: str) -> Callable[..., Value]:
    def chosen(b: Builder, best: Value, *others: Value) -> Value:
        for other in others:
            (better,) = b.compare(sign, other, best).parts
            best = b.choose(better, other, best)
        return best

    return chosen


def _frexp(b: Builder, number: Value) -> Value:
    (room,) = b.slot(INT)
    part = b.emit(f"call double @frexp(double {number.parts[0]}, ptr {room})")
    power = b.emit(f"sext i32 {b.emit(f'load i32, ptr {room}')} to i64")
    return Value(Several((FLOAT, INT)), (part, power))


def _ldexp(b: Builder, part: Value, power: Value) -> Value:
    short = b.emit(f"trunc i64 {power.parts[0]} to i32")
    return Value(FLOAT, (b.emit(f"call double @ldexp(double {part.parts[0]}, i32 {short})"),))


def _int(b: Builder, number: Value) -> Value:
    if number.type != FLOAT:
        return b.to(number, INT)
    return Value(INT, (b.emit(f"fptosi double {number.parts[0]} to i64"),))


BUILT_IN: dict[Any, Callable[..., Value]] = {
    range: _range,
    len: lambda b, array: length_of(b, array),
    min: _first("<"),
    max: _first(">"),
    int: _int,
    float: lambda b, number: b.to(number, FLOAT),
    bool: lambda b, number: b.to(number, BOOL),
    math.frexp: _frexp,
    math.ldexp: _ldexp,
    either: lambda b, truth, one, other: b.choose(
        truth.parts[0], one, other, ", !unpredictable !0"
    ),
    lowest_bit: lambda b, x: Value(
        INT, (b.emit(f"call i64 @llvm.cttz.i64(i64 {x.parts[0]}, i1 true)"),)
    ),
    bits_of: lambda b, x: Value(INT, (b.emit(f"bitcast double {x.parts[0]} to i64"),)),
}
