"""Dataset indices, which are made where somebody asks for them."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine import simulate, simulate_job
from dlsim.engine.draws import generator
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference, job_difference
from tests.strategies import jobs, on_machines, scenarios


@settings(max_examples=100)
@given(scenarios(torch_only=False) | on_machines(), st.integers(0, 2**32))
def test_they_change_no_moment(scenario: Scenario, seed: int) -> None:
    """Where nobody asks for dataset indices, every moment is as if they had been made."""
    told = simulate(scenario, seed, samples=True, engine="simpy")
    assert difference(told, simulate(scenario, seed, engine="simpy")) is None


@settings(max_examples=30)
@given(jobs(scenarios()), st.integers(0, 2**32))
def test_they_change_no_moment_of_a_job(scenario: Scenario, seed: int) -> None:
    """The same holds of jobs, where an order is dealt to all ranks."""
    told = simulate_job(scenario, seed, samples=True, engine="simpy")
    assert job_difference(told, simulate_job(scenario, seed, engine="simpy")) is None


@pytest.mark.parametrize(
    ("changes", "shuffled"), [({}, 0), ({"machine.storage.cache": 1e6}, 1)], ids=["none", "cache"]
)
def test_nothing_is_shuffled_in_vain(changes: dict[str, object], shuffled: int) -> None:
    """A permutation of the dataset is drawn only where it is asked for, as by a page cache."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2, shuffle=True),
        dataset=dlsim.MapDataset(20, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(9.0))]),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=100.0)),
    )
    scenario = dlsim.replace(scenario, changes)
    with mock.patch("dlsim.engine.facts.generator", side_effect=generator) as drawn:
        simulate(scenario, 0, engine="simpy")
        assert drawn.call_count == shuffled
        simulate(scenario, 0, engine="simpy", samples=True)
        assert drawn.call_count == shuffled + 1
