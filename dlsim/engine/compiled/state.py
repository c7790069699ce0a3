"""All that changes during a simulation, as flat arrays, for the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.messages import POINTS
from dlsim.engine.compiled.rows import (
    ANSWER,
    BATCH,
    CORE,
    CUSTOMER,
    JOB,
    MAIN_PROCESS,
    MESSAGE,
    NETWORK,
    SHARD,
    SHARING,
    SOURCE,
    STEP_GIVEN,
    THREAD,
    WORKER,
)
from dlsim.engine.compiled.settings import (
    ALONE,
    NONE,
    Place,
    between_nodes,
    customers,
    demands,
    indices,
    most_samples,
    rates,
    rules,
)
from dlsim.engine.compiled.tournament import leaves, tournament
from dlsim.engine.native.arrays import reader
from dlsim.scenario import IterableDataset, Loader, MapDataset, Scenario
from dlsim.trace.trace import MOMENTS

Array = NDArray[Any]


class State(NamedTuple):
    """The arrays of one simulation. Those of one row hold what there is one of."""

    rules: Array
    main: Array
    workers: Array
    wake: Array  # when each one acts next
    first: Array  # a tree of who acts first of all below each node
    awaited: Array  # services that each one still waits for
    eligible: Array  # who may get the next batch: a bit for each worker
    sharing: Array
    rates: Array  # at which the level rises, for each number of customers present
    paces: Array  # and the seconds for which it takes to rise by one
    cores: Array  # where they are had in turns
    customers: Array
    threads: Array  # of each customer
    due: Array  # the level at which the first thread of each customer is done
    first_due: Array  # trees of the customers due first of all below each node
    messages: Array
    amounts: Array  # for each message, of its calls
    kept: Array  # for each message, the dataset indices, where the page cache asks for them
    results: Array  # the result queue, a ring
    pinned: Array  # what the pin-memory thread has done, a ring
    line: Array  # who waits for the pipe, or the lock: a ring
    demands: Array
    source: Array
    cached: Array  # a bit for each stage and dataset index
    shards: Array
    places: Array  # the dataset index at each place of the shards; empty where that is the place
    shard_amounts: Array
    shard_sizes: Array
    # The jobs drawn and not yet sent, one row for each batch:
    offsets: Array  # where its samples begin
    indices: Array  # of its samples; empty where nobody asks
    services: Array  # amounts of its samples, or with `batched` of its call
    sizes: Array  # of its samples, bytes
    collates: Array
    steps: Array
    jitters: Array
    # What user code raises, as in the scenario:
    fail_where: Array
    fail_at: Array
    # One column for each batch number:
    moments: Array
    worker: Array
    size: Array
    status: Array
    order: Array
    batches: Array
    stepped: Array  # when the rank had done each step; no row, if it meets nobody
    # Where ranks meet others:
    pending: Array  # steps given to the accelerator, a ring
    job: Array
    ranks: Array  # where the tables of all ranks are
    rank_times: Array  # when someone of each rank acts next,
    rank_turns: Array  # and whose turn it is then
    rank_first: Array  # a tree of the ranks that act first of all below each node
    node_times: Array  # when something is due at what the ranks of each node share
    node_first: Array
    network: Array
    network_reads: Array  # how many each node is known to have,
    network_with: Array  # and how many nodes have so many
    network_due: Array  # the level at which a read of each node is done that is not full
    network_first: Array
    meeting_times: Array  # seconds of each meeting
    changed: Array
    # And for each sample written down:
    sample_numbers: Array  # index, batch, worker
    sample_moments: Array  # started, fetched


COLUMNS = ("moments", "worker", "size", "status", "order", "batches", "stepped")
SHARED = (  # on a node
    "sharing", "rates", "paces", "cores", "customers", "threads", "due", "first_due",
    "source", "cached",
)  # fmt: skip
COMMON = (  # to all ranks
    "job", "ranks", "rank_times", "rank_turns", "rank_first", "node_times", "node_first",
    "network", "network_reads", "network_with", "network_due", "network_first",
    "meeting_times", "changed",
)  # fmt: skip
SAMPLES = ("sample_numbers", "sample_moments")
WORD = 64  # workers whose bits are in one integer
SHARD_SAMPLES = 512  # samples whose numbers are kept ready for each shard, besides one batch


def new_state(
    scenario: Scenario, *, samples: bool, place: Place = ALONE, before: Sequence[State] = ()
) -> State:
    """The state before anything has happened, with room for little.

    What ranks share is made for all of them by the first; `before` are the states of ranks before.
    """
    rows = rules(scenario, samples=samples, place=place)
    asked, amounts = demands(scenario)
    workers = scenario.loader.num_workers
    calls = max(most_samples(scenario), 1)
    # Sent and not answered: the window, and for each worker RESUME, or STOP at its end and ours.
    messages = max(scenario.loader.window, 1) + 2 * workers
    ring = 1 << messages.bit_length()
    shards = max(workers, 1) if isinstance(scenario.dataset, IterableDataset) else 0
    caching = bool(rows["caching"][0])
    one = rows["batched"][0] or rows["alike"][0]  # row of amounts for all samples of a batch
    main = np.zeros(1, MAIN_PROCESS)
    for name in ("returning", "ready", "acting", "short_index", "short_number"):
        main[name] = NONE
    main["soon"] = main["alarm"] = inf
    # Without workers, the main process fetches with the hands of a worker.
    hands = max(workers, 1)
    actors = 2 * hands + 1  # workers, feeder threads, the pin-memory thread
    acting = hands if rows["direct"][0] and not rows["pin_memory"][0] else actors
    owner = place.rank - place.rank % place.ranks
    first = owner == place.rank
    sharing = place.ranks * customers(scenario) if first else 1
    spinning = place.ranks * scenario.consumer.spin
    rising = rates(scenario, sharing + spinning) if first else before[owner].rates
    world = place.world if place.rank == 0 else 1
    nodes = world // place.ranks if place.rank == 0 else 1
    room = scenario.machine.storage.cache
    fresh = (0, 0, 0.0, 0.0, inf, inf, room, True, 0.0, 0, 0, 0, 0, 0, False, False)
    customer = (0, 0.0, 0.0, 0, 0.0, 0, NONE, False, 0, 0.0, 0, NONE, inf, 0.0, 0.0, False)
    made = State(
        rules=rows,
        main=main,
        workers=np.zeros(hands, WORKER),
        wake=np.full(leaves(acting), inf),
        first=tournament(acting),
        awaited=np.zeros(actors + 1, np.int64),  # with the main process
        eligible=np.zeros(workers // WORD + 1, np.int64),
        sharing=np.full(2, np.array(fresh, SHARING)),
        rates=rising,
        paces=1 / rising,
        cores=np.array([(NONE, 0, 0)] * min(ceil(scenario.machine.cores or 1), sharing), CORE),
        customers=np.full((2, sharing), np.array(customer, CUSTOMER)),
        threads=np.full((2, sharing, 3), np.array((inf, NONE, 0.0, 0), THREAD)),
        due=np.full((2, leaves(sharing)), inf),
        first_due=np.tile(tournament(sharing), (2, 1)),
        messages=np.zeros(messages, MESSAGE),
        amounts=np.empty((messages, amounts * (1 if one else calls))),
        kept=np.empty((messages, calls if caching else 0), np.int64),
        results=np.zeros(ring, ANSWER),
        pinned=np.zeros(ring, ANSWER),
        line=np.zeros(1 << workers.bit_length(), np.int64),
        demands=asked,
        source=np.zeros(1, SOURCE),
        cached=np.zeros(
            len(scenario.dataset.fetch) * indices(scenario) // 8 + 1 if caching else 0, np.uint8
        ),
        shards=np.zeros(max(shards, 1), SHARD),
        places=np.empty(0, np.int64),
        shard_amounts=np.empty((shards, (calls + SHARD_SAMPLES) * amounts)),
        shard_sizes=np.empty((shards, calls + SHARD_SAMPLES)),
        offsets=np.zeros(1, np.int64),
        indices=np.empty(0, np.int64),
        services=np.empty(0),
        sizes=np.empty(0),
        collates=np.empty(0),
        steps=np.empty(0),
        jitters=np.empty(0),
        fail_where=np.array([POINTS.index(f.where) for f in scenario.failures], np.int64),
        fail_at=np.array([f.at for f in scenario.failures], np.int64),
        moments=np.empty((len(MOMENTS), 0)),
        worker=np.empty(0, np.int32),
        size=np.empty(0, np.int32),
        status=np.empty(0, np.uint8),
        order=np.empty(0, np.int64),
        batches=np.empty(0, BATCH),
        stepped=np.empty((1 if rows["sync"][0] else 0, 0)),
        pending=np.zeros(1 << (scenario.consumer.run_ahead + 2).bit_length(), STEP_GIVEN),
        job=np.array([(0.0, NONE, place.world, place.ranks, 0, 0.0, 0, 0.0, 0, 0, inf, 0)], JOB),
        ranks=np.zeros(world, np.int64),
        rank_times=np.full(leaves(world), inf),
        rank_turns=np.zeros(leaves(world), np.int64),
        rank_first=tournament(world),
        node_times=np.full(leaves(nodes), inf),
        node_first=tournament(nodes),
        network=np.array([(*between_nodes(scenario), 1, 0, 0, 0.0, 0.0, 0.0, inf)], NETWORK),
        network_reads=np.zeros(nodes, np.int64),
        network_with=np.zeros(place.ranks * hands + 1, np.int64),
        network_due=np.full(leaves(nodes), inf),
        network_first=tournament(nodes),
        meeting_times=np.zeros(1),
        changed=np.zeros(world, np.int64),
        sample_numbers=np.empty((3, 0), np.int64),
        sample_moments=np.empty((2, 0)),
    )
    theirs = {} if first else {name: getattr(before[owner], name) for name in SHARED}
    common = {} if place.rank == 0 else {name: getattr(before[0], name) for name in COMMON}
    if place.rank > 0 and scenario.job.remote:
        common["source"] = before[0].source
    return made._replace(**{**theirs, **common})


# In compiled code: the state of which a table is at an address.
read = reader(
    new_state(Scenario(loader=Loader(), dataset=MapDataset(1)), samples=False), fixed=("rules",)
)
