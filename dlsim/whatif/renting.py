"""A training on a machine: as a scenario of all its ranks, with as many workers as help."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import structs

from dlsim.engine.ranks import slower
from dlsim.scenario import Instance, Scenario
from dlsim.scenario.steps import On
from dlsim.whatif.bounds import bounds
from dlsim.whatif.space import space

WORKERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)  # of each rank, that are tried
HEADROOM = 0.8  # workers are busy for at most so much of the time that others allow them
SAME = 1.01  # what is slower by a factor below it is as fast


def step_on(training: Scenario, machine: Instance) -> On | None:
    """A step of `training` on the accelerators of `machine`; None where it is not stated."""
    if machine.step is not None:
        return On(accelerator=machine.accelerator or machine.name, step=machine.step)
    family = machine.accelerator.partition("-")[0]
    for kind in (machine.accelerator, family):
        for one in training.consumer.on:
            if one.accelerator.lower() == kind.lower():
                return one
    return None


def scenario_on(training: Scenario, machine: Instance, on: On) -> Scenario:
    """`training` by a rank on each accelerator of `machine`, or of several of them.

    What it has takes the place of what `training` says; what is not known of it stays as there.
    Where ranks read from a storage of all nodes, the network of a machine limits its share of it,
    else its disks are read.
    """
    job, storage = training.job, training.machine.storage
    if job.remote and machine.network is not None:
        most = min(machine.network, job.storage.node_bandwidth or math.inf)
        job = structs.replace(job, storage=structs.replace(job.storage, node_bandwidth=most))
    elif machine.disk_bandwidth is not None:
        storage = structs.replace(storage, bandwidth=machine.disk_bandwidth)
    had = training.machine
    made = structs.replace(
        training,
        loader=structs.replace(
            training.loader, batch_size=on.batch_size or training.loader.batch_size
        ),
        consumer=structs.replace(training.consumer, step=on.step, step_per_sample=0.0, on=()),
        machine=structs.replace(
            had,
            cores=machine.processors or had.cores,
            memory=machine.memory or had.memory,
            shm=machine.shared_memory or had.shm,
            price_per_hour=machine.price_per_hour,
            storage=storage,
        ),
        job=structs.replace(job, ranks=machine.accelerators),
    )
    return slower(made, machine.loading, 1.0, 1.0)


def too_much_data(scenario: Scenario, machine: Instance) -> bool:
    """Whether the data are read from the disks of the machine, and surely do not fit on them."""
    reads = [s.read_bytes for s in scenario.dataset.fetch if s.read_bytes is not None]
    data = scenario.dataset.length * sum(read.mean for read in reads)
    return machine.disk is not None and not scenario.job.remote and data > machine.disk


def loaders(scenario: Scenario, workers: Iterable[int] = WORKERS) -> list[Scenario]:
    """`scenario` with each number of workers that may be the best and fits, the fewest first.

    The fewest that closed forms call enough, and more of them, as those know no chance: none
    where no number of workers fits.
    """
    made = [with_workers(scenario, count) for count in workers]
    best = min(bounds(each).period for each in made)
    enough = [each for each in made if _enough(each, best)] or made[-1:]
    start = made.index(enough[0])
    fitting = [each for each in made[start : start + 3] if space(each).fits is not False]
    if fitting:
        return fitting
    fewer = (each for each in reversed(made[:start]) if space(each).fits is not False)
    return [each for each in [next(fewer, None)] if each is not None]


def _enough(scenario: Scenario, best: float) -> bool:
    """Whether more workers hardly help, as far as closed forms tell."""
    periods = bounds(scenario).periods
    busy = max(periods.get("workers", 0.0), periods.get("window", 0.0))
    least = max((value for name, value in periods.items() if name not in ("workers", "window")))
    return max(periods.values()) <= SAME * best and busy <= max(HEADROOM * least, best * HEADROOM)


def with_workers(scenario: Scenario, count: int) -> Scenario:
    """`scenario` with so many workers for each rank."""
    return structs.replace(scenario, loader=structs.replace(scenario.loader, num_workers=count))
