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

Slices of one lane never overlap, but may nest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlsim.trace import metrics, stays
from dlsim.trace.chrome_format import (
    Lane,
    check_name,
    counts,
    flow,
    named,
    nanoseconds,
    slices,
    spans,
    write_events,
)
from dlsim.trace.columns import distinct_values, new_column, parts
from dlsim.trace.trace import PENDING, Floats, Integers, Trace

WITH_WORKERS = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
WITHOUT_WORKERS = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
ITER = "iter(DataLoader)"

MAIN, ACCELERATOR = Lane(1, 1), Lane(1, 2)
_NUMBER = re.compile(r'("(?:pid|tid|sort_index|id)":"?)(\d+)')
BESIDE = 10_000_000  # what lanes and batches of validation are numbered from
BARRIER = 3  # the thread of a rank's process in which it waits for others


def write_chrome(trace: Trace, path: str | Path) -> None:
    """Write `trace` to `path` as Chrome Trace Event JSON, compressed if it ends in `.json.gz`.

    The file appears whole or not at all. Raises `TraceError` when it cannot be written, or ends
    in neither `.json` nor `.json.gz`.
    """
    path = Path(path)
    check_name(path)
    write_events(path, _about(trace), events_of(trace))


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


def _main(trace: Trace, ahead: bool) -> Iterator[str]:
    """What the training loop does: `iter()`, waits, steps, and the `next()` that finds the end."""
    epochs, lane = trace.epochs, ACCELERATOR if ahead else MAIN
    next_name = WITH_WORKERS if metrics.worker_count(trace) else WITHOUT_WORKERS
    number = (f'"epoch":{epoch}' for epoch in range(len(epochs.first)))
    yield from slices(ITER, "dataloader", MAIN, epochs.started, epochs.primed, number)
    free = -np.inf
    for part in parts(0, len(trace.order)):
        order = trace.order[part]
        returned, finished = trace.returned[order], trace.finished[order]
        about = [f'"batch":{batch}' for batch in order.tolist()]
        yield from slices(next_name, "dataloader", MAIN, trace.requested[order], returned, about)
        before = np.fmax.accumulate(np.append(free, finished))
        began = np.maximum(returned, before[:-1])
        yield from slices("step", "training", lane, began, finished, about)
        free = float(before[-1])
    last, ended = _last_next(trace, trace.returned if ahead else trace.finished)
    yield from slices(next_name, "dataloader", MAIN, last, ended, [""] * len(last))


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
            yield from slices("fetch", "worker", _worker(worker), begins[some], until, args)


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
            yield from slices("sample", "sample", lane, began[inside], until[inside], args)


def _lives(trace: Trace) -> Iterator[str]:
    """Every batch from its sending to the end of its step, with arrows; and every epoch."""
    for part in parts(0, len(trace)):
        begins = np.fmin(trace.started[part], trace.requested[part])
        begins = np.fmin(trace.sent[part], begins)
        finished = trace.finished[part]
        ends = np.where(np.isnan(finished), stays.given_back(trace, part), finished)
        there = np.flatnonzero(~np.isnan(begins))
        yield from spans("batch", MAIN, part.start + there, begins[there], ends[there])
    epochs = trace.epochs
    last = np.where(np.isnan(epochs.ended), metrics.span(trace)[1], epochs.ended)
    yield from spans("epoch", MAIN, np.arange(len(epochs.first)), epochs.started, last)
    for part in parts(0, len(trace)):
        yield from _arrows(trace, part)


def _arrows(trace: Trace, part: slice) -> Iterator[str]:
    """From the sending of each batch to its worker, and to its return."""
    columns = (trace.sent[part], trace.started[part], trace.returned[part])
    moments = zip(*map(nanoseconds, columns), trace.worker[part].tolist(), strict=True)
    for number, (sent, started, returned, worker) in enumerate(moments, part.start):
        if sent is None or started is None or worker < 0:
            continue
        yield flow("s", number, MAIN, sent)
        yield flow("t" if returned is not None else "f", number, _worker(worker), started)
        if returned is not None:
            yield flow("f", number, MAIN, returned)


def _counters(trace: Trace) -> Iterator[str]:
    found = []
    if metrics.observed(trace, trace.arrived):
        found.append(("ready", stays.ready(trace)))
    if metrics.observed(trace, trace.sent):
        found.append(("credit", stays.under_way(trace)))
    for name, stay in found:
        for times, numbers in stays.steps_of(trace, stay):
            yield from counts(name, MAIN, times, numbers)
