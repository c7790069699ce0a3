"""The steady state of a trace: what a run would settle at, were epochs endless."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from dlsim.trace import Trace
from dlsim.whatif.statistics import mser5

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Figures of the batches after the warm-up; NaN where no epoch is long enough to have any.

    `warmup`: batches deleted, over all epochs; `batches`: those that are left. `period`: seconds
    from one return to the next; `batches_per_s`, `samples_per_s`; `wait_mean` in seconds;
    `stall` and `au`: shares of the time waiting and training.
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
        return asdict(self)


def steady_state(trace: Trace) -> Steady:
    """The steady state of `trace`: its epochs without their warm-ups, by MSER-5, taken together.

    In each epoch, MSER-5 is applied to the times between consecutive returns; what comes before
    the first return, and between epochs, belongs to none of them. From the last return of the
    warm-up to the last return of the epoch, returns, waits and steps are counted. An epoch too
    short for MSER-5, or whose warm-up does not end in its first half, does not count.
    """
    order = trace.order
    wait = (trace.returned - trace.requested)[order]
    step = (trace.finished - trace.returned)[order]
    returned, size = trace.returned[order], trace.size[order]
    ends = np.flatnonzero(np.diff(trace.epoch_of(order), append=-1)) + 1
    deleted = left = samples = 0
    time = waited = stepped = 0.0
    for start, stop in zip([0, *ends[:-1]], ends, strict=True) if len(order) else ():
        warmup = mser5(np.diff(returned[start:stop]))
        if warmup is None:
            continue
        first = start + warmup  # the return that ends the warm-up
        deleted += warmup + 1
        left += stop - 1 - first
        samples += int(size[first + 1 : stop].sum())
        time += float(returned[stop - 1] - returned[first])
        waited += float(wait[first + 1 : stop].sum())
        stepped += float(step[first : stop - 1].sum())
    if left == 0 or time <= 0:
        return Steady(**dict.fromkeys(Steady.__dataclass_fields__, NAN))
    return Steady(
        warmup=float(deleted),
        batches=float(left),
        period=time / left,
        batches_per_s=left / time,
        samples_per_s=samples / time,
        wait_mean=waited / left,
        stall=waited / time,
        au=stepped / time,
    )
