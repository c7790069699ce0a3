"""Making the next while one is in use, as a DataLoader does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dlsim.engine.usable import usable_cores

AHEAD = 2  # so that the thread always has something to do while an item is handed over

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; if there are several, a thread makes them while those before are in use.

    Not on a single core, where both would only be in each other's way. NumPy lets go of Python's
    lock while it draws, and compiled code while it runs. An exception in the thread is raised here.
    Once this is closed nobody works any more.
    """
    if usable_cores() <= 1:
        yield from items
        return
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
