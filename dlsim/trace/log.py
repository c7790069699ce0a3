"""The event log: everything that happened, in order, as an array and as readable lines.

Events at one moment are ordered by batch number, then by their place in the batch's life (the
order of `MOMENTS`; the samples of a batch come after its `started`). An epoch begins before all
that happens in it at that moment, and ends after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.units import duration
from dlsim.trace.trace import DISCARDED, ENDED, FAILED, MOMENTS, SKIPPED, Trace

EVENT = np.dtype(
    [("time", np.float64), ("batch", np.int64), ("worker", np.int32), ("kind", np.uint8)]
)
_SHOWN_ROWS = 8

# Where a line of the narration comes from.
_LOG, _SAMPLE, _EPOCH_BEGINS, _EPOCH_ENDS = range(4)


def events(trace: Trace) -> NDArray[Any]:
    """The event log: a structured array of `time` (seconds), `batch`, `worker` and `kind`.

    `kind` is an index into `MOMENTS`. One entry for each moment that is not NaN, by time, then
    batch number, then place in the batch's life.
    """
    times = np.column_stack([getattr(trace, name) for name in MOMENTS])
    happened = ~np.isnan(times)
    batch, kind = np.nonzero(happened)
    times = times[happened]
    # by batch and place already, which a stable sort keeps among equal times
    by_time = np.argsort(times, kind="stable")
    log = np.empty(len(times), EVENT)
    log["time"] = times[by_time]
    log["batch"] = batch[by_time]
    log["worker"] = trace.worker[log["batch"]]
    log["kind"] = kind[by_time]
    return log


def narrate(trace: Trace) -> Iterator[str]:
    """A readable line for each event: `"  3.000 s  worker 0 fetched batch 0 (rows 0 1 2)"`.

    Of what happens at one moment, the window that is sent before the first `next()` comes first;
    all else is as in `events`. Times have three decimals if all are whole milliseconds, else six.
    Where the trace has samples, the start of each is an event, too. An error that ended the loop
    is the last line.
    """
    times, lines = _told(trace)
    problem = trace.meta.problem
    ends = np.append(times, problem.time if problem is not None else 0.0)
    decimals = 3 if np.all(np.abs(ends * 1e3 - np.round(ends * 1e3)) < 1e-6) else 6
    width = max(len(f"{ends.max():.{decimals}f}"), decimals + 4)
    for time, line in zip(times.tolist(), lines, strict=True):
        yield f"{time:{width}.{decimals}f} s  {line}"
    if problem is not None:
        yield f"{problem.time:{width}.{decimals}f} s  the loop ended: {problem.message}"


def _told(trace: Trace) -> tuple[NDArray[np.float64], Iterator[str]]:
    """When something happened, in order, and what, in words."""
    log, samples, epochs = events(trace), trace.samples, trace.epochs
    epoch = np.arange(len(epochs.first))
    after_all = len(trace)
    of_log = trace.epoch_of(log["batch"])
    sends = log["kind"] == MOMENTS.index("sent")
    primes = sends & (log["time"] <= epochs.primed[of_log])
    # columns: time, epoch, whether the window is there, batch, place in the batch's life; then
    # which line of which table
    parts: list[tuple[Any, ...]] = [
        (log["time"], of_log, ~primes, log["batch"], log["kind"], _LOG, log["batch"]),
        (epochs.started, epoch, 0, -1, 0, _EPOCH_BEGINS, epoch),
        (epochs.ended, epoch, 1, after_all, 0, _EPOCH_ENDS, epoch),
    ]
    if samples is not None:
        batch, row = samples.batch, np.arange(len(samples.batch))
        after_started = MOMENTS.index("started") + 0.5
        of_samples = trace.epoch_of(batch)
        parts.append((samples.started, of_samples, 1, batch, after_started, _SAMPLE, row))
    table = np.concatenate([np.column_stack(np.broadcast_arrays(*part)) for part in parts])
    table = table[~np.isnan(table[:, 0])]
    table = table[np.lexsort(table[:, 4::-1].T)]
    rows = rows_of(trace)

    def lines() -> Iterator[str]:
        for place, source, which in zip(
            table[:, 4], table[:, 5], table[:, 6].astype(np.int64), strict=True
        ):
            if source == _LOG:
                yield sentence(trace, int(place), which, rows)
            elif source == _SAMPLE:
                yield sample_sentence(trace, which)
            else:
                yield f"epoch {which} {'begins' if source == _EPOCH_BEGINS else 'ends'}"

    return table[:, 0], lines()


def rows_of(trace: Trace) -> NDArray[np.int64]:
    """Where the samples of each batch begin in `trace.samples`, and where the last ones end."""
    if trace.samples is None:
        return np.zeros(len(trace) + 1, np.int64)
    return np.searchsorted(trace.samples.batch, np.arange(len(trace) + 1))


def _name(worker: int) -> str:
    return "the main process" if worker < 0 else f"worker {worker}"


def sample_sentence(trace: Trace, row: int) -> str:
    """The beginning of the sample in `row` of `trace.samples`, in words."""
    samples = trace.samples
    assert samples is not None
    who, batch = _name(samples.worker[row]), samples.batch[row]
    return f"{who} begins row {samples.index[row]} of batch {batch}"


def sentence(trace: Trace, kind: int, batch: int, rows: NDArray[np.int64]) -> str:
    """The moment `kind` (an index into `MOMENTS`) of a batch, in words; `rows`: see `rows_of`."""
    who, status = _name(trace.worker[batch]), trace.status[batch]
    match MOMENTS[kind]:
        case "sent":
            return f"batch {batch} is sent to {who}"
        case "started":
            return f"{who} begins batch {batch}"
        case "fetched":
            return f"{who} fetched batch {batch} ({_rows(trace, batch, rows)})"
        case "arrived" if status in (ENDED, SKIPPED):
            return f"{who} has nothing more: no batch {batch}"
        case "arrived" if status == FAILED:
            return f"the exception of batch {batch} arrives from {who}"
        case "arrived":
            return f"batch {batch} arrives from {who}"
        case "received" if status in (ENDED, SKIPPED):
            return f"the main process hears that {who} has nothing more"
        case "received":
            thrown = ", and discarded" if status == DISCARDED else ""
            return f"batch {batch} is received{thrown}"
        case "requested":
            return f"next() is called, for batch {batch}"
        case "returned":
            wait = trace.returned[batch] - trace.requested[batch]
            return f"next() returns batch {batch}" + (f", after {duration(wait)}" if wait else "")
        case _:
            return f"the step on batch {batch} ends"


def _rows(trace: Trace, batch: int, begins: NDArray[np.int64]) -> str:
    """The dataset indices of a batch, if the trace has its samples; else how many there are."""
    size = trace.size[batch]
    if trace.samples is None:
        return f"{size} {'row' if size == 1 else 'rows'}"
    rows = trace.samples.index[begins[batch] : begins[batch + 1]]
    shown = " ".join(str(row) for row in rows[:_SHOWN_ROWS])
    return f"rows {shown}" + (f" ... {rows[-1]}" if len(rows) > _SHOWN_ROWS else "")
