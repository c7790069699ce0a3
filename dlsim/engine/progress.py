"""How far a question is: told by what simulates, to whoever watches.

How much is ahead is announced once, by who asks; what is done is told by each simulation, from this
process or from others. Both are in seconds that the SimPy engine takes (`dlsim.engine.effort`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(eq=False)
class Progress:
    """What is `expected` in all, and what is `done` of it, both in seconds of the SimPy engine.

    `prior`: seconds that all of it takes on this machine, as far as was known when it began, of
    which `loading` before anything is done. `compiling`: whether there is something to compile
    first. `spared`: seconds that all would take with the compiled engine, where it is not installed
    and would help. `heard` is called when more is announced.
    """

    expected: float = 0.0
    done: float = 0.0
    prior: float = 0.0
    loading: float = 0.0
    compiling: bool = False
    spared: float | None = None
    announced: bool = False
    heard: Callable[[], object] = lambda: None


_watched: ContextVar[Progress | None] = ContextVar("watched", default=None)


@contextmanager
def watched() -> Iterator[Progress]:
    """How far is what is done inside."""
    progress = Progress()
    token = _watched.set(progress)
    try:
        yield progress
    finally:
        _watched.reset(token)


def watching() -> Progress | None:
    """How far it is, if anybody wants to know."""
    return _watched.get()


def unannounced() -> bool:
    """Whether somebody wants to know how much is ahead, and has not been told."""
    progress = _watched.get()
    return progress is not None and not progress.announced


@contextmanager
def expecting(
    seconds: float,
    prior: float,
    spared: float | None = None,
    *,
    loading: float = 0.0,
    compiling: bool = False,
) -> Iterator[None]:
    """Announce what is done inside; what is announced in there is a part of it. See `Progress`."""
    progress = _watched.get()
    if progress is None or progress.announced:
        yield
        return
    progress.expected = progress.done + seconds
    progress.prior, progress.loading, progress.compiling = prior, loading, compiling
    progress.spared = spared
    progress.announced = True
    progress.heard()
    try:
        yield
    finally:
        progress.announced = False
        progress.done = progress.expected


def advance(seconds: float) -> None:
    """Tell that so much more is done."""
    progress = _watched.get()
    if progress is not None:
        progress.done += seconds
        progress.compiling = False
