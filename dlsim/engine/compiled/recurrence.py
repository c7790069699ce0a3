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
since it was sent, that wants a later message; or in its own. Only a call that wants a later
message than all calls before it can be that one. Of these the last K are kept, and as each is
later than the one before, the call is found by halving.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.arrays import columns
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
from dlsim.engine.compiled.state import ANSWER
from dlsim.engine.draws import Floats
from dlsim.trace.trace import MOMENTS

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
        ("latest", "i8"),  # how many calls of next() wanted a later message than all before
        ("primed", "f8"),
        ("now", "f8"),  # when next() is called
        ("accelerator", "f8"),  # when it has done all steps given to it
    ]
)


class Course(NamedTuple):
    """The arrays of one simulation. `main` has one row."""

    main: NDArray[Any]
    free: Floats  # when each worker is
    latest: NDArray[Any]  # the messages that the calls counted in `main` wanted, a ring
    taken_in: Integers  # the call that received each of the last batches, a ring
    # One column for each batch number, from `base` on; when it arrived is when it was fetched, and
    # is not written down again:
    moments: Floats
    worker: Integers
    size: Integers


def new_course(workers: int, window: int, room: int) -> Course:
    """The arrays before anything has happened, with room for so many batches."""
    ring = 1 << window.bit_length()
    return Course(
        main=np.zeros(1, MAIN_PROCESS),
        free=np.empty(workers),
        latest=np.zeros(ring, ANSWER),
        taken_in=np.zeros(ring, np.int64),
        moments=np.empty((len(MOMENTS), room)),
        worker=np.empty(room, np.int32),
        size=np.empty(room, np.int32),
    )


@compiled
def schedule(
    course: Course, offsets: Integers, services: Floats, collates: Floats, steps: Floats
) -> None:
    """Fill in the columns of the next batches, whose numbers are given in seconds.

    The samples of the i-th of them are those from `offsets[i]` to `offsets[i + 1]`; `services` has
    one number for all of them, if it has only one.
    """
    c = columns(course)
    m, free = c.main[0], c.free
    sent, started, fetched = c.moments[SENT_AT], c.moments[STARTED], c.moments[FETCHED_AT]
    received, requested = c.moments[RECEIVED], c.moments[REQUESTED]
    returned, finished = c.moments[RETURNED_AT], c.moments[FINISHED]
    bits = len(c.taken_in) - 1
    base, first, window, run_ahead = m.base, m.first, m.window, m.run_ahead
    latency, round_trip, batched = m.latency, m.round_trip, m.batched
    now, accelerator = m.now, m.accelerator
    alike = len(services) == 1
    worker = (m.next - first) % len(free)
    for i in range(len(steps)):
        k = m.next + i
        at = k - base
        sent[at] = returned[at - window] if k - first >= window else m.primed
        end = max(free[worker], sent[at] + latency)
        started[at] = end
        if batched:
            started[at] = end + round_trip
            end = end + round_trip + services[0 if alike else i]
        elif offsets[i] < offsets[i + 1]:
            started[at] = end + round_trip
            if alike:
                end = after_equal_ones(end, offsets[i + 1] - offsets[i], round_trip, services[0])
            else:
                for sample in range(offsets[i], offsets[i + 1]):
                    end = end + round_trip + services[sample]
        end += collates[i]
        fetched[at] = free[worker] = end
        c.worker[at] = worker
        c.size[at] = offsets[i + 1] - offsets[i]
        requested[at] = now
        now = returned[at] = max(now, end)
        accelerator = finished[at] = max(now, accelerator) + steps[i]

        call = k
        if k == first or not later(c.latest[(m.latest - 1) & bits], end, worker):
            message = c.latest[m.latest & bits]
            message.time, message.worker, message.number = end, worker, k
            m.latest += 1
        else:
            call = first_later(c, end, worker, k)
        c.taken_in[k & bits] = call
        received[at] = max(end, requested[call - base])

        if k - first >= run_ahead:
            now = max(now, finished[at - run_ahead])
        worker = worker + 1 if worker + 1 < len(free) else 0
    m.now, m.accelerator = now, accelerator
    m.next += len(steps)


@inlined
def after_equal_ones(now: float, samples: int, round_trip: float, seconds: float) -> float:
    """When so many samples that all take equally long are fetched, from `now` on.

    To the last bit what comes of adding one after another. Between two powers of two, floats are
    equally far from each other, so that every addition moves on by as many of them; but for the
    first one, after which numbers halfway between two floats are always rounded the same way.
    """
    while samples > 3:
        first = now + round_trip + seconds
        second = first + round_trip + seconds
        third = second + round_trip + seconds
        last = third + (samples - 3) * (third - second)
        if exponent(first) == exponent(last):
            return last
        now = first
        samples -= 1
    for _ in range(samples):
        now = now + round_trip + seconds
    return now


@inlined
def exponent(value: float) -> int:
    """The bits of a positive float that say between which powers of two it lies."""
    return int(np.float64(value).view(np.int64) >> 52)


@inlined
def later(message: Any, time: float, worker: int) -> bool:
    """Whether `message` is read after another one, sent before it, of that time and worker."""
    return bool(message.time > time or (message.time == time and message.worker > worker))


@inlined
def first_later(c: Course, time: float, worker: int, k: int) -> int:
    """The first call of next(), since batch `k` was sent, that wanted a later message."""
    m, bits = c.main[0], len(c.latest) - 1
    low = max(k - m.window + 1, m.first)
    oldest, high, stride = max(m.latest - bits, 0), m.latest - 1, 1
    while high - stride >= oldest and later(c.latest[(high - stride) & bits], time, worker):
        high -= stride  # it is more often near than far
        stride *= 2
    below = max(high - stride, oldest - 1)
    while below + 1 < high:
        middle = (below + high) // 2
        if later(c.latest[middle & bits], time, worker):
            high = middle
        else:
            below = middle
    call: int = c.latest[high & bits].number
    if call >= low:
        return call
    # That was wanted before batch k was sent, and no time has passed in between.
    for number in range(low, k):
        mine = c.moments[FETCHED_AT, number - m.base]
        other = c.worker[number - m.base]
        if c.taken_in[number & bits] == number and (
            mine > time or (mine == time and other > worker)
        ):
            return number
    return k
