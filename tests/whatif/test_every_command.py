"""The cases that people came with, in every command that can be asked: what each must say."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from unittest.mock import patch

import pytest

import dlsim
from dlsim.report import run_text
from dlsim.report.pages import scenario_page
from dlsim.report.sweep_text import sweep_text
from dlsim.testing import assert_throughput_above
from dlsim.whatif import Explanation, advise, compare, explain, loaders, sweep
from dlsim.whatif.limits import idle_in
from tests.whatif.cases import CASES


@cache
def explained(case: dlsim.Scenario) -> Explanation:
    """Why a case is as fast as it is."""
    return explain(case, 2)


def swept(case: dlsim.Scenario) -> str:
    """What a sweep prints in which nothing varies."""
    key = "loader.num_workers"
    table = sweep(case, {key: [case.loader.num_workers]}, 2, jobs=1, causes=True)
    return sweep_text(table, [key], [case], [idle_in(table, 0)])


def reported(case: dlsim.Scenario) -> str:
    """What a page on a scenario says, without its pictures."""
    drawing = ("axes", "gantt", "occupancy", "wait_distribution", "sweep_curve")
    none = dict.fromkeys((*drawing, "account_bars", "gains_bar"), lambda *_, **__: None)
    with patch.multiple("dlsim.report.pages", figure=lambda _, caption: caption, **none):
        return scenario_page(explained(case), dlsim.simulate(case), name="case", repeat=[])


def asserted(case: dlsim.Scenario) -> str:
    """What a test says of a throughput that nothing has."""
    with pytest.raises(AssertionError) as failed:
        assert_throughput_above(case, 1e12, replications=2)
    return str(failed.value)


COMMANDS: dict[str, Callable[[dlsim.Scenario], str]] = {
    "run": lambda case: run_text(dlsim.simulate(case)),
    "explain": lambda case: str(explained(case)),
    "compare": lambda case: str(compare(case, case, 2)),
    "sweep": swept,
    "loaders": lambda case: str(loaders(case, 2)),
    "report": reported,
    "testing": asserted,
}
# What every command says of a case; those that `loaders` has no words for, all others.
SAID = {
    "data that every worker yields": ("distinct samples/s", "Each sample comes 4 times"),
    "no batch for any worker": ("At most 7 workers get one.",),
    "a timeout that strikes": ("DataLoader timed out after 2.0 seconds",),
    "a small /dev/shm": ("It does not fit: batches on their way take up to 76.3 MiB",),
}
IDLE = {
    "workers started for each epoch": "for starting workers",
    "receiving in next()": "for receiving batches in the main process",
    "receiving while the host is ahead": "0.4 % of the time: the training step limits",
    "one and a half rounds": "50.0 % for the last round, in which fewer batches",
    "short epochs": "for the empty pipeline at the beginning of an epoch",
    "sending takes long": "96.6 % for sending indices to workers",
    "uneven shards": "68.4 % for shards that are used up",
    "as many workers as cores": "46.6 % for fetching samples",
    "nothing to pin for": "19.7 % for receiving batches in the main process",
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_amiss_is_said_everywhere(command: str, name: str) -> None:
    """Work that is lost or repeated, what ends a run, what does not fit: in whatever is asked."""
    text = COMMANDS[command](CASES[name])
    assert all(words in text for words in SAID[name])
    assert "nan" not in text


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "loaders"])
def test_the_cause_is_named_everywhere(command: str, name: str) -> None:
    """What keeps training idle has one name, whatever is asked."""
    assert IDLE[name] in COMMANDS[command](CASES[name])


def test_no_batch_is_not_no_time() -> None:
    """Where no batch is returned, that is said first, and nothing of changes that do not help."""
    text = str(explained(CASES["no batch for any worker"]))
    assert text.startswith("No batch is returned. No worker has a batch: each has at most 100")
    assert "nothing takes any time" not in text


def test_bounds_count_what_throughput_counts() -> None:
    """Where samples come several times, what is at best possible is distinct samples, too."""
    last = str(explained(CASES["data that every worker yields"])).splitlines()[-1]
    assert last.startswith("now 10 distinct samples/s")
    assert "at best 10 distinct samples/s" in last


def test_without_workers_where_they_cost_more_than_they_give() -> None:
    """Where sending takes long, having no workers is the setting that helps: 27 times."""
    first = str(explained(CASES["sending takes long"])).splitlines()[0]
    assert "no workers (num_workers=0) would help most: 27 times as fast" in first
    assert not any(
        gain.change.setting == "num_workers=0"
        for gain in explained(CASES["as many workers as cores"]).gains
    )


def test_most_is_said_of_what_gains_most() -> None:
    """A setting is called the best of settings where a change of another kind gains more."""
    found = explained(CASES["receiving in next()"])
    assert found.gains[0].change.name == "step twice as fast"
    assert "; of settings, pinned memory (pin_memory=True) would help most: 1.3" in str(found)
    short = dlsim.replace(CASES["short epochs"], {"loader.endless": False})
    assert "; a sampler that does not end would help most: " in str(explained(short))


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_advice_says_once_what_never_comes(share: float) -> None:
    """What is lost with the settings advised is told, and not twice: a target held or not."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=8, num_workers=3, drop_last=True),
        dataset=dlsim.IterableDataset(
            46, sharding="split", fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.01)),
    )
    text = str(advise(case, max_stall=share, workers=[3], prefetch=[2], maximum=2))
    assert text.count("6 of 46 samples never come (drop_last in each worker).") == 1


def test_errors_lose_samples_without_drop_last() -> None:
    """A worker of samples without batches has nothing to drop: what is lost, errors lost."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=None, num_workers=1),
        dataset=dlsim.IterableDataset(3, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.1))]),
        consumer=dlsim.Consumer(on_error="continue"),
        failures=[dlsim.Failure("fetch", at=0)],
    )
    text = run_text(dlsim.simulate(case))
    assert "3 of 3 samples never come (errors)." in text
