"""The edges of an epoch: when its first batches were sent, workers ran short of work, all was done.

`done`: when each batch was done, in seconds; `batches`: those of the epoch, in parts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dlsim.trace.causes import LAST_ROUND, SHARDS
from dlsim.trace.columns import parts
from dlsim.trace.metrics import NAN
from dlsim.trace.trace import ENDED, PENDING, SKIPPED, Floats, Trace


def first_sent(trace: Trace, batches: Iterable[slice]) -> float:
    """When the first of the `batches` was sent; NaN if that is not known."""
    sent = NAN
    for part in batches:
        sent = float(np.fmin.reduce(trace.sent[part], initial=sent))
    return sent


def primed(trace: Trace, batches: slice, window: int | None) -> float:
    """When the first window of the `batches` of an epoch was sent."""
    return float(np.fmax.reduce(trace.sent[batches][:window]))


def last_step(trace: Trace, places: slice) -> float:
    """When the last step on batches at these places in the order of return had ended."""
    last = NAN
    for part in parts(places.start, places.stop):
        last = float(np.fmax.reduce(trace.finished[trace.order[part]], initial=last))
    return last


def drained(
    trace: Trace, done: Floats, batches: Iterable[slice], floor: float, until: float
) -> float:
    """When workers had done all of the `batches`, from the `floor` on: `until` if some never had.

    What was sent and not started does not count.
    """
    found = floor
    for part in batches:
        cut = np.isnan(done[part]) & ~np.isnan(trace.started[part])
        if (cut & (trace.status[part] == PENDING)).any():
            return until
        found = float(np.fmax.reduce(done[part], initial=found))
    return found


def shortage(
    trace: Trace, done: Floats, batches: Iterable[slice], workers: int
) -> tuple[float, str]:
    """Since when some worker had nothing left to do in an epoch, while others had; and why.

    It has used up its data, and at least as many batches as there are workers are still to
    come; or else fewer batches are left than there are workers. NaN if neither ever is.
    """
    if workers < 2:
        return NAN, LAST_ROUND
    last, gone = np.empty(0), np.inf
    for part in batches:
        status = trace.status[part]
        coming = done[part][(status != ENDED) & (status != SKIPPED)]
        coming = np.nan_to_num(coming, nan=np.inf)
        last = np.sort(np.concatenate((last, coming)))[-workers:]
        gone = float(np.fmin.reduce(done[part][status == ENDED], initial=gone))
    if len(last) < workers:
        return -np.inf, LAST_ROUND
    first = float(last[0])  # of the last round
    return (gone, SHARDS) if gone < first else (first, LAST_ROUND)
