"""Metrics of a run in order, taken while its batches finish, in compiled code.

A level (batches ready, sent, or held) is highest just before a batch is returned. So it is
enough to know, for each batch, the first return after it has come: it counts from that return on
to its own. A return is `settled` when no batch to come can still count at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import frexp, inf, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.arrays import columns
from dlsim.engine.compiled.in_order import InOrder
from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.compiled.messages import (
    FETCHED_AT,
    FINISHED,
    RECEIVED,
    REQUESTED,
    RETURNED_AT,
    SENT_AT,
    STARTED,
)
from dlsim.engine.compiled.recurrence import Course, Integers
from dlsim.engine.draws import Floats
from dlsim.scenario import Scenario
from dlsim.trace.tally import EXPONENTS, FINEST, KEPT, MOST_MARKS, PARTS, Marks, Tally

AT_ONCE = 32  # times that are compared one by one

BUFFER, SAMPLES, CREDIT, HELD = range(4)  # levels: batches ready, samples in them, ...

SUMS = np.dtype(
    [
        ("batches", "i8"),
        ("samples", "i8"),
        ("held", "i8"),
        ("wait", "f8"),
        ("step", "f8"),
        ("buffer", "f8"),
        ("head_of_line", "f8"),
        ("accelerator", "f8"),  # when it had done the last step
        ("lined", "i8"),  # the first batch whose head of line is not yet looked at
        # Of the epoch:
        ("marks", "i8"),
        ("stride", "i8"),
        ("next_mark", "i8"),
        ("waited", "f8"),
        ("stepped", "f8"),
        ("returned", "i8"),  # samples
    ]
)


class Counts(NamedTuple):
    """The arrays of a tally in the making. `sums` has one row."""

    sums: NDArray[Any]
    busy: Floats  # seconds of each worker
    changes: Integers  # a row for each of the next returns, a ring; a column for each level
    level: Integers  # each level just before the last return that is settled,
    highest: Integers  # and the highest so far
    waits: Floats
    classes: Integers
    marks: Floats  # rows: time, waited, stepped, samples; with room for one at the end


def new_counts(workers: int, ring: int, batches: int) -> Counts:
    """The counts of nothing so far, for a run of so many batches, with `ring` returns to come."""
    sums = np.zeros(1, SUMS)
    sums["accelerator"] = -inf
    few = batches <= KEPT
    return Counts(
        sums=sums,
        busy=np.zeros(workers),
        changes=np.zeros((ring, 4), np.int64),
        level=np.zeros(4, np.int64),
        highest=np.zeros(4, np.int64),
        waits=np.empty(batches if few else 0),
        classes=np.zeros(1 if few else PARTS * EXPONENTS + 1, np.int64),
        marks=np.empty((4, min(batches, MOST_MARKS) + 1)),
    )


@compiled
def count(course: Course, counts: Counts, begin: int, last: bool) -> None:
    """Take in the batches from `begin` on, with which the epoch ends if they are the `last`."""
    c, t = columns(course), columns(counts)
    m, s, bits = c.main[0], t.sums[0], len(t.changes) - 1
    sent, started, arrived = c.moments[SENT_AT], c.moments[STARTED], c.moments[FETCHED_AT]
    received, requested = c.moments[RECEIVED], c.moments[REQUESTED]
    returned, finished = c.moments[RETURNED_AT], c.moments[FINISHED]
    base, first, window, end = m.base, m.first, m.window, m.next
    waited = stepped = buffered = 0.0
    if begin == first:
        s.marks = s.next_mark = s.returned = 0
        s.stride = 5
        s.waited = s.stepped = 0.0
        s.lined = first
    for k in range(begin, end):
        at, low = k - base, max(k - window + 1, first) - base
        wait = returned[at] - requested[at]
        step = finished[at] - returned[at]
        note_wait(t, k, wait)
        s.waited += wait
        s.returned += c.size[at]
        if k - first == s.next_mark:
            mark(t, returned[at])
        s.stepped += step
        waited += wait
        stepped += finished[at] - max(returned[at], s.accelerator)
        s.accelerator = max(s.accelerator, finished[at])
        buffered += returned[at] - arrived[at]
        t.busy[c.worker[at]] += arrived[at] - started[at]
        if received[at] < requested[at]:
            s.held += 1
            counts_from(t, HELD, first_after(returned, low, at, received[at]), at, k, 1)
        call = first_after(returned, low, at, arrived[at])
        counts_from(t, BUFFER, call, at, k, 1)
        counts_from(t, SAMPLES, call, at, k, c.size[at])
        counts_from(t, CREDIT, after(returned, low, at, sent[at]), at, k, 1)
        if k - window + 1 >= first:
            settle(t, (k - window + 1) & bits)
    s.batches += end - begin
    s.wait += waited
    s.step += stepped
    s.buffer += buffered
    head_of_line(c, t, end if last else end - window)
    if last:
        s.samples += s.returned
        for k in range(max(end - window + 1, first), end + 1):
            settle(t, k & bits)


@inlined
def note_wait(t: Counts, k: int, wait: float) -> None:
    """Keep a wait, or count it in its class."""
    if len(t.waits) > 0:
        t.waits[k] = wait
        return
    number = 0
    if wait > 0:
        part, exponent = frexp(wait)  # part is at least a half
        number = (exponent - 1 - FINEST) * PARTS + int((2 * part - 1) * PARTS) + 1
    t.classes[min(max(number, 0), len(t.classes) - 1)] += 1


@inlined
def mark(t: Counts, now: float) -> None:
    """Write down where the epoch stands; if there is no room, drop every other mark."""
    s = t.sums[0]
    if s.marks == t.marks.shape[1] - 1:
        s.marks //= 2
        for row in range(4):
            for i in range(s.marks):
                t.marks[row, i] = t.marks[row, 2 * i]
        s.stride *= 2
    t.marks[0, s.marks] = now
    t.marks[1, s.marks] = s.waited
    t.marks[2, s.marks] = s.stepped
    t.marks[3, s.marks] = s.returned
    s.marks += 1
    s.next_mark += s.stride


@inlined
def counts_from(t: Counts, level: int, call: int, at: int, k: int, many: int) -> None:
    """Batch `k`, in column `at`, counts as `many` at the returns from `call` to its own."""
    if call <= at:
        bits = len(t.changes) - 1
        t.changes[(k - at + call) & bits, level] += many
        t.changes[(k + 1) & bits, level] -= many


@inlined
def settle(t: Counts, at: int) -> None:
    """Nothing more will count at the return in column `at` of the ring."""
    for level in range(4):
        t.level[level] += t.changes[at, level]
        t.changes[at, level] = 0
        t.highest[level] = max(t.highest[level], t.level[level])


@inlined
def after(column: Floats, low: int, high: int, time: float) -> int:
    """The first from `low` to `high` that is later than `time`, where few are not."""
    while low <= high and column[low] <= time:
        low += 1
    return low


@inlined
def first_after(column: Floats, low: int, high: int, time: float) -> int:
    """The same for a `column` that ascends: by halving, and the last few are counted.

    A processor counts several at a time, but does not guess which half it will be.
    """
    while high - low >= AT_ONCE:
        half = (low + high) // 2
        if column[half] > time:
            high = half - 1
        else:
            low = half + 1
    earlier = 0
    for at in range(low, high + 1):
        earlier += column[at] <= time
    return low + earlier


@inlined
def head_of_line(c: Course, t: Counts, until: int) -> None:
    """Add what batches before `until` were waited for while a later one had arrived."""
    m, s = c.main[0], t.sums[0]
    arrived, requested = c.moments[FETCHED_AT], c.moments[REQUESTED]
    later, lost = inf, 0.0
    for k in range(m.next - 1, s.lined - 1, -1):
        at = k - m.base
        if k < until:
            lost += max(arrived[at] - max(requested[at], later), 0.0)
        later = min(later, arrived[at])
    s.head_of_line += lost
    s.lined = max(s.lined, until)


def tallies(scenario: Scenario, seeds: Iterable[int]) -> Iterator[Tally]:
    """The tallies of a scenario that suits the recurrence, under each of the `seeds`."""
    run = InOrder(scenario, keep=False)
    for seed in seeds:
        yield tally(run, seed)


def tally(run: InOrder, seed: int) -> Tally:
    """The tally of the run under `seed`."""
    counts, marks = new_counts(len(run.course.free), len(run.course.taken_in), run.total), []
    first = [nan, nan]  # when the first batch was requested, and returned
    for begin, last in run.run(seed):
        if begin == 0:
            first = [float(run.course.moments[moment, 0]) for moment in (REQUESTED, RETURNED_AT)]
        count(run.course, counts, begin, last)
        if last:
            marks.append(marks_of(run.course, counts))
    sums, size = counts.sums[0], run.scenario.dataset.sample_bytes.mean
    waits = np.sort(counts.waits) if len(counts.waits) == run.total else None
    started, _, ended = np.array(run.moments).T
    return Tally(
        batches=int(sums["batches"]),
        samples=int(sums["samples"]),
        elapsed=float(ended[-1] - started[0]),
        first_batch=first[1] - float(started[0]),
        epoch_times=ended - started,
        wait_first=first[1] - first[0],
        wait=float(sums["wait"]),
        step=float(sums["step"]),
        waits=waits,
        classes=counts.classes,
        buffer=float(sums["buffer"]),
        buffer_max=int(counts.highest[BUFFER]),
        buffer_bytes=float(counts.highest[SAMPLES]) * size if size else nan,
        credit_max=int(counts.highest[CREDIT]),
        held=int(sums["held"]),
        held_max=int(counts.highest[HELD]),
        head_of_line=float(sums["head_of_line"]),
        busy=counts.busy,
        marks=tuple(marks),
    )


def marks_of(course: Course, counts: Counts) -> Marks:
    """The marks of the epoch that has just ended."""
    sums, main = counts.sums[0], course.main[0]
    at = int(main["next"] - main["base"]) - 1
    returned, finished = course.moments[RETURNED_AT, at], course.moments[FINISHED, at]
    made = counts.marks[:, : sums["marks"] + 1].copy()
    last = (returned, sums["waited"], sums["stepped"] - (finished - returned), sums["returned"])
    made[:, -1] = last
    time, waited, stepped, samples = made
    batches = int(main["next"] - main["first"])
    return Marks(int(sums["stride"]), batches, time, waited, stepped, samples)
