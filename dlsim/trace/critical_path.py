"""The critical path: what, moment by moment, kept a run from being over sooner.

Walked back from the end. Whatever ends at a moment was begun by something that ended then: a
step, by the return of its batch; a return that was waited for, by the batch's arrival; an
arrival, by its fetching; a fetch, by the end of the worker's previous one, or else by the index
list that was sent; and that, by the return that gave the credit back. So every moment of the run
is put down to exactly one cause, and the shares add up to the whole.

Without workers there is no pipeline to fill: fetching the first batch is fetching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dlsim.trace.causes import FETCH, ranked
from dlsim.trace.fetch_parts import fetch_shares
from dlsim.trace.trace import Floats, Trace
from dlsim.trace.walk import Piece, Walk


def critical_path(trace: Trace) -> list[Piece]:
    """The pieces of the critical path of `trace`, in order, without gaps.

    A fetch is one piece (`"fetch"`), but for its part as head of line.
    """
    return [piece for pieces in walked_back(trace) for piece in pieces][::-1]


def walked_back(trace: Trace) -> Iterator[list[Piece]]:
    """The same pieces from the last one to the first, some at a time."""
    if trace.reading is not None:
        from dlsim.trace.rounds import rounds_path

        yield rounds_path(trace)[::-1]
        return
    trace = trace.as_one_epoch
    walk = Walk(trace)
    for epoch in reversed(range(len(trace.epochs.started))):
        yield from walk.epoch(epoch)
    yield walk.before_training()


def causes(trace: Trace, clock: Callable[[Floats], Floats] | None = None) -> dict[str, float]:
    """For each cause its seconds on the critical path; they add up to the elapsed time.

    Fetching is divided by `fetch_shares`. Causes that took no time are left out. With a `clock`,
    which maps moments to others in the same order, the seconds are those between these.
    """
    spent = Spent(fetch_shares(trace))
    for pieces in walked_back(trace):
        edges = np.array([[piece.begin, piece.end] for piece in pieces]).reshape(-1, 2)
        lengths = np.diff(edges if clock is None else clock(edges), axis=1)[:, 0]
        spent.add([piece.cause for piece in pieces], lengths)
    return spent.seconds


class Spent:
    """Seconds by cause, of which fetching is divided into `parts`, and others as `divided`."""

    def __init__(
        self, parts: Mapping[str, float], divided: Mapping[str, Mapping[str, float]] = {}
    ) -> None:
        self._divided = {**divided, FETCH: parts}
        self._found: dict[str, float] = {}

    def add(self, causes: Sequence[str], seconds: Floats) -> None:
        """Spend so many `seconds` for each of the `causes`."""
        names = {cause: number for number, cause in enumerate(dict.fromkeys(causes))}
        numbers = [names[cause] for cause in causes]
        totals = np.bincount(np.array(numbers, np.int64), seconds, len(names)).tolist()
        for cause, whole in zip(names, totals, strict=True):
            for part, share in self._divided.get(cause, {cause: 1.0}).items():
                self._found[part] = self._found.get(part, 0.0) + share * whole

    @property
    def seconds(self) -> dict[str, float]:
        """Those of each cause; none that took no time."""
        return {cause: seconds for cause, seconds in self._found.items() if seconds > 0}


def shares(trace: Trace) -> dict[str, float]:
    """For each cause its share of the elapsed time; they add up to 1, greatest first.

    Empty for a trace in which no time passes.
    """
    seconds = causes(trace)
    whole = sum(seconds.values())
    found = ranked(seconds)
    return {cause: value / whole for cause, value in found.items()} if whole > 0 else {}
