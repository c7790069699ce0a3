"""How compiled code sees arrays: as one address for many."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from ctypes import addressof, c_char
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.native import values
from dlsim.engine.native.values import table_of

PCG64 = 0x2360ED051FC65DA44385DF649FCCF645  # by which the state is multiplied
Item = TypeVar("Item")
Table = NDArray[np.int64]  # where some arrays are


def table(arrays: Iterable[NDArray[Any]]) -> Table:
    """Where each of some arrays begins and its shape, in the form that a `Reader` reads."""
    words: list[int] = []
    for array in arrays:
        words.append(begin(array))
        words += array.shape
    return np.array(words, np.int64)


def changed_table(
    arrays: Mapping[str, NDArray[Any]],
    gone: Mapping[str, int],
    known: dict[str, tuple[NDArray[Any], list[int]]],
) -> Table:
    """The same of arrays of which a few are others than before.

    `gone`: how many elements would be in front of each array, which nobody looks at. `known` is
    what was found out before, and is kept up to date: to look at an array takes a while.
    """
    for name, array in arrays.items():
        if name not in known or known[name][0] is not array:
            before = gone[name]
            shape = array.shape if array.ndim > 1 else (array.shape[0] + before,)
            known[name] = array, [begin(array) - before * array.itemsize, *shape]
    return np.array([word for _, words in known.values() for word in words], np.int64)


def begin(array: NDArray[Any]) -> int:
    """The address of an array, which holds as long as somebody has the array."""
    try:
        return addressof(c_char.from_buffer(cast(Any, array)))
    except (TypeError, ValueError):  # it is empty, or not to be written to: that takes longer
        assert array.flags.c_contiguous
        return int(array.ctypes.data)


class Reader(NamedTuple):
    """For compiled code: from the address of a `table` to arrays of these types, by their names."""

    table: values.Table

    def __call__(self, table: Table | int) -> Any:
        """The arrays; it is compiled code only that reads them so."""
        raise NotImplementedError


def reader(arrays: Any, *, fixed: tuple[str, ...] = ()) -> Reader:
    """What reads a table of arrays such as those of a named tuple.

    No two may share memory; of the `fixed` ones nothing is ever changed while code runs.
    """
    return Reader(table_of(type(arrays).__name__, arrays._asdict(), fixed))


def either(condition: bool, one: Item, other: Item) -> Item:
    """One or the other; compiled without a branch, which it would be costly to guess wrong."""
    return one if condition else other


def lowest_bit(number: int) -> int:
    """The place of the lowest bit of an integer that is not 0."""
    return (int(number) & -int(number)).bit_length() - 1


def next_bits(state: Any) -> int:
    """The next 64 bits of the random generator PCG64, as an integer.

    `state`: four words, of its state and its increment, the low ones first.
    """
    low, high, *step = map(int, state)
    made = (PCG64 * (high << 64 | low) + (step[1] << 64 | step[0])) % 2**128
    state[0], state[1] = made % 2**64, made >> 64
    mixed, turn = (made >> 64) ^ (made % 2**64), made >> 122
    bits = (mixed << 64 | mixed) >> turn & (2**64 - 1)
    return bits - (bits >> 63 << 64)


def bits_of(number: float) -> int:
    """The bits of a float, as an integer."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
