"""Will it fit: the batches of all ranks of a node on their way, in its memory and its /dev/shm.

Each rank may have its share of what the node has, as nothing keeps ranks from taking the most that
they take at the same moment. So what is told of one rank on its share holds for all (see
`dlsim.engine.ranks.fair_share`).
"""

from __future__ import annotations

import numpy as np

from dlsim.trace.job import JobTrace
from dlsim.trace.memory import DESCRIPTORS, MEMORY, SHM, memory, uses
from dlsim.trace.overflow import Overflow, largest_window
from dlsim.trace.trace import Trace


def on_node(job: JobTrace, node: int) -> tuple[Trace, ...]:
    """The traces of the ranks on a node."""
    ranks = job.meta.scenario.job.ranks if job.meta.scenario is not None else len(job)
    return job.ranks[node * ranks : (node + 1) * ranks]


def job_overflow(job: JobTrace) -> Overflow | None:
    """What outgrows the machine (`shm`, `memory`, `descriptors`) on some node; None: nothing does.

    `needed`: the most of each rank, together; of file descriptors, which each process has for
    itself, the most of one. `batch` is that of the rank that takes most; `largest_window` that of
    each rank.
    """
    scenario = job.meta.scenario
    if scenario is None:
        return None
    if scenario.machine.shm is None and scenario.machine.memory is None:
        return _too_many_files(job)
    limits = {SHM: scenario.machine.shm, MEMORY: scenario.machine.memory}
    for node in range(scenario.job.nodes):
        traces = on_node(job, node)
        used = [memory(trace) for trace in traces]
        for resource, limit in limits.items():
            levels = [each.shm if resource == SHM else each.total for each in used]
            needed = sum(float(level.max) for level in levels)
            if limit is None or needed <= limit:
                continue
            share = limit / len(traces)
            worst = max(range(len(traces)), key=lambda rank: float(levels[rank].max))
            level, trace = levels[worst], traces[worst]
            over = level.times[int(np.argmax(level.counts > min(share, level.counts.max() - 1)))]
            batch = int(np.argmax(np.where(trace.started <= over, trace.started, -np.inf)))
            most = int(trace.size.max(initial=0))
            window = largest_window(scenario, resource, share, most)
            return Overflow(resource, batch, needed, limit, window)
    return _too_many_files(job)


def _too_many_files(job: JobTrace) -> Overflow | None:
    """The process of all ranks that has the most files open, if these are too many."""
    if job.meta.scenario is None or job.meta.scenario.machine.descriptors is None:
        return None
    most: Overflow | None = None
    for trace in job.ranks:
        for use in uses(trace):
            if use.resource != DESCRIPTORS or use.limit is None or not use.outgrown:
                continue
            if most is None or use.needed > most.needed:
                window = largest_window(job.meta.scenario, DESCRIPTORS, use.limit, 0)
                most = Overflow(DESCRIPTORS, max(use.batch, 0), use.needed, use.limit, window)
    return most
