"""How workers are started, as a change: by another method, or all at once."""

from __future__ import annotations

from typing import Any

import pytest

import dlsim
from dlsim.scenario import Costs, Start
from dlsim.whatif import advise, explain
from dlsim.whatif.changes import changes
from dlsim.whatif.space import space
from tests.whatif.cases import case

FORKSERVER = Start(method="forkserver", worker_start=0.06)
AT_ONCE = "4 workers started at a time"


def training(costs: dict[str, Any], **loader: Any) -> dlsim.Scenario:
    """5 epochs of 10 steps of 100 ms, 4 workers that are spawned in each: a second for each."""
    spawned = {"num_workers": 4, "multiprocessing_context": "spawn", **loader}
    return case(10, 0.01, 0.1, epochs=5, costs={"worker_start": 1.0, **costs}, **spawned)


def settings(scenario: dlsim.Scenario) -> set[str]:
    """The changes that are tried: as one would write them, or what they are called."""
    return {change.setting or change.name for change in changes(scenario)}


def test_another_method_is_a_change() -> None:
    """Epochs of 5.01 s take 1.25 s where workers start in 60 ms; what to set for it is named."""
    scenario = training({"starts": [FORKSERVER]})
    found = explain(scenario, 2)
    gains = {gain.change.setting: gain.gain.mean for gain in found.gains}
    written = 'multiprocessing_context="forkserver"'
    assert gains[written] == pytest.approx(5.01 / 1.25 - 1)
    kept = dlsim.replace(scenario, {"loader.num_workers": 8})  # else no workers at all gain most
    assert written in settings(kept)
    advised = advise(scenario, max_stall=0.3, workers=[4], prefetch=[1])
    assert advised.best.keywords == f"num_workers=4, prefetch_factor=1, {written}"


def test_several_at_a_time_are_a_change() -> None:
    """Workers that are waited for beside each other: epochs of 2.01 s in place of 5.01."""
    scenario = training({})
    gains = {gain.change.name: gain.gain.mean for gain in explain(scenario, 2).gains}
    assert gains[AT_ONCE] == pytest.approx(5.01 / 2.01 - 1)
    said = str(advise(scenario, max_stall=0.4, workers=[4], prefetch=[1]))
    assert (
        f"With {AT_ONCE}, num_workers=4, prefetch_factor=1, persistent_workers=True would be 1.5 "
        "times as fast and reach it."
    ) in said
    few = {change.name for change in changes(dlsim.replace(scenario, {"machine.cores": 2}))}
    assert "2 workers started at a time" in few  # more would want the same cores
    assert AT_ONCE not in few


def test_nothing_that_is_set_slower_or_not_stated_is_tried() -> None:
    """A method is tried where it takes less of something; what is set, or costs nothing, is not."""
    free = settings(training({"worker_start": 0.0}))
    assert not any(name == AT_ONCE or "multiprocessing_context" in name for name in free)
    done = training({"starts": [FORKSERVER]}, multiprocessing_context="forkserver")
    assert not any("multiprocessing_context" in name for name in settings(done))
    slower = Start(method="fork", worker_start=1.5, worker_ready=0.1)
    assert 'multiprocessing_context="fork"' not in settings(training({"starts": [slower]}))
    for loader in ({"start_together": 4}, {"num_workers": 1}, {"multiprocessing_context": "fork"}):
        assert AT_ONCE not in settings(training({}, **loader))


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_the_costs_of_a_method_count(engine: Any) -> None:
    """Workers by a method that is stated apart cost what is said of it, those by others do not.

    A worker is sent to when all are started, and takes work when it is ready.
    """
    own = Start(method="spawn", worker_start=0.5, worker_ready=1.0)
    scenario = case(4, 1.0, 0.0, num_workers=2, costs={"worker_start": 8.0, "starts": [own]})

    def moments(**loader: Any) -> tuple[float, list[float]]:
        keys = {f"loader.{key}": value for key, value in loader.items()}
        trace = dlsim.simulate(dlsim.replace(scenario, keys), engine=engine)
        return float(trace.sent[0]), trace.started[:2].tolist()

    assert moments() == (16.0, [16.0, 16.0])
    assert moments(multiprocessing_context="forkserver") == (16.0, [16.0, 16.0])
    assert moments(multiprocessing_context="spawn") == (1.0, [1.5, 2.0])


def test_the_memory_of_a_method_counts() -> None:
    """A worker that is spawned has a copy of the data set; advice knows that it does not fit."""
    roomy = Start(method="forkserver", worker_start=0.06, worker_memory=3e8)
    machine = {"memory": 1e9, "worker_memory": 1e8}
    scenario = case(
        10,
        0.01,
        0.1,
        num_workers=4,
        costs={"worker_start": 1.0, "starts": [roomy]},
        machine=machine,
        sample_bytes=1000.0,
    )
    assert space(scenario).fits
    changed = dlsim.replace(scenario, {"loader.multiprocessing_context": "forkserver"})
    assert space(changed).fits is False


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"costs.starts": [{"method": "x"}]}, r"^costs.starts.0.method: expected fork or"),
        (
            {"costs.starts": [{"method": "fork"}, {"method": "fork"}]},
            r"^costs.starts: expected each method once, got \['fork', 'fork'\]",
        ),
    ],
)
def test_bad_starts(keys: dict[str, Any], message: str) -> None:
    """What cannot be is refused by its key."""
    with pytest.raises(dlsim.scenario.ScenarioError, match=message):
        dlsim.replace(case(4, 1.0, 0.0, num_workers=2, costs={"worker_start": 1.0}), keys)


def test_slower_loading_gets_ready_slower_by_any_method() -> None:
    """With inputs wrong, what is stated of other methods is as wrong."""
    from dlsim.whatif.otherwise import slower

    own = Start(method="spawn", worker_ready=1.0)
    scenario = case(4, 1.0, 0.0, num_workers=2, costs={"starts": [own]})
    assert slower(scenario, loading=1.5).costs == Costs(
        starts=[Start(method="spawn", worker_ready=1.5)]
    )
