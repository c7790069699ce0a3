"""The simulation against released packages around torch's loader, under a virtual clock."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario
from dlsim.trace.difference import difference
from tests.strategies import scenarios

virtual = pytest.importorskip("dlsim.validation.virtual.loader", reason="needs torch")
pytestmark = pytest.mark.oracles


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where the package is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


def assert_equal(scenario: Scenario, seed: int) -> None:
    """Every moment of every batch and sample is the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages warn of is theirs
        theirs = virtual.run_virtual(scenario, seed, samples=True)
    ours = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
    assert difference(ours, theirs) is None


@pytest.mark.parametrize(
    "loop", [pytest.param(p, marks=needs(p)) for p in ("accelerate", "lightning")]
)
@settings(max_examples=300)
@given(scenarios(), st.integers(0, 2**32))
def test_loop_equals_the_package(loop: str, scenario: Scenario, seed: int) -> None:
    """accelerate's and Lightning's own code around torch's loader has the moments simulated."""
    changes = {"consumer.loop": loop, "consumer.on_error": "stop", "loader.endless": False}
    assert_equal(dlsim.replace(scenario, changes), seed)
