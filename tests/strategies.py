"""Random scenarios, for properties that must hold for all of them.

Strategies are made once, as far as they can be: making one takes longer than drawing from it.
"""

from __future__ import annotations

from functools import cache

from hypothesis import reject
from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim import Scenario
from dlsim.scenario.machine import STEADY
from dlsim.scenario.pipeline import (
    GRAIN,
    NODES,
    SPDL,
    Aggregate,
    Batcher,
    Link,
    Mapper,
    ParallelMapper,
    Pipe,
    Pipeline,
    Prefetcher,
    Read,
    Unbatcher,
)

# Whole numbers of 1/64 s: sums are exact, so that much happens at the same moment.
grid = st.integers(0, 256).map(lambda n: n / 64)
anything = st.floats(0, 4, allow_subnormal=False)
moment = st.one_of(grid, anything)


kinds = [
    st.builds(dlsim.Constant, moment),
    st.builds(lambda a, b: dlsim.Uniform(min(a, b), max(a, b)), moment, moment),
    st.builds(dlsim.Exponential, moment),
    st.builds(dlsim.Gamma, moment, st.floats(0.1, 2)),
    st.builds(dlsim.Lognormal, st.floats(0.01, 4), st.floats(0.1, 2)),
    st.builds(dlsim.Pareto, moment, st.floats(1.1, 4)),
    st.builds(dlsim.Empirical, st.lists(moment, min_size=1, max_size=5)),
    st.builds(
        lambda a, b, w: dlsim.Mixture((dlsim.Constant(a), dlsim.Exponential(b)), (w, 1.0)),
        moment,
        moment,
        st.floats(0, 3),
    ),
]


@cache
def distributions(recorded: int = 0) -> st.SearchStrategy[dlsim.scenario.Distribution]:
    """Any distribution of times up to a few seconds; with `recorded`, records of that length."""
    values = st.lists(moment, min_size=recorded, max_size=recorded)
    return st.one_of(kinds + [st.builds(dlsim.Recorded, values)] * (recorded > 0))


@cache
def stages(length: int) -> st.SearchStrategy[list[dlsim.Stage]]:
    """None to two stages of blocked and processor time."""
    times = st.none() | distributions(length)
    stage = st.builds(dlsim.Stage, st.sampled_from(["read", "decode"]), wait=times, cpu=times)
    return st.lists(stage, max_size=2)


flags = st.booleans()
collates = st.none() | distributions()
counts = st.sampled_from([0, 1, 2, 7]) | st.integers(0, 4)
crews = st.sampled_from([1, 2, 7]) | st.integers(1, 4)
few, many = st.integers(1, 6), st.integers(0, 40)
ends = st.none() | st.integers(1, 12)
epochs = st.sampled_from([1, 1, 2, 3])
starts = st.sampled_from([0.0, 0.0, 0.25, 1.7])
together = st.sampled_from([1, 1, 1, 2, 3])
latencies = st.sampled_from([0.0, 0.0, 0.125, 0.3])
windows = st.sampled_from([None, None, 1, 2, 3, 5])
timeouts = st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0])
errors = st.sampled_from(["stop", "continue"])
per_sample = st.sampled_from([0.0, 0.0, 0.125, 0.3])
loops = st.sampled_from(["plain", "plain", "rebind"])
orders = st.sampled_from(["sequential", "shuffle", "sampler", "batch_sampler", "single"])


refills = st.sampled_from(["return", "return", "arrival"])
_torchs = st.just({"dispatch": "turns", "refill": "return"})
_of_parts = _torchs | st.fixed_dictionaries({"dispatch": st.just("dealt"), "refill": refills})
_of_batches = st.one_of(
    _torchs,
    st.fixed_dictionaries({"dispatch": st.sampled_from(["turns", "dealt"]), "refill": refills}),
    st.fixed_dictionaries(
        {
            "dispatch": st.sampled_from(["stealing", "shared"]),
            "refill": refills,
            "slots": st.sampled_from([None, 1, 2, 5]),
        }
    ),
)


@st.composite
def scenarios(draw: st.DrawFn, *, torch_only: bool = True, map_style: bool = False) -> Scenario:
    """Any scenario that torch 2.13 can run; without `torch_only`, older rules and policies too.

    With `map_style` only those of a map-style dataset, with workers.
    """
    workers, length = draw(crews if map_style else counts), draw(many)
    loader: dict[str, object] = {"num_workers": workers}
    if workers:
        loader["prefetch_factor"] = draw(windows)
        loader["persistent_workers"] = draw(flags)
        loader["timeout"] = draw(timeouts)
        loader["in_order"] = draw(flags)
    iterable = not map_style and draw(flags)
    dataset = _iterable(draw, length, workers, loader) if iterable else _map(draw, length, loader)
    if workers and not torch_only:
        loader |= draw(_of_parts if iterable else _of_batches)
        loader["start_together"] = draw(together)
        if loader.get("slots"):
            loader["prefetch_factor"] = None
    on_error, failures = draw(errors), draw(_failures(length, workers))
    device = draw(st.sampled_from(["accelerator", "cpu", "pause"]))
    if on_error == "continue":  # nothing that would be raised for ever
        failures = [
            failure
            for failure in failures
            if not loader.get("endless") and not (iterable and failure.where == "worker_init_fn")
        ]
    return Scenario(
        loader=dlsim.Loader(
            **loader, pin_memory=device != "accelerator"
        ),  # where that does nothing
        dataset=dataset,
        consumer=dlsim.Consumer(
            step=draw(distributions()),
            step_per_sample=draw(per_sample),
            stop_after=draw(ends),
            device=device,
            on_error=on_error,
            loop="plain" if loader.get("endless") else draw(loops),
        ),
        costs=dlsim.Costs(worker_start=draw(starts), index_latency=draw(latencies)),
        failures=failures,
        epochs=draw(epochs),
        **({} if torch_only else draw(_older(loader.get("in_order") is False))),
    )


def _map(draw: st.DrawFn, length: int, loader: dict[str, object]) -> dlsim.MapDataset:
    order = draw(orders)
    if order == "batch_sampler":
        loader["batch_sampler"] = draw(_batches(length))
    elif order == "single":
        loader["batch_size"] = None
    else:
        loader["batch_size"] = draw(few)
        loader["drop_last"] = draw(flags)
    if order == "shuffle":
        loader["shuffle"] = length > 0
    if order == "sampler":
        loader["sampler"] = draw(_indices(length, 40))
    batched = draw(flags)
    loader["endless"] = draw(flags) and dlsim.Loader(**loader).batches(length) > 0
    return dlsim.MapDataset(
        length,
        fetch=draw(stages(0 if batched else length)),
        collate=draw(collates),
        batched=batched,
    )


@cache
def _indices(length: int, most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, length - 1), max_size=most) if length else st.just([])


@cache
def _batches(length: int) -> st.SearchStrategy[list[list[int]]]:
    batch = st.lists(st.integers(0, length - 1), min_size=1, max_size=5)
    return st.lists(batch, max_size=12) if length else st.just([])


def _iterable(
    draw: st.DrawFn, length: int, workers: int, loader: dict[str, object]
) -> dlsim.IterableDataset:
    loader["batch_size"] = draw(st.none() | few)
    if loader["batch_size"] is not None:
        loader["drop_last"] = draw(flags)
    dealing = draw(_shardings(max(workers, 1)) | _dealings)
    counted = dealing.get("shards", dealing.get("sharding"))
    total = sum(counted) if isinstance(counted, list) else length
    return dlsim.IterableDataset(
        total,
        **dealing,
        fetch=draw(stages(total)),
        collate=draw(collates),
    )


@cache
def _shardings(workers: int) -> st.SearchStrategy[dict[str, object]]:
    shards = st.lists(st.integers(0, 20), min_size=workers, max_size=workers)
    kinds = st.sampled_from(["none", "split", "litdata", "streaming"]) | shards
    return st.fixed_dictionaries({"sharding": kinds})


_dealings = st.fixed_dictionaries(
    {
        "shards": st.lists(st.integers(0, 12), min_size=1, max_size=6),
        "dealt": st.sampled_from(["turns", "runs"]),
    }
)


@cache
def _failures(length: int, workers: int) -> st.SearchStrategy[list[dlsim.Failure]]:
    failure = st.one_of(
        st.builds(dlsim.Failure, st.just("fetch"), st.integers(0, max(length, 1))),
        st.builds(dlsim.Failure, st.just("collate"), st.integers(0, 20)),
        st.builds(dlsim.Failure, st.just("worker_init_fn"), st.integers(0, max(workers, 1))),
    )
    none = st.just([])
    return st.one_of(none, none, none, st.lists(failure, min_size=1, max_size=2))


@cache
def _older(any_order: bool) -> st.SearchStrategy[dict[str, object]]:
    releases = ["2.6", "2.7", "2.15"] if any_order else ["2.0", "2.5", "2.15"]
    return st.fixed_dictionaries(
        {
            "torch": st.sampled_from(releases),
            "policy": st.sampled_from(["torch", "torch", "row"]),
        }
    )


def _ahead(some: st.SearchStrategy[Scenario]) -> st.SearchStrategy[Scenario]:
    """The same with accelerators that the host runs ahead of."""
    return st.builds(
        lambda scenario, ahead, overlap: (
            dlsim.replace(scenario, {"consumer.run_ahead": ahead, "consumer.overlap_copy": overlap})
            if scenario.consumer.device == "accelerator"
            else scenario
        ),
        some,
        st.sampled_from([0, 0, 1, 3]),
        flags,
    )


ideal = _ahead(scenarios(torch_only=False))
in_order = _ahead(scenarios(torch_only=False, map_style=True)).map(
    lambda scenario: dlsim.replace(
        scenario,
        {
            "loader.in_order": True,
            "loader.endless": False,
            "loader.dispatch": "dealt" if scenario.loader.dispatch == "dealt" else "turns",
            "loader.refill": "return",
            "loader.slots": None,
            "loader.timeout": 0.0,
            "consumer.stop_after": None,
            "failures": [],
            "dataset.sample_bytes": 10.0,
        },
    )
)


def _kilobytes(distribution: dlsim.scenario.Distribution) -> dlsim.scenario.Distribution:
    """About as many times 30 KB as there were seconds: some messages fit into a pipe."""
    size = dlsim.Constant(distribution.mean * 30_000)
    return (
        size
        if isinstance(distribution, dlsim.Constant)
        else dlsim.Mixture((dlsim.Exponential(distribution.mean * 30_000), size), (1.0, 1.0))
    )


def _sometimes(*values: float | None, usual: float | None = 0.0) -> st.SearchStrategy[float | None]:
    """Mostly the usual value."""
    return st.sampled_from([usual, usual, *values])


sizes = distributions().map(_kilobytes)
reads = st.none() | sizes
parts = st.fixed_dictionaries(
    {
        "sample_bytes": st.sampled_from([dlsim.Constant(0.0), dlsim.Constant(2e6)]) | sizes,
        "tensors": st.sampled_from([1, 0, 20]),
        "path": st.sampled_from(["shm", "pipe"]),
    }
)
gangs = st.sampled_from([1, 1, 2, 3])
locks = st.sampled_from([0.0, 0.0, 0.3, 1.0])
lingering = st.sampled_from([0.0, 0.0, 0.1, 0.7, 5.0])
worker_kinds = st.sampled_from(["processes", "processes", "threads"])
methods = st.sampled_from([None, "spawn"])
uses = st.one_of(
    st.fixed_dictionaries({"device": st.just("pause")}),
    st.fixed_dictionaries({"device": st.just("cpu"), "threads": st.sampled_from([1, 1, 2, 5])}),
    st.fixed_dictionaries(
        {
            "device": st.just("cpu"),
            "threads": st.sampled_from([2, 3]),
            "linger": st.sampled_from([0.1, 0.7, 5.0]),
        }
    ),
    st.fixed_dictionaries(
        {
            "device": st.just("accelerator"),
            "run_ahead": st.sampled_from([0, 0, 1, 3]),
            "overlap_copy": flags,
            "spin": flags,
        }
    ),
)
machines = st.builds(
    dlsim.Machine,
    cores=st.sampled_from([None, 0.5, 1.0, 2.0, 3.0, 64.0]),
    background=_sometimes(1.0, 0.3),
    siblings=_sometimes(0.6, usual=1.0),
    contention=_sometimes(0.25, 0.1),
    crosstalk=_sometimes(0.25, 0.01),
    crosstalk_power=st.sampled_from([2.0, 1.0, 3.5]),
    switch_interval=st.sampled_from([None, None, 0.005, 0.1, 1.0]),
    slice=st.sampled_from([None, None, 0.1, 0.7, 1.0]),
    storage=st.builds(
        dlsim.Storage,
        bandwidth=_sometimes(1e5, 3e4, usual=None),
        latency=st.none() | distributions(),
        requests_per_second=_sometimes(1.0, 7.0, usual=None),
        cache=_sometimes(1e5, 3e5, 1e9),
    ),
)
seconds = _sometimes(0.25, 0.1, 1e-3)
per_byte = _sometimes(1e-5, 2.0**-17)
cost = st.builds(dlsim.Cost, message=seconds, tensor=_sometimes(0.01), byte=per_byte)
costs = st.fixed_dictionaries(
    {
        "worker_ready": _sometimes(1.0, 0.3, 20.0),
        "worker_wait": _sometimes(0.25, 0.7, 20.0),
        "first_sample": _sometimes(0.25, 0.7),
        "first_cpu": _sometimes(0.25, 0.7),
        "first_start": _sometimes(0.25, 0.7),
        "first_put": _sometimes(0.25, 0.7),
        "first_serialise": _sometimes(0.25, 0.7),
        "first_next": _sometimes(0.25, 0.7),
        "first_receive": _sometimes(0.25, 0.7),
        "worker_stop": _sometimes(0.25),
        "index_put": seconds,
        "take": seconds,
        "share": cost,
        "serialise": cost,
        "hand_over": cost,
        "receive": cost,
        "reading": st.sampled_from([0.0, 0.0, 0.7, 1.0]),
        "lock": st.sampled_from([1.0, 1.0, 0.3, 0.0]),
        "jitter": st.sampled_from([STEADY, dlsim.Gamma(1.0, 0.5), dlsim.Uniform(0.0, 2.0)]),
        "pin": cost,
        "copy_byte": per_byte,
    }
)


every = st.sampled_from([None, None, 1, 2, 3, 12])


@st.composite
def validated(draw: st.DrawFn, some: st.SearchStrategy[Scenario]) -> Scenario:
    """The same with validation, which is another scenario's loader and loop."""
    scenario, other = draw(some), draw(some)
    stopping = {"consumer.on_error": "stop"}
    plain = scenario.consumer.loop == "plain"  # as endless samplers need it
    loader = structs.replace(
        other.loader,
        in_order=other.loader.in_order or scenario.torch_release < (2, 6),
        endless=other.loader.endless and plain,
        pin_memory=scenario.consumer.device != "accelerator",  # where that does nothing
    )
    return dlsim.replace(
        scenario,
        {
            **stopping,
            "validation": dlsim.Validation(
                loader=loader,
                dataset=other.dataset,
                step=other.consumer.step,
                step_per_sample=other.consumer.step_per_sample,
                every=draw(every),
                num_sanity_val_steps=draw(st.sampled_from([0, 0, 1, 2, 5])),
                stop_after=other.consumer.stop_after,
                failures=other.failures,
            ),
        },
    )


worlds = st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
differs = st.lists(
    st.builds(
        dlsim.scenario.Differs,
        rank=st.just(0),
        loader=st.sampled_from([1.0, 2.0]),
        step=st.sampled_from([1.0, 0.5, 3.0]),
    ),
    max_size=1,
)
of_all_nodes = st.builds(
    dlsim.scenario.RemoteStorage,
    bandwidth=_sometimes(1e5, 3e4, usual=None),
    node_bandwidth=_sometimes(7e4, 2e4, usual=None),
    requests_per_second=_sometimes(1.0, 7.0, usual=None),
    latency=st.none() | distributions(),
)


@st.composite
def jobs(draw: st.DrawFn, alone: st.SearchStrategy[Scenario], *, remote: bool = True) -> Scenario:
    """Ranks that each do what one does alone: on a node or several, dealt data in any way.

    With `remote`, nodes that read may read from a storage of all of them.
    """
    scenario = draw(alone)
    loader, dataset = scenario.loader, scenario.dataset
    ranks, nodes = draw(worlds)
    deals = ["same"]
    if loader.batch_sampler is None:
        deals.append("distributed")
    if isinstance(dataset, dlsim.MapDataset) and loader.batch_size and not loader.batch_sampler:
        deals.append("batches")
    deal = draw(st.sampled_from(deals))
    if isinstance(dataset, dlsim.IterableDataset) and isinstance(dataset.sharding, tuple):
        shards = max(loader.num_workers, 1) * (1 if deal == "same" else ranks * nodes)
        lengths = draw(st.lists(st.integers(0, 12), min_size=shards, max_size=shards))
        dataset = structs.replace(dataset, sharding=lengths, length=sum(lengths), fetch=[])
    storage, machine = dlsim.scenario.RemoteStorage(), scenario.machine
    if remote and any(stage.read_bytes is not None for stage in dataset.fetch) and draw(flags):
        storage = draw(of_all_nodes)
        machine = structs.replace(machine, storage=dlsim.Storage(cache=machine.storage.cache))
    try:
        return structs.replace(
            scenario,
            dataset=dataset,
            machine=machine,
            job=dlsim.scenario.Job(
                ranks=ranks,
                nodes=nodes,
                sync=draw(st.sampled_from([1, 1, 2, 3, "epoch", "never"])),
                sync_time=draw(st.sampled_from([dlsim.Constant(0.0)]) | distributions()),
                deal=deal,
                drop_last=draw(flags),
                even_batches=draw(flags),
                uneven=draw(st.sampled_from(["wait", "stop", "join"])),
                storage=storage,
                differs=draw(differs),
            ),
        )
    except dlsim.ScenarioError:  # more ranks than batches
        reject()


@st.composite
def dispatched(draw: st.DrawFn, alone: st.SearchStrategy[Scenario]) -> Scenario:
    """Jobs in which rank 0 reads for all others, as accelerate's DataLoaderDispatcher has it."""
    scenario = draw(jobs(alone))
    world, size = scenario.job.world, scenario.loader.batch_size or 1
    if world == 1:
        reject()
    try:
        return dlsim.replace(
            scenario,
            {
                "job.deal": "dispatched",
                "job.split_batches": size % world == 0 and draw(flags),
                "job.broadcast_time": draw(
                    st.sampled_from([dlsim.Constant(0.0)]) | distributions()
                ),
                "failures": scenario.failures if draw(flags) else (),
                "loader.endless": False,
                "consumer.loop": "accelerate",
                "consumer.on_error": "stop",
                "consumer.run_ahead": 0,
                "consumer.overlap_copy": False,
            },
        )
    except dlsim.ScenarioError:  # no round of batches, or shards for other ranks
        reject()


@st.composite
def on_machines(draw: st.DrawFn) -> Scenario:
    """Any scenario on any machine: cores, storage, transport, pinning, steps, all together."""
    scenario = draw(scenarios(torch_only=False))
    loader, dataset = scenario.loader, scenario.dataset
    fetch = [
        structs.replace(
            s,
            read_bytes=draw(reads),
            threads=draw(gangs),
            lock=draw(locks),
            linger=draw(lingering),
        )
        for s in dataset.fetch
    ]
    kind = draw(worker_kinds) if loader.num_workers else "processes"
    method = draw(methods) if loader.num_workers and kind == "processes" else None
    return structs.replace(
        scenario,
        loader=structs.replace(
            loader, workers=kind, pin_memory=draw(flags), multiprocessing_context=method
        ),
        dataset=structs.replace(dataset, fetch=fetch, **draw(parts)),
        # the compiled engine has no two sets of workers on a machine that they share
        consumer=structs.replace(scenario.consumer, loop="plain", **draw(uses)),
        machine=draw(machines),
        costs=structs.replace(scenario.costs, **draw(costs)),
    )


@st.composite
def waiting(draw: st.DrawFn) -> dlsim.Stage:
    """A stage of a pipeline that only waits, so long that no two moments are the same by chance."""
    longest = draw(st.sampled_from([0.02, 0.05, 0.1, 0.3]))
    times = [dlsim.Uniform(0.001, longest), dlsim.Exponential(longest / 3)]
    return dlsim.Stage("work", wait=draw(st.sampled_from([None, *times])))


def pipelines(like: str, links: st.SearchStrategy[tuple[Link, ...]]) -> st.SearchStrategy[Pipeline]:
    """Pipelines of up to 40 items, in which training may leave early."""
    step = st.sampled_from([0.02, 0.1]).map(lambda longest: dlsim.Uniform(0.001, longest))
    return st.builds(
        Pipeline,
        like=st.just(like),
        length=st.integers(0, 40),
        links=links,
        source=st.none() | waiting(),
        buffer_size=st.integers(1, 4),
        num_threads=st.integers(1, 8),
        step=st.just(dlsim.Constant(0.0)) | step,
        stop_after=st.none() | st.none() | st.integers(1, 20),
    )


@st.composite
def _nodes(draw: st.DrawFn) -> tuple[Link, ...]:
    links: list[Link] = []
    lists = False
    few = st.integers(1, 4)
    for kind in draw(st.lists(st.sampled_from(["map", "map", "prefetch", "batch"]), max_size=4)):
        if kind == "map":
            workers = draw(few)
            slots = draw(st.none() | st.integers(1, workers))
            stage, lot = draw(waiting()), draw(st.none() | st.none() | few)
            links.append(ParallelMapper(stage, workers, draw(st.booleans()), slots, lot))
        elif kind == "prefetch":
            links.append(Prefetcher(draw(few)))
        else:
            links.append(
                Unbatcher() if lists else Batcher(draw(few), drop_last=draw(st.booleans()))
            )
            lists = not lists
    return tuple(links)


def nodes_pipelines() -> st.SearchStrategy[Pipeline]:
    """Random graphs of torchdata.nodes."""
    return pipelines(NODES, _nodes())


_aggregate = st.builds(Aggregate, st.integers(1, 4), st.booleans())
_pipe = st.builds(
    Pipe,
    waiting(),
    concurrency=st.integers(1, 5),
    output_order=st.sampled_from(["completion", "input"]),
    threads=st.none() | st.integers(1, 5),
)


def _enough(pipeline: Pipeline) -> Pipeline:
    """The same with a thread for each task, if one is of a stage in order of input.

    Else several that ask for the last thread at one moment get it in an order that hangs on how
    many turns of asyncio's loop each takes to ask.
    """
    if not any(isinstance(link, Pipe) and link.output_order == "input" for link in pipeline.links):
        return pipeline
    links = tuple(
        structs.replace(link, threads=None) if isinstance(link, Pipe) else link
        for link in pipeline.links
    )
    return structs.replace(pipeline, links=links, num_threads=32)


def spdl_pipelines() -> st.SearchStrategy[Pipeline]:
    """Random pipelines of SPDL."""
    links = st.lists(st.one_of(_pipe, _pipe, _pipe, _aggregate), max_size=3).map(tuple)
    return pipelines(SPDL, links).map(_enough)


_batch = st.builds(Batcher, st.integers(1, 4), drop_last=st.booleans())


@st.composite
def _grain(draw: st.DrawFn) -> tuple[Link, ...]:
    first: list[Link] = [draw(_batch)] if draw(st.booleans()) else []
    read = Read(draw(waiting()), draw(st.integers(1, 5)), draw(st.integers(1, 12)))
    lists = bool(first)
    links = [*first, read]
    for kind in draw(st.lists(st.sampled_from(["apply", "batch"]), max_size=3)):
        if kind == "apply":
            links.append(Mapper(draw(waiting())))
        elif not lists:
            links.append(draw(_batch))
            lists = True
    return tuple(links)


def grain_pipelines() -> st.SearchStrategy[Pipeline]:
    """Random pipelines of grain, in the main process."""
    return pipelines(GRAIN, _grain())
