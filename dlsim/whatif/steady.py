"""The steady state of a trace: what a run would settle at, were epochs endless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dlsim.trace import Trace, metrics
from dlsim.trace.tally import MOST_MARKS, Marks, Tally
from dlsim.whatif.statistics import GROUP, cut_offs

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Figures of the batches after the warm-up; NaN where no epoch is long enough to have any.

    `warmup`: batches deleted, over all epochs; `batches`: those that are left. `period`: seconds
    from one return to the next; `batches_per_s`, `samples_per_s`; `wait_mean` in seconds;
    `stall` and `au`: shares of the time that the accelerator is idle and busy; what is left is
    validation.
    """

    warmup: float
    batches: float
    period: float
    batches_per_s: float
    samples_per_s: float
    wait_mean: float
    stall: float
    au: float

    def as_dict(self) -> dict[str, float]:
        """Figure by name, in the order of the fields."""
        return dict(vars(self))


def steady_state(run: Trace | Tally) -> Steady:
    """The steady state of a run: its epochs without their warm-ups, by MSER-5, taken together.

    In each epoch, MSER-5 is applied to the times between consecutive returns; what comes before
    the first return, and between epochs, belongs to none of them. From the last return of the
    warm-up to the last return of the epoch, returns, waits and steps are counted. An epoch too
    short for MSER-5, or whose warm-up does not end in its first half, does not count. In epochs
    of more than 80,000 batches, MSER looks at means of 10, 20, 40, ... values instead of five.
    """
    (found,) = steady_states([marks_of(run)])
    return found


def steady_states(runs: Sequence[Sequence[Marks]]) -> list[Steady]:
    """The steady state of each run, given the marks of its epochs; sooner than one by one."""
    cuts = iter(
        cut_offs(
            [
                np.diff(marks.time[: (marks.batches - 1) // marks.stride + 1]) / marks.stride
                for run in runs
                for marks in run
            ]
        )
    )
    return [_steady([(marks, next(cuts)) for marks in run]) for run in runs]


def _steady(epochs: Sequence[tuple[Marks, int | None]]) -> Steady:
    """The steady state of a run, given how many marks of each epoch are deleted."""
    deleted = left = samples = 0.0
    time = waited = stepped = apart = 0.0
    for marks, cut in epochs:
        if cut is None:
            continue
        deleted += cut * marks.stride + 1
        left += marks.batches - 1 - cut * marks.stride
        time += float(marks.time[-1] - marks.time[cut])
        waited += float(marks.waited[-1] - marks.waited[cut])
        stepped += float(marks.stepped[-1] - marks.stepped[cut])
        samples += float(marks.samples[-1] - marks.samples[cut])
        apart += 0.0 if marks.apart is None else float(marks.apart[-1] - marks.apart[cut])
    if left == 0 or time <= 0:
        return Steady(**dict.fromkeys(Steady.__dataclass_fields__, NAN))
    return Steady(
        warmup=deleted,
        batches=left,
        period=time / left,
        batches_per_s=left / time,
        samples_per_s=samples / time,
        wait_mean=waited / left,
        stall=1 - (stepped + apart) / time,
        au=stepped / time,
    )


def marks_of(run: Trace | Tally) -> Sequence[Marks]:
    """The marks of each epoch of a run."""
    return run.marks if isinstance(run, Tally) else list(_marks(run))


def _marks(trace: Trace) -> Iterator[Marks]:
    order = trace.order
    wait = (trace.returned - trace.requested)[order]
    began, ended = metrics.busy(trace)
    step = ended - began
    free = np.append(-np.inf, ended[:-1])
    returned, size = trace.returned[order], trace.size[order]
    since, until = metrics.validations(trace)
    apart = np.append(0.0, np.cumsum(until - since))[np.searchsorted(until, returned, "right")]
    under_way = np.fmax(free - returned, 0.0)  # what was counted and is still to be computed
    ends = np.flatnonzero(np.diff(trace.epoch_of(order), append=-1)) + 1
    for start, stop in zip([0, *ends[:-1]], ends, strict=True) if len(order) else ():
        stride = GROUP
        while (stop - start - 1) // stride >= MOST_MARKS:
            stride *= 2
        at = np.append(np.arange(0, stop - start, stride), stop - start - 1)
        yield Marks(
            stride=stride,
            batches=stop - start,
            time=returned[start:stop][at],
            waited=np.cumsum(wait[start:stop])[at],
            stepped=(np.cumsum(step[start:stop]) - step[start:stop] - under_way[start:stop])[at],
            samples=np.cumsum(size[start:stop], dtype=np.float64)[at],
            apart=apart[start:stop][at] if len(since) else None,
        )
