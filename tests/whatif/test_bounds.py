from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Machine, Storage
from dlsim.scenario.machine import Cost
from dlsim.whatif import bounds, disagrees, replicate, steady_state
from dlsim.whatif.bounds import Bounds
from dlsim.whatif.demand import counts, variation
from tests.strategies import distributions, scenarios


def scenario(
    fetch: Any = dlsim.Constant(0.1),  # noqa: B008 (a frozen value)
    step: float = 0.05,
    length: int = 4000,
    stage: str = "wait",
    loader: dict[str, Any] | None = None,
    **changes: Any,
) -> dlsim.Scenario:
    """Batches of 10 samples; four workers."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 10, "num_workers": 4} | (loader or {})),
        dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", **{stage: fetch})]),
        **{"consumer": dlsim.Consumer(step=dlsim.Constant(step))} | changes,
    )


def settles_at(case: dlsim.Scenario) -> float:
    """Seconds a batch in the steady state."""
    return steady_state(dlsim.simulate(case)).period


@pytest.mark.parametrize(
    ("case", "binds", "period"),
    [
        (scenario(step=0.5), "step", 0.5),
        (scenario(), "workers", 1.0 / 4),
        (
            scenario(
                loader={"num_workers": 2, "prefetch_factor": 1},
                costs=dlsim.Costs(index_latency=0.2),
            ),
            "window",
            (1.0 + 0.2) / 2,
        ),
        (scenario(loader={"num_workers": 0}), "serial", 1.0 + 0.05),
        (
            scenario(step=0.0, costs=dlsim.Costs(index_put=0.1, receive=Cost(message=0.2))),
            "main process",
            0.3,
        ),
        (
            scenario(
                step=0.1,
                loader={"pin_memory": True},
                costs=dlsim.Costs(receive=Cost(message=0.2), pin=Cost(message=0.1)),
            ),
            "receive",
            0.3,
        ),
        (scenario(stage="cpu", machine=Machine(cores=2)), "cores", 1.0 / 2),
        (
            scenario(
                fetch=dlsim.Constant(1e6),
                stage="read_bytes",
                machine=Machine(storage=Storage(bandwidth=20e6)),
            ),
            "storage",
            10e6 / 20e6,
        ),
        (
            scenario(
                step=0.5,
                consumer=dlsim.Consumer(step=dlsim.Constant(0.5), run_ahead=2),
                costs=dlsim.Costs(index_put=0.1),
            ),
            "step",
            0.5,
        ),
    ],
)
def test_constant_costs_settle_at_the_bound(
    case: dlsim.Scenario, binds: str, period: float
) -> None:
    """With constant costs the bound that binds is the period at which a simulation settles."""
    found = bounds(case)
    assert found.binds == binds
    assert found.period == pytest.approx(period)
    assert settles_at(case) == pytest.approx(period, rel=0.01)


def test_the_formula() -> None:
    """The period on the ideal machine is `max(T, S / W, (S + g) / K)`."""
    case = scenario(step=0.2, costs=dlsim.Costs(index_latency=0.1))
    assert bounds(case).periods == pytest.approx({"step": 0.2, "workers": 0.25, "window": 1.1 / 8})


def test_a_loop_left_early_has_seen_whole_batches() -> None:
    """The last batch is smaller, and no part of an epoch that is left before it."""
    case = scenario(length=35, consumer=dlsim.Consumer(stop_after=3))
    assert counts(case)[:2] == (3, 30)
    assert dlsim.summarize(dlsim.simulate(case)).samples == 30


def test_uneven_shards() -> None:
    """Workers that share the data unevenly are as fast as the one that has most of it."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=2),
        dataset=dlsim.IterableDataset(
            0, sharding=[3000, 1000], fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.1))]
        ),
    )
    assert bounds(case).periods["workers"] == pytest.approx(0.75)
    assert dlsim.simulate(case).end == pytest.approx(300.0)


def test_page_cache() -> None:
    """What stays in the page cache need not be read in later epochs."""
    case = scenario(
        fetch=dlsim.Constant(1e6),
        stage="read_bytes",
        length=400,
        epochs=4,
        machine=Machine(storage=Storage(bandwidth=10e6, cache=200e6)),
    )
    assert bounds(case).periods["storage"] == pytest.approx((1 + 3 * 0.5) / 4)


times = st.one_of(
    st.builds(dlsim.Constant, st.floats(0, 2)),
    st.builds(lambda a, b: dlsim.Uniform(min(a, b), max(a, b)), st.floats(0, 2), st.floats(0, 2)),
    st.builds(dlsim.Gamma, st.floats(0, 2), st.floats(0.1, 1)),
)
cost = st.builds(
    Cost, message=st.sampled_from([0.0, 0.1, 0.5]), tensor=st.sampled_from([0.0, 0.02])
)


@st.composite
def anywhere(draw: st.DrawFn) -> dlsim.Scenario:
    """A random scenario on a random machine, with well-behaved times."""
    workers = draw(st.integers(0, 4))
    loader: dict[str, Any] = {"num_workers": workers, "batch_size": draw(st.integers(1, 4))}
    loader["pin_memory"] = draw(st.booleans())
    loader["drop_last"] = draw(st.booleans())
    if workers:
        loader["prefetch_factor"] = draw(st.integers(1, 3))
        loader["in_order"] = draw(st.booleans())
        loader["persistent_workers"] = draw(st.booleans())
    size = st.none() | st.builds(dlsim.Constant, st.floats(1, 1e6))
    read = st.builds(dlsim.Stage, st.just("read"), wait=times, cpu=times, read_bytes=size)
    decode = st.builds(dlsim.Stage, st.just("decode"), wait=times, cpu=times)
    length = draw(st.integers(0, 40))
    parts: dict[str, Any] = {
        "fetch": draw(st.lists(decode, max_size=1)) + draw(st.lists(read, max_size=1)),
        "collate": draw(st.none() | times),
        "sample_bytes": dlsim.Constant(draw(st.sampled_from([0.0, 3e4, 3e6]))),
        "path": draw(st.sampled_from(["shm", "pipe"])),
    }
    sharding = draw(st.sampled_from(["map", "none", "split"]))
    device = draw(st.sampled_from(["cpu", "accelerator"]))
    ahead = {"run_ahead": draw(st.integers(0, 2)), "overlap_copy": draw(st.booleans())}
    ahead = {"threads": 2} if device == "cpu" else ahead
    return dlsim.Scenario(
        loader=dlsim.Loader(**loader),
        dataset=dlsim.MapDataset(length, **parts)
        if sharding == "map"
        else dlsim.IterableDataset(length, sharding=sharding, **parts),
        consumer=dlsim.Consumer(step=draw(times), device=device, **ahead),
        costs=dlsim.Costs(
            worker_start=0.1,
            index_latency=0.2,
            index_put=draw(st.sampled_from([0.0, 0.1])),
            take=0.05,
            serialise=draw(cost),
            receive=draw(cost),
            pin=draw(cost),
            share=draw(cost),
            hand_over=draw(cost),
            copy_byte=draw(st.sampled_from([0.0, 1e-6])),
        ),
        machine=Machine(
            cores=draw(st.none() | st.sampled_from([1.0, 2.0, 3.0])),
            background=draw(st.sampled_from([0.0, 1.0])),
            contention=draw(st.sampled_from([0.0, 0.3])),
            crosstalk=draw(st.sampled_from([0.0, 0.0, 0.05])),
            storage=Storage(
                bandwidth=draw(st.none() | st.just(1e6)),
                cache=draw(st.sampled_from([0.0, 1e7])),
                requests_per_second=draw(st.none() | st.just(5.0)),
            ),
        ),
        epochs=draw(st.sampled_from([1, 2])),
    )


@settings(max_examples=80)
@given(anywhere() | scenarios(torch_only=False))
def test_simulations_stay_within_their_bounds(case: dlsim.Scenario) -> None:
    """No simulation is flagged as faster than bounds allow, or slower than queueing explains."""
    assert disagrees(bounds(case), replicate(case, 5)) is None


@given(distributions())
@example(dlsim.Mixture((dlsim.Constant(1.0), dlsim.Exponential(1e-203)), (0.0, 1.0)))
def test_variation(distribution: dlsim.scenario.Distribution) -> None:
    """The coefficient of variation of each distribution is that of its numbers."""
    case = dlsim.replace(
        scenario(length=10, fetch=dlsim.Constant(0.0)), {"consumer.step": distribution}
    )
    numbers = distribution.sample(np.random.default_rng(1), 100_000)
    found = variation(case)
    if numbers.mean() < 1e-9 or np.ptp(numbers) == 0:
        assert found >= 0
    elif not isinstance(distribution, (dlsim.Pareto, dlsim.Lognormal)):  # whose tails are long
        assert found == pytest.approx(numbers.std() / numbers.mean(), rel=0.1)
    else:
        assert found >= 0.5 * numbers.std() / numbers.mean()


def test_disagreement_is_flagged() -> None:
    """A simulation that beats its bounds, or is slower than without any overlap, is flagged."""
    found = replicate(scenario(length=200), 3)
    true = bounds(found.scenario)
    assert disagrees(true, found) is None
    slow = Bounds({"step": 2 * true.period}, true.samples_per_batch, 10.0)
    assert disagrees(slow, found) == (
        "simulated runs of 5.2 s are shorter than is possible, 10 s (step-bound): "
        "one of the two is wrong"
    )
    fast = Bounds({"step": 0.0}, true.samples_per_batch, true.period / 10)
    assert str(disagrees(fast, found)).endswith("more than queueing explains")


def test_text() -> None:
    """The text says what binds first, then each bound."""
    assert str(bounds(scenario())) == (
        "at best 40 samples/s, bound by: workers "
        "(seconds a batch: step 50 ms, workers 250 ms, window 125 ms)"
    )
