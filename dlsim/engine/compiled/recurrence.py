"""In order from a map-style dataset, the whole schedule is one recurrence.

Batch k goes to worker k mod W, and is sent when batch k - K is returned, K being the window. Its
worker starts when it has both the indices and finished batch k - W, and the batch is returned
when it has arrived and the host is done with batch k - 1:

    started[k] = max(fetched[k - W], returned[k - K] + latency)
    fetched[k] = started[k] + its samples, one after another, + collate
    returned[k] = max(fetched[k], requested[k])

with requested[k] = returned[k - 1] + step (earlier by as many steps as the host runs ahead). When
a batch is received is not needed for that, but is part of the trace. `next()` takes messages in
the order of arrival until it has the one it wants, so batch k is received in the first `next()`,
since it was sent, that wants a later message; or in its own. The latest message that was wanted so
far ascends from call to call, and so do returns: what comes of a batch at which of them is a
matter of counting those that are later. No batch looks further back than the window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.compiled.jobs import Block
from dlsim.engine.compiled.messages import (
    FETCHED_AT,
    FINISHED,
    RECEIVED,
    REQUESTED,
    RETURNED_AT,
    SENT_AT,
    STARTED,
)
from dlsim.engine.draws import Floats
from dlsim.engine.native.arrays import Table, reader
from dlsim.engine.sums import after_equal_ones
from dlsim.trace.columns import new_column
from dlsim.trace.trace import MOMENTS

PIECE = 512  # batches, whose columns fit into a processor's first cache
after_alike = inlined(after_equal_ones)

AT_ONCE, WIDE = 16, 64  # values compared with a time; in wider windows not all are

Integers = NDArray[np.signedinteger[Any]]

MAIN_PROCESS = np.dtype(
    [
        ("window", "i8"),
        ("run_ahead", "i8"),
        ("latency", "f8"),
        ("round_trip", "f8"),
        ("batched", "?"),
        ("base", "i8"),  # number of the first batch in the columns
        ("first", "i8"),  # and in the epoch
        ("next", "i8"),  # and of those to come
        ("primed", "f8"),
        ("now", "f8"),  # when next() is called
        ("accelerator", "f8"),  # when it has done all steps given to it
    ]
)


class Course(NamedTuple):
    """The arrays of one simulation. `main` has one row."""

    main: NDArray[Any]
    free: Floats  # when each worker is
    taken_in: Integers  # the call that received each of the last batches, a ring
    # For a piece that is scheduled, and the window before it: when the latest message arrived that
    # each call and those before it wanted; and for the piece, how many of these are later
    latest: Floats
    later: Integers
    # One column for each batch number, from `base` on; when it arrived is when it was fetched, and
    # is not written down again:
    moments: Floats
    worker: Integers
    size: Integers


def new_course(workers: int, window: int, run_ahead: int, batches: int | None) -> Course:
    """The arrays before anything has happened.

    With a column for each of so many `batches`; or, with None, for those of a piece and as many
    before as they look back at.
    """
    before = -(-window // WIDE) * WIDE
    back = max(before, run_ahead)
    piece = max(PIECE, back)  # so that columns are not moved more often than filled in
    count = back + piece if batches is None else batches
    made = np.empty if batches is None else new_column
    worker, size = made((2, count), np.int32)
    course = Course(
        main=np.zeros(1, MAIN_PROCESS),
        free=np.empty(workers),
        taken_in=np.zeros(1 << window.bit_length(), np.int64),
        latest=np.empty(before + piece),
        later=np.empty(piece, np.int64),
        moments=made((len(MOMENTS), count)),
        worker=worker,
        size=size,
    )
    course.main["window"], course.main["run_ahead"] = window, run_ahead
    if batches is None:
        course.main["base"] = -back
    return course


# In compiled code: the arrays of which a table is at an address.
read = reader(new_course(1, 1, 0, 1))
_whole, _real = np.empty(0, np.int64), np.empty(0)
read_block = reader(Block(_whole, _whole, np.empty((0, 0)), _real, _real, _real, _real))


@compiled
def schedule(course: Table, drawn: Table) -> None:
    """Fill in the columns of the next batches, whose numbers are given in seconds.

    They are tables (see `arrays.table`) of a `Course` and of a `Block`.
    """
    c, d = read(course), read_block(drawn)
    for done in range(0, len(d.steps), len(c.later)):
        advance(c, d, done)


@inlined
def advance(c: Course, d: Block, done: int) -> int:
    """Fill in the next columns, a piece of those that `schedule` does; it has `done` so many.

    Returns how many there are in the piece.
    """
    offsets, services, collates, steps = d.offsets, d.services, d.collates, d.steps
    count = min(len(c.later), len(steps) - done)
    make_room(c, count)
    m, free = c.main[0], c.free
    sent, started, fetched = c.moments[SENT_AT], c.moments[STARTED], c.moments[FETCHED_AT]
    requested, returned = c.moments[REQUESTED], c.moments[RETURNED_AT]
    finished = c.moments[FINISHED]
    base, first, window, run_ahead = m.base, m.first, m.window, m.run_ahead
    latency, round_trip, batched = m.latency, m.round_trip, m.batched
    now, accelerator = m.now, m.accelerator
    alike = len(services) == 1
    worker = (m.next - first) % len(free)
    before = len(c.latest) - len(c.later)
    latest = c.latest[before - 1]
    for i in range(done, done + count):
        k = m.next + i - done
        at = k - base
        sent[at] = returned[at - window] if k - first >= window else m.primed
        end = max(free[worker], sent[at] + latency)
        started[at] = end
        if batched:
            started[at] = end + round_trip
            end = end + round_trip + services[0 if alike else i, 0]
        elif offsets[i] < offsets[i + 1]:
            started[at] = end + round_trip
            if alike:
                end = after_alike(end, offsets[i + 1] - offsets[i], round_trip, services[0, 0])
            else:
                for sample in range(offsets[i], offsets[i + 1]):
                    end = end + round_trip + services[sample, 0]
        end += collates[i]
        fetched[at] = free[worker] = end
        c.worker[at] = worker
        c.size[at] = offsets[i + 1] - offsets[i]
        requested[at] = now
        now = returned[at] = max(now, end)
        accelerator = finished[at] = max(now, accelerator) + steps[i]
        latest = c.latest[before + i - done] = max(end, latest)

        if run_ahead == 0:
            now = accelerator
        elif k - first >= run_ahead:
            now = max(now, finished[at - run_ahead])
        worker = worker + 1 if worker + 1 < len(free) else 0
    m.now, m.accelerator = now, accelerator
    receive(c, m.next - base, m.next - base + count)
    m.next += count
    return count


@inlined
def make_room(c: Course, count: int) -> None:
    """Forget the oldest batches, if there are no columns for so many more."""
    m, room = c.main[0], len(c.size)
    if m.next - m.base + count <= room:
        return
    back = room - len(c.later)
    gone = m.next - m.base - back
    for at in range(back):
        for moment in range(len(c.moments)):
            c.moments[moment, at] = c.moments[moment, gone + at]
        c.worker[at], c.size[at] = c.worker[gone + at], c.size[gone + at]
    m.base += gone


@inlined
def receive(c: Course, begin: int, end: int) -> None:
    """Fill in when the batches in the columns from `begin` to `end` were received."""
    m, bits = c.main[0], len(c.taken_in) - 1
    fetched, received, requested = c.moments[FETCHED_AT], c.moments[RECEIVED], c.moments[REQUESTED]
    first, before = m.first - m.base, len(c.latest) - len(c.later)
    count_later(c.later, c.latest, before, fetched[begin:end], m.window)
    for at in range(begin, end):
        i, low = at - begin, max(at - m.window + 1, first)
        call = min(at + 1 - c.later[i], at)
        call = first_of_equals(c, low, call, at, before - begin)
        c.taken_in[(m.base + at) & bits] = m.base + call
        received[at] = max(fetched[at], requested[call])
    for i in range(before):
        c.latest[i] = c.latest[end - begin + i]


@inlined
def count_later(found: Integers, column: Floats, before: int, times: Floats, window: int) -> None:
    """For each of the `times`, how many of a window of values in the `column` are later.

    The window ends at the time's own value, whose place is `before` more than the time's. Values
    ascend, and none before the window is later. A processor compares several at once, but does
    not guess well which way a comparison will go: there are no branches.
    """
    for i in range(len(times)):
        found[i] = 0
    if window <= WIDE:
        for far in range(AT_ONCE, window + AT_ONCE, AT_ONCE):
            some = column[before + 1 - far :]
            for i in range(len(times)):
                later = 0
                for j in range(AT_ONCE):
                    later += some[i + j] > times[i]
                found[i] += later
        return
    for far in range(WIDE, window, WIDE):  # whole stretches
        some = column[before - far :]
        for i in range(len(times)):
            found[i] += some[i] > times[i]
    for i in range(len(times)):  # and by halving what is left of one
        at = before + i - WIDE * (found[i] + 1)
        step = WIDE // 2
        while step > 0:
            at += step * (column[at + step] <= times[i])
            step //= 2
        at += column[at + 1] <= times[i]
        found[i] = before + i - at


@inlined
def first_of_equals(c: Course, low: int, high: int, at: int, shift: int) -> int:
    """The first call from `low` to `high` to read a message of that moment after batch `at`'s.

    The latest message that a call wanted is in `latest`, its place `shift` more than the call's.
    Of messages that arrive at one moment, those of the first worker are read first. A call whose
    batch was received in another one reads none.
    """
    fetched, bits, base = c.moments[FETCHED_AT], len(c.taken_in) - 1, c.main[0].base
    # Batches go to the workers in turn, so that the last few before this one are of earlier ones.
    first, call = high, min(high, at - c.worker[at]) - 1
    while call >= low and c.latest[call + shift] == fetched[at]:
        same = fetched[call] == fetched[at] and c.worker[call] > c.worker[at]
        if same and c.taken_in[(base + call) & bits] == base + call:
            first = call
        call -= 1
    return first
