"""Reading and writing arrays: where an element is, and what LLVM is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlsim.engine.native.builder import Builder
from dlsim.engine.native.values import (
    BOOL,
    FLOAT,
    INT,
    Array,
    Column,
    Row,
    Unsupported,
    Value,
    stored,
)


class Place(NamedTuple):
    """Where something is in memory."""

    dtype: np.dtype[Any]
    pointer: str
    alone: str  # names memory that is reached by this name only; "": any
    align: int


def begin_of(b: Builder, array: Value) -> str:
    """Where an array begins."""
    if isinstance(array.type, Column):
        return _word(b, array.parts[0], array.type.place, "ptr")
    return array.parts[0]


def length_of(b: Builder, array: Value, axis: int = 0) -> Value:
    """How long an array is."""
    if isinstance(array.type, Column):
        return Value(INT, (_word(b, array.parts[0], array.type.place + 1 + axis, "i64"),))
    return Value(INT, (array.parts[1 + axis],))


def _word(b: Builder, table: str, place: int, kind: str) -> str:
    """A word of a table, which never changes."""
    at = b.emit(f"getelementptr i64, ptr {table}, i64 {place}") if place else table
    return b.emit(f"load {kind}, ptr {at}, !invariant.load !0")


def kind_of(array: Value) -> Array:
    """What array it is, wherever it comes from."""
    kind: Array = array.type.array if isinstance(array.type, Column) else array.type
    return kind


def widened(b: Builder, value: Value, kind: Any) -> Value:
    """A value as one of another type that is wider (see `values.joined`)."""
    match value.type:
        case Column() if value.type != kind:
            shape = (length_of(b, value, axis).parts[0] for axis in range(kind.ndim))
            return Value(kind, (begin_of(b, value), *shape))
        case Array() | Row():
            return value._replace(type=kind)
    return b.to(value, kind)


def element(b: Builder, array: Value, indices: Sequence[Value]) -> Place | Value:
    """Where the element at the indices is; or a view of what is there, if there are fewer."""
    kind = kind_of(array)
    lengths = [length_of(b, array, axis) for axis in range(1, kind.ndim)]
    place = indices[0]
    for axis, length in enumerate(lengths, 1):
        place = b.arithmetic("*", place, length)
        if axis < len(indices):
            place = b.arithmetic("+", place, indices[axis])
    pointer = _pointer(b, array, place)
    if len(indices) == kind.ndim:
        return Place(kind.dtype, pointer, kind.alone, kind.dtype.alignment)
    left = lengths[len(indices) - 1 :]
    shape = (length.parts[0] for length in left)
    return Value(Array(kind.dtype, len(left), kind.alone), (pointer, *shape))


def stretch(b: Builder, array: Value, first: Value, last: Value | None) -> Value:
    """A view of the elements from the first one up to the last."""
    count = b.arithmetic("-", last or length_of(b, array), first)
    return Value(kind_of(array), (_pointer(b, array, first), *count.parts))


def _pointer(b: Builder, array: Value, index: Value) -> str:
    dtype, (number,) = kind_of(array).dtype, b.to(index, INT).parts
    each = f"[{dtype.itemsize} x i8]" if dtype.fields else stored(dtype)[1]
    return b.emit(f"getelementptr {each}, ptr {begin_of(b, array)}, i64 {number}")


def field(b: Builder, row: Value, name: str) -> Place:
    """Where a field of a row is."""
    whole = row.type.dtype
    dtype, offset = whole.fields[name][:2]
    pointer = b.emit(f"getelementptr i8, ptr {row.parts[0]}, i64 {offset}")
    aligned = offset % dtype.itemsize == 0 == whole.itemsize % dtype.itemsize
    alone = row.type.alone and f"{row.type.alone}.{name}"
    return Place(dtype, pointer, alone, dtype.itemsize if aligned else 1)


def load(b: Builder, place: Place) -> Value:
    """What is there: a number, or a row."""
    if place.dtype.fields:
        return Value(Row(place.dtype, place.alone), (place.pointer,))
    if place.alone in b.program.known:
        return b.program.known[place.alone]
    kind, memory = stored(place.dtype)
    read = b.emit(f"load {memory}, ptr {place.pointer}{_told(b, place)}")
    if kind == BOOL:
        read = b.emit(f"icmp ne i8 {read}, 0")
    elif kind == INT and memory != "i64":
        wider = "zext" if place.dtype.kind == "u" else "sext"
        read = b.emit(f"{wider} {memory} {read} to i64")
    return Value(kind, (read,))


def read(b: Builder, found: Place | Value) -> Value:
    """What is at a place; a view is one already."""
    return found if isinstance(found, Value) else load(b, found)


def store(b: Builder, place: Place, value: Value) -> None:
    """Put a number there, or a copy of a row."""
    if place.dtype.fields:
        copied = f"ptr {place.pointer}, ptr {value.parts[0]}, i64 {place.dtype.itemsize}, i1 false"
        b.do(f"call void @llvm.memcpy.p0.p0.i64({copied})")
        return
    kind, memory = stored(place.dtype)
    if kind == INT and value.type == FLOAT:
        raise Unsupported("a float where there is room for integers")
    (operand,) = b.to(value, kind).parts
    if kind == BOOL:
        operand = b.emit(f"zext i1 {operand} to i8")
    elif kind == INT and memory != "i64":
        operand = b.emit(f"trunc i64 {operand} to {memory}")
    b.do(f"store {memory} {operand}, ptr {place.pointer}{_told(b, place)}")


def _told(b: Builder, place: Place) -> str:
    """What LLVM is told of an access to memory.

    Else it has to assume that whatever is written may change whatever was read, as arrays may
    overlap, and would read most numbers again and again.
    """
    tag = f", !tbaa {b.program.tag(place.alone)}" if place.alone else ""
    return f", align {place.align}{tag}"
