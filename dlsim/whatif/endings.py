"""Which error ends runs of a scenario: the reason for figures that would otherwise have none."""

from __future__ import annotations

from functools import lru_cache

from dlsim.engine import simulate
from dlsim.scenario import Scenario


@lru_cache(maxsize=1024)
def ended_by(scenario: Scenario) -> str:
    """The message of the exception or timeout that ends a run under seed 0; empty if none does."""
    problem = None if scenario.is_job else simulate(scenario).meta.problem
    return "" if problem is None else problem.message
