"""Which batches are the first ones that their process fetched, in a run that was observed.

Modules are imported and threads are started with them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.metrics import worker_count
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Integers


def processes(seen: Observation) -> Integers:
    """The number of the process that fetched each batch; -1 where that is not known.

    A process is a worker of an epoch, or of all where workers persist; without workers the main
    one, in all epochs.
    """
    workers, scenario = worker_count(seen), seen.meta.scenario
    if not workers:
        return np.zeros(len(seen), np.int64)
    stay = scenario is not None and scenario.loader.workers_stay
    generation = 0 if stay else seen.epoch_of(np.arange(len(seen)))
    found: Integers = np.where(seen.worker < 0, -1, generation * workers + seen.worker)
    return found


def first_of_each(process: Integers) -> Integers:
    """Where each process, by its number, comes first; -1 is none."""
    found, first = np.unique(process, return_index=True)
    return first[found >= 0]


def first_batches(seen: Observation) -> NDArray[np.bool_]:
    """Which batches are the first ones that their process fetched."""
    return first_among(seen, ~np.isnan(seen.started + seen.fetched))


def first_among(seen: Observation, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of `some` batches are the first ones of them that their process fetched."""
    found = np.zeros(len(seen), bool)
    found[first_of_each(np.where(some, processes(seen), -1))] = True
    return found
