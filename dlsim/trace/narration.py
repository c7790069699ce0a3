"""Everything that happened, in words: a line for each event, in order.

Of what happens at one moment, the window that is sent before the first `next()` comes first; all
else is in the order of the event log (`dlsim.trace.log`). Lines are made some at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dlsim.scenario.units import duration
from dlsim.trace.columns import distinct_values, parts
from dlsim.trace.stays import horizons
from dlsim.trace.trace import (
    DISCARDED,
    ENDED,
    FAILED,
    MOMENTS,
    SKIPPED,
    Floats,
    Integers,
    Trace,
)

SHOWN_ROWS = 8

# How each kind of event is told, and what is put where. The first are the moments of a batch.
WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sent": ("batch %d is sent to %s", ("batch", "who")),
    "started": ("%s begins batch %d", ("who", "batch")),
    "fetched": ("%s fetched batch %d (%s)", ("who", "batch", "rows")),
    "arrived": ("batch %d arrives from %s", ("batch", "who")),
    "received": ("batch %d is received", ("batch",)),
    "requested": ("next() is called, for batch %d", ("batch",)),
    "returned": ("next() returns batch %d%s", ("batch", "after")),
    "finished": ("the step on batch %d ends", ("batch",)),
    "nothing": ("%s has nothing more: no batch %d", ("who", "batch")),
    "heard": ("the main process hears that %s has nothing more", ("who",)),
    "exception": ("the exception of batch %d arrives from %s", ("batch", "who")),
    "discarded": ("batch %d is received, and discarded", ("batch",)),
    "sample": ("%s begins row %d of batch %d", ("fetcher", "index", "of")),
    "begins": ("epoch %d begins", ("batch",)),
    "ends": ("epoch %d ends", ("batch",)),
}
KINDS = list(WORDS)
# Moments of what came to nothing are told in other words.
OTHERWISE = {
    (ENDED, "arrived"): "nothing",
    (SKIPPED, "arrived"): "nothing",
    (FAILED, "arrived"): "exception",
    (ENDED, "received"): "heard",
    (SKIPPED, "received"): "heard",
    (DISCARDED, "received"): "discarded",
}
# What comes first at one moment of an epoch.
BEGINS, WINDOW, AMIDST, ENDS = range(4)


class _Events(NamedTuple):
    """Some events: when, what comes first at one moment, an index into `KINDS`, and of which one.

    `which`: the batch; of a sample, its row in `trace.samples`; the epoch, where it begins or ends.
    """

    time: Floats
    rank: Integers
    kind: Integers
    which: Integers

    def of(self, which: Any) -> _Events:
        """Some of them, or in another order."""
        return _Events(*(column[which] for column in self))


def narrate(trace: Trace) -> Iterator[str]:
    """A readable line for each event: `"  3.000 s  worker 0 fetched batch 0 (rows 0 1 2)"`.

    Times have three decimals if all are whole milliseconds, else six. Where the trace has samples,
    the start of each is an event, too. An error that ended the loop is the last line.
    """
    for lines in narrated(trace):
        yield from lines


def narrated(trace: Trace) -> Iterator[list[str]]:
    """The same lines, some at a time."""
    problem, clock = trace.meta.problem, f"{_clock(trace)} s  "
    for events in _in_order(trace):
        lines = np.empty(len(events.time), object)
        times, at_once = np.unique(events.time, return_inverse=True)
        clocks = np.fromiter(map(clock.__mod__, times.tolist()), object, len(times))[at_once]
        for kind in distinct_values(events.kind).tolist():
            at = np.flatnonzero(events.kind == kind)
            text, columns = WORDS[KINDS[kind]]
            found = [COLUMNS[name](trace, events.which[at]) for name in columns]
            moments = zip(clocks[at].tolist(), *found, strict=True)
            lines[at] = np.fromiter(map(f"%s{text}".__mod__, moments), object, len(at))
        yield lines.tolist()
    if problem is not None:
        yield [f"{clock % problem.time}the loop ended: {problem.message}"]


def sentence(trace: Trace, kind: int, batch: int) -> str:
    """The moment `kind` (an index into `MOMENTS`) of a batch, in words."""
    which = np.array([batch])
    return _told(trace, _kinds(trace, which)[0, kind], which)


def sample_sentence(trace: Trace, row: int) -> str:
    """The beginning of the sample in `row` of `trace.samples`, in words."""
    return _told(trace, KINDS.index("sample"), np.array([row]))


def _told(trace: Trace, kind: int, which: Integers) -> str:
    text, columns = WORDS[KINDS[kind]]
    return text % tuple(COLUMNS[name](trace, which)[0] for name in columns)


def _clock(trace: Trace) -> str:
    """How times are written."""
    whole, last = True, 0.0
    ends = [trace.epochs.started, trace.epochs.ended]
    ends += [np.array([trace.meta.problem.time])] if trace.meta.problem is not None else []
    begun = [] if trace.samples is None else [trace.samples.started]
    columns = [*(getattr(trace, name) for name in MOMENTS), *ends, *begun]
    for column in columns:
        for part in parts(0, len(column)):
            moments = column[part][~np.isnan(column[part])]
            last = float(moments.max(initial=last))
            thousandths = moments * 1e3
            whole = whole and bool((np.abs(thousandths - np.round(thousandths)) < 1e-6).all())
    decimals = 3 if whole else 6
    return f"%{max(len(f'{last:.{decimals}f}'), decimals + 4)}.{decimals}f"


def _in_order(trace: Trace) -> Iterator[_Events]:
    """All events, some at a time: those before which nothing can come any more."""
    waiting = _of_epochs(trace)
    for part, later in zip(parts(0, len(trace)), horizons(trace, MOMENTS), strict=True):
        events = _together(waiting, _of_batches(trace, part))
        events = events.of(np.lexsort((events.rank, events.time)))
        known = int(np.searchsorted(events.time, later))
        yield events.of(slice(known))
        waiting = events.of(slice(known, None))
    yield waiting.of(np.lexsort((waiting.rank, waiting.time)))


def _together(*events: _Events) -> _Events:
    """All of them, one after another."""
    time, rank, kind, which = (np.concatenate(column) for column in zip(*events, strict=True))
    return _Events(time, rank, kind, which)


def _of_epochs(trace: Trace) -> _Events:
    """When each epoch begins and ends."""
    epochs, number = trace.epochs, np.arange(len(trace.epochs.first))
    both = [
        _Events(time, 4 * number + rank, np.full(len(number), KINDS.index(kind)), number)
        for time, rank, kind in ((epochs.started, BEGINS, "begins"), (epochs.ended, ENDS, "ends"))
    ]
    events = _together(*both)
    return events.of(~np.isnan(events.time))


def _of_batches(trace: Trace, part: slice) -> _Events:
    """All that is known of some batches, by batch and place in its life."""
    numbers = np.arange(part.start, part.stop)
    epoch = trace.epoch_of(numbers)
    times = np.column_stack([getattr(trace, name)[part] for name in MOMENTS])
    rank = np.tile((4 * epoch + AMIDST)[:, None], (1, len(MOMENTS)))
    rank[times[:, 0] <= trace.epochs.primed[epoch], 0] -= AMIDST - WINDOW
    which = np.repeat(numbers, len(MOMENTS))
    events = _Events(times.ravel(), rank.ravel(), _kinds(trace, numbers).ravel(), which)
    samples = trace.samples
    if samples is not None:
        first, end = np.searchsorted(samples.batch, [part.start, part.stop])
        rows, batch = np.arange(first, end), samples.batch[first:end]
        started = MOMENTS.index("started")
        behind = (batch - part.start) * len(MOMENTS) + started + 1
        kind = np.full(len(rows), KINDS.index("sample"))
        begun = samples.started[first:end], 4 * trace.epoch_of(batch) + AMIDST, kind, rows
        events = _Events(
            *(np.insert(column, behind, more) for column, more in zip(events, begun, strict=True))
        )
    return events.of(~np.isnan(events.time))


def _kinds(trace: Trace, batches: Integers) -> Integers:
    """For each moment of each batch, how it is told, as an index into `KINDS`."""
    found = np.tile(np.arange(len(MOMENTS)), (len(batches), 1))
    status = trace.status[batches]
    for (fate, moment), kind in OTHERWISE.items():
        found[status == fate, MOMENTS.index(moment)] = KINDS.index(kind)
    return found


def _names(workers: Any) -> list[str]:
    """What workers are called."""
    names = {number: f"worker {number}" for number in distinct_values(workers).tolist()}
    names[-1] = "the main process"
    return [names[number] for number in workers.tolist()]


def _rows(trace: Trace, batches: Integers) -> list[str]:
    """The dataset indices of each batch, if the trace has its samples; else how many there are."""
    samples = trace.samples
    if samples is None:
        sizes = trace.size[batches].tolist()
        return [f"{size} {'row' if size == 1 else 'rows'}" for size in sizes]
    begins, ends = (np.searchsorted(samples.batch, batches, side) for side in ("left", "right"))
    first = int(begins.min())
    indices = samples.index[first : int(ends.max())].tolist()
    found = []
    for begin, end in zip((begins - first).tolist(), (ends - first).tolist(), strict=True):
        shown = " ".join(map(str, indices[begin : min(end, begin + SHOWN_ROWS)]))
        found.append(
            f"rows {shown}" + (f" ... {indices[end - 1]}" if end - begin > SHOWN_ROWS else "")
        )
    return found


def _after(trace: Trace, batches: Integers) -> list[str]:
    """How long each batch was waited for, if it was."""
    waits = (trace.returned[batches] - trace.requested[batches]).tolist()
    return [f", after {duration(wait)}" if wait else "" for wait in waits]


def _sample(name: str) -> Callable[[Trace, Integers], Any]:
    return lambda trace, rows: getattr(trace.samples, name)[rows]


COLUMNS: dict[str, Callable[[Trace, Integers], list[Any]]] = {
    "batch": lambda trace, which: which.tolist(),
    "who": lambda trace, which: _names(trace.worker[which]),
    "rows": _rows,
    "after": _after,
    "fetcher": lambda trace, rows: _names(_sample("worker")(trace, rows)),
    "index": lambda trace, rows: _sample("index")(trace, rows).tolist(),
    "of": lambda trace, rows: _sample("batch")(trace, rows).tolist(),
}
