"""What is said of the cases that people came with, in a sentence."""

from __future__ import annotations

import pytest

import dlsim
from dlsim.report import run_text
from dlsim.report.sweep_text import sweep_text
from dlsim.testing import assert_stall_below
from dlsim.trace import account
from dlsim.whatif import WhatIfError, advise, compare, explain, replicate, sweep
from dlsim.whatif.limits import idle_in
from tests.whatif.cases import CASES

SAID = {
    "workers started for each epoch": "idle 80.0 % of the time: 79.8 % for starting workers.",
    "receiving in next()": "idle 23.1 % of the time: 22.8 % for receiving batches in the main",
    "receiving while the host is ahead": "idle 0.4 % of the time: the training step limits.",
    "one and a half rounds": "50.0 % for the last round, in which fewer batches are left than",
    "short epochs": "idle 72.7 % of the time: 72.7 % for the empty pipeline at the beginning of",
    "sending takes long": "idle 96.6 % of the time: 96.6 % for sending indices to workers.",
    "a timeout that strikes": "idle 100.0 % of the time: 100.0 % for a timeout.",
    "uneven shards": " % for shards that are used up, which leaves workers without data",
}


def swept(case: dlsim.Scenario, workers: list[int]) -> str:
    """What a sweep of `num_workers` prints."""
    key = "loader.num_workers"
    table = sweep(case, {key: workers}, 2, jobs=1, causes=True)
    cases = [dlsim.replace(case, {key: number}) for number in workers]
    idle = [idle_in(table, row) for row in range(len(cases))]
    return sweep_text(table, [key], cases, idle)


@pytest.mark.parametrize("name", SAID)
def test_run_names_the_cause(name: str) -> None:
    """`run` says how long training is idle, and names the greatest cause by its name."""
    trace = dlsim.simulate(CASES[name])
    if name == "a timeout that strikes":
        assert account(trace).cause == "timeout"
        assert "timed out" in run_text(trace).splitlines()[0]
        return
    assert SAID[name] in run_text(trace).splitlines()[0]


@pytest.mark.parametrize("name", [n for n in SAID if n != "a timeout that strikes"])
def test_explain_names_the_same(name: str) -> None:
    """`explain` begins with the same sentence, but for its end."""
    first = str(explain(CASES[name], 2)).splitlines()[0]
    assert SAID[name].rstrip(".") in first


def test_start_up_is_idle_time() -> None:
    """Where workers start for 4 of 5 seconds, no test of a stall below 5 % passes."""
    with pytest.raises(AssertionError, match=r"training is idle 80\.0 % of the time"):
        assert_stall_below(CASES["workers started for each epoch"], 0.05)
    assert_stall_below(CASES["receiving while the host is ahead"], 0.05)


def test_persistent_workers() -> None:
    """Workers that are kept gain 177 % where starting them takes the time; to have none, 355 %."""
    found = explain(CASES["workers started for each epoch"], 2)
    gains = {each.change.setting: each.gain.mean for each in found.gains}
    assert gains["persistent_workers=True"] == pytest.approx(1.77, abs=0.01)
    assert gains["num_workers=0"] == pytest.approx(3.55, abs=0.01)
    assert "no workers (num_workers=0) would help most: 4.6 times" in str(found).splitlines()[0]


def test_nothing_to_do() -> None:
    """Where the host runs ahead of an accelerator that is never idle, nothing is advised."""
    found = explain(CASES["receiving while the host is ahead"], 2)
    assert (found.limit, found.best, found.pair) == ("step", None, None)
    assert "the loader is good enough" in str(found).splitlines()[0]


def test_two_changes_that_help_together() -> None:
    """8 workers on 8 cores: neither more workers nor more cores help alone, both do, 1.9 times."""
    found = explain(CASES["as many workers as cores"], 2)
    assert found.setting is None
    assert found.pair is not None
    assert found.pair.change.name == "twice the workers (num_workers=16) and twice the cores"
    assert found.pair.gain.mean == pytest.approx(0.9, abs=0.06)
    assert "two together do: twice the workers (num_workers=16) and twice the cores" in str(found)


def test_a_run_says_that_workers_and_cores_limit_alike() -> None:
    """8 workers on 8 cores: a run says that only both together help; not where one alone does."""
    case = CASES["as many workers as cores"]
    said = "more of one alone gain nothing, of both together up to 1.9 times"
    assert said in run_text(dlsim.simulate(case)).splitlines()[0]
    for changes in ({"machine.cores": 16}, {"loader.num_workers": 4}, {"consumer.step": 0.26}):
        other = dlsim.replace(case, changes)
        assert "limit alike" not in run_text(dlsim.simulate(other))


def test_sweeps_and_comparisons_say_so_too() -> None:
    """Among 4, 8 and 16 workers on 8 cores, 8 are taken, and nothing says that more alone help."""
    case = CASES["as many workers as cores"]
    said = "more of one alone gain nothing, of both together up to 1.9 times"
    text = swept(case, [4, 8, 16])
    assert text.startswith("Take num_workers=8: ")
    assert said in text
    more, both = ({"loader.num_workers": 16}, {"loader.num_workers": 16, "machine.cores": 16})
    found = compare(case, dlsim.replace(case, more), 2)
    assert found.better != "b"
    assert str(found).count("Workers and cores limit alike") == 1
    found = compare(case, dlsim.replace(case, both), 2)
    assert found.gain.mean == pytest.approx(0.9, abs=0.06)
    a, b = (line for line in str(found).splitlines() if line.startswith(("A: ", "B: ")))
    assert said in a
    assert "limit alike" not in b


def test_advice_where_the_workers_that_are_set_have_no_batch() -> None:
    """1,000 samples in batches of 128, by each worker whole ones only: what comes with how many."""
    case = CASES["no batch for any worker"]
    found = advise(case)
    assert found.chosen is not None
    assert found.best.workers == 7
    text = str(found)
    assert (
        "Of 1,000 samples of an epoch come 896 with 0, 1 or 7 workers, 768 with 2, 3 or 6 workers, "
        "640 with 5 workers, 512 with 4 workers, none with 8 to 16 workers."
    ) in text
    assert "104 of 1,000 samples never come (drop_last in each worker)." in text
    with pytest.raises(WhatIfError, match="expected one of which a batch is returned, got none"):
        advise(case, workers=[8, 9])


def test_the_last_round_is_counted() -> None:
    """25 batches on 16 workers are a round and 9 more, which leave 7 workers idle: said first."""
    case = CASES["one and a half rounds"]
    for said in (run_text(dlsim.simulate(case)), str(explain(case, 2))):
        assert "The last round leaves 7 of 16 workers idle." in said.splitlines()[0]
    assert "last round" in swept(case, [16]).splitlines()[-1]
    few = dlsim.replace(case, {"dataset.length": 32})
    assert "last round leaves" not in run_text(dlsim.simulate(few))


def test_a_sampler_that_does_not_end() -> None:
    """Of short epochs on many workers, it takes idleness from 73 to 21 %, and is what helps."""
    case = CASES["short epochs"]
    best = explain(case, 2).best
    assert best is not None
    assert best.change.scenario.loader.endless
    found = compare(case, best.change.scenario, 2)
    assert found.a["stall"].mean() == pytest.approx(1.6 / 2.2)
    assert found.b["stall"].mean() == pytest.approx(1.6 / 7.6)
    assert "A: Training is idle 72.7 % of the time: 72.7 % for the empty pipeline" in str(found)
    assert "B: Training is idle 21.1 % of the time: 21.1 % for the empty pipeline" in str(found)


def test_even_shares() -> None:
    """Shards of 1,300 and three of 100 give 123 samples a second, even shares 392; both sweep."""
    case = CASES["uneven shards"]
    best = explain(case, 2).best
    assert best is not None
    assert best.change.name == "even shares"
    assert replicate(case, 2)["samples_per_s"].mean() == pytest.approx(123, abs=0.5)
    assert best.samples_per_s == pytest.approx(392, abs=0.5)
    dealt = {"dataset.sharding": "none", "dataset.shards": (1300, 100, 100, 100)}
    rows = swept(dlsim.replace(case, dealt), [1, 2, 4]).splitlines()[-3:]
    assert ["shards" in row for row in rows] == [False, True, True]


def test_given_shares_are_of_the_workers_that_are_set() -> None:
    """What each worker has is not known of others: refused, or said, with what to write instead."""
    case, given = CASES["uneven shards"], "No num_workers but 4 is tried: dataset.sharding says"
    with pytest.raises(
        WhatIfError, match=r"loader\.num_workers=2: dataset\.sharding: expected 2 "
    ) as e:
        sweep(case, {"loader.num_workers": [2, 4]}, 2, jobs=1)
    written = 'dataset.sharding = "none" and dataset.shards = these lengths'
    assert written in str(e.value)
    for said in (str(explain(case, 2)), str(advise(case, workers=range(5)))):
        assert given in said
    dealt = {"dataset.sharding": "none", "dataset.shards": (1300, 100, 100, 100)}
    shared = dlsim.replace(case, dealt)
    for said in (str(explain(shared, 2)), str(advise(shared, workers=range(5)))):
        assert "is tried" not in said
        assert "even shares" in said
    assert replicate(shared, 2)["samples_per_s"][0] == replicate(case, 2)["samples_per_s"][0]


def test_out_of_reach_is_what_loses_least() -> None:
    """Batches of 120 s on steps of 1 s: nothing holds 5 %, and 16 workers lose less than 8."""
    case = CASES["out of reach"]
    found = advise(case, max_stall=0.05, maximum=3)
    assert found.chosen is None
    assert found.best.workers >= 16
    assert found.verdict.means["stall"] < replicate(case, 2)["stall"].mean()
    assert "for fetching samples" in str(found)


def test_what_is_set_is_not_advised() -> None:
    """Persistent workers are not advised to who has them, whatever it is that takes the time."""
    found = explain(CASES["short epochs"], 2)
    assert "persistent_workers" not in str(found)
    assert found.limit == "first batch"


def test_an_error_is_named() -> None:
    """A run that a timeout ends is explained as such."""
    found = explain(CASES["a timeout that strikes"], 2)
    assert found.limit == "timeout"
    first = str(found).splitlines()[0]
    assert first.endswith(
        "100.0 % for a timeout; runs end early: DataLoader timed out after 2.0 seconds."
    )


def test_a_small_gain_is_told_from_none() -> None:
    """What makes it 5 % faster is not called one times as fast."""
    alone = dlsim.replace(CASES["sending takes long"], {"loader.num_workers": 0})
    assert "1.05 times as fast, +4.8 " in str(explain(alone, 2)).splitlines()[0]


def test_order_is_kept_where_it_is_asked_for() -> None:
    """With `keep_order`, nothing is advised that gives up the order of batches."""
    slow = dlsim.Mixture((dlsim.Constant(0.1), dlsim.Constant(20.0)), (0.95, 0.05))
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=8),
        dataset=dlsim.MapDataset(200, fetch=[dlsim.Stage("read", wait=slow)]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
    )
    assert "in_order=False" in str(explain(case, 3))
    assert "in_order=False" not in str(explain(case, 3, keep_order=True))
    asked = dlsim.whatif.advise(case, max_stall=0.5, workers=[8], maximum=3, keep_order=True)
    assert asked.best.in_order
