"""Random scenarios, for properties that must hold for all of them."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim import Scenario

# Whole numbers of 1/64 s: sums are exact, so that much happens at the same moment.
grid = st.integers(0, 256).map(lambda n: n / 64)
anything = st.floats(0, 4, allow_subnormal=False)
moment = st.one_of(grid, anything)


def distributions(recorded: int | None = None) -> st.SearchStrategy[dlsim.scenario.Distribution]:
    """Any distribution of times up to a few seconds; with `recorded`, records of that length."""
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
    if recorded:
        values = st.lists(moment, min_size=recorded, max_size=recorded)
        kinds.append(st.builds(dlsim.Recorded, values))
    return st.one_of(kinds)


def stages(length: int) -> st.SearchStrategy[list[dlsim.Stage]]:
    """None to two stages of blocked and processor time."""
    times = st.none() | distributions(length)
    stage = st.builds(dlsim.Stage, st.sampled_from(["read", "decode"]), wait=times, cpu=times)
    return st.lists(stage, max_size=2)


@st.composite
def scenarios(draw: st.DrawFn, *, torch_only: bool = True) -> Scenario:
    """Any scenario that torch 2.13 can run; without `torch_only`, older rules and policies too."""
    workers = draw(st.one_of(st.integers(0, 4), st.sampled_from([0, 1, 2, 7])))
    iterable = draw(st.booleans())
    length = draw(st.integers(0, 40))
    loader: dict[str, object] = {"num_workers": workers}
    if workers:
        loader["prefetch_factor"] = draw(st.sampled_from([None, None, 1, 2, 3, 5]))
        loader["persistent_workers"] = draw(st.booleans())
        loader["timeout"] = draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0]))
        loader["in_order"] = draw(st.booleans())
    dataset = draw(_iterable(length, workers, loader) if iterable else _map(length, loader))
    consumer = dlsim.Consumer(
        step=draw(distributions()), stop_after=draw(st.none() | st.integers(1, 12))
    )
    failures = draw(_failures(length, workers))
    rules = {} if torch_only else draw(_older(loader))
    return Scenario(
        loader=dlsim.Loader(**loader),
        dataset=dataset,
        consumer=consumer,
        costs=dlsim.Costs(
            worker_start=draw(st.sampled_from([0.0, 0.0, 0.25, 1.7])),
            index_latency=draw(st.sampled_from([0.0, 0.0, 0.125, 0.3])),
        ),
        failures=failures,
        epochs=draw(st.sampled_from([1, 1, 2, 3])),
        **rules,
    )


@st.composite
def _map(draw: st.DrawFn, length: int, loader: dict[str, object]) -> dlsim.MapDataset:
    order = draw(st.sampled_from(["sequential", "shuffle", "sampler", "batch_sampler", "single"]))
    indices = st.integers(0, length - 1) if length else st.nothing()
    if order == "batch_sampler":
        batches = st.lists(st.lists(indices, max_size=5), max_size=12)
        loader["batch_sampler"] = draw(batches if length else st.just([]))
    elif order == "single":
        loader["batch_size"] = None
    else:
        loader["batch_size"] = draw(st.integers(1, 6))
        loader["drop_last"] = draw(st.booleans())
    if order == "shuffle":
        loader["shuffle"] = True
    if order == "sampler":
        loader["sampler"] = draw(st.lists(indices, max_size=40) if length else st.just([]))
    batched = draw(st.booleans())
    return dlsim.MapDataset(
        length,
        fetch=draw(stages(0 if batched else length)),
        collate=draw(st.none() | distributions()),
        batched=batched,
    )


@st.composite
def _iterable(
    draw: st.DrawFn, length: int, workers: int, loader: dict[str, object]
) -> dlsim.IterableDataset:
    loader["batch_size"] = draw(st.none() | st.integers(1, 6))
    if loader["batch_size"] is not None:
        loader["drop_last"] = draw(st.booleans())
    counts = st.lists(st.integers(0, 20), min_size=max(workers, 1), max_size=max(workers, 1))
    sharding = draw(st.one_of(st.just("none"), st.just("split"), counts))
    total = sum(sharding) if isinstance(sharding, list) else length
    return dlsim.IterableDataset(
        total,
        sharding=sharding,
        fetch=draw(stages(total)),
        collate=draw(st.none() | distributions()),
    )


@st.composite
def _failures(draw: st.DrawFn, length: int, workers: int) -> list[dlsim.Failure]:
    if draw(st.integers(0, 3)):
        return []
    failure = st.one_of(
        st.builds(dlsim.Failure, st.just("fetch"), st.integers(0, max(length, 1))),
        st.builds(dlsim.Failure, st.just("collate"), st.integers(0, 20)),
        st.builds(dlsim.Failure, st.just("worker_init_fn"), st.integers(0, max(workers, 1))),
    )
    return draw(st.lists(failure, min_size=1, max_size=2))


@st.composite
def _older(draw: st.DrawFn, loader: dict[str, object]) -> dict[str, object]:
    releases = ["2.6", "2.7", "2.13"] if loader.get("in_order") is False else ["2.0", "2.5", "2.13"]
    return {
        "torch": draw(st.sampled_from(releases)),
        "policy": draw(st.sampled_from(["torch", "torch", "row"])),
    }


@st.composite
def on_machines(draw: st.DrawFn) -> Scenario:
    """Any scenario on any machine: cores, storage, transport, pinning, steps, all together."""
    scenario = draw(scenarios(torch_only=False))
    dataset = scenario.dataset
    reads = st.none() | distributions().map(_kilobytes)
    fetch = [structs.replace(stage, read_bytes=draw(reads)) for stage in dataset.fetch]
    dataset = structs.replace(
        dataset,
        fetch=fetch,
        sample_bytes=draw(st.just(dlsim.Constant(0.0)) | distributions().map(_kilobytes)),
        tensors=draw(st.sampled_from([1, 0, 20])),
        path=draw(st.sampled_from(["shm", "pipe"])),
    )
    method = st.sampled_from([None, "spawn"]) if scenario.loader.num_workers else st.none()
    return structs.replace(
        scenario,
        loader=structs.replace(
            scenario.loader,
            pin_memory=draw(st.booleans()),
            multiprocessing_context=draw(method),
        ),
        dataset=dataset,
        consumer=draw(_consumers(scenario.consumer)),
        machine=draw(_machines()),
        costs=draw(_costs(scenario.costs)),
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


@st.composite
def _consumers(draw: st.DrawFn, consumer: dlsim.Consumer) -> dlsim.Consumer:
    if draw(st.booleans()):
        return structs.replace(consumer, device="cpu", threads=draw(st.sampled_from([1, 1, 2, 5])))
    return structs.replace(
        consumer, run_ahead=draw(st.sampled_from([0, 0, 1, 3])), overlap_copy=draw(st.booleans())
    )


@st.composite
def _machines(draw: st.DrawFn) -> dlsim.Machine:
    return dlsim.Machine(
        cores=draw(st.sampled_from([None, 0.5, 1.0, 2.0, 3.0, 64.0])),
        background=draw(_sometimes(1.0, 0.3)),
        contention=draw(_sometimes(0.25, 0.1)),
        storage=dlsim.Storage(
            bandwidth=draw(_sometimes(1e5, 3e4, usual=None)),
            latency=draw(st.none() | distributions()),
            requests_per_second=draw(_sometimes(1.0, 7.0, usual=None)),
            cache=draw(_sometimes(1e5, 3e5, 1e9)),
        ),
    )


@st.composite
def _costs(draw: st.DrawFn, costs: dlsim.Costs) -> dlsim.Costs:
    seconds = _sometimes(0.25, 0.1, 1e-3)
    per_byte = _sometimes(1e-5, 2.0**-17)
    cost = st.builds(dlsim.Cost, message=seconds, tensor=_sometimes(0.01), byte=per_byte)
    return structs.replace(
        costs,
        worker_ready=draw(_sometimes(1.0, 0.3, 20.0)),
        worker_stop=draw(_sometimes(0.25)),
        index_put=draw(seconds),
        take=draw(seconds),
        share=draw(cost),
        serialise=draw(cost),
        hand_over=draw(cost),
        receive=draw(cost),
        pin=draw(cost),
        copy_byte=draw(per_byte),
    )
