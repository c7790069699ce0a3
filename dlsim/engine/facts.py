"""What both engines go by and neither owns: facts about a scenario in which no time passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

import numpy as np
from msgspec import structs

from dlsim.engine.draws import SAMPLER, Indices, generator
from dlsim.engine.ranks import job_seed
from dlsim.scenario import (
    Constant,
    IterableDataset,
    MapDataset,
    Recorded,
    Scenario,
    Storage,
    dealing,
)

MAIN = -1  # the worker number of the main process
CAPACITY_AWARE_SINCE = (2, 7)  # the release of torch that passes over workers with their share
# What a thread computes at least, of the least that it or another one wants, before it makes room:
# turns are so few for each batch, however short the interval.
PART = 2.0**-10
MEETINGS = 50  # at which threads of a step wait for one another
# For so many seconds who has computed stays with its core, as what it needs is in that one's cache
# (Linux's sched_migration_cost); unless another one has looked in vain at so many ticks.
HOT, PATIENT = 0.5e-3, 2
INSTANT = 1e-9  # seconds; a core that is free for less is not
JOIN_TIMEOUT = 5.0  # torch's MP_STATUS_CHECK_INTERVAL, seconds it waits for a worker to exit


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of user code, on its way to the `next()` that will raise it."""

    kind: str
    message: str


def failure(scenario: Scenario, where: str, at: int) -> Raised | None:
    """The exception that user code raises at this place, or None."""
    for planned in scenario.failures:
        if planned.where == where and planned.at == at:
            place = {"fetch": "sample", "collate": "batch", "worker_init_fn": "worker"}[where]
            return Raised(where, f"{where} raised an exception for {place} {at}")
    return None


def capacity_aware(scenario: Scenario) -> bool:
    """Whether a worker that holds its share of the window is passed over (torch 2.7, any order)."""
    loader = scenario.loader
    since = scenario.torch_release >= CAPACITY_AWARE_SINCE or loader.stateful
    return loader.dispatch == "turns" and not loader.in_order and since


def round_trip(scenario: Scenario) -> float:
    """Seconds that each index costs if sent alone; torch's one message for all spares them."""
    return scenario.charged.index_latency if scenario.policy == "row" else 0.0


def sample_by_sample(scenario: Scenario) -> bool:
    """Whether it matters what each sample asks for, and not just what all of a batch compute.

    It does where they ask for more than processor time of their own process, or may fail.
    """
    stages = enumerate(scenario.dataset.fetch)
    return (
        bool(scenario.failures)
        or scenario.downloads
        or round_trip(scenario) > 0
        or any(
            stage.wait is not None
            or stage.read_bytes is not None
            or stage.threads > 1
            or locked(scenario, number) > 0
            for number, stage in stages
        )
    )


def locked(scenario: Scenario, stage: int) -> float:
    """The share of a stage's `cpu` for which a worker holds the lock that threads share."""
    return scenario.dataset.fetch[stage].lock if scenario.loader.threads else 0.0


def patience(scenario: Scenario) -> float:
    """Seconds that the main process waits for a worker to exit: threads cannot be terminated."""
    return inf if scenario.loader.threads else JOIN_TIMEOUT


def index_order(scenario: Scenario, seed: int, epoch: int) -> Indices:
    """The dataset indices of one epoch in the order of the sampler: recorded, shuffled, or all.

    In a job, of all ranks: they are dealt from one order.
    """
    loader, length = scenario.loader, scenario.dataset.length
    if loader.batch_sampler is not None:
        return [index for batch in loader.batch_sampler for index in batch]
    if loader.sampler is not None:
        return loader.sampler
    if loader.shuffle:
        seed = seed if scenario.job.rank is None else job_seed(seed)
        return generator(seed, SAMPLER, epoch).permutation(length)
    return range(length)


def batch_indices(scenario: Scenario, seed: int, epoch: int) -> Indices:
    """The dataset indices of the batches of one epoch, one batch after another."""
    order = index_order(scenario, seed, epoch)
    places = dealing.places(scenario.loader, scenario.dataset, *dealing.dealt_to(scenario.job))
    return order if places is None else np.asarray(order, np.int64)[places]


def by_index(scenario: Scenario) -> bool:
    """Whether it makes a difference which dataset index a sample has, beside its place in order.

    Where it makes none, nothing is shuffled: a permutation of millions takes longer than many a
    simulation.
    """
    storage = scenario.machine.storage
    parts = [(stage.wait, stage.cpu, stage.read_bytes) for stage in scenario.dataset.fetch]
    asked = [scenario.dataset.sample_bytes, storage.latency, *chain.from_iterable(parts)]
    recorded = any(isinstance(each, Recorded) for each in asked)
    return recorded or storage.cache > 0 or bool(scenario.failures)


def batch_ends(scenario: Scenario) -> Indices:
    """Where each batch of an epoch ends in `batch_indices`."""
    return dealing.ends(scenario.loader, scenario.dataset, *dealing.dealt_to(scenario.job))


def epoch_batches(scenario: Scenario) -> int:
    """How many batches an epoch has that nothing ends early; of a rank, where there are many."""
    return dealing.batches(scenario.loader, scenario.dataset, *dealing.dealt_to(scenario.job))


def shard_of(scenario: Scenario, worker: int) -> Sequence[int]:
    """The dataset indices that the iterator of `worker` reads, of an iterable-style dataset."""
    assert isinstance(scenario.dataset, IterableDataset)
    return dealing.shard(scenario.dataset, scenario.job, worker, scenario.loader)


def last_of_epoch(scenario: Scenario) -> int | None:
    """After how many batches the loop leaves an epoch by itself; None: when there are no more.

    A loop over an endless sampler counts: it never hears that there are no more. So does
    Lightning's, where there is a length.
    """
    loader, dataset = scenario.loader, scenario.dataset
    stop_after, lightning = scenario.consumer.stop_after, scenario.consumer.loop == "lightning"
    if not isinstance(dataset, MapDataset) or not (loader.endless or lightning):
        return stop_after
    batches = epoch_batches(scenario)
    return batches if stop_after is None else min(batches, stop_after)


def keeps_iterator(scenario: Scenario) -> bool:
    """Whether an iterator is still there when the loop is over: where its name is rebound."""
    loop = scenario.consumer.loop
    return loop in ("rebind", "lightning") or scenario.loader.stateful


def lingers(scenario: Scenario) -> bool:
    """Whether there are two sets of workers at a time, where an epoch begins; in a job, of a rank.

    Ranks that stop with others leave an epoch early, too.
    """
    if not scenario.rebinds or scenario.epochs == 1:
        return False
    return last_of_epoch(scenario) is not None or stopped_by_others(scenario)


def stopped_by_others(scenario: Scenario) -> bool:
    """Whether ranks of a job stop with one that has no more, while they still have some."""
    if scenario.job.rank is not None or scenario.job.uneven != "stop":
        return False
    counts = steps_of_ranks(scenario)
    return max(counts) > min(counts)


def meets_after(scenario: Scenario) -> int:
    """After how many steps a rank meets others each time; 0 if never, or if it is none."""
    every = scenario.job.sync
    return every if scenario.job.rank is not None and isinstance(every, int) else 0


def snapshots(scenario: Scenario, drawn: int, given: int) -> bool:
    """Whether a stateful loader asks a worker for its state with the batch that is sent.

    It is the `drawn`-th of the epoch's sampler, from 1 on; `given` have been returned.
    """
    loader = scenario.loader
    every = loader.snapshot_every_n_steps
    if not loader.stateful or every is None:
        return False
    if isinstance(scenario.dataset, MapDataset):
        return (drawn - 1) % every + loader.num_workers >= every
    return given % every + 1 + loader.window + loader.num_workers >= every


def made_again(scenario: Scenario) -> int:
    """How many of the batches before the one at which a stateful loader resumes are made again."""
    loader = scenario.loader
    if not isinstance(scenario.dataset, MapDataset):
        return loader.resume
    if loader.num_workers == 0:
        return 0
    every = loader.snapshot_every_n_steps
    return loader.resume if every is None else loader.resume % every


def storage_of(scenario: Scenario) -> Storage:
    """What a node reads from, as if it had it for itself."""
    job, own = scenario.job, scenario.machine.storage
    if not job.remote:
        return own
    source = job.storage
    limits = [most for most in (source.bandwidth, source.node_bandwidth) if most is not None]
    return structs.replace(
        own,
        bandwidth=min(limits, default=None),
        requests_per_second=source.requests_per_second,
        latency=source.latency,
    )


def networked(scenario: Scenario) -> bool:
    """Whether a storage of all nodes has a bandwidth in which they hinder each other."""
    return scenario.job.nodes > 1 and scenario.job.storage.bandwidth is not None


def only_processes(scenario: Scenario) -> str | None:
    """What the processes have and the compiled engine does not, as `key = value`; None: nothing."""
    if scenario.loader.stateful:
        return "loader.stateful = true"
    if scenario.charged.worker_waits:
        return "costs.worker_waits"
    if scenario.downloads:
        return "dataset.download"
    if scenario.validation is not None:
        return "validation"
    loop = scenario.consumer.loop
    # What is shared, two sets of workers would share.
    if loop != "plain" and (loop != "rebind" or (lingers(scenario) and not scenario.ideal)):
        return f"consumer.loop = {loop}"
    if scenario.job.keeps or scenario.job.dispatches:
        return f"job.deal = {scenario.job.deal}"
    return None


def left_to_chance(scenario: Scenario) -> bool:
    """Whether anything depends on the seed but which index is in which batch."""
    if scenario.validation is not None and left_to_chance(scenario.validating):
        return True
    dataset, job = scenario.dataset, scenario.job
    stages = [each for s in dataset.fetch for each in (s.wait, s.cpu, s.read_bytes)]
    latencies = (scenario.machine.storage.latency, job.storage.latency)
    times = (scenario.consumer.step, dataset.collate, dataset.sample_bytes, job.sync_time)
    drawn = [each for each in (*stages, *latencies, *times, scenario.jitter) if each is not None]
    if not all(isinstance(each, Constant | Recorded) for each in drawn):
        return True
    recorded = any(isinstance(each, Recorded) for each in drawn)
    by_index = recorded or bool(scenario.failures) or scenario.machine.storage.cache > 0
    return scenario.loader.shuffle and by_index


def uncovered(scenario: Scenario) -> str:
    """What the compiled engine does not have of a job, in a few words; "" if it has all of it."""
    beyond = only_processes(scenario)
    if beyond is not None:
        return beyond
    if lingers(scenario) and may_end_early(scenario):
        return "workers that live on where one rank ends all"
    return ""


def may_end_early(scenario: Scenario) -> bool:
    """Whether a job may end before its last rank: by an error, or where ranks wait for ever."""
    job, counts = scenario.job, steps_of_ranks(scenario)
    if scenario.failures or scenario.loader.timeout > 0:
        return True
    hangs = job.uneven == "wait" or (job.uneven == "stop" and min(counts) == 0)
    return hangs and max(counts) > min(counts) and isinstance(job.sync, int)


def steps_of_ranks(scenario: Scenario) -> list[int]:
    """The steps of each rank of a job in an epoch, if none ends it for the others."""
    job, most = scenario.job, last_of_epoch(scenario)
    counts = [dealing.batches(scenario.loader, scenario.dataset, job, r) for r in range(job.world)]
    return counts if most is None else [min(count, most) for count in counts]


def batches_to_simulate(scenario: Scenario) -> int:
    """About how many batches a simulation of `scenario` has: what it costs to simulate."""
    loader, dataset = scenario.loader, scenario.dataset
    if loader.batch_sampler is not None:
        an_epoch = len(loader.batch_sampler)
    else:
        samples = dataset.length if loader.sampler is None else len(loader.sampler)
        if not isinstance(dataset, MapDataset) and dataset.repeats:
            samples *= max(loader.num_workers, 1)
        an_epoch = -(-samples // (loader.batch_size or 1))
    most = min(an_epoch, scenario.consumer.stop_after or an_epoch)
    beside = 0 if scenario.validation is None else batches_to_simulate(scenario.validating)
    return max(1, most * scenario.epochs) + beside
