"""What training steps cost in a run that was observed: the host, and the accelerator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlsim.trace.metrics import barrier_waits
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats

SURE = 3.0  # standard errors that chance does not make
TOGETHER = 0.5e-3  # seconds within which the host leaves a step whose end it waited for


def steps(seen: Observation) -> dict[str, Any]:
    """What each step was blocked and computed, until the next batch is `requested`.

    And what the accelerator took for it, and the host until it left it. What the host does until
    it has let go of the batch before, is no part of the step; nor is waiting for other ranks.
    """
    order = seen.order
    met = barrier_waits(seen)
    now, then = order[:-1], order[1:]
    same = seen.epoch_of(now) == seen.epoch_of(then)
    now, then = now[same], then[same]
    wall = seen.requested[then] - seen.returned[now]
    thread = seen.thread_requested[then] - seen.thread_returned[now]
    queued = seen.queued_requested[then] - seen.queued_returned[now]
    process = seen.cpu_requested[then] - seen.cpu_returned[now]
    busy = float(process.sum() / thread.sum()) if thread.sum() > 0 else 1.0
    # In its first step a process loads what it will compute.
    device = (seen.device_ended - seen.device_began)[order[1:]] - met[1:]
    device = device[~np.isnan(device)]
    host = (seen.left - seen.entered)[order[1:]]
    return {
        "step_wait": np.maximum(wall - thread - queued - met[:-1][same], 0.0),
        "step_cpu": np.maximum(thread - letting_go(seen), 0.0),
        "step_threads": busy,
        "device": device,
        "host": host[~np.isnan(host)],
        "ahead": ahead(seen) if len(device) else 0,
    }


def per_sample(sizes: Sequence[float], runs: Sequence[Floats]) -> float:
    """How much longer a step takes for each sample of its batch, in seconds.

    `runs`: the seconds of the steps of each run, whose batches have so many samples. 0 where all
    have as many, or where larger batches do not surely take longer; never so much that a step on
    no samples would take less than nothing.
    """
    known = [(size, steps) for size, steps in zip(sizes, runs, strict=True) if len(steps) > 1]
    if len({size for size, _ in known}) < 2:
        return 0.0
    at = np.array([size for size, _ in known], dtype=np.float64)
    took = np.array([steps.mean() for _, steps in known])
    error = np.array([steps.std(ddof=1) / len(steps) ** 0.5 for _, steps in known])
    apart = at - at.mean()
    slope = float(apart @ took / (apart @ apart))
    if slope <= SURE * float(np.linalg.norm(apart * error)) / float(apart @ apart):
        return 0.0
    return min(slope, float(at @ took / (at @ at)))


def lingering(seen: Observation) -> float:
    """For how long threads of a step keep a core busy, once it is over, until the next one.

    As long as makes of the times waited for batches what others than the main thread computed in
    them, on average; 0 without workers, where samples may have threads of their own.
    """
    then = seen.order[2:]  # in the first call more is done
    if not len(then) or np.all(seen.worker[seen.order] < 0):
        return 0.0
    waited = seen.returned[then] - seen.requested[then]
    process = seen.cpu_returned[then] - seen.cpu_requested[then]
    thread = seen.thread_returned[then] - seen.thread_requested[then]
    return within(waited, float((process - thread).mean()))


def within(waited: Floats, spent: float) -> float:
    """The seconds that make `spent` on average, of each of the times `waited` no more than it is.

    The longest of these, if all of them together make less.
    """
    least, most = 0.0, float(waited.max())
    while most - least > TOGETHER / 10:
        middle = (least + most) / 2
        enough = float(np.minimum(waited, middle).mean()) >= spent
        least, most = (least, middle) if enough else (middle, most)
    return most


def letting_go(seen: Observation) -> float:
    """Seconds between the return of a batch and its step, while the one before is freed.

    The typical batch tells; some are looked at (payload.py). 0 where it was not seen.
    """
    if not json.loads(seen.meta.notes.get("machine", "{}")).get("trained", True):
        return 0.0
    between = (seen.entered - seen.returned)[seen.order]
    between = between[~np.isnan(between)]
    return float(np.median(between)) if len(between) else 0.0


def ahead(seen: Observation) -> int:
    """How many steps were under way at most when the host left one."""
    ended, left = seen.device_ended[seen.order], seen.left[seen.order]
    place = np.arange(1, len(ended) + 1)
    over = np.searchsorted(np.fmax.accumulate(np.nan_to_num(ended)), left + TOGETHER, "right")
    return int(np.max(place - np.minimum(over, place), initial=0))
