"""The simulation against torch's own DataLoader code, run under a virtual clock."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference
from tests.strategies import scenarios

virtual = pytest.importorskip("dlsim.validation.virtual", reason="needs torch")


@settings(
    max_examples=2500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(scenarios(), st.integers(0, 2**32))
def test_equals_torch(scenario: Scenario, seed: int) -> None:
    """Every moment of every batch and sample is the same in the simulation and in torch."""
    ours = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
    theirs = virtual.run_virtual(scenario, seed, samples=True)
    assert difference(ours, theirs) is None


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("in_order", [True, False])
def test_worker_that_failed_to_start_recovers(stop_after: int, bad: int, in_order: bool) -> None:
    """A persistent worker whose init failure was never looked at fetches in the next epoch."""
    scenario = Scenario(
        loader=dlsim.Loader(
            batch_size=2, num_workers=3, persistent_workers=True, in_order=in_order
        ),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(0.3, 1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Exponential(0.2), stop_after=stop_after),
        failures=[dlsim.Failure("worker_init_fn", bad)],
        epochs=3,
    )
    theirs = virtual.run_virtual(scenario, 5, samples=True)
    for engine in ("simpy", "compiled"):
        ours = dlsim.simulate(scenario, 5, engine=engine, samples=True)
        assert difference(ours, theirs) is None
