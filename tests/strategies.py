"""Random scenarios, for properties that must hold for all of them."""

from __future__ import annotations

from hypothesis import strategies as st

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
