"""Other loaders and loops as changes that are simulated."""

from __future__ import annotations

from typing import Any

import pytest

import dlsim
from dlsim import Scenario
from dlsim.scenario.presets import PRESETS
from dlsim.whatif import explain
from dlsim.whatif.changes import changes


def scenario(lock: float = 0.0, epochs: int = 2, **changes: Any) -> Scenario:
    """Two workers, samples that take 0.1 s of a core, steps that take 10 ms."""
    return dlsim.replace(
        Scenario(
            loader=dlsim.Loader(num_workers=2),
            dataset=dlsim.MapDataset(
                20, fetch=[dlsim.Stage("decode", cpu=dlsim.Constant(0.1), lock=lock)]
            ),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.01)),
            epochs=epochs,
        ),
        changes,
    )


def gain(found: Scenario, name: str) -> float:
    """What one change gains, as a share."""
    gains = explain(found, 2).gains
    return next(one.gain.mean for one in gains if one.change.name == name)


@pytest.mark.parametrize("name", PRESETS)
def test_every_named_loader_can_be_explained(name: str) -> None:
    """No change of any named loader is one that it refuses."""
    explain(scenario(lock=0.5, **{"loader.like": name}), 2)


def test_the_price_of_looking_ahead() -> None:
    """Without accelerate's look-ahead each epoch's first step begins a batch earlier."""
    found = scenario(**{"loader.like": "accelerate-1.15", "loader.num_workers": 1})
    assert gain(found, "without accelerate's look-ahead") >= 0


def test_threads_where_the_lock_is_stated() -> None:
    """Workers that start in no time gain what starting took; those that hold the lock lose."""
    start = {"costs.worker_start": 1.0}
    assert gain(scenario(lock=0.1, **start), "threads in place of processes") > 1.0
    assert gain(scenario(lock=1.0), "threads in place of processes") < -0.4
    assert (
        gain(scenario(1.0, **{"loader.workers": "threads"}), "processes in place of threads") > 0.6
    )
    names = [change.name for change in changes(scenario())]
    assert "threads in place of processes" not in names


def test_slots_are_a_window_of_their_own() -> None:
    """Where the window is given as slots, there are twice of them, and no prefetch factor."""
    settings = {"loader.dispatch": "shared", "loader.slots": 1}
    found = explain(scenario(**settings), 2)
    assert "slots=2" in [one.change.setting for one in found.gains]
    assert not any("prefetch" in one.change.name for one in found.gains)
