"""All that changes during a simulation, as flat arrays, for the event loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.messages import POINTS
from dlsim.engine.dispatcher import next_with_room, rule
from dlsim.scenario import IterableDataset, MapDataset, Scenario
from dlsim.trace.trace import MOMENTS

NONE = -1

RULES = np.dtype(
    [
        ("workers", "i8"),
        ("window", "i8"),
        ("in_order", "?"),
        ("with_room", "?"),
        ("persistent", "?"),
        ("timeout", "f8"),
        ("latency", "f8"),
        ("round_trip", "f8"),
        ("worker_start", "f8"),
        ("iterable", "?"),
        ("batched", "?"),
        ("most", "i8"),  # samples of a batch
        ("size", "i8"),  # samples asked of an iterable-style dataset at a time
        ("drop_last", "?"),
        ("stop_after", "i8"),
        ("run_ahead", "i8"),
        ("watch", "?"),  # write every sample down
    ]
)

# The main process: torch's `_MultiProcessingDataLoaderIter`, and the loop around it.
MAIN_PROCESS = np.dtype(
    [
        ("now", "f8"),
        ("sent", "i8"),
        ("wanted", "i8"),
        ("turn", "i8"),
        ("active", "i8"),  # workers that have not ended
        ("owed", "i8"),  # batches to be sent before anything else
        ("returning", "i8"),  # the batch that the current next() is about to return
        ("requested", "f8"),
        ("count", "i8"),  # batches returned in this epoch
        ("returned", "i8"),  # and in all
        ("trained", "i8"),  # steps that the host no longer waits for
        ("accelerator", "f8"),  # when it has done all steps given to it
        ("closing", "?"),
        ("answer", "i8"),  # what receive() took: a batch number, or NONE for RESUME's answer
        ("head", "i8"),  # of the result queue
        ("tail", "i8"),
        ("events", "i8"),  # how many workers will act
        ("free", "i8"),  # first of the unused messages
        ("job", "i8"),  # first unused row of the jobs drawn
        ("rows", "i8"),  # rows of samples written
        ("more", "?"),  # the sampler has more than the jobs drawn
        ("hungry", "i8"),  # the shard that needs more numbers
        ("short_index", "i8"),  # the dataset index, or
        ("short_number", "i8"),  # the batch number for which nothing was recorded
    ]
)

WORKER = np.dtype(
    [
        ("head", "i8"),  # of its index queue, a list linked through the messages
        ("tail", "i8"),
        ("job", "i8"),  # the message it is fetching for
        ("alive", "?"),
        ("ended", "?"),  # its iterator has ended
        ("broken", "i8"),  # the failure of its worker_init_fn,
        ("told", "?"),  # whether a job was answered by it,
        ("equipped", "?"),  # and whether there is something to fetch with all the same
        ("active", "?"),  # as far as the dispatcher knows
        ("held", "i8"),  # sent to it and not returned
    ]
)

MESSAGE = np.dtype(
    [
        ("number", "i8"),
        ("at", "f8"),  # when the worker can read it
        ("next", "i8"),
        ("calls", "i8"),
        ("taken", "i8"),  # samples
        ("collate", "f8"),
        ("outcome", "i8"),
        ("first", "i8"),  # dataset index of the first sample of an iterable
        ("row", "i8"),  # of its first sample among those written down
        ("rows", "i8"),
    ]
)

ANSWER = np.dtype([("time", "f8"), ("worker", "i8"), ("number", "i8")])

# The iterator over one shard of an iterable-style dataset, and the numbers drawn for it.
SHARD = np.dtype([("index", "i8"), ("rest", "i8"), ("ended", "?"), ("used", "i8"), ("have", "i8")])

Array = NDArray[Any]


class State(NamedTuple):
    """The arrays of one simulation. Those of one row hold what there is one of."""

    rules: Array
    main: Array
    workers: Array
    wake: Array  # when each worker acts next; infinity: when it is sent something
    eligible: Array  # a tree of who may get the next batch: whether anyone below each node may
    events: Array  # a heap of the workers that will act, the first on top
    messages: Array
    seconds: Array  # for each message, of its calls
    results: Array  # the result queue, a ring
    shards: Array
    shard_seconds: Array
    # The jobs drawn and not yet sent, one row for each batch:
    offsets: Array  # where its samples begin
    indices: Array  # of its samples; empty where nobody asks
    services: Array  # seconds of its samples, or with `batched` of its call
    collates: Array
    steps: Array
    # What user code raises, as in the scenario:
    fail_where: Array
    fail_at: Array
    # One column for each batch number:
    moments: Array
    worker: Array
    size: Array
    status: Array
    outcome: Array
    step: Array
    order: Array
    # And for each sample written down:
    sample_index: Array
    sample_batch: Array
    sample_worker: Array
    sample_started: Array
    sample_fetched: Array


COLUMNS = {
    "worker": np.int32,
    "size": np.int32,
    "status": np.uint8,
    "outcome": np.int32,
    "step": np.float64,
    "order": np.int64,
}
SAMPLES = {
    "sample_index": np.int64,
    "sample_batch": np.int64,
    "sample_worker": np.int32,
    "sample_started": np.float64,
    "sample_fetched": np.float64,
}
SHARD_SECONDS = 512  # numbers kept ready for each shard, besides one batch


def rules(scenario: Scenario, *, samples: bool) -> Array:
    """The scenario as the event loop wants it."""
    loader, dataset, costs = scenario.loader, scenario.dataset, scenario.costs
    round_trip = costs.index_latency if scenario.policy == "row" else 0.0
    made = np.zeros(1, RULES)
    for name, value in {
        "workers": loader.num_workers,
        "window": loader.window,
        "in_order": loader.in_order,
        "with_room": rule(scenario) is next_with_room,
        "persistent": loader.persistent_workers,
        "timeout": loader.timeout,
        "latency": costs.index_latency - round_trip,
        "round_trip": round_trip,
        "worker_start": costs.worker_start,
        "iterable": isinstance(dataset, IterableDataset),
        "batched": isinstance(dataset, MapDataset) and dataset.batched,
        "most": most_samples(scenario),
        "size": loader.batch_size or 1,
        "drop_last": loader.drop_last,
        "stop_after": scenario.consumer.stop_after or NONE,
        "run_ahead": scenario.consumer.run_ahead,
        "watch": samples,
    }.items():
        made[name] = value
    return made


def most_samples(scenario: Scenario) -> int:
    """The most samples that one batch can have."""
    loader, dataset = scenario.loader, scenario.dataset
    if loader.batch_sampler is not None:
        return max(map(len, loader.batch_sampler), default=0)
    if isinstance(dataset, IterableDataset):
        workers = range(max(loader.num_workers, 1))
        length = max(len(dataset.shard(worker, loader.num_workers)) for worker in workers)
    else:
        length = dataset.length if loader.sampler is None else len(loader.sampler)
    return min(loader.batch_size or 1, length)


def new_state(scenario: Scenario, *, samples: bool) -> State:
    """The state before anything has happened, with room for little."""
    rows = rules(scenario, samples=samples)
    workers = scenario.loader.num_workers
    calls = max(most_samples(scenario), 1)
    # Sent and not answered: the window, and for each worker RESUME, or STOP at its end and ours.
    messages = max(scenario.loader.window, 1) + 2 * workers
    shards = max(workers, 1) if isinstance(scenario.dataset, IterableDataset) else 0
    main = np.zeros(1, MAIN_PROCESS)
    main["returning"] = main["short_index"] = main["short_number"] = NONE
    return State(
        rules=rows,
        main=main,
        workers=np.zeros(workers, WORKER),
        wake=np.empty(workers),
        eligible=np.zeros(2 << max(workers - 1, 0).bit_length(), np.bool_),
        events=np.empty(workers, np.int64),
        messages=np.zeros(messages, MESSAGE),
        seconds=np.empty((messages, 1 if rows["batched"][0] else calls)),
        results=np.zeros(1 << messages.bit_length(), ANSWER),
        shards=np.zeros(max(shards, 1), SHARD),
        shard_seconds=np.empty((shards, calls + SHARD_SECONDS)),
        offsets=np.zeros(1, np.int64),
        indices=np.empty(0, np.int64),
        services=np.empty(0),
        collates=np.empty(0),
        steps=np.empty(0),
        fail_where=np.array([POINTS.index(f.where) for f in scenario.failures], np.int64),
        fail_at=np.array([f.at for f in scenario.failures], np.int64),
        moments=np.empty((len(MOMENTS), 0)),
        **{name: np.empty(0, kind) for name, kind in (COLUMNS | SAMPLES).items()},
    )
