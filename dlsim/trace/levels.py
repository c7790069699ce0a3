"""How many there are at a time: step functions made of comings and goings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.trace import Floats, Integers


@dataclass(frozen=True, eq=False)
class Levels:
    """A step function: `counts[i]` from `times[i]` (seconds) to the next time, or to `end`.

    `times` starts where the function does, and goes on with the moments at which it changes. What
    comes and goes at one moment is never there; a level that lasts no time does not count, unless
    `peak` says otherwise.
    """

    times: Floats
    counts: Integers | Floats
    end: float
    peak: float | None = None

    @property
    def mean(self) -> float:
        """The mean over time: `sum(counts * durations) / (end - times[0])`; NaN for no time."""
        lasted = np.diff(self.times, append=self.end)
        total = float(lasted.sum())
        return float(self.counts @ lasted) / total if total > 0 else float("nan")

    @property
    def max(self) -> int:
        """The highest level."""
        return int(self.counts.max() if self.peak is None else self.peak)


def levels(
    come: Floats, go: Floats, begin: float, end: float, weight: Floats | None = None
) -> Levels:
    """How many are there at each moment from `begin` to `end`, who `come` and `go` (seconds).

    Each counts once, or as much as its `weight`. Who never comes (NaN) does not count; who never
    goes (NaN) stays until `end`.
    """
    there = ~np.isnan(come)
    come = np.clip(come[there], begin, end)
    go = np.maximum(come, np.minimum(np.nan_to_num(go[there], nan=end), end))
    count = np.ones(len(come), np.int64) if weight is None else weight[there]
    times = np.concatenate(([begin], come, go))
    changes = np.concatenate(([0], count, -count))
    by_time = np.argsort(times, kind="stable")
    times, counts = times[by_time], np.cumsum(changes[by_time])
    lasts = np.append(times[1:] > times[:-1], times[-1] < end)
    if not lasts.any():  # there is no time between begin and end
        return Levels(times[:1], np.zeros(1, np.int64), end)
    times, counts = times[lasts], counts[lasts]
    changed = np.append(True, counts[1:] != counts[:-1])
    return Levels(times[changed], counts[changed], end)


class Level:
    """The highest of a step function that gets to know its steps bit by bit."""

    def __init__(self, begin: float | None = None) -> None:
        self.highest: float = 0
        self._now: float = 0
        self._last: float | None = None
        self._times: Floats = np.array([] if begin is None else [begin])
        self._changes = np.zeros(len(self._times), np.int64)

    def add(
        self, come: Floats, go: Floats, weight: Any, until: float
    ) -> tuple[Floats, NDArray[np.generic]]:
        """Take in who `come` and `go` (seconds); all that happens before `until` is known then.

        Returns the steps that are new: when, and how many there are from then on.
        """
        stay = go > come
        if not stay.all():
            come, go = come[stay], go[stay]
            weight = weight[stay] if np.ndim(weight) else weight
        count, waiting = len(come), len(self._times)
        times = np.concatenate((self._times, come, go))
        changes = np.empty(len(times), np.int64)
        changes[:waiting], changes[waiting : waiting + count] = self._changes, weight
        changes[waiting + count :] = -changes[waiting : waiting + count]
        by_time = times.argsort(kind="stable")
        times, changes = times[by_time], changes[by_time]
        known = int(times.searchsorted(until))
        # copies: what is not known yet is little of all
        self._times, self._changes = times[known:].copy(), changes[known:].copy()
        counts = self._now + changes[:known].cumsum()
        if not known:
            return times[:0], counts
        lasts = np.ones(known, np.bool_)
        np.greater(times[1:known], times[: known - 1], out=lasts[:-1])
        times, counts = times[:known][lasts], counts[lasts]
        self._now = counts[-1].item()
        self.highest = max(self.highest, counts.max().item())
        new = np.ones(len(counts), np.bool_)
        np.not_equal(counts[1:], counts[:-1], out=new[1:])
        new[0] = counts[0] != self._last
        self._last = self._now
        return times[new], counts[new]


class Peak:
    """The most there is for however short a moment, bit by bit, and who outgrew a `limit` first.

    At one moment those come first that were sent before, then others go, then those come that were
    sent at this moment. `over`: the first batch with which there is more than the limit, or -1.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.highest, self.over = 0.0, -1
        self._limit, self._now = limit, 0.0
        self._events = np.empty((4, 0))  # time, phase, change, batch

    def add(
        self, batches: Integers, come: Floats, go: Floats, sent: Floats, weight: Any, until: float
    ) -> None:
        """Take in batches that `come` and `go` (seconds, NaN for never).

        All that happens before `until` is known then.
        """
        there = ~np.isnan(come)
        come, sent, batches = come[there], sent[there], batches[there]
        weight = np.broadcast_to(weight, there.shape)[there]
        go = np.fmax(np.where(np.isnan(go[there]), np.inf, go[there]), come)
        late = sent >= come
        comings = np.stack((come, np.where(late, 2, 0), weight, batches))
        goings = np.stack((go, np.where(late & (go == come), 3, 1), -weight, batches))
        events = np.concatenate((self._events, comings, goings), axis=1)
        events = events[:, np.lexsort(events[1::-1])]
        known = int(np.searchsorted(events[0], until))
        now, self._events = events[:, :known], events[:, known:]
        if known:
            counts = self._now + np.cumsum(now[2])
            self._now = float(counts[-1])
            self.highest = max(self.highest, float(counts.max()))
            if self._limit is not None and self.over < 0 and self.highest > self._limit:
                self.over = int(now[3, np.argmax(counts > self._limit)])
