from __future__ import annotations

import subprocess
import sys

import pytest

import dlsim
from dlsim.engine.effort import decided, deciding, decision, effort

pytest.importorskip("numba", reason="there is nothing to choose from without numba")

PROGRAM = """
import sys, dlsim
from dlsim.engine.effort import deciding
scenario = dlsim.Scenario(
    loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset({length}),
)
with deciding({seconds}, scenario):
    trace = dlsim.simulate(scenario)
print(trace.meta.engine, "numba" in sys.modules, trace.meta.notes.get("engine"))
"""


@pytest.mark.parametrize(
    ("length", "seconds", "printed"),
    [
        (10, 0, "simpy False simpy, as it is done before the compiled engine would be loaded"),
        (10, 1000, "compiled True None"),
    ],
    ids=["short", "one of many"],
)
def test_what_is_sooner_is_taken(length: int, seconds: float, printed: str) -> None:
    """A short question loads no numba, and says so; a long one takes the compiled engine."""
    code = PROGRAM.format(length=length, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


def test_many_short_questions_are_a_long_one() -> None:
    """Whoever asks one by one gets compiled code once as much was simulated without it."""
    code = """
import dlsim
from dlsim.engine import effort
scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset(200))
for _ in range(3):
    dlsim.simulate(scenario)
assert round(effort._spent / effort.SECONDS / effort.effort(scenario), 9) == 3
effort.spend(effort.COMPILING)
print(dlsim.simulate(scenario).meta.engine)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compiled"


def test_what_is_decided_holds_inside() -> None:
    """What is decided for a question holds for all that is simulated for it, and ends with it."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(10))
    assert decision() is None
    with decided(False), deciding(1e9, scenario):
        assert decision() is False
        assert dlsim.simulate(scenario).meta.engine == "simpy"
        assert dlsim.simulate(scenario, engine="compiled").meta.engine == "compiled"
    assert decision() is None


def test_longer_runs_are_more_effort() -> None:
    """Effort grows with the number of batches, and with all that is limited."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(1000))
    assert effort(dlsim.replace(scenario, {"dataset.length": 2000})) == 2 * effort(scenario)
    assert effort(dlsim.replace(scenario, {"machine.cores": 2})) > effort(scenario)
