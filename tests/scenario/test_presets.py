"""Loaders and frameworks by name."""

from __future__ import annotations

import pytest

import dlsim
from dlsim import Scenario, ScenarioError
from dlsim.cli import main
from dlsim.scenario import from_tree
from dlsim.scenario.presets import PRESETS, TORCH, named
from dlsim.show.controls import Control, controls

BASE = {
    "loader": {"num_workers": 2},
    "dataset": {"kind": "map", "length": 16, "fetch": [{"name": "read", "wait": 0.1}]},
}


def like(name: str, **loader: object) -> Scenario:
    """A scenario whose file names a loader."""
    return from_tree({**BASE, "loader": {"num_workers": 2, "like": name, **loader}})


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_stands_for_its_keys(name: str) -> None:
    """In a file and as a change, it is the same, and it is simulated."""
    scenario = like(name)
    for key, value in {**TORCH, **PRESETS[name]}.items():
        assert dlsim.scenario.get(scenario, key) == (None if value == "none" else value)
    assert dlsim.replace(from_tree(BASE), {"loader.like": name}) == scenario
    assert len(dlsim.simulate(scenario, engine="simpy").order) == 16


def test_the_name_of_a_combination() -> None:
    """A scenario is known by the first name that stands for its rules, if there is one."""

    def name(scenario: Scenario) -> str | None:
        return named(lambda key: dlsim.scenario.get(scenario, key))

    assert name(from_tree(BASE)) == "torch"
    assert name(like("accelerate-1.15")) == "accelerate-1.15"
    assert name(like("monai.ThreadDataLoader-1.6")) == "prefetch_generator-1.0"
    assert name(like("torch", dispatch="stealing")) is None


def test_the_page_has_a_control_for_names() -> None:
    """Each combination is there once, and what is none of them where that is the case."""

    def control(scenario: Scenario) -> Control:
        return next(each for each in controls(scenario) if each.key == "loader.like")

    stops = control(from_tree(BASE)).stops
    assert stops[0] == "torch"
    assert "timm.MultiEpochsDataLoader-1.0" in stops
    assert "ultralytics.InfiniteDataLoader-8" not in stops
    for name in stops:
        assert (
            control(dlsim.replace(like("torchdata.nodes-0.11"), {"loader.like": name})).value
            == name
        )
    own = control(like("torch", refill="arrival"))
    assert (own.value, own.stops[-1]) == ("none of these", "none of these")
    alone = from_tree({**BASE, "loader": {}})
    assert not [each for each in controls(alone) if each.key == "loader.like"]


def test_another_name_takes_the_place_of_the_first() -> None:
    """What the first one stood for is as torch has it, unless the second one says so."""
    scenario = dlsim.replace(like("accelerate-1.15"), {"loader.like": "spdl.DataLoader-0.8"})
    assert scenario == like("spdl.DataLoader-0.8")
    assert dlsim.replace(scenario, {"loader.like": "torch"}) == from_tree(BASE)


def test_what_is_given_besides_counts() -> None:
    """A key that is given is not overridden."""
    assert like("spdl.DataLoader-0.8", in_order=True).loader.in_order


def test_a_name_that_is_not_known_is_refused_with_the_list() -> None:
    """So is a version whose rules nobody has looked at."""
    with pytest.raises(ScenarioError, match=r"expected one of torch, accelerate-1"):
        like("accelerate-2.0")
    with pytest.raises(ScenarioError, match=r"loader\.like: expected one of"):
        dlsim.replace(from_tree(BASE), {"loader.like": 3})


def test_the_command_line_takes_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """`--loader.like` changes a scenario; `dlsim keys` says what it may be."""
    scenario = "scenarios/imagenet_a100.toml"
    assert main(["run", scenario, "--loader.like", "accelerate-1.15", "--epochs", "1"]) == 0
    assert main(["keys", "loader.like"]) == 0
    assert "torchdata.StatefulDataLoader-0.11" in capsys.readouterr().out
