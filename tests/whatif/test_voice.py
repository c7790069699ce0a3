"""One voice: what one command says of a scenario, no other one contradicts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsim import Scenario
from tests.strategies import on_machines, scenarios
from tests.whatif.cases import CASES
from tests.whatif.voice import agree, fits_alike, gains_what_is_said, holds_what_it_promises


@settings(max_examples=30, deadline=None)
@given(scenarios(torch_only=False))
def test_random_scenarios(scenario: Scenario) -> None:
    """On random scenarios, no two commands disagree on what limits, or by how much."""
    agree(scenario)


@settings(max_examples=20, deadline=None)
@given(on_machines())
def test_random_machines(scenario: Scenario) -> None:
    """The same holds on machines where everything is shared and costs something."""
    agree(scenario)


@settings(max_examples=10, deadline=None)
@given(scenarios(), st.sampled_from([0.02, 0.2, 0.6]))
def test_random_targets(scenario: Scenario, share: float) -> None:
    """On random scenarios, no two commands disagree on whether a target is met."""
    holds_what_it_promises(scenario, share)


@pytest.mark.parametrize(
    "name",
    [
        "a timeout that strikes",
        "an error before any time passes, or after some",
        "the same, and idle",
    ],
)
def test_targets_of_what_ends_early(name: str) -> None:
    """Where errors end runs, advice explains what it names unless errors end those, too."""
    holds_what_it_promises(CASES[name], 0.02)


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    """On the cases that people reported, no two commands disagree either."""
    case = CASES[name]
    gains_what_is_said(case, agree(case))
    fits_alike(case)
