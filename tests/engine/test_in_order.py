"""Replications at once by NumPy, where llvmlite is not installed."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine import replications
from dlsim.engine.in_order import suits
from dlsim.scenario import Scenario, ScenarioError
from dlsim.trace.difference import difference
from tests.strategies import in_order

SCENARIO = Scenario(
    loader=dlsim.Loader(batch_size=2, num_workers=3),
    dataset=dlsim.MapDataset(600, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]),
    consumer=dlsim.Consumer(step=dlsim.Gamma(0.6, 0.5)),
)
without_llvmlite = mock.patch("dlsim.engine.compiled.find_spec", return_value=None)


@settings(max_examples=150)
@given(in_order, st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_equals_simpy(scenario: Scenario, seeds: list[int]) -> None:
    """Every moment of every batch of each replication is the same as in the SimPy engine."""
    assume(suits(scenario))
    with without_llvmlite:
        found = list(replications(scenario, seeds))
    assert [trace.meta.seed for trace in found] == seeds
    for seed, trace in zip(seeds, found, strict=True):
        assert trace.meta.engine == "numpy"
        assert difference(dlsim.simulate(scenario, seed, engine="simpy"), trace) is None


def test_replications_do_not_depend_on_llvmlite() -> None:
    """What is measured without llvmlite is what is measured with it; the trace says what ran."""
    expected = dlsim.replicate(SCENARIO, 4)
    with without_llvmlite:
        found = dlsim.replicate(SCENARIO, 4)
        (trace,) = replications(SCENARIO, [0])
    assert trace.meta.notes["engine"].startswith("numpy, as the compiled engine needs llvmlite")
    for metric, values in expected.metrics.items():
        assert found[metric] == pytest.approx(values, rel=1e-12, nan_ok=True), metric


def test_the_rest_falls_back_to_simpy() -> None:
    """What the recurrence does not cover runs on the SimPy engine, and the trace says why."""
    with without_llvmlite:
        (trace,) = replications(dlsim.replace(SCENARIO, {"loader.in_order": False}), [0])
    assert trace.meta.engine == "simpy"
    assert trace.meta.notes["engine"].startswith("simpy, as the compiled engine needs llvmlite")


def test_short_records() -> None:
    """A record that is too short is refused with the message of the SimPy engine."""
    short = dlsim.replace(SCENARIO, {"consumer.step": dlsim.Recorded([0.5] * 7)})
    with pytest.raises(ScenarioError) as expected:
        dlsim.simulate(short, engine="simpy")
    with without_llvmlite, pytest.raises(ScenarioError) as found:
        list(replications(short, [0, 1]))
    assert str(found.value) == str(expected.value)


def test_many_long_replications() -> None:
    """Blocks of random numbers, and replications that are not all at once, change nothing."""
    long = dlsim.replace(SCENARIO, {"dataset.length": 50_000, "epochs": 2})
    with without_llvmlite, mock.patch("dlsim.engine.in_order.MOST_BATCHES", 100_000):
        found = list(replications(long, [1, 2, 3]))
    for seed, trace in enumerate(found, 1):
        assert difference(dlsim.simulate(long, seed), trace) is None
