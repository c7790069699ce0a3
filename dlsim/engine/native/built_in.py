"""What Python has built in, and `arrays.py` for machine code, as instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dlsim.engine.native.arrays import PCG64, bits_of, either, lowest_bit, next_bits
from dlsim.engine.native.builder import Builder
from dlsim.engine.native.memory import begin_of, kind_of, length_of
from dlsim.engine.native.values import BOOL, FLOAT, INT, ONE, ZERO, Range, Several, Value

FRACTION, EXPONENTS = 52, 2047  # bits of a double's fraction, and those of its exponent
HALF = 1022  # the exponent of 0.5


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
    (real,), ((part,), (power,), (room,)) = number.parts, (b.slot(t) for t in (FLOAT, INT, INT))
    normal, other, after = b.name("y"), b.name("n"), b.name("a")
    bits = b.emit(f"bitcast double {real} to i64")
    exponent = b.emit(f"and i64 {b.emit(f'lshr i64 {bits}, {FRACTION}')}, {EXPONENTS}")
    less = b.emit(f"sub i64 {exponent}, 1")
    b.fork(b.emit(f"icmp ult i64 {less}, {EXPONENTS - 1}"), normal, other)
    b.begin_block(normal)  # both are in its bits
    fraction = b.emit(f"and i64 {bits}, {~(EXPONENTS << FRACTION)}")
    b.do(f"store i64 {b.emit(f'or i64 {fraction}, {HALF << FRACTION}')}, ptr {part}")
    b.do(f"store i64 {b.emit(f'sub i64 {exponent}, {HALF}')}, ptr {power}")
    b.jump(after)
    b.begin_block(other)
    b.do(f"store double {b.emit(f'call double @frexp(double {real}, ptr {room})')}, ptr {part}")
    wide = b.emit(f"sext i32 {b.emit(f'load i32, ptr {room}')} to i64")
    b.do(f"store i64 {wide}, ptr {power}")
    b.begin_block(after)
    loaded = b.emit(f"load double, ptr {part}"), b.emit(f"load i64, ptr {power}")
    return Value(Several((FLOAT, INT)), loaded)


def _ldexp(b: Builder, part: Value, power: Value) -> Value:
    short = b.emit(f"trunc i64 {power.parts[0]} to i32")
    return Value(FLOAT, (b.emit(f"call double @ldexp(double {part.parts[0]}, i32 {short})"),))


def _real(name: str) -> Callable[..., Value]:
    def called(b: Builder, number: Value) -> Value:
        (real,) = b.to(number, FLOAT).parts
        return Value(FLOAT, (b.emit(f"call double @{name}(double {real})"),))

    return called


def _next_bits(b: Builder, state: Value) -> Value:
    begin, alone = begin_of(b, state), kind_of(state).alone
    told = f", align 8, !tbaa {b.program.tag(alone)}" if alone else ", align 8"
    step = b.emit(f"load i128, ptr {b.emit(f'getelementptr i128, ptr {begin}, i64 1')}{told}")
    made = b.emit(f"mul i128 {b.emit(f'load i128, ptr {begin}{told}')}, {PCG64}")
    made = b.emit(f"add i128 {made}, {step}")
    b.do(f"store i128 {made}, ptr {begin}{told}")
    high, turn = (
        b.emit(f"trunc i128 {b.emit(f'lshr i128 {made}, {n}')} to i64") for n in (64, 122)
    )
    mixed = b.emit(f"xor i64 {high}, {b.emit(f'trunc i128 {made} to i64')}")
    return Value(INT, (b.emit(f"call i64 @llvm.fshr.i64(i64 {mixed}, i64 {mixed}, i64 {turn})"),))


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
    **{function: _real(function.__name__) for function in (math.exp, math.log, math.log1p)},
    next_bits: _next_bits,
    either: lambda b, truth, one, other: b.choose(
        truth.parts[0], one, other, ", !unpredictable !0"
    ),
    lowest_bit: lambda b, x: Value(
        INT, (b.emit(f"call i64 @llvm.cttz.i64(i64 {x.parts[0]}, i1 true)"),)
    ),
    bits_of: lambda b, x: Value(INT, (b.emit(f"bitcast double {x.parts[0]} to i64"),)),
}
