"""A run as Chrome Trace Event JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

The main process has a lane, and so has each worker. Waits bear the name torch.profiler gives
them, so that a simulated run and a profiled one line up.

===================  ========================================================================
main process         `iter(DataLoader)`, the waits, the steps; fetching, without workers
accelerator          the steps, where the host runs ahead of them
worker w             `fetch`, and in it each `sample` the trace knows of
batch (async)        from `sent` to the end of the step; arrows: sent, started, returned
epoch (async)        from `iter(loader)` to the end of the loop
ready, credit        counters: batches arrived and not returned; sent and not returned
===================  ========================================================================

Times are microseconds, to the nanosecond. Slices of one lane never overlap, but may nest.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.files import replacing
from dlsim.trace import metrics, stays
from dlsim.trace.columns import distinct_values, new_column, parts
from dlsim.trace.trace import PENDING, Floats, Integers, Trace, TraceError

WITH_WORKERS = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
WITHOUT_WORKERS = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
ITER = "iter(DataLoader)"
SUFFIXES = (".json", ".json.gz")

CHUNK = 10_000  # events written at a time
LEVEL = 4  # of gzip: beyond it, files get little smaller and take much longer


class Lane(NamedTuple):
    """Where slices are drawn: a thread of a process."""

    pid: int
    tid: int


MAIN, ACCELERATOR = Lane(1, 1), Lane(1, 2)
_NUMBER = re.compile(r'("(?:pid|tid|sort_index|id)":"?)(\d+)')
BESIDE = 10_000_000  # what lanes and batches of validation are numbered from
BARRIER = 3  # the thread of a rank's process in which it waits for others


def check_name(path: Path) -> None:
    """Raise `TraceError` for the name of a file that would hold no Chrome trace."""
    if not path.name.endswith(SUFFIXES):
        raise TraceError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}")


def of_job(path: Path) -> bool:
    """Whether the Chrome trace at `path` says first of how many ranks it is."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return b'"otherData":{"ranks":' in file.read(60)
    except (OSError, EOFError, zlib.error):  # whoever reads it will say so
        return False


def write_chrome(trace: Trace, path: str | Path) -> None:
    """Write `trace` to `path` as Chrome Trace Event JSON, compressed if it ends in `.json.gz`.

    The file appears whole or not at all. Raises `TraceError` when it cannot be written, or ends
    in neither `.json` nor `.json.gz`.
    """
    path = Path(path)
    check_name(path)
    write_events(path, _about(trace), events_of(trace))


def write_events(
    path: Path,
    about: dict[str, object],
    events: Iterator[str],
    *,
    distributed: dict[str, object] | None = None,
) -> None:
    """Write `events` to a file that tells `about` them, and who wrote it of several ranks."""
    head = f'{{"displayTimeUnit":"ms","otherData":{json.dumps(about)},'
    if distributed is not None:
        head += f'"distributedInfo":{json.dumps(distributed)},'
    with (
        replacing(path, TraceError) as unfinished,
        open(unfinished, "wb") as file,
        _compressed(file, path) as out,
    ):
        out.write(f'{head}"traceEvents":['.encode())
        separator = "\n"
        while chunk := list(islice(events, CHUNK)):
            out.write((separator + ",\n".join(chunk)).encode())
            separator = ",\n"
        out.write(b"\n]}\n")


def _compressed(file: IO[bytes], path: Path) -> AbstractContextManager[IO[bytes]]:
    if path.suffix == ".json":
        return nullcontext(file)
    # without a time, the same trace makes the same file
    return gzip.GzipFile("", "wb", LEVEL, file, mtime=0)  # type: ignore[return-value]


def _about(trace: Trace) -> dict[str, object]:
    meta = trace.meta
    name = meta.scenario.name if meta.scenario is not None else ""
    return {"engine": meta.engine, "seed": meta.seed, "scenario": name, **meta.versions}


def events_of(trace: Trace) -> Iterator[str]:
    """The events of a trace, each as JSON."""
    ahead = _runs_ahead(trace)
    trace = _sets_apart(trace)
    yield from _names(trace, ahead)
    yield from _main(trace, ahead)
    yield from _fetches(trace)
    yield from _samples(trace)
    yield from _lives(trace)
    yield from _counters(trace)
    for name, other in (("validation", trace.validation), ("loader", trace.reading)):
        if other is not None:
            yield from (_beside(name, event) for event in events_of(other))


def _beside(name: str, event: str) -> str:
    """An event of validation, or of the loader behind, in lanes and with numbers of its own."""
    event = _NUMBER.sub(lambda found: f"{found[1]}{BESIDE + int(found[2])}", event)
    if '"ph":"M"' in event:
        return event.replace('"args":{"name":"', f'"args":{{"name":"{name}: ')
    return event


def _sets_apart(trace: Trace) -> Trace:
    """The trace with numbers of their own for the workers of every other epoch.

    Only where there may be two sets of them at a time: where an iterator is rebound.
    """
    scenario = trace.meta.scenario
    if scenario is None or not scenario.rebinds:
        return trace
    other = trace.epoch_of(np.arange(len(trace))) % 2 == 1
    worker = (trace.worker + scenario.loader.num_workers * other).astype(np.int32)
    rows = trace.samples
    if rows is not None:
        rows = replace(rows, worker=worker[rows.batch])
    return replace(trace, worker=worker, samples=rows)


def _worker(worker: int) -> Lane:
    """The lane of a worker; without workers (-1) the main process fetches."""
    return Lane(worker + 10, worker + 10) if worker >= 0 else MAIN


def _runs_ahead(trace: Trace) -> bool:
    """Whether a `next()` is called before the step on the batch before is over."""
    for part in parts(1, len(trace.order)):
        before, mine = trace.order[part.start - 1 : part.stop - 1], trace.order[part]
        if (trace.finished[before] > trace.requested[mine]).any():
            return True
    return False


def _names(trace: Trace, ahead: bool) -> Iterator[str]:
    """What the lanes are called, and their order."""
    workers = metrics.worker_count(trace)
    lanes = [(_worker(w), f"worker {w}") for w in range(workers)]
    more = range(workers, int(trace.worker.max(initial=-1)) + 1)
    lanes += [(_worker(w), f"worker {w - workers} of every other epoch") for w in more]
    for place, (lane, name) in enumerate([(MAIN, "main process"), *lanes]):
        yield named("process_name", lane, f'"name":"{name}"')
        yield named("process_sort_index", lane, f'"sort_index":{place}')
        yield named("thread_name", lane, f'"name":"{name}"')
    if ahead:
        yield named("thread_name", ACCELERATOR, '"name":"accelerator"')


def named(kind: str, lane: Lane, args: str) -> str:
    """What a lane is called, or where it stands."""
    return f'{{"ph":"M","name":"{kind}","pid":{lane.pid},"tid":{lane.tid},"args":{{{args}}}}}'


def _main(trace: Trace, ahead: bool) -> Iterator[str]:
    """What the training loop does: `iter()`, waits, steps, and the `next()` that finds the end."""
    epochs, lane = trace.epochs, ACCELERATOR if ahead else MAIN
    next_name = WITH_WORKERS if metrics.worker_count(trace) else WITHOUT_WORKERS
    number = (f'"epoch":{epoch}' for epoch in range(len(epochs.first)))
    yield from _slices(ITER, "dataloader", MAIN, epochs.started, epochs.primed, number)
    free = -np.inf
    for part in parts(0, len(trace.order)):
        order = trace.order[part]
        returned, finished = trace.returned[order], trace.finished[order]
        about = [f'"batch":{batch}' for batch in order.tolist()]
        yield from _slices(next_name, "dataloader", MAIN, trace.requested[order], returned, about)
        before = np.fmax.accumulate(np.append(free, finished))
        began = np.maximum(returned, before[:-1])
        yield from _slices("step", "training", lane, began, finished, about)
        free = float(before[-1])
    last, ended = _last_next(trace, trace.returned if ahead else trace.finished)
    yield from _slices(next_name, "dataloader", MAIN, last, ended, [""] * len(last))


def _last_next(trace: Trace, free: Floats) -> tuple[Floats, Floats]:
    """Begin and end of the `next()` that found the end, of epochs that were not left early.

    `free`: when the loop could go on, for each batch.
    """
    epochs = np.arange(len(trace.epochs.first))
    last, left = np.full(len(epochs), -np.inf), np.zeros(len(epochs), bool)
    for part in parts(0, len(trace.order)):
        order = trace.order[part]
        np.fmax.at(last, trace.epoch_of(order), free[order])
    for part in parts(0, len(trace)):
        pending = part.start + np.flatnonzero(trace.status[part] == PENDING)
        left[trace.epoch_of(pending)] = True
    whole = np.isfinite(last) & ~left
    last, ended = last[whole], trace.epochs.ended[whole]
    for began in metrics.validations(trace)[0]:  # which may come before the epoch is over
        ended = np.where((last <= began) & (began < ended), began, ended)
    return last, ended


def _fetches(trace: Trace) -> Iterator[str]:
    begins, ends = trace.started, _ends(trace)
    for worker in _fetchers(trace.worker):
        mine = _numbers(trace.worker, worker)
        mine = mine[~np.isnan(begins[mine])]
        mine = mine[np.argsort(begins[mine], kind="stable")]
        for part in parts(0, len(mine)):
            some, following = mine[part], mine[part.start + 1 : part.stop + 1]
            # one at a time, whatever rounding or a clock says
            until = np.append(begins[following], np.inf)[: len(some)]
            args = (
                f'"batch":{batch},"size":{size}'
                for batch, size in zip(some.tolist(), trace.size[some].tolist(), strict=True)
            )
            until = np.minimum(ends[some], until)
            yield from _slices("fetch", "worker", _worker(worker), begins[some], until, args)


def _ends(trace: Trace) -> Floats:
    """When the fetching of each batch ended."""
    found: Floats = new_column(len(trace))
    for part in parts(0, len(trace)):
        found[part] = metrics.fetches(trace, part)[1]
    return found


def _fetchers(workers: NDArray[np.int32]) -> list[int]:
    """All that there are among these, in order."""
    found: set[int] = set()
    for part in parts(0, len(workers)):
        found.update(distinct_values(workers[part]).tolist())
    return sorted(found)


def _numbers(workers: NDArray[np.int32], worker: int) -> Integers:
    """Where this one is among these."""
    found = [p.start + np.flatnonzero(workers[p] == worker) for p in parts(0, len(workers))]
    return np.concatenate(found)


def _samples(trace: Trace) -> Iterator[str]:
    """Each sample, within the fetching of its batch."""
    rows = trace.samples
    if rows is None:
        return
    begins, ends = trace.started, _ends(trace)
    for worker in _fetchers(rows.worker):
        for part in parts(0, len(rows.batch)):
            mine = part.start + np.flatnonzero(rows.worker[part] == worker)
            batch, began = rows.batch[mine], rows.started[mine]
            until = np.minimum(rows.fetched[mine], ends[batch])
            inside = (began >= begins[batch]) & (began <= until)
            args = (f'"index":{index}' for index in rows.index[mine[inside]].tolist())
            lane = _worker(worker)
            yield from _slices("sample", "sample", lane, began[inside], until[inside], args)


def _slices(
    name: str, cat: str, lane: Lane, begins: Floats, ends: Floats, args: Iterable[str]
) -> Iterator[str]:
    """Complete events; none for an interval of which begin or end is not known."""
    head = f'{{"ph":"X","cat":"{cat}","name":"{name}","pid":{lane.pid},"tid":{lane.tid},"ts":'
    for begin, end, about in zip(nanoseconds(begins), nanoseconds(ends), args, strict=True):
        if begin is not None and end is not None:
            lasted = max(end - begin, 0)
            yield f'{head}{begin / 1000:.3f},"dur":{lasted / 1000:.3f},"args":{{{about}}}}}'


def _lives(trace: Trace) -> Iterator[str]:
    """Every batch from its sending to the end of its step, with arrows; and every epoch."""
    for part in parts(0, len(trace)):
        begins = np.fmin(trace.started[part], trace.requested[part])
        begins = np.fmin(trace.sent[part], begins)
        finished = trace.finished[part]
        ends = np.where(np.isnan(finished), stays.given_back(trace, part), finished)
        there = np.flatnonzero(~np.isnan(begins))
        yield from _async("batch", part.start + there, begins[there], ends[there])
    epochs = trace.epochs
    last = np.where(np.isnan(epochs.ended), metrics.span(trace)[1], epochs.ended)
    yield from _async("epoch", np.arange(len(epochs.first)), epochs.started, last)
    for part in parts(0, len(trace)):
        yield from _arrows(trace, part)


def _arrows(trace: Trace, part: slice) -> Iterator[str]:
    """From the sending of each batch to its worker, and to its return."""
    columns = (trace.sent[part], trace.started[part], trace.returned[part])
    moments = zip(*map(nanoseconds, columns), trace.worker[part].tolist(), strict=True)
    for number, (sent, started, returned, worker) in enumerate(moments, part.start):
        if sent is None or started is None or worker < 0:
            continue
        yield _flow("s", number, MAIN, sent)
        yield _flow("t" if returned is not None else "f", number, _worker(worker), started)
        if returned is not None:
            yield _flow("f", number, MAIN, returned)


def _async(kind: str, numbers: Integers, begins: Floats, ends: Floats) -> Iterator[str]:
    head = f'"cat":"{kind}","pid":{MAIN.pid},"tid":{MAIN.tid}'
    for number, begin, end in zip(
        numbers.tolist(), nanoseconds(begins), nanoseconds(ends), strict=True
    ):
        if begin is None or end is None:
            continue
        event = f'"name":"{kind} {number}","id":"{number}",{head},"ts":'
        yield f'{{"ph":"b",{event}{begin / 1000:.3f}}}'
        yield f'{{"ph":"e",{event}{max(begin, end) / 1000:.3f}}}'


def _flow(phase: str, number: int, lane: Lane, ns: int) -> str:
    bind = ',"bp":"e"' if phase == "f" else ""  # to the slice around it, not to the next one
    return (
        f'{{"ph":"{phase}","cat":"batch","name":"batch","id":{number}{bind},'
        f'"pid":{lane.pid},"tid":{lane.tid},"ts":{ns / 1000:.3f}}}'
    )


def _counters(trace: Trace) -> Iterator[str]:
    found = []
    if metrics.observed(trace, trace.arrived):
        found.append(("ready", stays.ready(trace)))
    if metrics.observed(trace, trace.sent):
        found.append(("credit", stays.under_way(trace)))
    for name, stay in found:
        head = f'{{"ph":"C","cat":"{name}","name":"{name}","pid":{MAIN.pid},"tid":{MAIN.tid},"ts":'
        for times, counts in stays.steps_of(trace, stay):
            for ns, count in zip(nanoseconds(times), counts.tolist(), strict=True):
                if ns is not None:
                    yield f'{head}{ns / 1000:.3f},"args":{{"batches":{count}}}}}'


def nanoseconds(seconds: Floats) -> list[int | None]:
    """Whole nanoseconds, which keep order and nesting exactly; None for what is not known."""
    return [None if s != s else s for s in np.rint(seconds * 1e9).tolist()]
