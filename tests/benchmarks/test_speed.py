"""Times of the engines, and of others for the same loader, beside each other.

    python -m pytest tests/benchmarks --benchmark-enable

Ratios, goals and growth are measured by `speed.py`, which writes `docs/performance.md`. In an
ordinary test run each case runs once: what it returns has to be right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.engine import outcome
from tests.benchmarks.models import CONSTANT, SHARED, draw, limited, scenario

BATCHES = 2000
PLANS = {
    "in order, nothing random": scenario(BATCHES, **CONSTANT),
    "in order": scenario(BATCHES),
    "out of order": scenario(BATCHES, in_order=False),
    "limited cores": limited(BATCHES),
    "cores, storage and transport": dlsim.replace(scenario(BATCHES), SHARED),
}
CASES = [
    pytest.param(plan, engine, id=f"{name}, {engine}", marks=pytest.mark.benchmark(group=name))
    for name, plan in PLANS.items()
    for engine in ("simpy", "compiled")
]
PEERS = ("in_simpy", "in_salabim", "in_ciw", "loop")


@pytest.mark.parametrize(("plan", "engine"), CASES)
def test_engines(benchmark: Any, plan: dlsim.Scenario, engine: str) -> None:
    """A run of 2,000 batches, by each engine."""
    if engine == "compiled":
        pytest.importorskip("llvmlite")
        dlsim.simulate(plan, engine="compiled")  # compiles
    trace = benchmark(dlsim.simulate, plan, engine=engine)
    assert len(trace.order) == BATCHES
    assert (np.diff(trace.returned[trace.order]) >= 0).all()


@pytest.mark.benchmark(group="in order")
def test_metrics_alone(benchmark: Any) -> None:
    """The same in order where only metrics are asked for."""
    assert benchmark(outcome, PLANS["in order"]).batches == BATCHES


@pytest.mark.benchmark(group="in order")
def test_drawing(benchmark: Any) -> None:
    """What NumPy takes to draw the numbers of these."""
    benchmark(draw, BATCHES, 1)


@pytest.mark.benchmark(group="in order, nothing random")
@pytest.mark.parametrize("name", PEERS)
def test_peers(benchmark: Any, name: str) -> None:
    """The same loader by other means; Ciw's has no reorder buffer (peers.py)."""
    peers = pytest.importorskip("tests.benchmarks.peers", reason="needs the extra bench")
    plan = PLANS["in order, nothing random"]
    returned = benchmark(getattr(peers, name), plan)
    if name != "in_ciw":
        assert np.allclose(returned, dlsim.simulate(plan, engine="simpy").returned)
