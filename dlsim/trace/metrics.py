"""What one wants to know of a trace, as pure functions of it.

======================  ===========================================================
time                    `span`, `elapsed`, `epoch_times`, `first_batch`
throughput              `samples`, `samples_per_second`, `batches_per_second`
the training loop       `waits`, `steps`
the accelerator         `busy`, `stall`, `accelerator_utilisation`
what is ready, on hold  `buffer`, `credit`, `held`, `buffer_bytes`, `head_of_line`
workers                 `fetches`, `worker_count`, `worker_utilisation`
======================  ===========================================================

Times are seconds. A moment that did not happen or was not observed (NaN) is left out of sums and
means; a metric of nothing at all is NaN. No metric raises or warns.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.levels import Levels, levels
from dlsim.trace.trace import (
    DISCARDED,
    ENDED,
    MOMENTS,
    PENDING,
    RETURNED,
    SKIPPED,
    Floats,
    Trace,
)

Bools: TypeAlias = NDArray[np.bool_]

NAN = float("nan")


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN where `whole` is 0."""
    return part / whole if whole else NAN


def known(values: Floats) -> Floats:
    """`values` without NaN."""
    found: Floats = values[~np.isnan(values)]
    return found


def total(values: Floats) -> float:
    """The sum of the known `values`; NaN if there are values and none is known."""
    found = known(values)
    return float(found.sum()) if len(found) or not len(values) else NAN


def mean(values: Floats) -> float:
    """The mean of the known `values`; NaN if none is known."""
    found = known(values)
    return float(found.mean()) if len(found) else NAN


def observed(trace: Trace, values: Floats) -> bool:
    """Whether what has one value for each batch is known of any that was returned, if any was."""
    return not len(trace.order) or not bool(np.isnan(values[trace.order]).all())


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
    count = float(trace.size[trace.order].sum())
    return count if count or not len(trace.order) else NAN


def samples_per_second(trace: Trace) -> float:
    """`samples` / `elapsed`."""
    return ratio(samples(trace), elapsed(trace))


def batches_per_second(trace: Trace) -> float:
    """Batches returned / `elapsed`."""
    return ratio(len(trace.order), elapsed(trace))


def waits(trace: Trace) -> Floats:
    """`returned - requested` of every batch returned, in the order of return."""
    times: Floats = (trace.returned - trace.requested)[trace.order]
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
    order = trace.order
    began, ended = computing(
        trace.returned[order], trace.finished[order], trace.size[order], trace.meta.scenario
    )
    if trace.stepped is not None:
        ended = np.fmin(ended, trace.stepped[order])
    begin, end = span(trace)
    return np.clip(began, begin, end), np.clip(ended, begin, end)


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

    Start-up, the edges of epochs and copying are part of it. NaN where no time passes, and where
    batches were returned and no step was observed.
    """
    return 1 - accelerator_utilisation(trace)


def accelerator_utilisation(trace: Trace) -> float:
    """MLPerf Storage's AU, the share of time spent training: the sum of `busy` / `elapsed`."""
    began, ended = busy(trace)
    return ratio(total(ended - began), elapsed(trace))


def epoch_ends(trace: Trace) -> Floats:
    """For each batch, the end of the epoch it was sent in; of the `span`, if that is not known.

    An iterator whose name is rebound ends when the next one has begun.
    """
    trace = trace.as_one_epoch
    ends = trace.epochs.ended if len(trace.epochs.ended) else np.array([NAN])
    if trace.meta.scenario is not None and trace.meta.scenario.rebinds:
        ends = np.append(trace.epochs.primed[1:], ends[-1])
    ends = np.where(np.isnan(ends), span(trace)[1], ends)
    epochs = np.maximum(trace.epoch_of(np.arange(len(trace))), 0)
    found: Floats = ends[epochs]
    return found


def given_back(trace: Trace) -> Floats:
    """For each batch, when its credit is free again.

    That is when it is `returned`, or when the error was raised that came of it and was caught; or
    `received`, if it was discarded or only said that the worker's iterator had ended; for a batch
    skipped, when its worker said so; else at the end of its epoch.
    """
    gone = epoch_ends(trace)
    early = (
        (trace.status == DISCARDED) | (trace.status == ENDED) | (trace.status == SKIPPED)
    ) & ~np.isnan(trace.received)
    gone[early] = trace.received[early]
    skipped = (trace.status == SKIPPED) & np.isnan(trace.received)
    if skipped.any():
        lane = trace.epoch_of(np.arange(len(trace))) * worker_count(trace) + trace.worker
        said = early & (trace.status != DISCARDED)
        ended = np.full(int(lane.max()) + 1, np.inf)
        np.minimum.at(ended, lane[said], trace.received[said])
        gone[skipped] = np.minimum(gone[skipped], ended[lane[skipped]])
    back = trace.status == RETURNED
    gone[back] = trace.returned[back]
    for error in trace.meta.caught:
        if error.batch >= 0:
            gone[error.batch] = error.time
    return gone


def _is_batch(trace: Trace) -> Bools:
    """Whether each was a batch, rather than word that there is none."""
    found: Bools = (trace.status != ENDED) & (trace.status != SKIPPED)
    return found


def buffer(trace: Trace) -> Levels:
    """Batches that have arrived and are not yet returned, over time.

    A batch never returned is there until the end of its epoch (a discarded one, until received).
    """
    come = np.where(_is_batch(trace), trace.arrived, NAN)
    return levels(come, given_back(trace), *span(trace))


def credit(trace: Trace) -> Levels:
    """Batches sent to workers and not yet given back, over time; at most the credit window.

    In the `next()` that returns a batch, torch sends another one in its place. Real runs take some
    time from there to the return: a batch counts until the other one is sent.
    """
    come = np.where(trace.worker >= 0, trace.sent, NAN)
    sends = np.append(np.sort(come[~np.isnan(come)]), np.inf)
    replaced = sends[np.searchsorted(sends, trace.requested, side="right").clip(max=len(sends) - 1)]
    return levels(come, np.fmin(_passed(trace), replaced), *span(trace))


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


def held(trace: Trace) -> Levels:
    """Batches received before they were wanted and not yet returned, over time.

    They were received during the `next()` of another batch: `received < requested`. (With a
    pin-memory thread, which receives all the time, so is every batch that is ready early.)
    """
    return levels(np.where(is_held(trace), trace.received, NAN), given_back(trace), *span(trace))


def is_held(trace: Trace) -> Bools:
    """For each batch, whether `received < requested`."""
    found: Bools = trace.received < trace.requested
    return found


def buffer_bytes(trace: Trace) -> float:
    """The most bytes in the `buffer`: samples in it times the scenario's mean `sample_bytes`.

    NaN without a scenario, or when it gives no `sample_bytes`.
    """
    scenario = trace.meta.scenario
    if scenario is None or scenario.dataset.sample_bytes.mean == 0:
        return NAN
    come = np.where(_is_batch(trace), trace.arrived, NAN)
    samples = levels(come, given_back(trace), *span(trace), weight=trace.size.astype(np.int64))
    return samples.max * scenario.dataset.sample_bytes.mean


def head_of_line(trace: Trace) -> float:
    """Seconds waited in `next()` for a batch to arrive while a later one already had.

    Later is what is returned later in the epoch, or was never returned. The sum over batches
    returned of `min(arrived, returned) - max(requested, first arrival of a later batch)`, where
    positive.
    """
    trace = trace.as_one_epoch
    rank = np.full(len(trace), len(trace))
    rank[trace.order] = np.arange(len(trace.order))
    numbers = np.flatnonzero(_is_batch(trace))
    line = numbers[np.lexsort((rank[numbers], trace.epoch_of(numbers)))]
    arrivals = np.nan_to_num(trace.arrived[line], nan=np.inf)
    later = np.append(np.minimum.accumulate(arrivals[::-1])[::-1][1:], np.inf)
    until = np.fmin(trace.arrived[line], trace.returned[line])
    lost = until - np.maximum(trace.requested[line], later)
    lost = lost[trace.status[line] == RETURNED]
    return total(np.maximum(lost, 0.0))


def worker_count(trace: Trace) -> int:
    """The number of workers: the scenario's, else as many as were seen."""
    if trace.meta.scenario is not None:
        return trace.meta.scenario.loader.num_workers
    return int(trace.worker.max(initial=-1)) + 1


def fetches(trace: Trace) -> tuple[Floats, Floats]:
    """For each batch, begin and end of the time its worker spent on it; NaN if not known.

    From `started` to `fetched`; to `arrived`, where nothing came of it; to the end of the epoch,
    where the worker was still at it.
    """
    end = np.where(np.isnan(trace.fetched), trace.arrived, trace.fetched)
    cut = np.isnan(end) & (trace.status == PENDING)
    end[cut] = np.fmax(epoch_ends(trace)[cut], trace.started[cut])
    return trace.started, end


def worker_utilisation(trace: Trace) -> Floats:
    """For each worker, the share of time it spends fetching: `sum(fetches) / elapsed`."""
    began, ended = fetches(trace)
    spent = ended - began
    mine = ~np.isnan(spent) & (trace.worker >= 0)
    time = elapsed(trace)
    workers = worker_count(trace)
    if time <= 0 or not observed(trace, spent):
        return np.full(workers, NAN)
    return np.bincount(trace.worker[mine], spent[mine], workers) / time
