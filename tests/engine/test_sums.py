"""Adding equal times many at once."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim.engine import simulate
from dlsim.engine.facts import left_to_chance
from dlsim.engine.sums import after_equal_ones
from dlsim.trace.difference import difference
from tests.strategies import on_machines, scenarios

times = st.floats(0, 1e9) | st.builds(
    lambda odd, power: odd * 2.0**power, st.integers(0, 7), st.integers(-70, 5)
)


@given(times, times, times, st.integers(0, 3000))
def test_many_at_once_are_one_by_one(now: float, one: float, other: float, count: int) -> None:
    """What comes of many equal times at once is what comes of them one by one, to the last bit."""
    slowly = now
    for _ in range(count):
        slowly = slowly + one + other
    assert after_equal_ones(now, count, one, other) == slowly


def test_any_number_takes_a_moment() -> None:
    """A million million equal times are summed, also where they pass all bounds or nothing."""
    assert math.isclose(after_equal_ones(0.0, 10**12, 0.0, 1e-6), 1e6, rel_tol=1e-4)
    assert after_equal_ones(1.0, 10**12, 0.0, 1e-300) == 1.0
    assert after_equal_ones(1.0, 10**12, 1e300, 1e300) == math.inf


def test_constant_times_are_not_drawn_for_each_sample() -> None:
    """Of constant times, a million million samples are simulated as soon as three."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2 * 10**9, num_workers=2),
        dataset=dlsim.MapDataset(10**12, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1e-6))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0)),
    )
    simpy, *others = (
        simulate(each, engine=engine)
        for each in (scenario, dlsim.replace(scenario, {"loader.batch_size": 10**9}))
        for engine in ("simpy", "compiled")
    )
    assert len(simpy.order) == 500
    assert difference(simpy, others[0]) is None
    assert difference(others[1], others[2]) is None
    iterable = dlsim.IterableDataset(10**12, fetch=scenario.dataset.fetch, sharding="split")
    apart = dlsim.replace(scenario, {"dataset": iterable})
    assert len(simulate(apart, engine="simpy").order) == 500


def constant(scenario: dlsim.Scenario) -> dlsim.Scenario:
    """`scenario` with constant times in the workers and of the step, but for what is recorded."""

    def fixed(each: dlsim.scenario.Distribution | None) -> dlsim.scenario.Distribution | None:
        recorded = each is None or isinstance(each, dlsim.Recorded)
        return each if recorded else dlsim.Constant(each.mean)

    dataset = scenario.dataset
    names = ("wait", "cpu", "read_bytes")
    fetch = [
        structs.replace(stage, **{name: fixed(getattr(stage, name)) for name in names})
        for stage in dataset.fetch
    ]
    changes = {
        "dataset.fetch": fetch,
        "dataset.collate": fixed(dataset.collate),
        "dataset.sample_bytes": fixed(dataset.sample_bytes),
        "consumer.step": fixed(scenario.consumer.step),
        "machine.storage.latency": fixed(scenario.machine.storage.latency),
    }
    return dlsim.replace(scenario, changes)


@given(st.one_of(scenarios(), on_machines()).map(constant), st.integers(0, 99))
def test_seeds_make_no_difference_without_chance(scenario: dlsim.Scenario, seed: int) -> None:
    """Where nothing is left to chance, every seed gives the same moments."""
    assume(not left_to_chance(scenario))
    one, other = (simulate(scenario, each, engine="simpy") for each in (0, seed))
    assert difference(one, other) is None


def test_one_run_stands_for_all_without_chance() -> None:
    """Constants are simulated once, and each replication is what it would be by itself."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=2, shuffle=True),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.03)),
    )
    found = dlsim.replicate(scenario, 3)
    for seed, elapsed in zip(found.seeds, found["elapsed"], strict=True):
        assert dlsim.summarize(simulate(scenario, seed)).elapsed == elapsed
    assert found.interval("samples_per_s").half_width == 0
