"""A job as each of its ranks has it: a scenario and a seed of its own, and what became of all."""

from __future__ import annotations

from msgspec import structs

from dlsim.scenario import Scenario
from dlsim.scenario.dealing import batches
from dlsim.scenario.distributions import Distribution, scaled

RANK_BITS = 128  # of a rank's seed, above those of the job's


def rank_seed(seed: int, rank: int) -> int:
    """The seed of a rank; that of rank 0 is the job's."""
    return seed + (rank << RANK_BITS)


def job_seed(seed: int) -> int:
    """The seed of the job that a rank's seed belongs to."""
    return seed % (1 << RANK_BITS)


def rank_scenarios(scenario: Scenario) -> list[Scenario]:
    """The scenario of each rank of a job: how data are dealt to it, and what is slower there.

    Where ranks stop with the first that has no more, those that have more leave an epoch after as
    many batches.
    """
    job = scenario.job
    counts = [batches(scenario.loader, scenario.dataset, job, rank) for rank in range(job.world)]
    found = []
    for rank, count in enumerate(counts):
        mine = slower(structs.replace(scenario, job=job.seen_by(rank)), *job.slower(rank))
        stop_after = mine.consumer.stop_after
        if job.uneven == "stop" and count > min(counts) and (stop_after or count) > min(counts):
            consumer = structs.replace(mine.consumer, stop_after=max(min(counts), 1))
            mine = structs.replace(mine, consumer=consumer)
        found.append(mine)
    return found


def slower(scenario: Scenario, loader: float, step: float, disk: float) -> Scenario:
    """The scenario with everything taking so many times as long."""

    def times(distribution: Distribution | None, factor: float) -> Distribution | None:
        return None if distribution is None else scaled(distribution, factor)

    if loader == step == disk == 1:
        return scenario
    dataset, storage = scenario.dataset, scenario.machine.storage
    fetch = tuple(
        structs.replace(stage, wait=times(stage.wait, loader), cpu=times(stage.cpu, loader))
        for stage in dataset.fetch
    )
    storage = structs.replace(
        storage,
        latency=times(storage.latency, disk),
        bandwidth=None if storage.bandwidth is None else storage.bandwidth / disk,
        requests_per_second=(
            None if storage.requests_per_second is None else storage.requests_per_second / disk
        ),
    )
    return structs.replace(
        scenario,
        dataset=structs.replace(dataset, fetch=fetch, collate=times(dataset.collate, loader)),
        consumer=structs.replace(scenario.consumer, step=scaled(scenario.consumer.step, step)),
        machine=structs.replace(scenario.machine, storage=storage),
    )
