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
since it was sent, that wants a later message; or in its own. The latest message wanted so far is
kept for each of the last K calls, and as it only ever gets later, that call is found by halving.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.draws import Floats

Integers = NDArray[np.signedinteger[Any]]


@inlined
def later(arrived: Floats, worker: Integers, one: int, other: int) -> bool:
    """Whether the message of batch `one` is read after that of `other`, or is the same."""
    if arrived[one] != arrived[other]:
        return bool(arrived[one] > arrived[other])
    if worker[one] != worker[other]:
        return bool(worker[one] > worker[other])
    return one >= other


@compiled
def schedule(
    moments: Floats,
    workers: Integers,
    clock: Floats,
    free: Floats,
    latest: Integers,
    taken_in: Integers,
    first: int,
    begin: int,
    window: int,
    run_ahead: int,
    latency: float,
    round_trip: float,
    batched: bool,
    offsets: Integers,
    services: Floats,
    collates: Floats,
    steps: Floats,
) -> None:
    """Fill in the `moments` and `workers` of batches from `begin` on; `first` begins the epoch.

    What goes on from call to call: `clock`, when the epoch was primed, next() is called, and the
    accelerator is free; `free`, when each worker is; and of the last calls of next(), by their
    lowest bits, the `latest` message wanted, and `taken_in`, the call that received that batch.
    """
    bits = len(latest) - 1
    sent, started, fetched, arrived, received, requested, returned, finished = moments
    primed, now, accelerator = clock
    worker = (begin - first) % len(free)
    for i in range(len(steps)):
        k = begin + i
        sent[k] = returned[k - window] if k - first >= window else primed
        end = max(free[worker], sent[k] + latency)
        started[k] = end
        if batched:
            started[k] = end + round_trip
            end = end + round_trip + services[i]
        elif offsets[i] < offsets[i + 1]:
            started[k] = end + round_trip
            for sample in range(offsets[i], offsets[i + 1]):
                end = end + round_trip + services[sample]
        end += collates[i]
        fetched[k] = arrived[k] = free[worker] = end
        workers[k] = worker
        requested[k] = now
        now = returned[k] = max(now, end)
        accelerator = finished[k] = max(now, accelerator) + steps[i]

        call = latest[k & bits] = k
        if k > first:
            before = latest[(k - 1) & bits]
            if not later(arrived, workers, k, before):
                latest[k & bits] = before
                low = max(k - window + 1, first)
                call = first_later(arrived, workers, latest, taken_in, low, k)
        taken_in[k & bits] = call
        received[k] = max(end, requested[call])

        if k - first >= run_ahead:
            now = max(now, finished[k - run_ahead])
        worker = worker + 1 if worker + 1 < len(free) else 0
    clock[1], clock[2] = now, accelerator


@inlined
def first_later(
    arrived: Floats, worker: Integers, latest: Integers, taken_in: Integers, low: int, k: int
) -> int:
    """The first call of next(), from `low` on, that wanted a later message than batch `k`."""
    bits = len(latest) - 1
    if later(arrived, worker, latest[low & bits], k):
        # That may have been wanted before batch k was sent, where no time passed in between.
        for call in range(low, k):
            if taken_in[call & bits] == call and later(arrived, worker, call, k):
                return call
        return k
    high, stride = k - 1, 1  # it is more often near than far
    while high - stride > low and later(arrived, worker, latest[(high - stride) & bits], k):
        high -= stride
        stride *= 2
    low = max(low, high - stride)
    while low + 1 < high:
        middle = (low + high) // 2
        if later(arrived, worker, latest[middle & bits], k):
            high = middle
        else:
            low = middle
    return high
