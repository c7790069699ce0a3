"""Validation beside training: two loaders that are there at the same time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario, ScenarioError, Validation
from dlsim.report.text import verdict
from dlsim.scenario import from_tree, to_tree
from dlsim.scenario.files import dumps, read_as
from dlsim.trace import account, memory
from dlsim.trace.critical_path import critical_path
from dlsim.trace.difference import difference
from dlsim.trace.memory import uses
from tests.strategies import on_machines, scenarios, validated


def scenario(**changes: object) -> Scenario:
    """Steps of a tenth, batches of a second on two workers; two of validation of half a second."""
    found = Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(12, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.1)),
        validation=Validation(
            loader=dlsim.Loader(num_workers=1),
            dataset=dlsim.MapDataset(2, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.5))]),
            step=dlsim.Constant(0.2),
            every=4,
        ),
    )
    return dlsim.replace(found, {key.replace("__", "."): value for key, value in changes.items()})


def test_training_waits_and_its_workers_go_on() -> None:
    """Validation comes after every fourth batch, while training's workers fill their window."""
    trace = dlsim.simulate(scenario())
    beside = trace.validation
    assert beside is not None
    # Two batches come each second; validation takes 0.5 s, 0.5 s and a step of 0.2 s.
    assert beside.epochs.started.tolist() == pytest.approx([2.2, 4.2, 6.2])
    assert beside.epochs.ended.tolist() == pytest.approx([3.4, 5.4, 7.4])
    fifth = trace.order[4]
    assert trace.arrived[fifth] == 3.0
    assert trace.returned[fifth] == pytest.approx(3.4)
    assert trace.end == pytest.approx(7.4)


def test_workers_of_validation_are_started_each_time_unless_they_stay() -> None:
    """Starting takes its time at each validation; persistent workers are started once."""
    start = {"costs__worker_start": 0.3}
    fresh, kept = (
        dlsim.simulate(scenario(**start, validation__loader__persistent_workers=stay))
        for stay in (False, True)
    )
    for trace, took in ((fresh, [0.3, 0.3, 0.3]), (kept, [0.3, 0.0, 0.0])):
        assert trace.validation is not None
        epochs = trace.validation.epochs
        assert (epochs.primed - epochs.started).tolist() == pytest.approx(took)


def test_an_epoch_ends_with_validation() -> None:
    """Without `every`, validation comes once in each epoch, when training's workers are gone."""
    trace = dlsim.simulate(scenario(epochs=2, validation__every="none", costs__worker_stop=0.25))
    beside = trace.validation
    assert beside is not None
    last = trace.finished[trace.order[[11, 23]]]
    assert (beside.epochs.started - last).tolist() == pytest.approx([0.25, 0.25])
    assert beside.epochs.ended.tolist() == trace.epochs.ended.tolist()


@pytest.mark.parametrize(("loop", "gone"), [("plain", True), ("rebind", False)])
def test_a_rebound_iterator_lives_through_validation(loop: str, gone: bool) -> None:
    """Where the epoch is left early, workers are gone before validation, or come back from it."""
    trace = dlsim.simulate(
        scenario(validation__every="none", consumer__loop=loop, consumer__stop_after=4)
    )
    assert trace.validation is not None
    # workers are at a batch until 3.0 when the epoch is left at 2.2
    began = trace.validation.epochs.started[0]
    assert began == pytest.approx(3.0 if gone else 2.2)


@pytest.mark.parametrize(("loop", "gone"), [("plain", True), ("lightning", False)])
def test_a_sanity_check_comes_first(loop: str, gone: bool) -> None:
    """Two batches of validation, 1.2 s, before training begins; Lightning's workers stay for long.

    The one worker is at its third batch then, and drops it where the iterator goes at once.
    """
    trace = dlsim.simulate(
        scenario(
            validation__num_sanity_val_steps=2,
            validation__dataset__length=3,
            consumer__loop=loop,
        )
    )
    beside = trace.validation
    assert beside is not None
    assert beside.epochs.started[0] == 0
    assert beside.returned[beside.order[:2]].tolist() == pytest.approx([0.5, 1.0])
    assert beside.fetched[2] == pytest.approx(1.5)
    assert beside.epochs.ended[0] == pytest.approx(1.5 if gone else 1.2)
    assert trace.epochs.started[0] == beside.epochs.ended[0]
    found = account(trace)
    assert found.elapsed == pytest.approx(trace.end)
    assert found.validation == pytest.approx(
        float((beside.epochs.ended - beside.epochs.started).sum())
    )
    assert found.busy + found.validation + sum(found.idle.values()) == pytest.approx(found.elapsed)
    assert critical_path(trace)[0][:2] == ("validation", 0.0)


def test_a_limit_is_a_length_to_lightning() -> None:
    """Around an iterable-style dataset its fetcher is one batch ahead, unless there is a limit."""
    data = dlsim.IterableDataset(12, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))])
    first = [
        dlsim.simulate(
            scenario(
                dataset=data,
                loader__num_workers=1,
                consumer__loop="lightning",
                consumer__stop_after=most,
                validation="none",
            )
        ).returned[0]
        for most in (3, "none")
    ]
    assert first == [1.0, 2.0]


def test_both_loaders_share_the_cores() -> None:
    """What validation's worker computes takes twice as long beside a busy one of training."""
    work = [dlsim.Stage("decode", cpu=dlsim.Constant(1.0))]
    shared = scenario(
        loader__num_workers=1,
        loader__prefetch_factor=8,
        dataset__fetch=work,
        validation__dataset__fetch=work,
        validation__every=1,
        consumer__stop_after=1,
        machine__cores=1,
    )
    alone = dlsim.replace(shared, {"machine.cores": 2})
    took = []
    for each in (shared, alone):
        beside = dlsim.simulate(each).validation
        assert beside is not None
        took.append(beside.fetched[0] - beside.started[0])
    assert took == pytest.approx([2.0, 1.0])


def test_time_in_validation_is_a_part_of_its_own() -> None:
    """Busy, validation and idle time add up to all of it; on the path it has its own name."""
    trace = dlsim.simulate(scenario())
    found, summary = account(trace), dlsim.summarize(trace)
    assert found.validation == pytest.approx(3.6)
    assert found.busy == pytest.approx(1.2)
    assert found.busy + found.validation + sum(found.idle.values()) == pytest.approx(found.elapsed)
    assert "validation" not in found.idle
    # during the first two, workers are at batches that training waits for later
    assert found.path["validation"] == pytest.approx(1.2)
    assert summary.stall == pytest.approx(found.stall)
    assert summary.validation == pytest.approx(3.6 / 7.4)
    assert summary.validation_stall == pytest.approx(1 - 2 * 0.2 / 1.2)
    assert "validation    takes 48.6 % of the time, idle 66.7 % of that" in str(summary)
    without = dlsim.summarize(dlsim.simulate(dlsim.replace(scenario(), {"validation": "none"})))
    assert "validation" not in str(without)


@settings(max_examples=60)
@given(validated(scenarios(torch_only=False) | on_machines()), st.integers(0, 99))
def test_every_second_has_one_place(drawn: Scenario, seed: int) -> None:
    """On any machine the account adds up, the path has no gaps, and validation is its trace's."""
    trace = dlsim.simulate(drawn, seed)
    found, beside = account(trace), trace.validation
    assert beside is not None
    whole = found.busy + found.validation + sum(found.idle.values())
    if found.busy == found.busy:
        assert whole == pytest.approx(found.elapsed, rel=1e-9, abs=1e-9)
    ended = np.nan_to_num(beside.epochs.ended, nan=trace.end)
    assert found.validation == pytest.approx(float((ended - beside.epochs.started).sum()), abs=1e-9)
    path = critical_path(trace)
    for one, other in pairwise(path):
        assert one.end == other.begin
    assert np.all(beside.requested[beside.order] <= beside.returned[beside.order])


def test_memory_is_that_of_both() -> None:
    """/dev/shm has the batches of both loaders at a time, and memory the workers of both."""
    each = scenario(
        dataset__sample_bytes=2**20,
        validation__dataset__sample_bytes=2**20,
        validation__dataset__fetch=[dlsim.Stage("read", wait=dlsim.Constant(2.0))],
        machine__worker_memory=2**30,
        machine__main_memory=2**31,
    )
    trace = dlsim.simulate(each)
    shm, whole, files = uses(trace)
    # training: the window of four, and the one in use; validation: two
    assert shm.needed == 7 * 2**20
    assert memory(trace).shm.max == 7 * 2**20
    # and one that is begun when another one has come
    assert whole.needed == 2**31 + 3 * 2**30 + 8 * 2**20
    alone = dlsim.simulate(dlsim.replace(each, {"validation": "none"}))
    assert uses(alone)[0].needed <= 5 * 2**20
    assert files.needed > uses(alone)[2].needed
    tight = dlsim.replace(each, {"machine.shm": "6 MiB"})
    over = dlsim.overflow(dlsim.simulate(tight))
    assert over is not None
    assert over.resource == "/dev/shm"


def test_what_validation_raises_ends_the_run() -> None:
    """Of training it is no batch, of validation it is the one that failed."""
    trace = dlsim.simulate(scenario(validation__failures=[dlsim.Failure("fetch", 1)]))
    problem, beside = trace.meta.problem, trace.validation
    assert problem is not None
    assert problem.message == "validation: fetch raised an exception for sample 1"
    assert (problem.batch, problem.time) == (-1, pytest.approx(3.4 - 0.2))
    assert beside is not None
    assert beside.meta.problem is not None
    assert beside.meta.problem.batch == 1


def test_a_file_keeps_validation(tmp_path: Path) -> None:
    """Scenarios as TOML and traces as NPZ come back as they were."""
    each = scenario()
    path = tmp_path / "s.toml"
    path.write_text(dumps(each))
    assert read_as(from_tree, path) == each
    assert from_tree(to_tree(each)) == each
    trace = dlsim.simulate(each)
    dlsim.save(trace, tmp_path / "t.npz")
    read = dlsim.load_trace(tmp_path / "t.npz")
    assert read.validation is not None
    assert difference(trace, read) is None
    assert read.validation.meta.scenario == each.validating


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation__every": 0}, "validation.every: expected an integer of at least 1, got 0"),
        ({"validation__num_sanity_val_steps": -1}, "validation.num_sanity_val_steps: expected an"),
        (
            {"validation__loader__prefetch_factor": 2, "validation__loader__num_workers": 0},
            "validation.loader.prefetch_factor: needs num_workers above 0",
        ),
        ({"consumer__on_error": "continue"}, 'validation: needs consumer.on_error = "stop"'),
        ({"consumer__loop": "thread"}, "validation: needs a loop that does not read ahead by"),
        ({"job__uneven": "join"}, 'validation: excludes job.uneven = "join"'),
        (
            {"validation__loader__shuffle": True, "validation__dataset__length": 0},
            "validation.load",
        ),
    ],
)
def test_validation_that_makes_no_sense(changes: dict[str, object], message: str) -> None:
    """The line names the key, below `validation`."""
    with pytest.raises(ScenarioError, match=message.replace("(", r"\(")):
        scenario(**changes)


def test_the_compiled_engine_says_that_it_has_no_validation() -> None:
    """Asked for, it is refused; `auto` takes the other one, and says why."""
    with pytest.raises(ScenarioError, match="expected simpy or auto for validation"):
        dlsim.simulate(scenario(), engine="compiled")
    assert "does not have validation" in dlsim.simulate(scenario()).meta.notes["engine"]


def test_explain_tries_the_settings_of_validation() -> None:
    """More workers in validation, and such that stay, are changes like others."""
    slow = scenario(validation__dataset__length=20, costs__worker_start=0.3)
    found = dlsim.explain(slow)
    assert found.best is not None
    assert found.best.change.setting == "validation num_workers=2"
    assert "validation persistent_workers=True" in [g.change.setting for g in found.gains]
    text = str(found)
    assert "Validation takes" in text
    assert "  validation " in text


def test_advice_counts_time_in_validation() -> None:
    """Where training is idle for a small share of all time, no setting is ruled out for it."""
    long = scenario(validation__step=50.0, loader__num_workers=1)
    found = dlsim.advise(long, max_stall=0.05)
    assert found.chosen is not None
    assert dlsim.summarize(dlsim.simulate(long)).stall < 0.05
    assert "num_workers=0" in str(found)


def test_validation_that_never_comes_is_told() -> None:
    """After more batches than an epoch has, training is alone, and the verdict says so."""
    trace = dlsim.simulate(scenario(validation__every=13))
    assert trace.validation is not None
    assert len(trace.validation) == 0
    assert "Validation never comes" in verdict(trace)
    assert "Validation takes 48.6 % of the time, 66.7 % of it idle." in verdict(
        dlsim.simulate(scenario())
    )


def test_ranks_validate_their_share() -> None:
    """Each rank of a job has half of the data, and a trace of its own validation."""
    job = dlsim.simulate_job(scenario(job__ranks=2))
    for trace in job.ranks:
        assert trace.validation is not None
        assert len(trace.order) == 6
        assert len(trace.validation.order) == 1
    assert dlsim.summarize(job).validation > 0
