"""Jobs from Chrome traces: a folder of torch.profiler's, one of each rank, or one of all ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlsim.trace.chrome import BARRIER
from dlsim.trace.chrome_format import SUFFIXES
from dlsim.trace.job import JobTrace
from dlsim.trace.observation import later
from dlsim.trace.profiler import (
    ENGINE,
    NAN,
    NEXTS,
    Event,
    Profile,
    batch_of,
    chrome_file,
    profile,
)
from dlsim.trace.trace import RETURNED, Epochs, Floats, Meta, Trace, TraceError

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


def read_job_chrome(path: str | Path) -> JobTrace:
    """The job in the Chrome trace at `path`, a process for each rank, as `write_job_chrome` has it.

    Known of each batch are `requested`, `returned`, `stepped` and `finished`, and of each epoch
    when it began and ended, all to the nanosecond. Batches are numbered as they were returned; all
    other moments are NaN, sizes 0 and workers -1. Raises `TraceError` for a file that cannot be
    read, is damaged, lacks a rank, or is of no job.
    """
    file, processes = chrome_file(Path(path)), defaultdict[object, list[Event]](list)
    if file.ranks is None:
        raise TraceError(f"{path}: expected the Chrome trace of a job, got another one")
    for event in file.traceEvents:
        processes[event.pid].append(event)
    meta = Meta(engine=ENGINE, notes={"source": str(path)})
    for rank in range(file.ranks):
        if not any(event.cat == "epoch" for event in processes[rank + 1]):
            raise TraceError(f"{path}: expected {file.ranks} ranks, got no epoch of rank {rank}")
    ranks = [rank_of(processes[rank + 1], meta) for rank in range(file.ranks)]
    return JobTrace(ranks=tuple(ranks), meta=meta)


def rank_of(events: Sequence[Event], meta: Meta) -> Trace:
    """The trace of a rank from the events of its process."""
    slices = [(event, batch_of(event)) for event in events if event.ph == "X"]
    nexts = [(event, batch) for event, batch in slices if event.name in NEXTS and batch is not None]
    steps = {batch: event.end for event, batch in slices if event.name == "step"}
    came = {batch: event.ts for event, batch in slices if event.name == "barrier"}
    meets = any(event.tid == BARRIER for event in events)
    numbers, nothing = [batch for _, batch in nexts], np.full(len(nexts), NAN)
    finished = seconds([steps.get(batch, NAN) for batch in numbers])
    requested = seconds([event.ts for event, _ in nexts])
    started, ended = (
        seconds([event.ts for event in events if event.cat == "epoch" and event.ph == phase])
        for phase in "be"
    )
    return Trace(
        sent=nothing,
        started=nothing,
        fetched=nothing,
        arrived=nothing,
        received=nothing,
        requested=requested,
        returned=seconds([event.end for event, _ in nexts]),
        finished=finished,
        worker=np.full(len(nexts), -1, np.int32),
        size=np.zeros(len(nexts), np.int32),
        status=np.full(len(nexts), RETURNED, np.uint8),
        order=np.arange(len(nexts)),
        epochs=Epochs(
            first=np.searchsorted(requested, started),
            started=started,
            primed=np.full(len(started), NAN),
            ended=ended,
        ),
        meta=meta,
        stepped=seconds([came.get(batch, steps.get(batch, NAN)) for batch in numbers])
        if meets
        else None,
    )


def seconds(microseconds: Sequence[float]) -> Floats:
    """The same in seconds, of whole nanoseconds."""
    found: Floats = np.rint(np.array(microseconds, np.float64) * 1e3) / 1e9
    return found
