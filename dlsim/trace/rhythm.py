"""Waits that come at regular intervals: every how many batches, how long, and why.

A rhythm is named only where it can be seen in each part: nearly all batches of one place in it
are waited for, nearly none of the others is. Its cause is one that the moments of these batches
show; where they show none, there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.trace import metrics
from dlsim.trace.quantiles import quantile_of
from dlsim.trace.trace import MOMENTS, Floats, Integers, Trace

Bools: TypeAlias = NDArray[np.bool_]

EPOCH, FETCH, STEP, WINDOW, ROUNDS = "epoch", "fetch", "step", "window", "rounds"

LONGEST = 64  # batches of a period that is looked for, besides those that workers and epochs have
ENOUGH = 2**17  # batches returned that are looked at
OFTEN = 8  # times that it must have come
NEARLY = 0.9  # of the batches are as it says
FEWER = 4.0  # times as long as the others are the batches waited for that make it
WORTH = 0.01  # of the elapsed time; a rhythm that takes less is not worth a sentence
LONGER = 1.5  # times as long is another length, and more than its share


@dataclass(frozen=True)
class Rhythm:
    """Every `period`-th batch is waited for: usually `wait` seconds, the others `others`.

    `cause`: EPOCH (it is the first of one), FETCH (these take longer to fetch), STEP (the loop
    around `next()` takes shorter before them), WINDOW (all that may be sent has been, and the
    worker of the next one is idle), ROUNDS (there are as many workers, which fetch at the same
    time); or "". `lengths`: for FETCH and STEP, how long that usually takes for these and for
    others; for WINDOW, how long the worker is idle; seconds. `worker`: the one that fetches all of
    these and none of the others, for FETCH; or -1.
    """

    period: int
    wait: float
    others: float
    cause: str
    lengths: tuple[float, float] = (0.0, 0.0)
    worker: int = -1


def rhythm(trace: Trace) -> Rhythm | None:
    """The rhythm of the waits of `trace`, if they have one; of a long one, of its beginning."""
    trace = _beginning(trace.as_one_epoch)
    waits, order = metrics.waits(trace), trace.order
    if len(order) < 2 * OFTEN or np.isnan(waits).any() or not waits.any():
        return None
    epochs = trace.epoch_of(order)
    place = np.arange(len(order)) - np.searchsorted(epochs, epochs)
    counts = np.bincount(epochs)
    each = counts[counts > 0]
    whole, least = float(waits.sum()), WORTH * metrics.elapsed(trace)
    for period in _periods(trace, each):
        phase = place % period
        total, count = np.bincount(phase, waits), np.bincount(phase)
        most = int(np.argmax(total / count))
        worth = count[most] >= OFTEN and total[most] >= max(least, LONGER * whole / period)
        mine = phase == most
        if not worth or not _apart(waits, mine, FEWER):
            continue
        wait, others = _usual(waits, mine)
        return Rhythm(period, wait, others, *_cause(trace, period, mine, wait, each))
    return None


def _beginning(trace: Trace) -> Trace:
    """The trace up to the return of so many batches that a rhythm is found, if there is one."""
    if len(trace.order) <= ENOUGH:
        return trace
    order, epochs = trace.order[:ENOUGH], trace.epochs
    count = int(order.max()) + 1
    begun = epochs.first < count
    ended = epochs.ended[begun]
    ended[-1] = np.fmin(ended[-1], trace.finished[order[-1]])
    columns = (*MOMENTS, "worker", "size", "status")
    return replace(
        trace,
        **{name: getattr(trace, name)[:count] for name in columns},
        order=order,
        epochs=replace(
            epochs,
            first=epochs.first[begun],
            started=epochs.started[begun],
            primed=epochs.primed[begun],
            ended=ended,
        ),
        stepped=None if trace.stepped is None else trace.stepped[:count],
        samples=None,
    )


def _periods(trace: Trace, each: Integers) -> Iterator[int]:
    """Periods that may be: those that go into the epochs, of so many batches `each`, often."""
    scenario, shortest = trace.meta.scenario, int(each.min())
    special = {metrics.worker_count(trace), shortest}
    if scenario is not None:
        special.add(scenario.loader.window)
    for period in sorted({*range(2, LONGEST + 1), *(period for period in special if period > 1)}):
        whole = len(each) > 1 and bool((each % period == 0).all())
        if whole or shortest >= 3 * period:
            yield period


def _usual(values: Floats, mine: Bools) -> tuple[float, float]:
    """The medians of values that are `mine`, and of the others; NaN where none is known."""
    some, others = metrics.known(values[mine]), metrics.known(values[~mine])
    if not len(some) or not len(others):
        return metrics.NAN, metrics.NAN
    return quantile_of(np.sort(some), 0.5), quantile_of(np.sort(others), 0.5)


def _apart(values: Floats, mine: Bools, times: float) -> bool:
    """Whether nearly all values that are `mine` are larger than nearly all others, and by much."""
    some, others = _usual(values, mine)
    if not some > times * others:  # nor where it is not known
        return False
    larger = values > (some + others) / 2
    return bool(larger[mine].mean() >= NEARLY and larger[~mine].mean() <= 1 - NEARLY)


def _cause(
    trace: Trace, period: int, mine: Bools, wait: float, each: Integers
) -> tuple[str, tuple[float, float], int]:
    """What the moments of the batches that are `mine` have that others have not."""
    order = trace.order
    nothing = (0.0, 0.0)
    if len(each) > 1 and mine[0] and (each == period).all():
        return EPOCH, nothing, -1
    took = (metrics.fetches(trace)[1] - trace.started)[order]
    if _apart(took, mine, LONGER):
        return FETCH, _usual(took, mine), _only(trace.worker[order].astype(np.int64), mine)
    before = trace.requested[order] - np.append(np.nan, trace.returned[order[:-1]])
    if _apart(before, ~mine, LONGER):
        return STEP, _usual(before, mine), -1
    idle = _idle(trace)[order]
    loader = None if trace.meta.scenario is None else trace.meta.scenario.loader
    bounded = loader is not None and loader.refill == "return" and loader.slots is None
    if loader is not None and bounded and period == loader.window:
        spare, _ = _usual(idle, mine)
        if spare >= wait / 2:
            return WINDOW, (spare, 0.0), -1
    return (ROUNDS if _in_rounds(trace, period, mine) else ""), nothing, -1


def _only(workers: Integers, mine: Bools) -> int:
    """The worker that has all that is `mine` and nothing else; -1 if none has."""
    first = int(workers[mine][0])
    return first if bool(((workers == first) == mine).all()) else -1


def _idle(trace: Trace) -> Floats:
    """For each batch, how long its worker had nothing to do before it; NaN for its first."""
    done = np.where(np.isnan(trace.fetched), trace.arrived, trace.fetched)
    found = np.full(len(trace), np.nan)
    for worker in range(metrics.worker_count(trace)):
        batches = np.flatnonzero(trace.worker == worker)
        found[batches[1:]] = trace.started[batches[1:]] - done[batches[:-1]]
    return found


def _in_rounds(trace: Trace, period: int, mine: Bools) -> bool:
    """Whether so many workers fetch at the same time, one of them what is waited for.

    From one batch that is waited for to the next, each comes of another worker, and was begun
    before the one that is waited for had come.
    """
    order = trace.order
    firsts = np.flatnonzero(mine)
    firsts = firsts[firsts + period <= len(order)]
    if not len(firsts) or metrics.worker_count(trace) != period:
        return False
    rounds = order[firsts[:, None] + np.arange(period)]
    workers = np.sort(trace.worker[rounds], axis=1)
    others = (np.diff(workers, axis=1) > 0).all(axis=1)
    begun = (trace.started[rounds] < trace.returned[rounds[:, :1]]).all(axis=1)
    return bool((others & begun).mean() >= NEARLY)
