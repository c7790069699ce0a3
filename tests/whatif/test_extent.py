from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.engine.effort import cost, counts, decided
from dlsim.trace import summarize
from dlsim.trace.critical_path import shares
from dlsim.whatif import bounds, replicate, sweep
from dlsim.whatif.extent import part_of, replicated, shortened
from dlsim.whatif.stretching import IDLE, SHARE, measured, repeats
from tests.benchmarks.stretch import answers
from tests.strategies import jobs, scenarios

METRICS = ("samples_per_s", "batches_per_s", "elapsed", "batches", "epoch_time")
METRICS += ("wait_mean", "wait_p95", "stall", "au")


def scenario(length: int = 8000, **changes: Any) -> dlsim.Scenario:
    """Two workers that are a little too slow for the step."""
    read = dlsim.Gamma(1.0, 0.5)
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=read)]),
        **{"consumer": dlsim.Consumer(step=dlsim.Gamma(0.9, 0.2))} | changes,
    )


@settings(max_examples=60)
@given(scenarios(torch_only=False))
def test_what_is_simulated_whole_is_measured_as_it_is(case: dlsim.Scenario) -> None:
    """Of a run that was not shortened, the figures are those of the trace."""
    trace = dlsim.simulate(case)
    row = measured(case, shares=True)(trace)
    summary = summarize(trace).as_dict()
    assert {name: row[name] for name in METRICS} == pytest.approx(
        {name: summary[name] for name in METRICS}, nan_ok=True
    )
    found = {name.removeprefix(SHARE): row[name] for name in row if name.startswith(SHARE)}
    assert found == pytest.approx(shares(trace))


@settings(max_examples=60)
@given(jobs(scenarios(torch_only=False)))
def test_jobs_are_measured_as_they_are(case: dlsim.Scenario) -> None:
    """Whoever asks, the figures of a job are its own: ranks that leave earlier wait for others."""
    job = dlsim.simulate_job(case)
    row = measured(case, shares=True)(job)
    summary = summarize(job).as_dict()
    names = ("samples_per_s", "batches_per_s", "elapsed", "batches", "stall", "au")
    assert {name: row[name] for name in names} == pytest.approx(
        {name: summary[name] for name in names}, nan_ok=True
    )
    if row["stall"] == row["stall"]:
        idle = sum(row[name] for name in row if name.startswith(IDLE))
        assert idle == pytest.approx(row["stall"], abs=1e-9)


def test_a_rank_without_data_has_its_share_of_the_idle_time() -> None:
    """Two shards for three ranks: the third one waits all of the time, which is told as waiting."""
    data = dlsim.IterableDataset(8, shards=[4, 4], fetch=[dlsim.Stage("a", wait=dlsim.Constant(1))])
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=1),
        dataset=data,
        consumer=dlsim.Consumer(step=dlsim.Constant(4.0)),
        job=dlsim.Job(ranks=3, sync="never"),
    )
    row = measured(case, shares=True)(dlsim.simulate_job(case))
    assert row["stall"] == pytest.approx(2 / 3)  # 16 of 24 seconds
    assert row[f"{IDLE}barrier"] == pytest.approx(8 / 24)
    assert row[f"{IDLE}first batch"] == pytest.approx(8 / 24)


@pytest.mark.parametrize("epochs", [1, 5])
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_part_stands_for_the_whole(workers: int, epochs: int) -> None:
    """A part of a long run has the figures of the whole, start-up counted once an epoch."""
    case = dlsim.replace(scenario(epochs=epochs), {"loader.num_workers": workers})
    case = dlsim.replace(case, {"costs.worker_start": 20.0})
    part = shortened(case, 600.0 * min(epochs, 3), fast=False)
    assert cost(part, fast=False) < 0.5 * cost(case, fast=False)
    with decided(True):
        whole = replicate(case, 3, measured=measured(case, shares=True))
        found = replicate(part, 30, measured=measured(case, shares=True))
    for name in METRICS:
        expected = float(whole[name].mean())
        close = 0.1 if name == "wait_p95" else 0.02  # of few batches, a percentile is rough
        assert found[name].mean() == pytest.approx(expected, rel=close, abs=0.01), name
    named = [name for name in whole.metrics if name.startswith(SHARE)]
    for name in named:
        expected = float(np.nan_to_num(whole[name]).mean())
        assert np.nan_to_num(found[name]).mean() == pytest.approx(expected, rel=0.1, abs=0.02)
    named = [name for name in found.metrics if name.startswith(SHARE)]
    assert sum(np.nan_to_num(found[name][0]) for name in named) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("workers", [1, 7, 32])
@pytest.mark.parametrize("step", [0.001, 0.1, 3.0])
@pytest.mark.parametrize("epochs", [1, 7])
def test_rounds_are_cut_as_a_whole(workers: int, step: float, epochs: int) -> None:
    """Where nothing is random, what is told of bursts and last rounds is exact."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers, batch_size=2),
        dataset=dlsim.MapDataset(8001, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
        costs=dlsim.Costs(worker_start=0.1),
        epochs=epochs,
    )
    found = replicated(case, 1, 0, most=600.0, fast=False)
    whole = summarize(dlsim.simulate(case)).as_dict()
    for name in METRICS:
        assert found[name][0] == pytest.approx(whole[name], rel=1e-9, abs=1e-12), name


def test_workers_that_begin_in_step_are_let_get_out_of_it() -> None:
    """What is cut is no shorter than it takes workers that are alike to get out of step."""

    def kept(cv: float, step: float) -> float:
        read = dlsim.Gamma(1.0, cv)
        case = dlsim.Scenario(
            loader=dlsim.Loader(batch_size=1, num_workers=8),
            dataset=dlsim.MapDataset(80_000, fetch=[dlsim.Stage("read", wait=read)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(step)),
        )
        return float(counts(shortened(case, 600, fast=False))[0]) / 8

    assert kept(0.5, 0.05) == kept(0.05, 0.5) == kept(0.01, 0.5)  # the step limits: it is a queue
    assert kept(0.05, 0.05) == pytest.approx(100 / 0.4, abs=1)
    assert kept(0.03, 0.05) == pytest.approx(25 / 0.3**2 / 0.4, abs=1)
    assert kept(0.005, 0.05) == 10_000


@pytest.mark.parametrize("workers", [7, 8, 12])
def test_where_batches_take_long_a_few_rounds_do(workers: int) -> None:
    """Of large batches that are read one by one, few rounds hold the figures of the whole run."""
    stages = [
        dlsim.Stage("read", read_bytes=dlsim.Lognormal(110e3, 0.5)),
        dlsim.Stage("decode", cpu=dlsim.Gamma(5e-3, 0.4)),
    ]
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=400, num_workers=workers),
        dataset=dlsim.MapDataset(400 * 400, fetch=stages),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.4)),
        machine=dlsim.Machine(cores=8, storage=dlsim.Storage(bandwidth=1e9)),
    )
    assert shortened(case, fast=True) == case
    with decided(True):
        found = replicated(case, 8, 0, fast=False)
        whole = replicate(case, 8, 1, measured=measured(case))
    assert found.part is not None
    assert counts(found.part)[0] < 0.4 * 400
    for name in ("samples_per_s", "stall"):
        one, other = found.interval(name), whole.interval(name)
        assert abs(one.mean - other.mean) <= np.hypot(one.half_width, other.half_width), name
        assert one.half_width < 0.01 * max(one.mean, 1.0), name


@pytest.mark.parametrize("stop", [3000, 3999])
def test_a_loop_that_is_left_early_is_cut_in_its_middle(stop: int) -> None:
    """What leaving the loop takes counts as it does in the whole run."""
    case = dlsim.replace(
        scenario(consumer=dlsim.Consumer(step=dlsim.Constant(0.1), stop_after=stop)),
        {"dataset.fetch.0.wait": dlsim.Constant(1.0), "loader.num_workers": 8},
    )
    found = replicated(case, 1, 0, most=600.0, fast=False)
    assert found.part is not None
    whole = summarize(dlsim.simulate(case)).as_dict()
    for name in METRICS:
        assert found[name][0] == pytest.approx(whole[name], rel=1e-9), name


def test_what_is_better_than_can_be_is_simulated_whole() -> None:
    """A figure beyond a closed-form bound is none of a part of the run."""
    case = dlsim.replace(scenario(), {"consumer.step": dlsim.Lognormal(5.0, 2.0)})
    fast = [replicated(case, 2, seed, most=600.0, fast=False) for seed in range(8)]
    best = bounds(case).samples_per_s
    assert all(one.part is None or one["samples_per_s"].mean() <= best for one in fast)
    redone = [one for one in fast if one.part is None]
    assert 0 < len(redone) < len(fast)
    whole = replicate(case, 2, redone[0].seed, measured=measured(case))
    assert redone[0]["samples_per_s"].tolist() == whole["samples_per_s"].tolist()


def test_a_setting_has_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sweep says of a setting does not depend on the others in it."""
    monkeypatch.setattr("dlsim.engine.effort.installed", lambda: False)
    case = scenario(160_000)
    with decided(True):
        many = sweep(case, {"loader.num_workers": [1, 2, 3, 4, 5, 6, 7]}, None, jobs=1)
        alone = sweep(case, {"loader.num_workers": [2, 3, 8, 9, 10, 11]}, None, jobs=1)
    assert many["basis"].min() < 0.2 * 80_000
    assert many["samples_per_s"][2] == alone["samples_per_s"][1]
    assert many["samples_per_s_half_width"][2] == alone["samples_per_s_half_width"][1]


def test_the_interval_of_a_part_holds_the_whole_run() -> None:
    """In random long runs intervals from a part hold the whole run's figures; none is far off."""
    found = [answer for seed in (2, 4, 5, 9) for answer in answers(seed) or []]
    assert len(found) >= 12
    assert not any(answer.wrong for answer in found)
    assert sum(answer.holds for answer in found) >= 0.8 * len(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset.length": 200},
        {"failures": [{"where": "fetch", "at": 5}]},
        {"consumer.step": dlsim.Recorded([0.5] * 4000)},
        {"consumer.step": dlsim.Pareto(0.5, 1.5)},
        {"machine.storage.cache": 10.0, "epochs": 2},
    ],
)
def test_what_is_not_shortened(changes: dict[str, Any]) -> None:
    """Short runs, and runs of which one part is unlike another, are simulated whole."""
    case = dlsim.replace(scenario(), changes)
    assert shortened(case, 600, fast=False) == case
    assert part_of(case, case) == ""


def test_cost_grows_with_what_there_is_to_do() -> None:
    """More batches, samples, epochs, or a shared machine are more to do; a part is less."""
    small = cost(scenario(800), fast=False)
    assert cost(scenario(8000), fast=False) > 5 * small
    assert cost(scenario(800, epochs=2), fast=False) == 2 * small
    assert cost(scenario(800, machine=dlsim.Machine(cores=2)), fast=False) > small
    assert cost(scenario(8000), fast=True) < small
    part = shortened(scenario(), 600, fast=False)
    assert cost(part, fast=False) <= 610
    assert part_of(part, scenario()) == " of 588 of 4,000 batches"
    assert part_of(shortened(scenario(epochs=9), 1800, fast=False), scenario(epochs=9)) == (
        " of 588 of 4,000 batches in 3 of 9 epochs"
    )


def test_all_batches_of_the_whole_are_stood_for() -> None:
    """How often the batches of a part count adds up to the batches of the whole."""
    case = scenario(epochs=9)
    part = shortened(case, 1800, fast=False)
    assert repeats(part, case).shape == (588, 3)
    assert repeats(part, case).sum() == pytest.approx(9 * 4000)
