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
UNUSED = 16 * MOST  # numbers that are drawn meanwhile


class Kept:
    """Numbers by what they depend on.

    Where there is no room for more, those that were there first stay: what asks for all in turn,
    again and again, would ask next for whatever made room. All are dropped when none has been asked
    for in a long time.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], Floats] = {}
        self._count = self._since = 0  # numbers kept; and drawn since one of them was asked for

    def get(self, key: tuple[object, ...]) -> Floats | None:
        """The numbers kept under this key; nobody writes to them."""
        found = self._numbers.get(key)
        if found is not None:
            self._since = 0
        return found

    def keep(self, key: tuple[object, ...], numbers: Floats) -> None:
        """Keep `numbers`, if there is room."""
        self._since += len(numbers)
        if self._since > UNUSED:
            self._numbers.clear()
            self._count = self._since = 0
        if self._count + len(numbers) <= MOST:
            self._count += len(numbers)
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
