"""Jobs against torch's own loaders and DistributedSampler, all ranks on one virtual clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsim.engine.job import simulate_job
from dlsim.scenario import Scenario
from dlsim.trace.difference import job_difference
from tests.strategies import jobs, scenarios

virtual = pytest.importorskip("dlsim.validation.virtual.job", reason="needs torch")


@settings(max_examples=400)
@given(jobs(scenarios()), st.integers(0, 2**32))
def test_jobs_equal_torch(scenario: Scenario, seed: int) -> None:
    """Every moment of every batch and sample of every rank is the same as with torch's loaders."""
    theirs = virtual.run_virtual_job(scenario, seed, samples=True)
    ours = simulate_job(scenario, seed, engine="simpy", samples=True)
    assert job_difference(ours, theirs) is None
