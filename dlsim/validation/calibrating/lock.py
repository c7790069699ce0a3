"""How the threads of a worker wait for Python's lock, in a run that was observed.

Its feeder pickles batches, and another thread hands them over, while it fetches the next one. Pure
Python keeps the lock meanwhile; NumPy, Pillow and torch release it in their loops, and then both go
on, on two cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.trace.first_batches import first_batches
from dlsim.trace.libraries import cores_busy
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats, Integers
from dlsim.validation.calibrating.collating import blocked

NEGLIGIBLE = 20e-6  # seconds that nobody waits for on purpose
LEAST = 5  # samples, or batches, that tell what is usual
SURE = 0.1  # the standard error of a share that is told


def beside(seen: Observation, batch: Integers, began: Floats, ended: Floats) -> Any:
    """Whether the worker of each sample pickled or handed over a batch between two moments.

    `batch`: of each sample, or of each call that fetches a batch.
    """
    found = np.zeros(len(batch), bool)
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = seen.worker == worker
        since = np.concatenate([seen.serialising[mine], seen.rebuilding[mine]])
        until = np.concatenate([seen.serialised[mine], seen.received[mine]])
        known = ~np.isnan(since + until)
        by_time = np.argsort(since[known])
        since, until = since[known][by_time], np.maximum.accumulate(until[known][by_time])
        own = np.flatnonzero(mine[batch])
        before = np.searchsorted(since, ended[own])
        found[own] = (before > 0) & (np.append(until, 0.0)[before - 1] > began[own])
    return found


def own_waits(seen: Observation, wait: Floats, together: Any) -> Floats:
    """For how long samples are blocked by themselves: without what they wait for the lock.

    Where the typical one waits for nothing, of those beside which no batch is pickled or handed
    over, the others (`together`) wait for the lock, as long as that takes; a simulation finds it
    out again.
    """
    alone = wait[~together]
    if len(alone) < LEAST or np.median(alone) >= NEGLIGIBLE:
        return wait
    pickled, rebuilt = seen.serialised - seen.serialising, seen.received - seen.rebuilding
    times = [took[~np.isnan(took)] for took in (pickled, rebuilt)]
    longest = sum(float(took.mean()) for took in times if len(took))
    return np.where(together, np.maximum(wait - longest, 0.0), wait)


def shares(seen: Observation, path: str, batch: Integers, wait: Floats, together: Any) -> Floats:
    """For how long each batch of a worker was held up, by what its other threads compute for one.

    Writing into a pipe, if that is the `path`, holds nobody up: only pickling counts then.

    On the way from one batch to the next of a worker that had no need to wait for an index list,
    nor longer for a core than its other threads computed, beyond what samples and collating are
    blocked by themselves: where cores are short, those compute while it stands in line. Nothing of
    runs in which most batches had to, or in which threads of libraries compute, too.
    """
    alone = wait[~together]
    if cores_busy(seen) > 1 or len(alone) < LEAST:
        return np.empty(0)
    own = np.bincount(batch, minlength=len(seen)) * np.median(alone) + blocked(seen)
    held: list[float] = []
    computed: list[float] = []
    batches, first, epoch = 0, first_batches(seen), seen.epoch_of(np.arange(len(seen)))
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(seen.cpu_started + seen.fetched))
        mine = mine[~first[mine]]
        same = epoch[mine[:-1]] == epoch[mine[1:]]
        now, then = mine[:-1][same], mine[1:][same]
        thread = seen.thread_started[then] - seen.thread_started[now]
        others = seen.cpu_started[then] - seen.cpu_started[now] - thread
        if path == "pipe":
            others = np.nan_to_num(seen.serialise_cpu[now])
        queued = seen.queued_started[then] - seen.queued_started[now]
        waited = seen.started[then] - seen.started[now] - thread - queued - own[now]
        busy = (seen.sent[then] <= seen.fetched[now]) & (queued <= np.maximum(others, 0.0))
        batches += len(now)
        held += waited[busy].tolist()
        computed += others[busy].tolist()
    if len(held) < max(LEAST, batches / 2) or sum(computed) <= 0:
        return np.empty(0)
    found: Floats = np.array(held) / np.mean(computed)
    return found


def mean_share(found: Floats) -> float:
    """The mean of such shares, if they tell one; else 1, as of a worker that keeps the lock."""
    if len(found) < LEAST or found.std() / len(found) ** 0.5 > SURE:
        return 1.0
    return float(np.clip(found.mean(), 0.0, 1.0))


def held_up(seen: Observation) -> Floats:
    """For how long each batch could not be begun, as its worker was pickling the one before.

    From when the worker had time and the index list, until the pickling, which keeps Python's lock
    most of the time, was over.
    """
    held = np.zeros(len(seen))
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(seen.started + seen.fetched))
        now, then = mine[:-1], mine[1:]
        able = np.maximum(seen.fetched[now], seen.sent[then])
        over = np.where(seen.serialised[now] <= seen.started[then], seen.serialised[now], able)
        pickling = np.nan_to_num(seen.serialise_cpu[now])  # longer only where cores are short
        held[then] = np.clip(over - able, 0.0, pickling)
    return held
