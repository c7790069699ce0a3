"""The columns of long runs: looked at part by part, and kept in files where memory is not for them.

Whoever looks at all of a trace does so in `parts`, so that what is made of them on the way is
small, however long the run. With `in_files`, long columns themselves are in a file without a name,
that is gone with them; what of it is in memory is given back after each part.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from tempfile import TemporaryFile
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlsim.scenario import DlsimError

PART = 8192  # batches looked at together
ALL = slice(None)
LONG = 2**20  # bytes of a column that is kept in a file

_filing: ContextVar[bool] = ContextVar("filing", default=False)
_files: WeakSet[mmap.mmap] = WeakSet()


@contextmanager
def in_files() -> Iterator[None]:
    """Here, long columns are made in files; else in memory."""
    before = _filing.set(True)
    try:
        yield
    finally:
        _filing.reset(before)


def new_column(shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """An array with anything in it, where columns are to be.

    Raises `DlsimError` where a file has no room for it.
    """
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    if not _filing.get() or count * kind.itemsize < LONG:
        return np.empty(shape, kind)
    try:
        with TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # else, a full disk would end the process later
                os.posix_fallocate(file.fileno(), 0, count * kind.itemsize)
            else:
                file.truncate(count * kind.itemsize)
            mapped = mmap.mmap(file.fileno(), count * kind.itemsize)
    except OSError as error:
        raise DlsimError(f"no room for the columns of a long run: {error.strerror}") from None
    _files.add(mapped)
    return np.frombuffer(mapped, kind).reshape(shape)


def parts(begin: int, end: int, *, backwards: bool = False) -> Iterator[slice]:
    """The numbers from `begin` to `end`, some at a time."""
    starts = range(begin, end, PART)
    for start in reversed(starts) if backwards else starts:
        yield slice(start, min(start + PART, end))
        put_away()


def put_away() -> None:
    """Memory has nothing more of what is in files, before anybody looks there again."""
    if len(_files) and hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_files):
            mapped.madvise(mmap.MADV_DONTNEED)


def distinct_values(values: NDArray[Any]) -> NDArray[Any]:
    """The values that there are, in order: `numpy.unique`, which loads masked arrays for it."""
    ordered = np.sort(values, axis=None)
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def moved(array: NDArray[Any], made: NDArray[Any]) -> NDArray[Any]:
    """`made`, which now begins with what is in `array` along its last axis."""
    for part in parts(0, array.shape[-1]):
        made[..., part] = array[..., part]
    return made
