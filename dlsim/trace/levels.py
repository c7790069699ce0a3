"""How many there are at a time: step functions made of comings and goings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
