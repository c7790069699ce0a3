"""What one wants to know of a trace, as pure functions of it.

======================  ===========================================================
time                    `span`, `elapsed`, `epoch_times`, `first_batch`
throughput              `samples`, `samples_per_second`, `batches_per_second`
the training loop       `waits`, `steps`
the accelerator         `busy`, `stall`, `accelerator_utilisation`
validation              `validations`, `validation`, `validation_stall`
what is ready, on hold  `buffer`, `credit`, `held`, `buffer_bytes`, `head_of_line`
workers                 `fetches`, `worker_count`, `worker_utilisation`
======================  ===========================================================

Times are seconds. A moment that did not happen or was not observed (NaN) is left out of sums and
means; a metric of nothing at all is NaN. No metric raises or warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.columns import ALL, new_column, parts
from dlsim.trace.levels import Level, Levels, levels
from dlsim.trace.trace import (
    DISCARDED,
    ENDED,
    FAILED,
    MOMENTS,
    PENDING,
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
NAN = float("nan")


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN where `whole` is 0."""
    return part / whole if whole else NAN


def utilisation(busy: float, elapsed: float) -> float:
    """The share `busy / elapsed`, NaN where no time passes; rounding never makes it more than 1."""
    share = ratio(busy, elapsed)
    return 1.0 if share > 1 else share


def known(values: Floats) -> Floats:
    """`values` without NaN; themselves, where there is none."""
    unknown = np.isnan(values)
    return values[~unknown] if unknown.any() else values


def total(values: Floats) -> float:
    """The sum of the known `values`; NaN if there are values and none is known."""
    return total_of([values])


def mean(values: Floats) -> float:
    """The mean of the known `values`; NaN if none is known."""
    return mean_of([values])


def total_of(parts: Iterable[Floats]) -> float:
    """The `total` of values that come in parts."""
    return _sum(parts)[0]


def mean_of(parts: Iterable[Floats]) -> float:
    """The `mean` of values that come in parts."""
    return ratio(*_sum(parts))


def _sum(parts: Iterable[Floats]) -> tuple[float, int]:
    found, there, count = 0.0, 0, 0
    for values in parts:
        seen = known(values)
        found += float(seen.sum())
        there, count = there + len(values), count + len(seen)
    return (found if count or not there else NAN), count


def observed(trace: Trace, values: Floats) -> bool:
    """Whether what has one value for each batch is known of any that was returned, if any was."""
    each = (values[trace.order[part]] for part in parts(0, len(trace.order)))
    return not len(trace.order) or any(not np.isnan(some).all() for some in each)


def span(trace: Trace) -> tuple[float, float]:
    """Begin and end: the first `iter(loader)`, and the end of the last epoch or the error.

    Where these were not observed, the first and the last moment of any batch that was.
    """
    begin = float(trace.epochs.started[0]) if len(trace.epochs.started) else NAN
    end = trace.end if len(trace.epochs.ended) or trace.meta.problem else NAN
    if np.isnan(begin) or np.isnan(end):
        moments = known(np.concatenate([getattr(trace, name) for name in MOMENTS]))
        first = float(moments.min()) if len(moments) else 0.0
        begin = first if np.isnan(begin) else begin
        end = float(moments.max(initial=begin)) if np.isnan(end) else end
    return begin, end


def elapsed(trace: Trace) -> float:
    """`end - begin` of the `span`."""
    begin, end = span(trace)
    return end - begin


def epoch_times(trace: Trace) -> Floats:
    """`epochs.ended - epochs.started`, one for each epoch; NaN for one that an error ended."""
    times: Floats = trace.epochs.ended - trace.epochs.started
    return times


def first_batch(trace: Trace) -> float:
    """Time to the first batch: `returned` of the first batch returned, less the `span`'s begin."""
    return float(trace.returned[trace.order[0]]) - span(trace)[0] if len(trace.order) else NAN


def samples(trace: Trace) -> float:
    """The number of samples in the batches returned; NaN where sizes were not observed (all 0)."""
    each = (trace.size[trace.order[part]].sum() for part in parts(0, len(trace.order)))
    count = float(sum(each))
    return count if count or not len(trace.order) else NAN


def samples_per_second(trace: Trace) -> float:
    """`samples` / `elapsed`."""
    return ratio(samples(trace), elapsed(trace))


def batches_per_second(trace: Trace) -> float:
    """Batches returned / `elapsed`."""
    return ratio(len(trace.order), elapsed(trace))


def waits(trace: Trace) -> Floats:
    """`returned - requested` of every batch returned, in the order of return."""
    times = new_column(len(trace.order))
    for part in parts(0, len(times)):
        mine = trace.order[part]
        times[part] = trace.returned[mine] - trace.requested[mine]
    return times


def steps(trace: Trace) -> Floats:
    """`finished - returned` of every batch returned, in the order of return.

    Where the host runs ahead of an accelerator, which is busy with the batch before when it gets
    this one, from that one's `finished` on. Of a rank that meets others, up to `stepped`.
    """
    ended = trace.finished[trace.order]
    done = ended if trace.stepped is None else trace.stepped[trace.order]
    before = np.fmax.accumulate(np.append(-np.inf, ended[:-1]))
    times: Floats = done - np.maximum(trace.returned[trace.order], before)
    return times


def barrier_waits(trace: Trace) -> Floats:
    """`finished - stepped` of every batch returned, in the order of return; 0 of a rank alone."""
    if trace.stepped is None:
        return np.zeros(len(trace.order))
    times: Floats = (trace.finished - trace.stepped)[trace.order]
    return times


def busy(trace: Trace) -> tuple[Floats, Floats]:
    """When the accelerator (or the CPU) began and ended to compute each step, in order of return.

    Seconds, within the `span`. They do not overlap, and each ends when its batch is `finished`;
    copying the batch to the accelerator is no part of it, nor is waiting for other ranks. NaN where
    a step was not observed.
    """
    began, ended = new_column((2, len(trace.order)))
    begin, end = span(trace)
    for part, *some in computed(trace):
        began[part], ended[part] = np.clip(some, begin, end)
    return began, ended


def computed(trace: Trace) -> Iterator[tuple[slice, Floats, Floats]]:
    """The same part by part, and not cut at the ends of the `span`."""
    scenario, free, copied = trace.meta.scenario, -np.inf, -np.inf
    each = scenario.copying(1.0) if scenario is not None else 0.0
    for part in parts(0, len(trace.order)):
        order = trace.order[part]
        returned, finished, size = trace.returned[order], trace.finished[order], trace.size[order]
        began, ended = computing(returned, finished, size, scenario, free, copied)
        free = np.fmax.reduce(finished, initial=free)
        copied = float(arrivals(returned, np.asarray(each * size, np.float64), copied)[-1])
        if trace.stepped is not None:
            ended = np.fmin(ended, trace.stepped[order])
        yield part, began, ended


def computing(
    returned: Floats,
    finished: Floats,
    size: NDArray[np.integer],
    scenario: Scenario | None,
    free: float = -np.inf,
    copied: float = -np.inf,
) -> tuple[Floats, Floats]:
    """When each step was computed, of batches in the order of return; began and ended, in seconds.

    `size`: samples in each. `free` and `copied`: when the accelerator had done all steps before,
    and had all batches before. A copy counts as many bytes as samples have on average.
    """
    ended = np.where(np.isnan(finished), NAN, np.fmax.accumulate(np.append(free, finished))[1:])
    ready = np.maximum(returned, np.fmax.accumulate(np.append(free, finished))[:-1])
    each = scenario.copying(1.0) if scenario is not None else 0.0
    if each and scenario is not None:
        copies = np.asarray(each * size, np.float64)
        if scenario.consumer.overlap_copy:
            ready = np.maximum(ready, arrivals(returned, copies, copied))
        else:
            ready = ready + copies
    return np.minimum(ready, ended), ended


def arrivals(asked: Floats, copies: Floats, copied: float = -np.inf) -> Floats:
    """When each batch is copied, one after another, that take `copies` seconds from `asked` on."""
    done = np.cumsum(copies)
    found: Floats = done + np.maximum(np.maximum.accumulate(asked - done + copies), copied)
    return found


def stall(trace: Trace) -> float:
    """The share of time that the accelerator (or the CPU step) is idle: 1 - `busy` / `elapsed`.

    Start-up, the edges of epochs and copying are part of it; time in `validation` is not. NaN where
    no time passes, and where batches were returned and no step was observed.
    """
    trained = accelerator_utilisation(trace)
    return 1 - trained if trace.validation is None else max(1 - trained - validation(trace), 0.0)


def accelerator_utilisation(trace: Trace) -> float:
    """MLPerf Storage's AU, the share of time spent training: the sum of `busy` / `elapsed`."""
    begin, end = span(trace)
    spent = total_of(
        ended.clip(begin, end) - began.clip(begin, end) for _, began, ended in computed(trace)
    )
    return utilisation(spent, elapsed(trace))


def validations(trace: Trace) -> tuple[Floats, Floats]:
    """When validation began and ended, each time that it came, in order; seconds in the `span`."""
    if trace.validation is None:
        return np.empty(0), np.empty(0)
    (begin, end), epochs = span(trace), trace.validation.epochs
    ended = np.nan_to_num(epochs.ended, nan=end)
    return epochs.started.clip(begin, end), ended.clip(begin, end)


def validation(trace: Trace) -> float:
    """The share of time spent in validation; NaN where there is none, or no time passes."""
    if trace.validation is None:
        return NAN
    began, ended = validations(trace)
    return ratio(float((ended - began).sum()), elapsed(trace))


def validation_stall(trace: Trace) -> float:
    """The share of the time in validation for which the accelerator is idle; NaN of no time."""
    if trace.validation is None:
        return NAN
    spent = float(np.subtract(*reversed(validations(trace))).sum())
    began, ended = busy(trace.validation)
    return 1 - utilisation(total(ended - began), spent)


def epoch_ends(trace: Trace, part: slice = ALL) -> Floats:
    """For each batch, the end of the epoch it was sent in; of the `span`, if that is not known.

    An iterator whose name is rebound ends when the next one has begun.
    """
    trace = trace.as_one_epoch
    ends = trace.epochs.ended if len(trace.epochs.ended) else np.array([NAN])
    if trace.meta.scenario is not None and trace.meta.scenario.rebinds:
        ends = np.append(trace.epochs.primed[1:], ends[-1])
    ends = np.where(np.isnan(ends), span(trace)[1], ends)
    numbers = np.arange(*part.indices(len(trace)))
    found: Floats = ends[np.maximum(trace.epoch_of(numbers), 0)]
    return found


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
    sized = isinstance(trace.meta.scenario.dataset, MapDataset)
    if loop == "accelerate" or (loop == "lightning" and not sized):
        gone[order[1:][same]] = trace.returned[order[:-1][same]]
    if loop == "lightning" and not sized:  # takes the first one when an epoch begins
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


def worker_count(trace: Trace) -> int:
    """The number of workers: the scenario's, else as many as were seen."""
    if trace.meta.scenario is not None:
        return trace.meta.scenario.loader.num_workers
    return int(trace.worker.max(initial=-1)) + 1


def fetches(trace: Trace, part: slice = ALL) -> tuple[Floats, Floats]:
    """For each batch, begin and end of the time its worker spent on it; NaN if not known.

    From `started` to `fetched`; to `arrived`, where nothing came of it; to the end of the epoch,
    where the worker was still at it.
    """
    begin, end = trace.started[part], trace.fetched[part]
    end = np.where(np.isnan(end), trace.arrived[part], end)
    cut = np.isnan(end) & (trace.status[part] == PENDING)
    if cut.any():
        end[cut] = np.fmax(epoch_ends(trace, part)[cut], begin[cut])
    return begin, end


def worker_utilisation(trace: Trace) -> Floats:
    """For each worker, the share of time it spends fetching: `sum(fetches) / elapsed`."""
    time, workers = elapsed(trace), worker_count(trace)
    busy, seen = np.zeros(workers), not len(trace.order)
    for part in parts(0, len(trace)):
        began, ended = fetches(trace, part)
        spent, worker = ended - began, trace.worker[part]
        mine = ~np.isnan(spent) & (worker >= 0)
        busy += np.bincount(worker[mine], spent[mine], workers)
        seen = seen or bool((~np.isnan(spent) & (trace.status[part] == RETURNED)).any())
    return busy / time if time > 0 and seen else np.full(workers, NAN)
