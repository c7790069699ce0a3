"""Threads of libraries that wait on cores, for one another and for the next sample.

OpenBLAS's do (0.3.27 and later without yielding to others), and OpenMP's; OpenCV's sleep.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from dlsim.scenario.distributions import Floats
from dlsim.trace.first_batches import first_batches
from dlsim.trace.libraries import IDLE, helping
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Integers
from dlsim.validation.calibrating.steps import within

SPUN = 0.4  # of a thread's time, in which one that waits on a core may do nothing
# Seconds for which they wait for the next sample, where none keeps them waiting that long:
# OpenBLAS's wait for 2^26 ticks of the processor's clock (THREAD_TIMEOUT), here of 2.6 GHz.
LONG = 26e-3
THROUGHOUT = 0.9  # of the longest wait; threads that linger for so long may do so for longer


def spinning(busy: Sequence[float]) -> bool:
    """Whether threads of libraries keep cores busy that nothing is done on.

    `busy`: the cores that a sample kept busy while its own thread computed, in each run. Threads
    that are as busy as that one, wait for each other on a core; those that share out work do so,
    too, but not where cores are short.
    """
    return min(busy) > threads_of(max(busy)) - SPUN


def threads_of(busy: float) -> int:
    """How many threads keep so many cores busy, two at least."""
    return max(ceil(busy - IDLE), 2)


def lingering_between(seen: Observation, batch: Integers, wait: Floats, busy: float) -> float:
    """For how long threads of libraries keep a core busy while samples `wait`, seconds of each.

    `batch`: that of each sample; `busy`: the cores that one keeps busy. As long as makes of those
    waits what others compute beyond the thread that fetches; `LONG`, or longer, where they do in
    all of them.
    """
    if busy <= 1:
        return 0.0
    others, own, helpers = helping(seen), seen.batch_cpu, threads_of(busy) - 1
    known = ~np.isnan(others + own) & ~first_batches(seen)
    waited = wait[known[batch]]
    if not len(waited):
        return LONG
    spent = float((others / helpers - own)[known].sum()) / len(waited)
    longest, found = float(waited.max()), within(waited, spent)
    return found if found < THROUGHOUT * longest else max(found, LONG)
