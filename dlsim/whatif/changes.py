"""A scenario, changed in one thing: what could be set, bought or programmed differently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from msgspec import structs

from dlsim.scenario import (
    IterableDataset,
    MapDataset,
    Scenario,
    ScenarioError,
    Stage,
)
from dlsim.scenario.distributions import times
from dlsim.scenario.job import Deal
from dlsim.scenario.loader import WITHOUT_WORKERS, StartMethod
from dlsim.whatif.combinations import combinations

ONE_THREAD = "one thread in each worker"
IN_ORDER_SINCE = (2, 6)  # the release of torch that can return batches out of order


@dataclass(frozen=True)
class Change:
    """The `scenario` with one change. `name` says which in words, `setting` as one would write it.

    `loader`: whether it is made by a keyword argument of the DataLoader.
    """

    name: str
    scenario: Scenario
    setting: str = ""

    @property
    def loader(self) -> bool:
        """Whether a keyword argument of the DataLoader makes the change."""
        return self.setting != ""


def changes(scenario: Scenario) -> list[Change]:
    """The single changes that make sense for `scenario`, each of which changes something."""
    others = (Change(name, changed) for name, changed in combinations(scenario))
    ours = (*_loader_changes(scenario), *_beside(scenario), *_other_rules(scenario))
    found = (*ours, *programs(scenario), *others, *_faster(scenario))
    return [change for change in found if change.scenario != scenario]


def without_workers(scenario: Scenario) -> Iterator[Change]:
    """The change to no workers, where there are some, and the data are the same without them."""
    loader, dataset = scenario.loader, scenario.dataset
    given = isinstance(dataset, IterableDataset) and dataset.given
    if loader.num_workers and not given:
        with suppress(ScenarioError):
            without = structs.replace(loader, num_workers=0, **WITHOUT_WORKERS)
            changed = structs.replace(scenario, loader=without)
            yield Change("no workers", changed, "num_workers=0")


def pasted(key: str, value: object) -> str:
    """A keyword argument as one would write it."""
    return f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}"


def quicker_starts(scenario: Scenario) -> list[StartMethod]:
    """The start methods other than that of the workers that are stated to take less of anything."""
    loader, costs = scenario.loader, scenario.costs
    if loader.threads:
        return []
    now = scenario.charged

    def quicker(method: StartMethod) -> bool:
        there = costs.of_processes(method)
        starts, gets_ready = there.worker_start, there.worker_ready
        return starts < now.worker_start or gets_ready < now.worker_ready

    others = (one.method for one in costs.starts if one.method != loader.start_method)
    return [method for method in others if quicker(method)]


def programs(scenario: Scenario) -> Iterator[Change]:
    """What another sampler, another way to share out data or to start workers can change."""
    dataset, loader = scenario.dataset, scenario.loader
    if _can_go_on(scenario):
        # the loop takes batches from one iterator then, which is never rebound
        endless = structs.replace(
            scenario,
            loader=structs.replace(loader, endless=True),
            consumer=structs.replace(scenario.consumer, loop="plain"),
        )
        yield Change("a sampler that does not end", endless)
    even = _even(scenario)
    if even is not None:
        yield Change("even shares", even)
    if repeated(scenario):
        split = structs.replace(dataset, sharding="split")
        yield Change("a part for each worker", structs.replace(scenario, dataset=split))
    yield from _each_for_itself(scenario)
    if isinstance(dataset, IterableDataset) and (ahead := dataset.download) is not None:
        further = structs.replace(
            ahead,
            shards=None if ahead.shards is None else 2 * ahead.shards,
            samples=None if ahead.samples is None else 2 * ahead.samples,
        )
        changed = structs.replace(dataset, download=further)
        yield Change("twice as far downloaded ahead", structs.replace(scenario, dataset=changed))
    together = _at_a_time(scenario)
    if together > loader.start_together:
        beside = structs.replace(loader, start_together=together)
        yield Change(
            f"{together} workers started at a time", structs.replace(scenario, loader=beside)
        )


def _each_for_itself(scenario: Scenario) -> Iterator[Change]:
    """What ranks can do where rank 0 reads for all: each has a part of the data for itself."""
    dataset = scenario.dataset
    iterable = isinstance(dataset, IterableDataset)
    if scenario.job.dispatches and (not isinstance(dataset, IterableDataset) or dataset.divisible):
        deal: Deal = "distributed" if iterable else "batches"
        with suppress(ScenarioError):
            job = structs.replace(scenario.job, deal=deal, split_batches=False)
            yield Change("each rank reads its part", structs.replace(scenario, job=job))


def one_thread(stage: Stage) -> Stage:
    """`stage`, computed by one thread: all that its threads compute but wait for one another."""
    work = stage.threads * (1 - stage.spin)
    cpu = times(stage.cpu, work)
    return structs.replace(stage, cpu=cpu, threads=1, spin=0.0, linger=0.0)


def _loader_changes(scenario: Scenario) -> Iterator[Change]:
    """What the DataLoader's keyword arguments can change."""
    loader, workers = scenario.loader, scenario.loader.num_workers

    def with_loader(name: str, **settings: object) -> Change:
        written = ", ".join(pasted(key, value) for key, value in settings.items())
        changed = structs.replace(loader, **settings)
        return Change(name, structs.replace(scenario, loader=changed), written)

    dataset = scenario.dataset
    # only what is shared out by worker id is the same data with other workers
    if not isinstance(dataset, IterableDataset) or dataset.divisible:
        if workers == 0:
            for number, name in ((1, "one worker"), (2, "two workers"), (4, "four workers")):
                yield with_loader(name, num_workers=number)
        else:
            yield with_loader("one more worker", num_workers=workers + 1)
        if workers > 1:
            yield with_loader("twice the workers", num_workers=2 * workers)
    if loader.slots is not None:
        yield with_loader("twice the slots", slots=2 * loader.slots)
    elif workers > 0:
        factor = loader.window // workers
        yield with_loader("twice the prefetch", prefetch_factor=2 * factor)
    if (
        workers > 1
        and loader.in_order
        and not loader.ordered
        and scenario.torch_release >= IN_ORDER_SINCE
    ):
        yield with_loader("any order", in_order=False)
    if workers > 0 and scenario.epochs > 1 and not loader.persistent_workers:
        yield with_loader("persistent workers", persistent_workers=True)
    for method in quicker_starts(scenario) if workers > 0 else ():
        yield with_loader(f"workers by {method}", multiprocessing_context=method)
    costs, consumer = scenario.charged, scenario.consumer
    if (
        workers > 0
        and not loader.pin_memory
        and consumer.device == "accelerator"
        and costs.receive.of(1, 1.0) + costs.hand_over.of(1, 1.0) > 0
    ):
        yield with_loader("pinned memory", pin_memory=True)


def _beside(scenario: Scenario) -> Iterator[Change]:
    """What keyword arguments of validation's DataLoader can change."""
    own = scenario.validation
    if own is None:
        return
    loader, workers, dataset = own.loader, own.loader.num_workers, own.dataset

    def with_loader(name: str, **settings: object) -> Change:
        written = ", ".join(f"validation {pasted(key, value)}" for key, value in settings.items())
        changed = structs.replace(own, loader=structs.replace(loader, **settings))
        return Change(name, structs.replace(scenario, validation=changed), written)

    if not isinstance(dataset, IterableDataset) or dataset.divisible:
        more = 2 * workers or scenario.loader.num_workers or 1
        name = "twice the workers in validation" if workers else "workers in validation"
        yield with_loader(name, num_workers=more)
    if workers > 0 and not loader.persistent_workers and scenario.validating.epochs > 1:
        yield with_loader("persistent workers in validation", persistent_workers=True)


def _other_rules(scenario: Scenario) -> Iterator[Change]:
    """Who else might get the next batch, and when it might be sent for, which torch has not."""
    loader = scenario.loader
    if loader.num_workers < 2 or loader.stateful:
        return
    if isinstance(scenario.dataset, MapDataset) and loader.dispatch != "shared":
        shared = structs.replace(loader, dispatch="shared")
        yield Change("one shared queue", structs.replace(scenario, loader=shared))
    if loader.in_order and loader.refill == "return":
        arriving = structs.replace(loader, refill="arrival")
        yield Change("refill on arrival", structs.replace(scenario, loader=arriving))


def _can_go_on(scenario: Scenario) -> bool:
    """Whether workers could go on into the next epoch, and do not."""
    loader, dataset = scenario.loader, scenario.dataset
    return (
        loader.num_workers > 0
        and scenario.epochs > 1
        and not (loader.endless or loader.stateful)
        and isinstance(dataset, MapDataset)
        and not (scenario.failures or scenario.is_job or loader.timeout)
        and scenario.consumer.loop in ("plain", "rebind")
        and scenario.consumer.on_error == "stop"
        and loader.batches(dataset.length) > 0
    )


def _at_a_time(scenario: Scenario) -> int:
    """How many workers can start in the time of one, where that takes any: as many as have a core.

    A process that is forked is the main process's own work; others it waits for, which import.
    """
    loader, cores = scenario.loader, scenario.machine.cores
    forked = loader.threads or loader.start_method == "fork"
    if forked or not loader.num_workers or not scenario.charged.worker_start:
        return 1
    return loader.num_workers if cores is None else max(min(loader.num_workers, int(cores)), 1)


def repeated(scenario: Scenario) -> bool:
    """Whether every worker yields all samples of an iterable-style dataset."""
    dataset = scenario.dataset
    if not isinstance(dataset, IterableDataset) or scenario.loader.num_workers < 2:
        return False
    return dataset.shards is None and dataset.sharding == "none"


def _even(scenario: Scenario) -> Scenario | None:
    """`scenario` with the same samples shared out evenly by worker id, if they are not."""
    dataset, workers = scenario.dataset, scenario.loader.num_workers
    if not isinstance(dataset, IterableDataset) or not dataset.uneven or workers < 2:
        return None
    shares = [len(dataset.shard(worker, workers)) for worker in range(workers)]
    if max(shares) - min(shares) < (scenario.loader.batch_size or 1):
        return None
    split = {"sharding": "split", "shards": None, "download": None}
    even = structs.replace(dataset, length=sum(shares), **split)
    return structs.replace(scenario, dataset=even)


def _faster(scenario: Scenario) -> Iterator[Change]:
    """What better code or a better machine can change."""
    dataset, machine, storage = scenario.dataset, scenario.machine, scenario.machine.storage
    for at, stage in enumerate(dataset.fetch):
        if any(time is not None and time.mean > 0 for time in (stage.wait, stage.cpu)):
            fetch = (*dataset.fetch[:at], stage.times(0.5), *dataset.fetch[at + 1 :])
            changed = structs.replace(dataset, fetch=fetch)
            yield Change(f"{stage.name} twice as fast", structs.replace(scenario, dataset=changed))
    if any(stage.threads > 1 for stage in dataset.fetch):
        alone = structs.replace(dataset, fetch=tuple(map(one_thread, dataset.fetch)))
        yield Change(ONE_THREAD, structs.replace(scenario, dataset=alone))
    if dataset.collate is not None and dataset.collate.mean > 0:
        changed = structs.replace(dataset, collate=times(dataset.collate, 0.5))
        yield Change("collate twice as fast", structs.replace(scenario, dataset=changed))
    if machine.cores is not None:
        more = structs.replace(machine, cores=2 * machine.cores)
        yield Change("twice the cores", structs.replace(scenario, machine=more))
    if any(stage.read_bytes is not None for stage in dataset.fetch) and (
        storage.bandwidth or storage.requests_per_second or storage.latency
    ):
        better = structs.replace(machine, storage=storage.times(0.5))
        yield Change("storage twice as fast", structs.replace(scenario, machine=better))
    if scenario.consumer.seconds(1) > 0:
        faster_step = scenario.consumer.times(0.5)
        yield Change("step twice as fast", structs.replace(scenario, consumer=faster_step))
