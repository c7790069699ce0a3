"""The scenario as the event loop wants it: one row of numbers, and the demands of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.jobs import alike
from dlsim.engine.compiled.messages import ANYONES, OWN, OWN_OR_STOLEN
from dlsim.engine.draws import CPU, READ, WAIT
from dlsim.engine.facts import (
    batch_ends,
    capacity_aware,
    last_of_epoch,
    lingers,
    locked,
    meets_after,
    networked,
    patience,
    round_trip,
    shard_of,
    storage_of,
)
from dlsim.scenario import Constant, Cost, IterableDataset, MapDataset, Scenario
from dlsim.scenario.machine import STAGED_BYTES

NONE = -1
TAKING = {"stealing": OWN_OR_STOLEN, "shared": ANYONES}
OWNER = 32  # bits, above which is the rank of who waits for what ranks share


class Place(NamedTuple):
    """Which `rank` of a `world` it is, on nodes that so many `ranks` share; or it is `alone`."""

    rank: int
    ranks: int
    world: int
    alone: bool = False


ALONE = Place(0, 1, 1, alone=True)

HANDLING = ("share", "serialise", "hand_over", "receive", "pin")  # costs of a batch

RULES = np.dtype(
    [
        ("workers", "i8"),
        ("window", "i8"),
        ("in_order", "?"),
        ("with_room", "?"),
        ("taking", "i8"),  # from whose index queue a free worker may take
        ("on_arrival", "?"),  # a batch gives its credit back when it is received
        ("persistent", "?"),  # workers outlive an epoch
        ("lingers", "?"),  # or one that is left early, until the next has workers
        ("timeout", "f8"),
        ("latency", "f8"),
        ("round_trip", "f8"),
        ("iterable", "?"),
        ("batched", "?"),
        ("gang", "i8"),  # customers that a worker is, by its threads
        ("width", "i8"),  # amounts that a call of the dataset asks for
        ("alike", "?"),  # all calls ask for the same ones
        ("most", "i8"),  # samples of a batch
        ("size", "i8"),  # samples asked of an iterable-style dataset at a time
        ("drop_last", "?"),
        ("stop_after", "i8"),  # batches of an epoch
        ("watch", "?"),  # write every sample down
        ("shared", "?"),  # cores, storage or transport cost something
        ("one_by_one", "?"),  # processor time ends with each call of the dataset
        ("sized", "?"),  # samples have sizes
        # Storage:
        ("interval", "f8"),  # between two requests
        ("limited", "?"),  # there is a bandwidth
        ("networked", "?"),  # which nodes share
        ("caching", "?"),
        ("length", "i8"),  # of the dataset
        # The training step:
        ("step_per_sample", "f8"),
        ("run_ahead", "i8"),
        # Of a rank among others:
        ("sync", "i8"),  # steps from one meeting with other ranks to the next; 0: none
        ("place", "i8"),  # in the upper half of who waits for what ranks share
        ("base", "i8"),  # its first customer among those of the node
        ("customers", "i8"),  # and how many it has
        ("overlap_copy", "?"),
        ("switch_interval", "f8"),  # after which threads of a process take turns
        ("cores", "f8"),
        ("background", "f8"),
        ("slice", "f8"),  # at multiples of which processes take turns on cores; 0: they share them
        ("spin", "?"),  # the main process is on a core while it waits for the accelerator
        ("staged", "f8"),  # bytes of a batch; a larger one the host waits for to be copied
        ("threads", "i8"),  # of a step on the CPU; 0: it has a device of its own
        ("linger", "f8"),  # for how long they keep a core busy that wait for others
        ("patience", "f8"),  # with each worker that is to exit
        # Costs:
        ("worker_start", "f8"),
        ("first_start", "f8"),
        ("start_together", "i8"),  # workers that are started in the time of one
        ("worker_ready", "f8"),  # of those that fetch, before they begin,
        ("worker_wait", "f8"),  # for which they are blocked then
        ("worker_stop", "f8"),
        ("index_put", "f8"),
        ("first_put", "f8"),
        ("take", "f8"),
        ("first_serialise", "f8"),
        ("first_next", "f8"),
        ("first_receive", "f8"),
        ("lock", "f8"),  # for what share a worker's other thread holds up the one that fetches
        ("reading", "f8"),  # the share of receiving that is reading from the pipe
        ("pin_memory", "?"),
        ("pipe", "?"),  # batches go through the pipe,
        ("sharing", "?"),  # or workers put them into shared memory
        ("direct", "?"),  # the feeder threads have nothing to do that takes time,
        ("at_once", "?"),  # nor who takes answers off the result queue
        ("computing", "?"),  # all that samples ask for is processor time, one thread for each
        ("copy_byte", "f8"),
        ("tensors", "f8"),
        *((f"{name}_{unit}", "f8") for name in HANDLING for unit in ("message", "tensor", "byte")),
    ]
)

# What a sample asks for in turn; its amounts begin at `place` among those of the sample.
# Of processor time, `part` of it is meant, perhaps that for which the lock is held.
DEMANDS = np.dtype(
    [
        ("kind", "i8"),
        ("stage", "i8"),
        ("place", "i8"),
        ("threads", "i8"),
        ("linger", "f8"),  # for how long they keep a core busy that wait for others
        ("part", "f8"),
        ("locked", "?"),
    ]
)


# What is no rule of most loaders: where none of it is, there is an event loop without it.
PLAIN = {
    "taking": OWN, "on_arrival": False, "lingers": False, "timeout": 0.0,
    "iterable": False, "batched": False, "gang": 1, "watch": False, "one_by_one": False,
    "interval": 0.0, "round_trip": 0.0, "networked": False, "caching": False, "sync": 0,
    "place": 0, "base": 0, "overlap_copy": False, "switch_interval": inf, "slice": 0.0,
    "spin": False, "threads": 0, "lock": 1.0, "reading": 0.0,
}  # fmt: skip


def plain(rules: Mapping[str, Any]) -> bool:
    """Whether these are such rules."""
    return all(rules[name] == value for name, value in PLAIN.items())


AS_THEY_ARE = (  # of costs
    *("worker_start", "first_start", "worker_stop", "index_put", "first_put"),
    *("take", "first_serialise", "lock", "reading"),
)


def rules(scenario: Scenario, *, samples: bool, place: Place = ALONE) -> NDArray[Any]:
    """The scenario in one row."""
    found = rules_of(scenario, samples=samples, place=place)
    return np.array([tuple(found[name] for name in RULES.names or ())], RULES)


def rules_of(scenario: Scenario, *, samples: bool, place: Place = ALONE) -> dict[str, Any]:
    """The same by name."""
    loader, dataset, consumer = scenario.loader, scenario.dataset, scenario.consumer
    costs, storage = scenario.charged, storage_of(scenario)
    ideal, trip, rate = scenario.ideal, round_trip(scenario), storage.requests_per_second
    made = {name: getattr(costs, name) for name in AS_THEY_ARE}
    made["first_next"] = made["first_receive"] = 0.0
    made["worker_ready"], made["worker_wait"] = costs.first_cpu, costs.first_sample
    if loader.num_workers:
        made["worker_ready"] += costs.worker_ready
        made["worker_wait"] += costs.worker_wait
        made["first_next"], made["first_receive"] = costs.first_next, costs.first_receive
    else:
        made["worker_ready"] += costs.first_next
    for name in HANDLING:
        for unit in ("message", "tensor", "byte"):
            made[f"{name}_{unit}"] = getattr(getattr(costs, name), unit)
    return {
        **made,
        "workers": loader.num_workers,
        "start_together": loader.start_together,
        "window": loader.window,
        "in_order": loader.in_order,
        "with_room": capacity_aware(scenario),
        "taking": TAKING.get(loader.dispatch, OWN),
        "on_arrival": loader.refill == "arrival",
        "persistent": loader.workers_stay,
        "lingers": lingers(scenario),
        "timeout": loader.timeout,
        "latency": costs.index_latency - trip,
        "round_trip": trip,
        "iterable": isinstance(dataset, IterableDataset),
        "batched": isinstance(dataset, MapDataset) and dataset.batched,
        "gang": gang(scenario),
        "width": demands(scenario)[1],
        "alike": isinstance(dataset, MapDataset) and alike(scenario),
        "most": most_samples(scenario),
        "size": loader.batch_size or 1,
        "drop_last": loader.drop_last,
        "stop_after": last_of_epoch(scenario) or NONE,
        "watch": samples,
        "sync": 0 if place.alone else meets_after(scenario),
        "place": place.rank << OWNER,
        "base": place.rank % place.ranks * customers(scenario),
        "customers": customers(scenario),
        "shared": not ideal,
        "one_by_one": samples or bool(scenario.failures),
        "sized": not ideal and dataset.sample_bytes != Constant(0.0),
        "interval": 0.0 if rate is None else 1 / rate,
        "limited": storage.bandwidth is not None,
        "networked": not place.alone and networked(scenario),
        "caching": storage.cache > 0 and any(s.read_bytes is not None for s in dataset.fetch),
        "length": indices(scenario),
        "step_per_sample": consumer.step_per_sample,
        "run_ahead": consumer.run_ahead,
        "overlap_copy": consumer.overlap_copy,
        "switch_interval": scenario.machine.switch_interval or inf,
        "cores": scenario.machine.cores or inf,
        "background": scenario.machine.background,
        "slice": 0.0 if ideal else scenario.machine.slices,
        "spin": consumer.spin and not ideal,
        "staged": inf if scenario.pins else STAGED_BYTES * max(dataset.tensors, 1),
        "threads": consumer.threads if consumer.device == "cpu" else 0,
        "linger": consumer.linger if scenario.machine.slices and not scenario.ideal else 0.0,
        "patience": patience(scenario),
        "pin_memory": scenario.pins,
        "pipe": scenario.through_pipe,
        "direct": ideal
        or not (scenario.through_pipe or costs.first_serialise > 0 or costs.serialise != Cost()),
        "at_once": at_once(scenario),
        "computing": computing(scenario, samples=samples),
        "sharing": scenario.through_shm,
        "copy_byte": costs.copy_byte,
        "tensors": dataset.tensors,
    }


def at_once(scenario: Scenario) -> bool:
    """Whether it takes no time to take an answer off the result queue, and to rebuild it."""
    costs = scenario.charged
    nothing = costs.hand_over == costs.receive == Cost() and costs.first_receive == 0
    return scenario.ideal or (nothing and not scenario.through_pipe)


def computing(scenario: Scenario, *, samples: bool) -> bool:
    """Whether what all samples of a batch take is asked for at once, as a sum of processor time."""
    asked = demands(scenario)[0]
    simple = (asked["kind"] == CPU) & (asked["threads"] == 1) & ~asked["locked"]
    together = not samples and not scenario.failures and round_trip(scenario) == 0
    return together and not scenario.ideal and bool(simple.all())


def demands(scenario: Scenario) -> tuple[NDArray[Any], int]:
    """What every sample asks for in turn, and how many amounts that are.

    On the ideal machine there is one amount, the seconds for all, and nothing is asked for.
    """
    if scenario.ideal:
        return np.zeros(0, DEMANDS), 1
    made, place, turns = [], 0, scenario.machine.slices > 0
    for i, stage in enumerate(scenario.dataset.fetch):
        for kind, asked in ((READ, stage.read_bytes), (WAIT, stage.wait), (CPU, stage.cpu)):
            if asked is not None:
                lock = locked(scenario, i) if kind == CPU else 0.0
                if lock > 0:
                    made.append((kind, i, place, 1, 0.0, lock, True))
                linger = stage.linger if turns else 0.0
                made.append((kind, i, place, stage.threads, linger, 1 - lock, False))
                place += 2 if kind == READ else 1
    return np.array(made, DEMANDS), place


def customers(scenario: Scenario) -> int:
    """How many customers one rank may have of what is shared.

    Workers with their threads, who writes into the pipe, and the main process with the threads of
    its step.
    """
    workers = max(scenario.loader.num_workers, 1)
    return workers * gang(scenario) + 1 + scenario.consumer.threads


def gang(scenario: Scenario) -> int:
    """The most threads that compute a stage together in a worker; and one that is beside them."""
    together = max((stage.threads for stage in scenario.dataset.fetch), default=1)
    return together + (scenario.charged.lock < 1)


def rates(scenario: Scenario, customers: int) -> NDArray[np.float64]:
    """How fast cores and storage serve each of so many customers present, from none up to all."""
    machine, storage = scenario.machine, storage_of(scenario)
    bandwidth = storage.bandwidth or inf
    made = np.ones((2, customers + 1))
    for present in range(1, customers + 1):
        made[:, present] = machine.rate(present + machine.background), bandwidth / present
    return made


def between_nodes(scenario: Scenario) -> tuple[float, float]:
    """Bytes a second of the storage of all nodes, and that one of them can take."""
    storage = scenario.job.storage
    capacity = storage.bandwidth or inf
    return capacity, min(capacity, storage.node_bandwidth or inf)


def indices(scenario: Scenario) -> int:
    """How many dataset indices there are."""
    sharding = getattr(scenario.dataset, "sharding", None)
    return sum(sharding) if isinstance(sharding, tuple) else scenario.dataset.length


def most_samples(scenario: Scenario) -> int:
    """The most samples that one batch can have."""
    loader, dataset = scenario.loader, scenario.dataset
    if scenario.job.rank is not None and isinstance(dataset, MapDataset):
        # which are filled up, where they are dealt: beyond how many samples there are
        return int(np.diff(batch_ends(scenario), prepend=0).max(initial=0))
    if loader.batch_sampler is not None:
        return max(map(len, loader.batch_sampler), default=0)
    if isinstance(dataset, IterableDataset):
        workers = range(max(loader.num_workers, 1))
        length = max(len(shard_of(scenario, worker)) for worker in workers)
    else:
        length = dataset.length if loader.sampler is None else len(loader.sampler)
    return min(loader.batch_size or 1, length)
