"""For how long `collate_fn` is blocked in a run that was observed, as one that reads is."""

from __future__ import annotations

import numpy as np

from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats

NOTICED = 0.05  # of what is fetched; less is how long threads of Python take to take turns


def blocked(seen: Observation) -> Floats:
    """Seconds of each batch, 0 where nothing was collated; 0 of all where it is next to nothing.

    What passes while the worker pickles the batch before is none: that keeps Python's lock.
    """
    computed = np.nan_to_num(seen.collate_cpu) + np.nan_to_num(seen.collate_queued)
    found = np.nan_to_num(seen.fetched - seen.collating) - computed
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(seen.fetched))
        now, then = mine[:-1], mine[1:]
        begins = np.fmax(seen.serialising[now], seen.collating[then])
        ends = np.fmin(seen.serialised[now], seen.fetched[then])
        found[then] -= np.maximum(np.nan_to_num(ends - begins), 0.0)
    found = np.maximum(found, 0.0)
    whole = float(np.nan_to_num(seen.fetched - seen.started).sum())
    return found if found.sum() > NOTICED * whole else np.zeros(len(seen))
