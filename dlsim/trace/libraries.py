"""Threads that libraries start inside workers, in a run that was observed.

BLAS, OpenMP and OpenCV compute with a thread for each core, in every process that calls them; and
threads that wait for one another wait on a core. What a process uses while a batch is fetched,
beyond its fetching thread and its feeder, such threads use.

They also wait on a core for what is next, for tens of milliseconds, in which the fetching thread
may be blocked. Hardly anybody is held up by that: who waits so gives its core to whoever wants it.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from dlsim.trace.first_batches import first_among
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats

MAIN = -1  # the worker number of the main process
MORE = 1.2  # cores that a sample keeps busy, and it is more than one
IDLE = 0.2  # of a thread's time, or of several together, in which they may do nothing
LEAST = 2e-3  # CPU seconds of other threads for a batch; less is somebody else's


def helping(seen: Observation) -> Floats:
    """CPU seconds of a library's other threads, for each batch; NaN where it was not collated."""
    spent = seen.cpu_fetched - seen.cpu_started - seen.batch_cpu
    for worker in range(int(seen.worker.max(initial=MAIN)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(spent))
        now, before = mine[1:], mine[:-1]
        pickled = seen.serialised[before] > seen.started[now]  # meanwhile
        spent[now] -= np.where(pickled, np.nan_to_num(seen.serialise_cpu[before]), 0.0)
    return np.maximum(spent, 0.0)


def cores_busy(seen: Observation) -> float:
    """How many cores a sample keeps busy while it computes: 1, but for threads of libraries.

    A worker's first batch does not count: threads that are started then spin for a while. Where
    cores are short, threads that sleep while they wait do less than elsewhere.
    """
    return _cores(seen)[0]


def worth_limiting(seen: Observation) -> bool:
    """Whether libraries keep that much more than one core busy that one thread may be faster.

    Without workers there are no more processes than cores. They do so in a worker's first batch,
    too: its feeder, which may write for long, does nothing yet.
    """
    return bool((seen.worker > MAIN).any()) and min(_cores(seen)) >= MORE


def _cores(seen: Observation) -> tuple[float, float]:
    """Cores that samples of workers' later batches keep busy, and those of their first ones."""
    if seen.samples is None:
        return 1.0, 1.0
    others, own = helping(seen), seen.batch_cpu
    queued = np.bincount(seen.samples.batch, seen.sample_queued, len(seen)) + seen.collate_queued
    going = seen.fetched - seen.started - queued  # computing, or blocked
    known = ~np.isnan(others + own + going)
    first = first_among(seen, known)
    found = []
    for some in (known & ~first, known & first):
        spent, total = float(others[some].sum()), float(own[some].sum())
        if not total > 0 or spent < LEAST * some.sum():
            return 1.0, 1.0
        # As many as could have used that, had they been on a core all the time.
        helpers = max(ceil(spent / max(float(going[some].sum()), total) - IDLE), 1)
        found.append(1 + min(spent / total, helpers))
    return found[0], found[1]
