"""Random numbers that are drawn once and used by many simulations.

All configurations of a sweep meet the same numbers, replication by replication. Drawing them takes
longer than all that a short simulation does with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dlsim.scenario.distributions import Floats

MOST = 2**22  # numbers, 32 MiB


class Kept:
    """Numbers by what they depend on. When there are too many, all are dropped."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], Floats] = {}
        self._count = 0

    def get(self, key: tuple[object, ...]) -> Floats | None:
        """The numbers kept under this key; nobody writes to them."""
        return self._numbers.get(key)

    def keep(self, key: tuple[object, ...], numbers: Floats) -> None:
        """Keep `numbers`."""
        self._count += len(numbers)
        if self._count > MOST:
            self._numbers.clear()
            self._count = len(numbers)
        self._numbers[key] = numbers


_of_this_process = Kept()
_in_use: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """Here, numbers are kept, also from one time to the next; else a simulation draws its own."""
    token = _in_use.set(_of_this_process)
    try:
        yield
    finally:
        _in_use.reset(token)


def in_use() -> Kept | None:
    """Where numbers are kept, if they are."""
    return _in_use.get()
