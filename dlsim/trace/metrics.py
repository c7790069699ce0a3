"""What one wants to know of a trace, as pure functions of it.

======================  ===========================================================
time                    `span`, `elapsed`, `epoch_times`, `first_batch`
throughput              `samples`, `samples_per_second`, `batches_per_second`
the training loop       `waits`, `steps`
the accelerator         `busy`, `stall`, `accelerator_utilisation`
validation              `validations`, `validation`, `validation_stall`
what is ready, on hold  in `stays`
workers                 `fetches`, `worker_count`, `worker_utilisation`
======================  ===========================================================

Times are seconds. A moment that did not happen or was not observed (NaN) is left out of sums and
means; a metric of nothing at all is NaN. No metric raises or warns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import Scenario
from dlsim.trace.columns import ALL, new_column, parts
from dlsim.trace.trace import MOMENTS, PENDING, RETURNED, Floats, Trace

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
    """Begin and end: the first `iter()` of a loader, and the end of the last epoch or the error.

    Where these were not observed, the first and the last moment of any batch that was.
    """
    begin = float(trace.epochs.started[0]) if len(trace.epochs.started) else NAN
    if trace.validation is not None and len(trace.validation.epochs.started):
        begin = float(np.fmin(begin, trace.validation.epochs.started[0]))  # a sanity check
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
    time, workers, trace = elapsed(trace), worker_count(trace), trace.of_loader
    busy, seen = np.zeros(workers), not len(trace.order)
    for part in parts(0, len(trace)):
        began, ended = fetches(trace, part)
        spent, worker = ended - began, trace.worker[part]
        mine = ~np.isnan(spent) & (worker >= 0)
        busy += np.bincount(worker[mine], spent[mine], workers)
        seen = seen or bool((~np.isnan(spent) & (trace.status[part] == RETURNED)).any())
    return busy / time if time > 0 and seen else np.full(workers, NAN)
