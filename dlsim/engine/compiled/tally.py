"""Metrics of a run in order, taken while its batches finish, in compiled code.

A level (batches ready, samples in them, batches held) is highest just before a batch is returned:
it is as many as have come so far, less those that are back. So it is enough to know, for each
batch, the first return after it has come. A return is `settled` when no batch to come can have come
before it. Batches sent and not back fill the window when first any time has passed.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.counting import FIRST_STRIDE
from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.compiled.messages import (
    FETCHED_AT,
    FINISHED,
    RECEIVED,
    REQUESTED,
    RETURNED_AT,
    STARTED,
)
from dlsim.engine.compiled.recurrence import (
    Course,
    Integers,
    advance,
    count_later,
    new_course,
    read,
    read_block,
)
from dlsim.engine.draws import Floats
from dlsim.engine.native.arrays import Table, bits_of, reader
from dlsim.trace.tally import EXPONENTS, FINEST, KEPT, MOST_MARKS, PARTS

BUFFER, SAMPLES, HELD = range(3)  # levels: batches ready, samples in them, batches held
BITS = 52 - (PARTS.bit_length() - 1)  # of a float that do not matter for its class

SUMS = np.dtype(
    [
        ("batches", "i8"),
        ("requested", "f8"),  # the first batch,
        ("first", "f8"),  # and when it was returned
        ("samples", "i8"),
        ("held", "i8"),
        ("wait", "f8"),
        ("step", "f8"),
        ("buffer", "f8"),
        ("head_of_line", "f8"),
        ("credit", "i8"),  # most batches that were sent and not returned
        ("accelerator", "f8"),  # when it had done the last step
        ("lined", "i8"),  # the first batch whose head of line is not yet looked at
        # Of the epoch:
        ("marks", "i8"),
        ("stride", "i8"),
        ("next_mark", "i8"),
        ("waited", "f8"),
        ("stepped", "f8"),
        ("returned", "i8"),  # samples
        ("idle", "i8"),  # batches returned before any time had passed
    ]
)


class Counts(NamedTuple):
    """The arrays of a tally in the making. `sums` has one row."""

    sums: NDArray[Any]
    busy: Floats  # seconds of each worker
    ready: Integers  # of some batches, at how many of the last returns they are ready,
    held: Integers  # and held
    come: Integers  # a row for each level, a column for each of the next returns, a ring
    level: Integers  # each level just after the last return that is settled,
    highest: Integers  # and the highest just before one, so far
    waits: Floats
    classes: Integers
    marks: Floats  # rows: time, waited, stepped, samples; and behind them the end of an epoch


def new_counts(course: Course, batches: int) -> Counts:
    """The counts of nothing so far, for a run of so many batches."""
    piece = len(course.later)
    ring = 1 << (piece + int(course.main["window"][0])).bit_length()
    sums = np.zeros(1, SUMS)
    sums["accelerator"], sums["requested"], sums["first"] = -inf, nan, nan
    ready, held = np.empty((2, piece), np.int64)
    few = batches <= KEPT
    return Counts(
        sums=sums,
        busy=np.zeros(len(course.free)),
        ready=ready,
        held=held,
        come=np.zeros((3, ring), np.int32),
        level=np.zeros(3, np.int64),
        highest=np.zeros(3, np.int64),
        waits=np.empty(batches if few else 0),
        classes=np.zeros(1 if few else PARTS * EXPONENTS + 1, np.int64),
        marks=np.empty((4, min(batches, MOST_MARKS) + 1)),
    )


# In compiled code: the arrays of which a table is at an address.
read_counts = reader(new_counts(new_course(1, 1, 0, 1), 0))


@compiled
def count(course: Table, counts: Table, drawn: Table, last: bool) -> None:
    """Schedule the next batches, as `schedule` does, and take them in; `last` of the epoch?"""
    c, t, d = read(course), read_counts(counts), read_block(drawn)
    for done in range(0, len(d.steps), len(c.later)):
        some = advance(c, d, done)
        take_in(c, t, c.main[0].next - some, last and done + some == len(d.steps))


@inlined
def take_in(c: Course, t: Counts, begin: int, last: bool) -> None:
    """Take in the batches from `begin` on, with which the epoch ends if they are the `last`."""
    m, s = c.main[0], t.sums[0]
    started, arrived, received = c.moments[STARTED], c.moments[FETCHED_AT], c.moments[RECEIVED]
    requested = c.moments[REQUESTED]
    returned, finished = c.moments[RETURNED_AT], c.moments[FINISHED]
    base, first, window, end = m.base, m.first, m.window, m.next
    if begin == first:
        s.marks = s.next_mark = s.returned = s.idle = 0
        s.stride = FIRST_STRIDE
        s.waited = s.stepped = 0.0
        s.lined = first
    if begin == 0:
        s.requested, s.first = requested[-base], returned[-base]
    waited, stepped, samples, accelerator = s.waited, s.stepped, s.returned, s.accelerator
    wait = step = buffer = before = 0.0
    for k in range(begin, end):
        at = k - base
        own = returned[at] - requested[at]
        note_wait(t, k, own)
        wait += own
        waited += own
        samples += c.size[at]
        before = stepped - max(accelerator - returned[at], 0.0)
        if k - first == s.next_mark:
            mark(t, returned[at], waited, before, samples)
        computed = finished[at] - max(returned[at], accelerator)
        stepped += computed
        step += computed
        accelerator = max(finished[at], accelerator)
        buffer += returned[at] - arrived[at]
        t.busy[c.worker[at]] += arrived[at] - started[at]
        s.held += received[at] < requested[at]
    s.batches += end - begin
    s.wait += wait
    s.step += step
    s.buffer += buffer
    s.waited, s.stepped, s.returned, s.accelerator = waited, stepped, samples, accelerator
    while begin <= first + s.idle < end and returned[first + s.idle - base] == m.primed:
        s.idle += 1
    levels(c, t, begin, last)
    head_of_line(c, t, end if last else end - window)
    if last:
        at = end - 1 - base
        write(t, returned[at], waited, before, samples)
        s.samples += samples
        s.credit = max(s.credit, min(window, end - first - s.idle))


@inlined
def levels(c: Course, t: Counts, begin: int, last: bool) -> None:
    """Take in when the batches from `begin` on came, and settle what can be."""
    m, bits = c.main[0], t.come.shape[1] - 1
    returned, low, high = c.moments[RETURNED_AT], begin - m.base, m.next - m.base
    count_later(t.ready, returned, low, c.moments[FETCHED_AT][low:high], m.window)
    count_later(t.held, returned, low, c.moments[RECEIVED][low:high], m.window)
    for i in range(high - low):
        ready, held = begin + i + 1 - t.ready[i], begin + i + 1 - t.held[i]
        t.come[BUFFER, ready & bits] += 1
        t.come[SAMPLES, ready & bits] += c.size[low + i]
        t.come[HELD, held & bits] += 1
    settled = m.next if last else m.next - m.window + 1
    for level in range(3):
        now, highest = t.level[level], t.highest[level]
        for k in range(max(begin - m.window + 1, m.first), settled):
            now += t.come[level, k & bits]
            t.come[level, k & bits] = 0
            highest = max(highest, now)
            now -= c.size[k - m.base] if level == SAMPLES else 1
        t.level[level], t.highest[level] = now, highest
        if last:  # batches that were ready only at their own return
            t.level[level] = t.come[level, m.next & bits] = 0


@inlined
def note_wait(t: Counts, k: int, wait: float) -> None:
    """Keep a wait, or count it in its class.

    The bits of a float are its exponent and what it is beyond that power of two: without the last
    `BITS` of them, they count the classes.
    """
    if len(t.waits) > 0:
        t.waits[k] = wait
        return
    number = (bits_of(wait) >> BITS) - (1023 + FINEST) * PARTS + 1
    t.classes[min(max(number, 0), len(t.classes) - 1)] += 1


@inlined
def mark(t: Counts, now: float, waited: float, stepped: float, samples: int) -> None:
    """Write down where the epoch stands; if there is no room, drop every other mark."""
    s = t.sums[0]
    if s.marks == t.marks.shape[1] - 1:
        s.marks //= 2
        for row in range(4):
            for i in range(s.marks):
                t.marks[row, i] = t.marks[row, 2 * i]
        s.stride *= 2
    write(t, now, waited, stepped, samples)
    s.marks += 1
    s.next_mark += s.stride


@inlined
def write(t: Counts, now: float, waited: float, stepped: float, samples: int) -> None:
    """Write a mark behind those that there are."""
    at = t.sums[0].marks
    t.marks[0, at], t.marks[1, at], t.marks[2, at] = now, waited, stepped
    t.marks[3, at] = samples


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
