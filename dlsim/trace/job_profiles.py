"""A folder of profiles, one of each rank of a job, as torch.profiler writes them, as one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlsim.trace.chrome import SUFFIXES
from dlsim.trace.job import JobTrace
from dlsim.trace.observation import later
from dlsim.trace.profiler import ENGINE, Profile, profile
from dlsim.trace.trace import Floats, Meta, Trace, TraceError

COLLECTIVE = "nccl"  # how the names of kernels begin in which ranks wait for each other


def read_profiles(folder: str | Path) -> JobTrace:
    """The job whose ranks' profiles are in `folder`; also reads what `write_profiles` wrote.

    Each rank is what `read_profiler` makes of it; which one it is, its file says
    (`distributedInfo`), and times count from when the first one began, by the clocks of their
    machines. A rank waited, at the end of a step, for as much longer as its collective kernels
    (NCCL's) took in it than those of the rank where they took least: as long as that, the exchange
    takes on all. Without such kernels nobody is known to have waited.

    Raises `TraceError` for what is no folder of the profiles of all ranks of one job.
    """
    there = Path(folder)
    if not there.is_dir():
        raise TraceError(f"{folder}: expected a folder of profiles, got none")
    found = in_order(
        folder, [profile(p) for p in sorted(there.iterdir()) if p.name.endswith(SUFFIXES)]
    )
    first = min(one.zero for one in found)
    traces = [later(one.trace, (one.zero - first) / 1e6) for one in found]
    steps = min(len(trace.order) for trace in traces)
    spent = np.array([collectives(one)[:steps] for one in found])
    if spent.any():
        waits = spent - spent.min(axis=0)
        traces = [waiting(trace, mine) for trace, mine in zip(traces, waits, strict=True)]
    return JobTrace(ranks=tuple(traces), meta=Meta(engine=ENGINE, notes={"source": str(folder)}))


def in_order(folder: str | Path, found: Sequence[Profile]) -> list[Profile]:
    """The profiles by rank. Raises `TraceError` unless they are of all ranks of one job."""
    if not found:
        kinds = " or ".join(SUFFIXES)
        raise TraceError(f"{folder}: expected profiles of ranks ({kinds}), got none")
    ranks: dict[int, Profile] = {}
    for one in found:
        if one.rank is None:
            raise TraceError(f"{one.path}: expected a profile that says its rank, got another")
        if one.rank in ranks:
            raise TraceError(f"{folder}: expected each rank once, got rank {one.rank} twice")
        ranks[one.rank] = one
    world = max(max(one.world or 0 for one in found), max(ranks) + 1)
    if missing := sorted({*range(world)} - ranks.keys()):
        raise TraceError(f"{folder}: expected {world} ranks, got no profile of rank {missing[0]}")
    return [ranks[rank] for rank in range(world)]


def collectives(one: Profile) -> Floats:
    """Seconds that collective kernels took in each step, in order."""
    trace, zero = one.trace, one.zero
    kernels = [
        event
        for event in one.events
        if event.cat == "kernel" and event.name.startswith(COLLECTIVE) and event.ph == "X"
    ]
    began = (np.array([event.ts for event in kernels]) + one.base - zero) / 1e6
    took = np.array([event.dur for event in kernels]) / 1e6
    step = np.searchsorted(trace.returned, began, side="right") - 1
    known = step >= 0
    found: Floats = np.zeros(len(trace.order))
    np.add.at(found, step[known], took[known])
    return found


def waiting(trace: Trace, waits: Floats) -> Trace:
    """The trace, in which each of the first steps ends with so many seconds of waiting."""
    stepped = trace.finished.copy()
    stepped[: len(waits)] -= np.minimum(waits, (trace.finished - trace.returned)[: len(waits)])
    return replace(trace, stepped=stepped)
