"""The event log: everything that happened, in order, as an array (in words: `narration`).

Events at one moment are ordered by batch number, then by their place in the batch's life (the
order of `MOMENTS`; the samples of a batch come after its `started`). An epoch begins before all
that happens in it at that moment, and ends after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.trace import MOMENTS, Trace

EVENT = np.dtype(
    [("time", np.float64), ("batch", np.int64), ("worker", np.int32), ("kind", np.uint8)]
)


def events(trace: Trace) -> NDArray[Any]:
    """The event log: a structured array of `time` (seconds), `batch`, `worker` and `kind`.

    `kind` is an index into `MOMENTS`. One entry for each moment that is not NaN, by time, then
    batch number, then place in the batch's life.
    """
    times = np.column_stack([getattr(trace, name) for name in MOMENTS])
    happened = ~np.isnan(times)
    batch, kind = np.nonzero(happened)
    times = times[happened]
    # by batch and place already, which a stable sort keeps among equal times
    by_time = np.argsort(times, kind="stable")
    log = np.empty(len(times), EVENT)
    log["time"] = times[by_time]
    log["batch"] = batch[by_time]
    log["worker"] = trace.worker[log["batch"]]
    log["kind"] = kind[by_time]
    return log
