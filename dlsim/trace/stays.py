"""What stays where for how long: batches that are ready, under way, on hold, as many as there are.

A `Stay` says when each batch comes somewhere and when it goes; of it are made the mean and the most
(`extent`), and what there is over time (`buffer`, `credit`, `held`). Times are seconds; NaN where
a moment did not happen or was not observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.columns import ALL, new_column, parts
from dlsim.trace.levels import Level, Levels, levels
from dlsim.trace.metrics import NAN, epoch_ends, ratio, span, total_of, worker_count
from dlsim.trace.trace import (
    DISCARDED,
    ENDED,
    FAILED,
    RETURNED,
    SKIPPED,
    Floats,
    Integers,
    Trace,
)

Bools: TypeAlias = NDArray[np.bool_]
# When each batch of a part comes somewhere, and when it goes; NaN for one that never comes.
Stay: TypeAlias = Callable[[slice], tuple[Floats, Floats]]

COMING = ("sent", "started", "fetched", "arrived", "received")  # until somebody wants it


def given_back(trace: Trace, part: slice = ALL) -> Floats:
    """For each batch, when its credit is free again.

    That is when it is `returned`, or when the error was raised that came of it and was caught; or
    `received`, if it was discarded or only said that the worker's iterator had ended; for a batch
    skipped, when its worker said so; else at the end of its epoch.
    """
    gone, status, received = epoch_ends(trace, part), trace.status[part], trace.received[part]
    known = ~np.isnan(received)
    early = ((status == DISCARDED) | (status == ENDED) | (status == SKIPPED)) & known
    gone[early] = received[early]
    skipped = np.flatnonzero((status == SKIPPED) & ~known)
    if len(skipped):
        begin, end, _ = part.indices(len(trace))
        said = _said(trace, trace.epoch_of(np.array([begin + skipped[0]])).item(), end)
        numbers = begin + skipped
        gone[skipped] = np.minimum(gone[skipped], said(numbers))
    back = status == RETURNED
    gone[back] = trace.returned[part][back]
    for error in trace.meta.caught:
        at = error.batch - part.indices(len(trace))[0]
        if 0 <= at < len(gone) and error.batch >= 0:
            gone[at] = error.time
    return gone


def _said(trace: Trace, epoch: int, end: int) -> Callable[[Integers], Floats]:
    """When the workers of batches said that their iterators had ended, of an `epoch` and later.

    As batches before `end` tell; infinity for one that had not.
    """
    first = int(trace.epochs.first[epoch])
    # two sets of workers at a time may have numbers of their own
    workers = max(worker_count(trace), int(trace.worker.max(initial=-1)) + 1)
    epochs = trace.epoch_of(np.array([end - 1])).item() - epoch + 1
    when = np.full(epochs * workers, np.inf)

    def lane(numbers: Integers) -> Integers:
        found: Integers = (trace.epoch_of(numbers) - epoch) * workers + trace.worker[numbers]
        return found

    for part in parts(first, end):
        status = trace.status[part]
        ended = (status == ENDED) | (status == SKIPPED)
        numbers = part.start + np.flatnonzero(ended & ~np.isnan(trace.received[part]))
        np.minimum.at(when, lane(numbers), trace.received[numbers])
    return lambda numbers: when[lane(numbers)]


def _is_batch(trace: Trace, part: slice = ALL) -> Bools:
    """Whether each was a batch, rather than word that there is none."""
    found: Bools = (trace.status[part] != ENDED) & (trace.status[part] != SKIPPED)
    return found


@dataclass(frozen=True)
class Extent:
    """How many there are over time: on average, and at most, for however short a time but none."""

    mean: float
    most: float


def horizons(trace: Trace, moments: Sequence[str] = COMING) -> list[float]:
    """For each of the `parts` of all batches, the first of these moments of any after it."""
    found, later = [], np.inf
    for part in parts(0, len(trace), backwards=True):
        found.append(later)
        for name in moments:
            later = float(np.fmin.reduce(getattr(trace, name)[part], initial=later))
    return found[::-1]


def extent(trace: Trace, stay: Stay, weight: NDArray[np.integer] | None = None) -> Extent:
    """The mean and the most over time of how many there are, or of their `weight`.

    Those of the `levels` of the same, which are not made.
    """
    (begin, end), level, spent = span(trace), Level(), 0.0
    for there, come, go, later in _inside(trace, stay):
        count = 1 if weight is None else weight[there].astype(np.int64)
        spent += float(((go - come) * count).sum())
        level.add(come, go, count, later)
    return Extent(ratio(spent, end - begin), float(level.highest))


def steps_of(trace: Trace, stay: Stay) -> Iterator[tuple[Floats, NDArray[np.generic]]]:
    """The steps of the `levels` of the same, some at a time: when, and how many from then on."""
    begin, end = span(trace)
    if not end > begin or not len(trace):
        yield np.array([begin]), np.zeros(1, np.int64)
        return
    level = Level(begin)
    for _, come, go, later in _inside(trace, stay):
        yield level.add(come, go, 1, later)


def _inside(trace: Trace, stay: Stay) -> Iterator[tuple[Integers, Floats, Floats, float]]:
    """Who is there within the `span`, some at a time, from when to when; and what is known then.

    That is all that happens before the last number, in seconds.
    """
    begin, end = span(trace)
    for part, later in zip(parts(0, len(trace)), horizons(trace), strict=True):
        come, go = stay(part)
        there = np.flatnonzero(~np.isnan(come))
        come, go = come[there].clip(begin, end), np.nan_to_num(go[there], nan=end)
        yield part.start + there, come, np.maximum(come, np.minimum(go, end)), min(later, end)


def ready(trace: Trace) -> Stay:
    """Batches that have arrived and are not yet returned.

    A batch never returned is there until the end of its epoch (a discarded one, until received).
    """
    return lambda part: (
        np.where(_is_batch(trace, part), trace.arrived[part], NAN),
        given_back(trace, part),
    )


def buffer(trace: Trace) -> Levels:
    """How many are `ready`, over time."""
    return levels(*ready(trace)(ALL), *span(trace))


def under_way(trace: Trace) -> Stay:
    """Batches sent to workers and not yet given back; at most as many as the credit window.

    Where `loader.refill` is `"arrival"`, a batch gives its credit back when it is received.

    In the `next()` that returns a batch, torch sends another one in its place. Real runs take some
    time from there to the return: a batch counts until the other one is sent.
    """
    if trace.meta.scenario is not None and trace.meta.scenario.loader.refill == "arrival":
        return lambda part: (
            np.where(trace.worker[part] >= 0, trace.sent[part], NAN),
            np.fmin(given_back(trace, part), trace.received[part]),
        )
    sends, loop = _sends(trace), trace.meta.scenario and trace.meta.scenario.consumer.loop
    passed = None if loop in (None, "plain") else _passed(trace)
    # What was sent after the last return, was so by the `next()` that raised an error.
    over = np.fmax.reduce([*trace.epochs.primed[-1:], *trace.returned[trace.order[-1:]], -np.inf])
    raised = sends[-1] if len(sends) and sends[-1] > over else np.inf

    def stay(part: slice) -> tuple[Floats, Floats]:
        come = np.where(trace.worker[part] >= 0, trace.sent[part], NAN)
        following = np.searchsorted(sends, trace.requested[part], side="right")
        if len(sends):
            replaced = sends[following.clip(max=len(sends) - 1)]
            replaced = np.where(following < len(sends), replaced, np.inf)
        else:
            replaced = np.full(len(come), np.inf)
        gone = given_back(trace, part) if passed is None else passed[part]
        replaced[trace.status[part] == FAILED] = raised
        return come, np.fmin(gone, replaced)

    return stay


def _sends(trace: Trace) -> Floats:
    """When batches were sent to workers, in ascending order."""
    count, last, ascends = 0, -np.inf, True
    found = new_column(len(trace))
    for part in parts(0, len(trace)):
        sent = trace.sent[part][(trace.worker[part] >= 0) & ~np.isnan(trace.sent[part])]
        ascends = ascends and bool((np.diff(sent, prepend=last) >= 0).all())
        found[count : count + len(sent)] = sent
        count += len(sent)
        last = float(sent.max(initial=last))
    found = found[:count]
    return found if ascends else np.sort(found)


def credit(trace: Trace) -> Levels:
    """How many are `under_way`, over time."""
    return levels(*under_way(trace)(ALL), *span(trace))


def _passed(trace: Trace) -> Floats:
    """`given_back`, by torch's `next()`, which a loop around it may have called for it before.

    One batch ahead, that is in the call that returns the one before; a reading thread gives a
    credit back when it sends the batch that takes its place.
    """
    gone, order = given_back(trace), trace.order
    loop = "plain" if trace.meta.scenario is None else trace.meta.scenario.consumer.loop
    if trace.meta.scenario is None or loop == "plain" or not len(order):
        return gone
    epochs = trace.epoch_of(order)
    same = epochs[1:] == epochs[:-1]
    counted = trace.meta.scenario.counted
    if loop == "accelerate" or (loop == "lightning" and not counted):
        gone[order[1:][same]] = trace.returned[order[:-1][same]]
    if loop == "lightning" and not counted:  # takes the first one when an epoch begins
        first = np.append(True, ~same)
        gone[order[first]] = trace.epochs.primed[epochs[first]]
    if loop == "thread":
        place = np.arange(len(order)) - np.searchsorted(epochs, epochs)
        following = trace.epochs.first[epochs] + trace.meta.scenario.loader.window + place
        ends = np.append(trace.epochs.first[1:], len(trace))[epochs]
        sent = np.append(trace.sent, np.inf)[np.minimum(following, len(trace))]
        gone[order] = np.fmin(gone[order], np.where(following < ends, sent, np.inf))
    return gone


def early(trace: Trace) -> Stay:
    """Batches received before they were wanted and not yet returned.

    They were received during the `next()` of another batch: `received < requested`. (With a
    pin-memory thread, which receives all the time, so is every batch that is ready early.)
    """
    return lambda part: (
        np.where(is_held(trace, part), trace.received[part], NAN),
        given_back(trace, part),
    )


def held(trace: Trace) -> Levels:
    """How many are there `early`, over time."""
    return levels(*early(trace)(ALL), *span(trace))


def is_held(trace: Trace, part: slice = ALL) -> Bools:
    """For each batch, whether `received < requested`."""
    found: Bools = trace.received[part] < trace.requested[part]
    return found


def held_count(trace: Trace) -> int:
    """How many batches were held."""
    return int(sum(is_held(trace, part).sum() for part in parts(0, len(trace))))


def buffer_bytes(trace: Trace) -> float:
    """The most bytes in the `buffer`: samples in it times the scenario's mean `sample_bytes`.

    NaN without a scenario, or when it gives no `sample_bytes`.
    """
    scenario = trace.meta.scenario
    if scenario is None or scenario.dataset.sample_bytes.mean == 0:
        return NAN
    return extent(trace, ready(trace), trace.size).most * scenario.dataset.sample_bytes.mean


def head_of_line(trace: Trace) -> float:
    """Seconds waited in `next()` for a batch to arrive while a later one already had.

    Later is what is returned later in the epoch, or was never returned. The sum over batches
    returned of `min(arrived, returned) - max(requested, first arrival of a later batch)`, where
    positive.
    """
    trace = trace.as_one_epoch

    def lost() -> Iterator[Floats]:
        for order, later in later_arrivals(trace, trace.arrived):
            until = np.fmin(trace.arrived[order], trace.returned[order])
            yield np.maximum(until - np.maximum(trace.requested[order], later), 0.0)

    return total_of(lost())


def later_arrivals(trace: Trace, arrived: Floats) -> Iterator[tuple[Integers, Floats]]:
    """Some batches in the order of return, and when first one behind each had `arrived`.

    Infinity if none had. From the last epoch back to the first, and so in each. Behind a batch are
    those that are returned later in its epoch, and those that never are.
    """
    numbers = np.append(trace.epochs.first, len(trace))
    for epoch, places in reversed([*enumerate(order_by_epoch(trace))]):
        later = np.inf
        for part in parts(int(numbers[epoch]), int(numbers[epoch + 1])):
            never = _is_batch(trace, part) & (trace.status[part] != RETURNED)
            later = float(np.fmin.reduce(arrived[part][never], initial=later))
        for part in parts(places.start, places.stop, backwards=True):
            order = trace.order[part]
            there = np.append(np.nan_to_num(arrived[order], nan=np.inf), later)
            behind = np.minimum.accumulate(there[::-1])[::-1]
            yield order, behind[1:]
            later = float(behind[0])


def order_by_epoch(trace: Trace) -> list[slice]:
    """Where the batches of each epoch are in `order`."""
    counts = np.zeros(len(trace.epochs.first), np.int64)
    for part in parts(0, len(trace.order)):
        counts += np.bincount(trace.epoch_of(trace.order[part]), minlength=len(counts))
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
