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
