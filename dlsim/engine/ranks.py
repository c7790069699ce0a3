"""A job as each of its ranks has it: a scenario and a seed of its own, and what became of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from dlsim.scenario import (
    Dataset,
    IterableDataset,
    Job,
    Loader,
    MapDataset,
    Scenario,
    Stage,
    Validation,
)
from dlsim.scenario.dealing import batches, kept, shard
from dlsim.scenario.distributions import times
from dlsim.trace.trace import Problem

NO_BATCH = -1  # that what ended a rank is about
RANK_BITS = 128  # of a rank's seed, above those of the job's
VALIDATION = 1 << 192  # a seed of its own, above those of all ranks


def rank_seed(seed: int, rank: int) -> int:
    """The seed of a rank; that of rank 0 is the job's."""
    return seed + (rank << RANK_BITS)


def job_seed(seed: int) -> int:
    """The seed of the job that a rank's seed belongs to."""
    return seed % (1 << RANK_BITS)


def validation_seed(seed: int) -> int:
    """The seed of validation in a rank."""
    return seed + VALIDATION


def rank_scenarios(scenario: Scenario) -> list[Scenario]:
    """The scenario of each rank of a job: how data are dealt to it, and what is slower there.

    Where ranks stop with the first that has no more, those that have more leave an epoch after as
    many batches.
    """
    job = scenario.job
    found = [rank_scenario(scenario, rank) for rank in range(job.world)]
    if job.uneven != "stop":
        return found
    counts = [batches(scenario.loader, scenario.dataset, job, rank) for rank in range(job.world)]
    least = min(counts)
    for rank, count in enumerate(counts):
        consumer = found[rank].consumer
        if count > least and (consumer.stop_after or count) > least:
            consumer = structs.replace(consumer, stop_after=max(least, 1))
            found[rank] = structs.replace(found[rank], consumer=consumer)
    return found


def rank_scenario(scenario: Scenario, rank: int) -> Scenario:
    """The scenario of one rank of a job that no other one ends."""
    job = scenario.job
    return slower(structs.replace(scenario, job=job.seen_by(rank)), *job.slower(rank))


def why_not(
    rank: int,
    problems: Sequence[Problem | None],
    steps: Sequence[int],
    left: Mapping[int, float],
    now: float,
) -> Problem:
    """What kept a rank from coming to its end by `now`, though nothing went wrong in it.

    Of all ranks: what each raised, its steps, and when those that came to their end `left` their
    last epoch.
    """
    for other, problem in enumerate(problems):
        if problem is not None:
            message = f"rank {other} ended the job: {problem.message}"
            return Problem("job", message, NO_BATCH, now)
    gone = min(left)
    message = (
        f"rank {rank} waits for rank {gone} after its step {steps[rank]}: rank {gone} took its"
        f" last, number {steps[gone]}, and left at {left[gone]:g} s"
    )
    return Problem("hang", message, NO_BATCH, now)


def fair_share(scenario: Scenario) -> Scenario:
    """A scenario of one rank alone, on as much of its node and of the storage as is its share.

    What it can do at best is what each rank of the job can at best, if all are alike: a closed
    form of the one is one of the other. Its dataset is what an epoch deals to it.
    """
    job, machine, storage = scenario.job, scenario.machine, scenario.machine.storage
    if not scenario.is_job:
        return scenario
    # who reads for all may have the loading of all
    ranks, world = (1, 1) if job.dispatches else (job.ranks, job.world)

    def share(value: float | None, ranks: int) -> float | None:
        return None if value is None else value / ranks

    if job.remote:
        limits = [
            share(job.storage.bandwidth, world),
            share(job.storage.node_bandwidth, ranks),
        ]
        storage = structs.replace(
            storage,
            bandwidth=min((limit for limit in limits if limit is not None), default=None),
            requests_per_second=share(job.storage.requests_per_second, world),
            latency=job.storage.latency,
        )
    else:
        storage = structs.replace(
            storage,
            bandwidth=share(storage.bandwidth, ranks),
            requests_per_second=share(storage.requests_per_second, ranks),
        )
    machine = structs.replace(
        machine,
        cores=share(machine.cores, ranks),
        background=machine.background / ranks,
        memory=share(machine.memory, job.ranks),
        shm=share(machine.shm, job.ranks),
        storage=storage,
    )
    loader, dataset = share_of_data(scenario.loader, scenario.dataset, job)
    own = scenario.validation
    if own is not None:
        theirs = share_of_data(own.loader, own.dataset, job)
        own = structs.replace(own, loader=theirs[0], dataset=theirs[1])
    return structs.replace(
        scenario, loader=loader, dataset=dataset, machine=machine, job=Job(), validation=own
    )


def share_of_data(loader: Loader, dataset: Dataset, job: Job) -> tuple[Loader, Dataset]:
    """The loader and dataset of a rank, if what an epoch deals to it is all that there is."""
    if job.deal == "same" or job.world == 1:
        return loader, dataset
    if job.dispatches:
        return _dispatched_share(loader, dataset, job)
    if isinstance(dataset, IterableDataset):
        mine, each = job.seen_by(0), range(max(loader.num_workers, 1))
        read = [len(shard(dataset, mine, worker, loader)) for worker in each]
        read_for_one = job.world if job.keeps else 1
        counts = tuple(kept(length, mine, loader) for length in read)
        fetch = tuple(read_times(stage, read_for_one) for stage in dataset.fetch)
        return loader, structs.replace(_of_workers(dataset, counts), fetch=fetch)
    return _every(loader, dataset, job.world)


def _dispatched_share(loader: Loader, dataset: Dataset, job: Job) -> tuple[Loader, Dataset]:
    """The same of rank 0 that reads for all: all of it for each batch of its own."""
    fetch = tuple(read_times(stage, job.world) for stage in dataset.fetch)
    dataset = structs.replace(dataset, fetch=fetch, collate=times(dataset.collate, job.round))
    if job.split_batches:
        loader = structs.replace(loader, batch_size=(loader.batch_size or 1) // job.world)
    if isinstance(dataset, IterableDataset):
        workers = range(max(loader.num_workers, 1))
        lengths = (len(shard(dataset, job, worker, loader)) for worker in workers)
        counts = tuple(-(-length // job.world) for length in lengths)
        return loader, _of_workers(dataset, counts)
    return _every(loader, dataset, job.world)


def _of_workers(dataset: IterableDataset, counts: tuple[int, ...]) -> IterableDataset:
    """The dataset of which each worker has so many samples."""
    downloads = dataset.download is not None
    return structs.replace(
        dataset,
        sharding="none" if downloads else counts,
        length=sum(counts),
        shards=counts if downloads else None,
    )


def _every(loader: Loader, dataset: MapDataset, ranks: int) -> tuple[Loader, Dataset]:
    """One of so many equal parts of a map-style dataset."""
    if loader.batch_sampler is not None:
        return structs.replace(loader, batch_sampler=loader.batch_sampler[::ranks]), dataset
    if loader.sampler is not None:
        return structs.replace(loader, sampler=loader.sampler[::ranks]), dataset
    return loader, structs.replace(dataset, length=-(-dataset.length // ranks))


def read_times(stage: Stage, samples: int) -> Stage:
    """What it costs to read so many samples in this stage for each that is kept."""
    parts = {name: times(getattr(stage, name), samples) for name in ("wait", "cpu", "read_bytes")}
    return structs.replace(stage, **parts)


def slower_validation(own: Validation | None, loader: float, step: float) -> Validation | None:
    """Validation, if there is any, whose fetching and steps take so many times as long."""
    if own is None:
        return None
    return structs.replace(
        own,
        dataset=slower_dataset(own.dataset, loader),
        step=times(own.step, step),
        step_per_sample=step * own.step_per_sample,
    )


def slower(scenario: Scenario, loader: float, step: float, disk: float) -> Scenario:
    """The scenario with everything taking so many times as long."""
    if loader == step == disk == 1:
        return scenario
    storage, own = scenario.machine.storage, slower_validation(scenario.validation, loader, step)
    return structs.replace(
        scenario,
        dataset=slower_dataset(scenario.dataset, loader),
        consumer=scenario.consumer.times(step),
        machine=structs.replace(scenario.machine, storage=storage.times(disk)),
        validation=own,
    )


def slower_dataset(dataset: Dataset, factor: float) -> Dataset:
    """The dataset with everything in its workers taking so many times as long."""
    fetch = tuple(stage.times(factor) for stage in dataset.fetch)
    return structs.replace(dataset, fetch=fetch, collate=times(dataset.collate, factor))
