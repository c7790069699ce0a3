"""What compiled code works with, and how it lies in registers and in memory.

A value has a type and, for LLVM, any number of parts: a number has one, a view of an array one for
where it begins and one for each length, what is known beforehand (a module, a function) none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Unsupported(Exception):
    """Something of Python that is not translated: what, and where it is."""

    where = ""

    def __str__(self) -> str:
        return f"{self.where}not translated: {', '.join(map(str, self.args))}"


@dataclass(frozen=True)
class Scalar:
    """A number, or a truth."""

    llvm: str


INT, FLOAT, BOOL = Scalar("i64"), Scalar("double"), Scalar("i1")


@dataclass(frozen=True)
class Row:
    """A row of an array with named fields, by where it is."""

    dtype: np.dtype[Any]
    alone: str  # names memory that is reached by this name only; "": any


@dataclass(frozen=True)
class Array:
    """A view of an array, C-contiguous, in which nobody counts from the end."""

    dtype: np.dtype[Any]
    ndim: int
    alone: str


@dataclass(frozen=True)
class Table:
    """Many arrays, by where the table is that says where they are (`arrays.table`)."""

    name: str
    of: tuple[tuple[str, Array, int], ...]  # each with its place in the table

    def column(self, name: str) -> Column:
        """One of the arrays."""
        for known, array, place in self.of:
            if known == name:
                return Column(array, place)
        raise Unsupported(f"{self.name} has no {name}")


@dataclass(frozen=True)
class Column:
    """An array of a table, by where the table is: what is not asked for is not read."""

    array: Array
    place: int


@dataclass(frozen=True)
class Range:
    """Numbers from one on up to another, or down to it, in equal steps."""

    down: bool


@dataclass(frozen=True)
class Several:
    """A tuple."""

    types: tuple[Any, ...]


@dataclass(frozen=True)
class Known:
    """Something of Python's that is known beforehand: a module, a function."""

    what: Any


class Value(NamedTuple):
    """A value: its type, and an operand for each part."""

    type: Any
    parts: tuple[str, ...]


def table_of(
    name: str, arrays: Mapping[str, np.ndarray[Any, Any]], fixed: Sequence[str] = ()
) -> Table:
    """The type of a table of arrays such as these, of which some are `fixed`."""
    of, place = [], 0
    for field, array in arrays.items():
        alone = f"{'fixed ' if field in fixed else ''}{name}.{field}"
        of.append((field, Array(array.dtype, array.ndim, alone), place))
        place += 1 + array.ndim
    return Table(name, tuple(of))


def parts_of(kind: Any) -> list[str]:
    """The LLVM types of its parts."""
    match kind:
        case Scalar():
            return [kind.llvm]
        case Row() | Table() | Column():
            return ["ptr"]
        case Array():
            return ["ptr", *["i64"] * kind.ndim]
        case Range():
            return ["i64"] * 3
        case Several():
            return [part for each in kind.types for part in parts_of(each)]
    return []


def split(value: Value) -> list[Value]:
    """The values in a tuple."""
    found, at = [], 0
    for kind in value.type.types:
        count = len(parts_of(kind))
        found.append(Value(kind, value.parts[at : at + count]))
        at += count
    return found


def joined(one: Any, other: Any) -> Any:
    """The type of what is either of two."""
    if one == other:
        return one
    match one, other:
        case Scalar(), Scalar():
            return FLOAT if FLOAT in (one, other) else INT
        case ((Array() | Column()), (Array() | Column())):
            a, b = (each.array if isinstance(each, Column) else each for each in (one, other))
            if (a.dtype, a.ndim) == (b.dtype, b.ndim):
                return Array(a.dtype, a.ndim, a.alone if a.alone == b.alone else "")
        case Row(), Row() if one.dtype == other.dtype:
            return Row(one.dtype, "")
        case Several(), Several() if len(one.types) == len(other.types):
            return Several(tuple(map(joined, one.types, other.types)))
    raise Unsupported(f"either {one} or {other}")


def constant(given: Any) -> Value:
    """Something of Python's as a value."""
    if isinstance(given, bool):
        return Value(BOOL, ("true" if given else "false",))
    if isinstance(given, int):
        return Value(INT, (str(given),))
    if isinstance(given, float):
        return Value(FLOAT, (f"0x{struct.unpack('>Q', struct.pack('>d', given))[0]:016X}",))
    return Value(Known(given), ())


def literal(operand: str) -> float | None:
    """The number that an operand is, if it is known beforehand."""
    if operand in ("true", "false"):
        return operand == "true"
    if operand.startswith("0x"):
        return float(struct.unpack(">d", bytes.fromhex(operand[2:]))[0])
    return None if operand.startswith("%") else float(operand)


def stored(dtype: np.dtype[Any]) -> tuple[Scalar, str]:
    """What a number of an array is once it is read, and what LLVM calls it in memory."""
    if dtype.kind == "f" and dtype.itemsize == 8:
        return FLOAT, "double"
    if dtype.kind in "iu":
        return INT, f"i{8 * dtype.itemsize}"
    if dtype.kind == "b":
        return BOOL, "i8"
    raise Unsupported(f"numbers of type {dtype}")


ZERO, ONE = constant(0), constant(1)
