"""Jobs in files: all ranks in one NPZ, one Chrome trace, or a folder of profiles.

The NPZ file has the arrays of each rank as those of a trace, with `rank.0.`, `rank.1.`, … in front,
and `job`, the job's own `meta`. The folder has a file for each rank, as torch.profiler writes them:
tools that read these, as HolisticTraceAnalysis, read simulated ranks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario.files import replacing
from dlsim.trace import metrics
from dlsim.trace.chrome import BARRIER, MAIN, events_of
from dlsim.trace.chrome_format import Lane, check_name, named, nanoseconds, write_events
from dlsim.trace.files import FORMAT, Arrays, arrays_of, read_arrays, trace_of, write_arrays
from dlsim.trace.job import JobTrace
from dlsim.trace.tables import read_csv
from dlsim.trace.trace import Floats, Meta, Trace, TraceError

STREAM = 7  # as CUDA numbers the first that is not the default one
_LANE = re.compile(r'"pid":\d+,"tid":(\d+)')
_ID = re.compile(r'"id":("?)(\d+)')
REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"


def save_job(job: JobTrace, path: str | Path) -> None:
    """Write all of `job` to the NPZ file `path`; it appears whole or not at all.

    Raises `TraceError` when it cannot be written.
    """
    arrays: dict[str, Any] = {}
    for rank, trace in enumerate(job.ranks):
        arrays |= {f"rank.{rank}.{name}": array for name, array in arrays_of(trace).items()}
    arrays["job"] = np.frombuffer(msgspec.json.encode(job.meta), np.uint8)
    arrays["meta"], arrays["format"] = arrays["job"], np.array(FORMAT)
    with replacing(Path(path), TraceError) as unfinished, open(unfinished, "wb") as file:
        write_arrays(file, arrays)


def load_job(path: str | Path) -> JobTrace:
    """The job in the NPZ file at `path`, as `save_job` wrote it.

    Raises `TraceError` as `load_trace` does, and for a file of a single trace.
    """
    arrays = read_arrays(path)
    if "job" not in arrays:
        raise TraceError(f"{path}: expected the traces of a job, got a single trace")
    return job_of(arrays, path)


def load_run(path: str | Path) -> Trace | JobTrace:
    """What the file at `path` has, a trace or a job: a table, if it is a `.csv`, else an NPZ.

    Raises `TraceError` as those who read these do.
    """
    if Path(path).suffix == ".csv":
        return read_csv(path)
    arrays = read_arrays(path)
    return job_of(arrays, path) if "job" in arrays else trace_of(arrays, path)


def job_of(arrays: Arrays, path: str | Path) -> JobTrace:
    """The job that the arrays of a file hold. Raises `TraceError` if they hold none."""
    by_rank: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if name.startswith("rank."):
            _, rank, rest = name.split(".", 2)
            by_rank.setdefault(int(rank), {})[rest] = array
    if sorted(by_rank) != [*range(len(by_rank))] or not by_rank:
        raise TraceError(f"{path}: expected ranks 0, 1, ..., got {sorted(by_rank)}")
    traces = [trace_of(by_rank[rank], path) for rank in range(len(by_rank))]
    try:
        meta = msgspec.json.decode(arrays["job"].tobytes(), type=Meta)
    except ValueError as error:
        raise TraceError(f"{path}: {error}") from None
    return joined(traces, meta)


def joined(traces: list[Trace], meta: Meta) -> JobTrace:
    """The job that some ranks' traces make. Raises `TraceError` if they do not belong together."""
    world = meta.scenario.job.world if meta.scenario is not None else len(traces)
    if len(traces) != world:
        raise TraceError(f"job: expected the traces of {world} ranks, got {len(traces)}")
    for rank, trace in enumerate(traces):
        scenario = trace.meta.scenario
        theirs = rank if scenario is None or scenario.job.rank is None else scenario.job.rank
        if theirs != rank or trace.meta.seed != meta.seed:
            raise TraceError(
                f"job: expected the trace of rank {rank} under seed {meta.seed}, got that of rank "
                f"{theirs} under seed {trace.meta.seed}"
            )
    return JobTrace(ranks=tuple(traces), meta=meta)


def write_job_chrome(job: JobTrace, path: str | Path) -> None:
    """Write `job` to `path` as Chrome Trace Event JSON, a process for each rank.

    In each are the lanes of a trace, as threads. Raises `TraceError` as `write_chrome` does.
    """
    path = Path(path)
    check_name(path)
    ranks = (_as_process(trace, rank) for rank, trace in enumerate(job.ranks))
    write_events(path, {"ranks": len(job), **_about(job.meta)}, chain.from_iterable(ranks))


def write_profiles(job: JobTrace, folder: str | Path) -> list[Path]:
    """Write a profile of each rank into `folder`, as torch.profiler would: rank0.json.gz, ...

    In each the rank stands in `distributedInfo`, a slice `ProfilerStep#k` on the main thread goes
    from the call of `next()` for batch k to the next one; steps are kernels on a stream, and so
    is the waiting at the barrier, as a kernel of NCCL's is what waits there. Raises `TraceError`
    when they cannot be written.
    """
    paths = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for rank, trace in enumerate(job.ranks):
        path = Path(folder) / f"rank{rank}.json.gz"
        about = {"rank": rank, "world_size": len(job), "backend": "nccl"}
        write_events(
            path, _about(trace.meta), chain(events_of(trace), _profiled(trace)), distributed=about
        )
        paths.append(path)
    return paths


def _about(meta: Meta) -> dict[str, object]:
    name = meta.scenario.name if meta.scenario is not None else ""
    return {"engine": meta.engine, "seed": meta.seed, "scenario": name, **meta.versions}


def _as_process(trace: Trace, rank: int) -> Iterator[str]:
    """The events of a rank, in lanes of one process, with numbers that no other rank has."""
    process = Lane(rank + 1, 1)
    yield named("process_name", process, f'"name":"rank {rank}"')
    yield named("process_sort_index", process, f'"sort_index":{rank}')
    for event in events_of(trace):
        if '"process_name"' in event or '"process_sort_index"' in event:
            continue
        event = _LANE.sub(rf'"pid":{rank + 1},"tid":\1', event, count=1)
        yield _ID.sub(rf'"id":\g<1>{rank + 1}0000\2', event, count=1) if '"id":' in event else event
    yield from _barriers(trace, process)


def _barriers(trace: Trace, lane: Lane) -> Iterator[str]:
    """The waiting for other ranks, after the steps, in a lane of its own."""
    if trace.stepped is None:
        return
    lane = Lane(lane.pid, BARRIER)
    yield named("thread_name", lane, '"name":"barrier"')
    order = trace.order
    for begin, end, batch in zip(
        nanoseconds(trace.stepped[order]),
        nanoseconds(trace.finished[order]),
        order.tolist(),
        strict=True,
    ):
        if begin is not None and end is not None and end > begin:
            yield _slice("barrier", "training", lane, begin, end, f'"batch":{batch}')


def _profiled(trace: Trace) -> Iterator[str]:
    """What torch.profiler has besides: steps of the profiler, launches, and kernels."""
    order = trace.order
    returned, finished = trace.returned[order], trace.finished[order]
    before = np.fmax.accumulate(np.append(-np.inf, finished[:-1]))
    begins = nanoseconds(np.maximum(returned, before))
    done: Floats = finished if trace.stepped is None else trace.stepped[order]
    requested = trace.requested[order]
    last = metrics.span(trace)[1]
    marks = nanoseconds(np.append(requested, np.fmax(last, requested[-1:])))
    rows = zip(
        marks, nanoseconds(returned), begins, nanoseconds(done), nanoseconds(finished), strict=False
    )
    gpu = Lane(0, STREAM)
    for k, (mark, came, begin, stepped, over) in enumerate(rows):
        after = marks[k + 1]
        if mark is None or came is None or begin is None or stepped is None or after is None:
            continue
        yield _slice(f"ProfilerStep#{k}", "user_annotation", MAIN, mark, after, "")
        launch = f'"correlation":{2 * k + 1}'
        yield _slice("cudaLaunchKernel", "cuda_runtime", MAIN, came, came, launch)
        kernel = f'"stream":{STREAM},"device":0,{launch}'
        yield _slice("training_step_kernel", "kernel", gpu, begin, stepped, kernel)
        if over is not None and over > stepped:
            launch = f'"correlation":{2 * k + 2}'
            yield _slice("cudaLaunchKernel", "cuda_runtime", MAIN, came, came, launch)
            kernel = f'"stream":{STREAM},"device":0,{launch}'
            yield _slice(REDUCE, "kernel", gpu, stepped, over, kernel)


def _slice(name: str, cat: str, lane: Lane, begin: int, end: int, args: str) -> str:
    return (
        f'{{"ph":"X","cat":"{cat}","name":{json.dumps(name)},"pid":{lane.pid},"tid":{lane.tid},'
        f'"ts":{begin / 1000:.3f},"dur":{(end - begin) / 1000:.3f},"args":{{{args}}}}}'
    )
