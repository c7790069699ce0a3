"""What came before what: the lanes of workers, and the batches of a loop that is one ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlsim.trace.columns import new_column, parts
from dlsim.trace.metrics import worker_count
from dlsim.trace.trace import Floats, Integers, Trace


def previous_on_worker(trace: Trace) -> Integers:
    """For each batch, the one its worker was at before in the same epoch, or -1."""
    before: Integers = new_column(len(trace), np.int64)
    last = np.full(worker_count(trace), -1)
    for part in parts(0, len(trace)):
        before[part] = -1
        worker, started = trace.worker[part], trace.started[part]
        numbers = part.start + np.flatnonzero(~np.isnan(started) & (worker >= 0))
        numbers = numbers[np.argsort(trace.worker[numbers], kind="stable")]
        mine = trace.worker[numbers]
        previous = np.append(-1, numbers[:-1])
        new = np.append(True, mine[1:] != mine[:-1])[: len(mine)]
        previous[: len(mine)][new] = last[mine[new]]
        previous = previous[: len(mine)]
        same = (previous >= 0) & (trace.epoch_of(previous) == trace.epoch_of(numbers))
        before[numbers[same]] = previous[same]
        last[mine] = numbers  # of several for one worker, the last one stays
    return before


def previous_in_time(trace: Trace) -> Integers:
    """The same where workers need not take batches in the order of their numbers."""
    before = np.full(len(trace), -1)
    numbers = np.flatnonzero(~np.isnan(trace.started) & (trace.worker >= 0))
    epochs = trace.epoch_of(numbers)
    line = np.lexsort((numbers, trace.started[numbers], trace.worker[numbers], epochs))
    numbers, epochs = numbers[line], epochs[line]
    same = (trace.worker[numbers[1:]] == trace.worker[numbers[:-1]]) & (epochs[1:] == epochs[:-1])
    before[numbers[1:][same]] = numbers[:-1][same]
    return before


def one_ahead(trace: Trace, places: Sequence[slice]) -> tuple[Floats, Floats]:
    """When torch's `next()` was called for each batch, and returned, in a loop one batch ahead.

    But for an epoch's first batch, that is when the loop was asked for the one before.
    """
    called, given = np.array(trace.requested), np.array(trace.returned)
    for place in places:
        order = trace.order[place]
        called[order[1:]] = trace.requested[order[:-1]]
        given[order[1:]] = trace.returned[order[:-1]]
    return called, given


def worker_lanes(trace: Trace, workers: int) -> list[Integers]:
    """The batches of each worker, in order."""
    counts = np.zeros(workers + 1, np.int64)
    for part in parts(0, len(trace)):
        counts += np.bincount(trace.worker[part] + 1, minlength=workers + 1)
    lanes: Integers = new_column(len(trace), np.int64)
    begins = np.cumsum(counts) - counts
    at = begins.copy()
    for part in parts(0, len(trace)):
        worker = trace.worker[part] + 1
        numbers = np.argsort(worker, kind="stable")
        ends = np.cumsum(np.bincount(worker, minlength=workers + 1))
        for lane, (begin, end) in enumerate(zip(np.append(0, ends), ends, strict=False)):
            lanes[at[lane] : at[lane] + end - begin] = part.start + numbers[begin:end]
            at[lane] += end - begin
    return [lanes[begin:end] for begin, end in zip(begins[1:], at[1:], strict=True)]


def sought(column: memoryview, value: float, at: int) -> int:
    """How many in a column that ascends are less than `value`; `at`: about how many."""
    at = min(at, len(column))
    while at > 0 and column[at - 1] >= value:
        at -= 1
    while at < len(column) and column[at] < value:
        at += 1
    return at
