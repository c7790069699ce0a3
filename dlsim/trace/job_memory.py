"""Will it fit: the batches of all ranks of a node on their way, in its memory and its /dev/shm."""

from __future__ import annotations

import numpy as np

from dlsim.trace.job import JobTrace
from dlsim.trace.levels import Levels
from dlsim.trace.memory import MEMORY, SHM, Overflow, largest_window, memory
from dlsim.trace.trace import Floats, Trace


def node_levels(job: JobTrace, node: int) -> dict[str, Levels]:
    """Bytes over time on a node, of all its ranks: in /dev/shm, and in all."""
    used = [memory(trace) for trace in on_node(job, node)]
    return {
        SHM: added([each.shm for each in used]),
        MEMORY: added([each.total for each in used]),
    }


def on_node(job: JobTrace, node: int) -> tuple[Trace, ...]:
    """The traces of the ranks on a node."""
    ranks = job.meta.scenario.job.ranks if job.meta.scenario is not None else len(job)
    return job.ranks[node * ranks : (node + 1) * ranks]


def job_overflow(job: JobTrace) -> Overflow | None:
    """What outgrows `machine.shm` or `machine.memory` on some node; None if nothing does.

    `batch` is that of the node's first rank; `largest_window` that of each rank.
    """
    scenario = job.meta.scenario
    if scenario is None or (scenario.machine.shm is None and scenario.machine.memory is None):
        return None
    limits = {SHM: scenario.machine.shm, MEMORY: scenario.machine.memory}
    for node in range(scenario.job.nodes):
        first = on_node(job, node)[0]
        for resource, level in node_levels(job, node).items():
            limit = limits[resource]
            if limit is None or level.max <= limit:
                continue
            over = level.times[int(np.argmax(level.counts > limit))]
            batch = int(np.argmax(np.where(first.started <= over, first.started, -np.inf)))
            most = int(first.size.max(initial=0))
            window = largest_window(scenario, resource, limit / scenario.job.ranks, most)
            return Overflow(resource, batch, float(level.max), limit, window)
    return None


def added(levels: list[Levels]) -> Levels:
    """The sum of some levels, at all moments at which any of them changes."""
    times: Floats = np.unique(np.concatenate([level.times for level in levels]))
    total = np.zeros(len(times))
    for level in levels:
        at = np.searchsorted(level.times, times, side="right") - 1
        total += np.where(at >= 0, level.counts[np.maximum(at, 0)], 0)
    return Levels(times, total, levels[0].end)
