"""One thread for each library in a worker, so that what that gains can be tried."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

# What sets the number of threads, by a part of a library's file name.
SETTERS = {
    "openblas": tuple(
        f"{before}openblas_set_num_threads{after}"
        for before in ("", "scipy_")
        for after in ("", "64_", "_64")
    ),
    "mkl_rt": ("MKL_Set_Num_Threads",),
    "blis": ("bli_thread_set_num_threads",),
    "gomp": ("omp_set_num_threads",),
    "iomp": ("omp_set_num_threads",),
    "libomp": ("omp_set_num_threads",),
}
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
MAPS = Path("/proc/self/maps")


def one_thread() -> None:
    """Let each library of this process compute with one thread, those loaded later included.

    By threadpoolctl, where it is installed, else by what the libraries themselves offer.
    """
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        for setter in setters():
            setter(1)
    else:
        threadpool_limits(1)


def setters() -> Iterator[Callable[[int], object]]:
    """The functions of the libraries loaded that set how many threads they compute with."""
    with suppress(OSError):
        files = {line.split(maxsplit=5)[-1] for line in MAPS.read_text().splitlines()}
        for file in sorted(file for file in files if ".so" in file):
            names = [n for part, ns in SETTERS.items() if part in Path(file).name for n in ns]
            with suppress(OSError):
                library = ctypes.CDLL(file) if names else None
                yield from (getattr(library, name) for name in names if hasattr(library, name))


class Limited:
    """The user's `worker_init_fn`, if any, after each library was told to use one thread."""

    def __init__(self, init_fn: Callable[[int], object] | None) -> None:
        self._init_fn = init_fn

    def __call__(self, worker: int) -> None:
        """What the start of `worker` asks for, in its process."""
        one_thread()
        if self._init_fn is not None:
            self._init_fn(worker)


def limited(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of a user's loader in whose workers each library computes with one thread."""
    copy = object.__new__(type(loader))
    vars(copy).update(vars(loader), _iterator=None, worker_init_fn=Limited(loader.worker_init_fn))
    return copy
