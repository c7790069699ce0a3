"""The suite of jobs: real processes that meet, and what is predicted of them from runs of one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dlsim import Empirical
from dlsim.validation.fidelity import errors, ranks, suite
from dlsim.validation.fidelity.campaign import exchange_of
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.training_step import TrainingStep
from dlsim.validation.fidelity.workloads import Sleep, Workload


@pytest.fixture
def short(monkeypatch):
    """The suite with 64 quick samples, on a machine that nobody disturbs."""
    work = Workload("sleep", lambda folder: Sleep(64, 0.001, 0.002), (4, 8), 0.005)
    monkeypatch.setattr(ranks, "OF_JOBS", (work,))
    monkeypatch.setitem(suite.SUITES, "ranks", (work,))
    monkeypatch.setattr(ranks, "MEETINGS", 5)
    for module in ("campaign", "ranks"):
        monkeypatch.setattr(f"dlsim.validation.fidelity.{module}.spoilt", lambda *given: "")
    monkeypatch.setattr("dlsim.validation.fidelity.campaign.PACES", {})


def test_jobs_are_predicted_from_runs_of_one_rank():
    """What is observed has one rank, what is measured two."""
    runs = [configuration for configuration, _ in suite.plan_of("ranks", 10, 3)]
    assert {one.ranks for one in runs if one.observed} == {1}
    assert {one.ranks for one in runs if not one.observed} == {2}
    assert {one.workload for one in runs} == {"sleep", "jpeg", "files, warm", "training"}
    assert len({one for one in runs if not one.observed}) == 40
    assert all("ranks 2" in one.key for one in runs if not one.observed)
    assert {one.ranks for one, _ in suite.plan_of("development", 2, 1)} == {1}


def test_a_real_job_beside_its_prediction(tmp_path, short):
    """Two ranks have half of the batches each; a meeting takes what was found out here."""
    watched = Configuration("sleep", 4, 1, observed=True)
    job = Configuration("sleep", 4, 2, ranks=2, step=0.005)
    assert suite.run_suite(tmp_path, "ranks", [(watched, 0), (job, 0)])
    [case] = errors.cases(tmp_path, replications=3)
    assert case.configuration == job
    [trial] = case.measured
    assert len(trial.returned) == 8
    assert (np.diff(np.column_stack((trial.requested, trial.returned)).ravel()) >= 0).all()
    assert trial.epoch > trial.returned[-1] + 0.005
    rows = errors.read(tmp_path)
    found = case.prediction.scenario.job
    assert (found.ranks, found.sync) == (2, 1)
    assert found.sync_time == Empirical(rows[exchange_of(job)]["seconds"])
    assert len(case.prediction.trace.order) == 8
    assert not case.seen


def test_journals_without_ranks_are_of_one():
    """Those that were written before there were jobs."""
    old = asdict(Configuration("sleep", 4, 1))
    del old["ranks"]
    assert errors.configuration_of({"configuration": old}).ranks == 1


def test_a_meeting_takes_until_all_go_on(tmp_path, monkeypatch):
    """The last has come at 1 and 2 s, all go on by 2.5 and 5 s."""
    times = [([0.0, 2.0], [2.0, 5.0]), ([1.0, 1.0], [2.5, 4.0])]
    monkeypatch.setattr(ranks, "in_job", lambda world, task, *given: times)
    assert ranks.exchange(tmp_path, Configuration("sleep", 4, 0, ranks=2)) == [1.5, 3.0]


def test_ranks_come_to_meetings_as_they_do_in_their_job(tmp_path, monkeypatch):
    """They have slept where there is a step or a wait for workers, which keep the cores busy."""
    asked = []
    monkeypatch.setattr(ranks, "in_job", lambda *given: asked.append(given) or [[[0.0], [1.0]]])
    monkeypatch.setattr(ranks, "beside", lambda works: asked.append(len(works)) or nullcontext())
    monkeypatch.setattr(ranks, "usable_cores", lambda: 3.0)
    for workers, step, computes in ((0, 0.0, True), (0, 0.01, False), (2, 0.0, False)):
        ranks.exchange(tmp_path, Configuration("sleep", 4, workers, step=step, ranks=2))
        busy, (world, _, numbers, computed) = asked[-2:]
        assert (busy, world, numbers, computed) == (3 * (workers > 0), 2, 0, computes)
    ranks.exchange(tmp_path, Configuration("training", 4, 2, ranks=2))
    assert asked[-1][2] > 1000
    assert asked[-1][3]


def trained(rank, world):
    """The weights after two steps on pictures that differ from rank to rank."""
    step = TrainingStep(parallel=world > 1)
    for _ in range(2):
        step(torch.full((2, 3, 160, 160), float(rank)))
    return [float(weights.detach().sum()) for weights in step.model.parameters()]


def test_ranks_train_together():
    """After each step all have the same weights, which are not those of one alone."""
    first, second = ranks.in_job(2, trained)
    assert first == second
    [alone] = ranks.in_job(1, trained)
    assert alone != first


def fails(rank, world):
    """Rank 1 fails, while rank 0 waits for it."""
    if rank == 1:
        raise ValueError("no such row")
    dist.barrier()


def test_a_rank_that_fails_ends_the_job():
    """Nobody waits for it for ever."""
    with pytest.raises((ValueError, RuntimeError), match=r"no such row|[Cc]onnection|peer"):
        ranks.in_job(2, fails)


def test_ranks_have_their_numbers():
    """Results come in their order; each has one thread."""
    assert ranks.in_job(2, place) == [(0, 2, 1), (1, 2, 1)]


def place(rank, world):
    """What a rank is."""
    return dist.get_rank(), dist.get_world_size(), torch.get_num_threads()
