"""Will it fit: the bytes of batches on their way, in the workers, in /dev/shm, pinned, in all.

A batch has `size * mean sample_bytes` bytes. It takes memory in its worker from `started`; from
`fetched` on it is in /dev/shm (`path="shm"`, where torch's default collate puts it at once) or
in ordinary memory (`path="pipe"`); a pin-memory thread copies it into pinned memory when it is
`received`. The loop variable of `for batch in loader` keeps it until the next batch is returned,
or the epoch ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Scenario
from dlsim.trace.levels import Levels, levels
from dlsim.trace.metrics import epoch_ends, given_back, span
from dlsim.trace.trace import DISCARDED, RETURNED, Floats, Trace, TraceError


@dataclass(frozen=True, eq=False)
class Memory:
    """Bytes over time: in the workers, in /dev/shm, pinned, and all together."""

    workers: Levels
    shm: Levels
    pinned: Levels
    total: Levels


@dataclass(frozen=True)
class Overflow:
    """What does not fit: `resource` needs `needed` bytes and has `limit`, first for `batch`.

    `largest_window` is the largest credit window (num_workers * prefetch_factor) for which it
    would, 0 if none would.
    """

    resource: str
    batch: int
    needed: float
    limit: float
    largest_window: int


def memory(trace: Trace) -> Memory:
    """The bytes of all batches over time.

    Raises `TraceError` for a trace without a scenario, which would say how big a sample is.
    """
    scenario = _scenario(trace)
    begin, end = span(trace)
    size = np.rint(trace.size * scenario.dataset.sample_bytes.mean)
    nowhere = np.full(len(trace), np.nan)
    with_workers = trace.worker >= 0
    released = _released(trace)
    shared = with_workers & (scenario.dataset.path == "shm")
    pins = scenario.pins
    copied = trace.received if pins else nowhere
    leaves = np.where(np.isnan(copied), released, copied) if pins else released
    shm_come = np.where(shared, trace.fetched, np.nan)
    return Memory(
        workers=levels(trace.started, trace.fetched, begin, end, size),
        shm=levels(shm_come, leaves, begin, end, size),
        pinned=levels(copied, released, begin, end, size),
        total=levels(trace.started, released, begin, end, size),
    )


def overflow(trace: Trace) -> Overflow | None:
    """What outgrows `machine.shm` or `machine.memory`, and at which batch; None if nothing does."""
    machine = _scenario(trace).machine
    used = memory(trace)
    for resource, limit, level, come in (
        ("/dev/shm", machine.shm, used.shm, trace.fetched),
        ("memory", machine.memory, used.total, trace.started),
    ):
        if limit is None or level.max <= limit:
            continue
        over = level.times[np.argmax(level.counts > limit)]
        came = np.where(come <= over, come, -np.inf)
        batch = int(np.argmax(came))
        return Overflow(resource, batch, float(level.max), limit, largest_window(trace, limit))
    return None


def largest_window(trace: Trace, limit: float) -> int:
    """The largest credit window whose batches fit into `limit` bytes.

    As many batches as the window has can be fetched and not returned, and the training loop
    keeps one more.
    """
    scenario = _scenario(trace)
    batch = int(trace.size.max(initial=0)) * scenario.dataset.sample_bytes.mean
    return max(0, int(limit // batch) - 1) if batch else 0


def _released(trace: Trace) -> Floats:
    """For each batch, when the main process lets go of it."""
    gone = given_back(trace)
    ends = epoch_ends(trace)
    order = trace.order
    if len(order):
        gone[order] = ends[order]
        epochs = trace.as_one_epoch.epoch_of(order)
        same = epochs[1:] == epochs[:-1]
        gone[order[:-1][same]] = trace.returned[order[1:][same]]
    kept = (trace.status == RETURNED) | (trace.status == DISCARDED)
    return np.where(kept, gone, ends)


def _scenario(trace: Trace) -> Scenario:
    if trace.meta.scenario is None:
        raise TraceError("memory: expected a trace with a scenario, got one that has none")
    return trace.meta.scenario
