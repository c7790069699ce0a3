"""Which error ends runs of a scenario: the reason for figures that would otherwise have none."""

from __future__ import annotations

from functools import lru_cache

from dlsim.engine import simulate, simulate_job
from dlsim.scenario import Scenario


@lru_cache(maxsize=1024)
def ended_by(scenario: Scenario, seed: int = 0) -> str:
    """The message of the exception or timeout that ends the run under `seed`; "" if none does."""
    problem = (simulate_job if scenario.is_job else simulate)(scenario, seed).meta.problem
    return "" if problem is None else problem.message
