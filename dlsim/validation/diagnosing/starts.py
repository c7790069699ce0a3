"""What starting workers costs each epoch, and which of them had nothing to do."""

from __future__ import annotations

import msgspec
import numpy as np

from dlsim.engine import simulate
from dlsim.engine.facts import batches_to_simulate
from dlsim.scenario import Loader, Scenario
from dlsim.trace.metrics import epoch_times
from dlsim.trace.observation import Observation

LASTING = 0.05  # a gain of later epochs that is worth a word


def lasting(scenario: Scenario, loader: Loader, whole: int, seed: int) -> float:
    """How many times as fast `loader` with workers that persist makes later epochs, less one.

    The second epoch and all that follow, beside those of the loader of `scenario` as it is.
    `whole`: the batches of an epoch, of which `scenario` may have fewer. 0 without workers.
    """
    if not loader.num_workers:
        return 0.0
    kept = msgspec.structs.replace(loader, persistent_workers=True)
    times = []
    for each in (scenario.loader, kept):
        twice = msgspec.structs.replace(scenario, loader=each, epochs=2)
        trace = simulate(twice, seed)
        end = float(epoch_times(trace)[1])
        more = max(whole - batches_to_simulate(scenario), 0)  # as fast as the middle of the epoch
        returned = trace.returned[trace.order[len(trace.order) // 2 :]]
        step = (returned[-1] - returned[len(returned) // 4]) / max(
            len(returned) - 1 - len(returned) // 4, 1
        )
        times.append(end + more * float(step))
    return times[0] / times[1] - 1 if times[1] > 0 else 0.0


def there_already(scenario: Scenario) -> Scenario:
    """`scenario` with workers that need no starting: a later epoch of workers that persist."""
    costs = msgspec.structs.replace(
        scenario.costs,
        worker_start=0.0,
        first_start=0.0,
        worker_ready=0.0,
        worker_wait=0.0,
        first_sample=0.0,
        first_cpu=0.0,
        first_serialise=0.0,
        first_next=0.0,
        first_receive=0.0,
        worker_stop=0.0,
        first_put=0.0,
    )
    return msgspec.structs.replace(scenario, costs=costs)


def without_data(seen: Observation) -> list[int]:
    """The workers that made no batch in a run that was not left early."""
    scenario = seen.meta.scenario
    if scenario is None or scenario.consumer.stop_after is not None:
        return []
    busy = np.unique(seen.worker[seen.size > 0])
    return [worker for worker in range(scenario.loader.num_workers) if worker not in busy]
