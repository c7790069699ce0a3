"""Ranks that were watched, by torchrun and otherwise, as one job."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from dlsim import Constant, Job, simulate_job
from dlsim.cli import main
from dlsim.scenario import DlsimError
from dlsim.trace import TraceError, lateness, load_job, load_run, meetings, save_job
from dlsim.trace.job import JobTrace
from dlsim.trace.observation import Observation, later
from dlsim.validation import calibration, join, observe, of_job, predict
from dlsim.validation.calibrating.predict import with_changes
from dlsim.validation.observing.joining import meeting, waited
from dlsim.validation.observing.rank import Rank
from tests.modules import module_here

TRAIN = """
import time
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


class Rows(Dataset):
    def __len__(self):
        return 45

    def __getitem__(self, index):
        time.sleep(0.001)
        return torch.full((8,), float(index))


def make():
    dist.init_process_group("gloo")
    return DataLoader(Rows(), 4, sampler=DistributedSampler(Rows()), num_workers=1)


def step(batch):
    while dist.get_rank() == 1 and time.thread_time() < step.until:
        pass
    dist.all_reduce(torch.zeros(4))
    step.until = time.thread_time() + 0.15


step.until = 0.0


class Breaks(Rows):
    def __getitem__(self, index):
        if index == 30:
            raise ValueError("no such row")
        return super().__getitem__(index)


def breaks():
    return DataLoader(Breaks(), 4)
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A user's module in the current directory."""
    with module_here(tmp_path, monkeypatch, "their_training", TRAIN):
        yield tmp_path


@pytest.fixture
def one_rank(monkeypatch):
    """The environment that torchrun gives to the only rank of a job."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, (0, 1, 1, "localhost", port), strict=True):
        monkeypatch.setenv(name, str(value))


class Rows(Dataset):
    def __init__(self, length=24):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index


class Apart(Rank):
    """A rank that meets nobody: all are watched in turn."""

    def meet(self):
        """Go on."""


def watched(rank, loader=None, world=2, *, meets=False):
    """What a rank sees that is watched alone."""
    if loader is None:
        loader = DataLoader(Rows(), 2, sampler=DistributedSampler(Rows(), world, rank))
    place = Apart(rank=rank, world=world, ranks=world, meets=meets)
    return observe(loader, step=lambda batch: None, rank=place)


# Under torchrun


def test_ranks_under_torchrun_are_one_job(train):
    """Two real ranks: who is dealt what, who waits for whom, and what follows for other jobs."""
    command = ["--nproc-per-node", "2", "-m", "dlsim", "observe", "their_training:make"]
    options = ["--step", "their_training:step", "-o", "job.npz", "--csv", "job.csv"]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("2 ranks on a node, a barrier every step; each: 1 worker") == 1
    job = load_run("job.npz")
    assert isinstance(job, JobTrace)
    assert [type(trace) for trace in job.ranks] == [Observation] * 2
    assert job.meta.scenario.job == Job(ranks=2, sync=1, deal="distributed")
    for rank, trace in enumerate(job.ranks):
        dealt = list(DistributedSampler(Rows(45), 2, rank))
        assert trace.samples.index.tolist() == dealt
        assert len(trace.order) == 6
        assert trace.meta.scenario.job.rank == rank
        assert trace.meta.scenario.loader.shuffle
        assert (trace.stepped <= trace.finished).all()
    entered = np.array([trace.entered for trace in job.ranks])
    assert (np.array([trace.finished for trace in job.ranks]).min(0) >= entered.max(0)).all()
    # Rank 1 computes for 150 ms in each step, and rank 0 waits for it.
    assert len(meetings(job)) == 6
    assert lateness(job).worst == 1
    assert (train / "job.csv").read_text().startswith("rank,batch,")

    found = calibration(job)
    assert found.scenario.job == Job(ranks=2, sync=1, sync_time=Constant(0.0))
    assert found.scenario.loader.shuffle
    assert found.scenario.dataset.length == 45
    [check] = found.checks
    assert (check.ranks, check.workers) == (2, 1)
    for ranks, batches in ((1, 12), (3, 4)):
        prediction = predict(found, {"job.ranks": ranks}, replications=3)
        assert prediction.epoch.low < prediction.epoch.value < prediction.epoch.high
        assert len(prediction.trace.order) == batches
        assert prediction.doubts.half_width > 0
    assert main(["calibrate", "job.npz", "-o", "job.toml"]) == 0
    assert "[job]\nranks = 2" in (train / "job.toml").read_text()


def test_a_rank_whose_loader_fails_says_so(train, one_rank, capsys):
    """What it saw until then is in a file of its own; the others are ended by torchrun."""
    assert main(["observe", "their_training:breaks", "-o", "job.npz"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("dlsim: their_training:breaks, rank 0: ValueError: no such row")
    assert said.endswith("; job.rank0.npz has what was seen")
    seen = load_run("job.rank0.npz")
    assert len(seen.order) == 7
    assert not (train / "job.npz").exists()
    assert not dist.is_initialized()


def test_a_job_of_one_rank_is_a_run(train, one_rank):
    """It meets itself after each pause, and nobody waits."""
    assert main(["observe", "their_training:breaks", "--batches", "5", "-o", "job.npz"]) == 0
    job = load_job("job.npz")
    assert len(job) == 1
    assert job.meta.scenario.job == Job()
    assert len(job.ranks[0].order) == 5
    assert calibration(job).scenario.job == Job()


def test_a_job_that_cannot_be_is_refused(monkeypatch):
    """Rank 2 of ranks 0 and 1."""
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    said = "got RANK=2, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2"
    with pytest.raises(DlsimError, match=said), of_job(meets=True):
        pass


def test_without_torchrun_there_is_no_job(monkeypatch):
    """What torchrun does not set, nobody waits for."""
    monkeypatch.delenv("RANK", raising=False)
    with of_job(meets=True) as rank:
        assert rank is None


# Joining


def test_ranks_are_told_from_strangers():
    """Traces that do not belong together make no job; in any order, those that do make one."""
    first, second = watched(0), watched(1)
    strangers = {
        "expected 2 ranks, got no trace of rank 1": [first],
        "expected each rank once, got rank 0 twice": [first, first],
        r"expected ranks of one job, got those of jobs of \[2, 3\] ranks": [
            first,
            watched(1, world=3),
        ],
        "expected traces of ranks that were watched, got another trace": [
            first,
            observe(DataLoader(Rows(), 2)),
        ],
    }
    for said, seen in strangers.items():
        with pytest.raises(TraceError, match=said):
            join(seen)
    assert [len(trace.order) for trace in join([second, first]).ranks] == [6, 6]


def test_times_count_from_when_the_first_rank_began():
    """On one machine all have one clock."""
    first, second = watched(0), watched(1)
    zeros = [json.loads(one.meta.notes["rank"])["began"] for one in (first, second)]
    job = join([first, second])
    apart = zeros[1] - zeros[0]
    assert job.ranks[0].epochs.started[0] == 0
    assert job.ranks[1].epochs.started[0] == pytest.approx(apart)
    assert job.ranks[1].returned == pytest.approx(second.returned + apart)
    assert job.ranks[1].samples.fetched == pytest.approx(second.samples.fetched + apart)
    # one after another, they did not meet
    assert job.meta.scenario.job.sync == "never"
    assert job.ranks[0].stepped is None


def test_clocks_of_machines_are_set_by_meetings():
    """Ranks that go on together do so at one moment, whatever their clocks say."""
    first = watched(0, meets=True)
    about = json.loads(first.meta.notes["rank"]) | {"rank": 1, "clock": "other", "began": 1e6}
    notes = first.meta.notes | {"rank": json.dumps(about)}
    second = replace(first, meta=msgspec.structs.replace(first.meta, notes=notes))
    job = join([first, later(second, 5.0)])
    assert job.ranks[1].finished == pytest.approx(job.ranks[0].finished)
    assert job.ranks[1].epochs.ended == pytest.approx(job.ranks[0].epochs.ended)


def stepped_by(columns):
    """Runs of one epoch with these times of steps: entered, finished, computed, by rank."""
    seen = []
    for rank, rows in enumerate(columns):
        entered, finished, computed = np.array(rows, float).T
        one = watched(rank, DataLoader(Rows(len(rows)), 1))
        nothing = np.zeros(len(rows))
        used = np.concatenate([[0.0], np.cumsum(computed)])
        seen.append(
            replace(
                one,
                returned=entered,
                entered=entered,
                finished=finished,
                requested=np.concatenate([[0.0], finished[:-1]]),
                thread_requested=used[:-1],
                thread_returned=used[:-1],
                queued_requested=nothing,
                queued_returned=nothing,
            )
        )
    return seen


def test_who_waited_is_who_was_blocked():
    """Rank 0 computes 2 s of 3, rank 1 all of them; then the other way, with 1 s of sleep each."""
    seen = stepped_by(
        [
            [(0, 3, 2), (4, 8, 3), (9, 10, 1)],
            [(0, 3, 3), (4, 8, 1), (9, 10, 1)],
        ]
    )
    waits = waited(seen, 1)
    assert waits[0].tolist() == [1, 0, 0]
    assert waits[1].tolist() == [0, 2, 0]
    job_waits = waited(seen, 2)
    assert job_waits[0].tolist() == [0, 0, 0]
    assert job_waits[1].tolist() == [0, 2, 0]


def test_how_often_ranks_meet_is_seen():
    """Nobody leaves a step in which ranks meet before all have entered it."""
    about = [{"clock": "one", "began": 0.0}, {"clock": "one", "began": 0.0}]
    steps = 16
    together = [[(4 * k, 4 * k + 3, 0) for k in range(steps)] for _ in range(2)]
    assert meeting(stepped_by(together), about) == 1
    # in every other step rank 0 has left before rank 1 comes
    early = [(t, e - 2 * (k % 2 == 0), 0) for k, (t, e, _) in enumerate(together[0])]
    behind = [(t + 2 * (k % 2 == 0), e, 0) for k, (t, e, _) in enumerate(together[1])]
    assert meeting(stepped_by([early, behind]), about) == 2
    apart = [[(4 * k + 10 * r, 4 * k + 10 * r + 3, 0) for k in range(steps)] for r in range(2)]
    assert meeting(stepped_by(apart), about) == "never"


def test_other_ranks_are_not_foreign():
    """What other ranks of the same machine used was nobody else's."""
    seen = []
    for rank, (foreign, ours) in enumerate(((1.5, 0.5), (1.0, 1.25))):
        one = watched(rank)
        facts = json.loads(one.meta.notes["machine"]) | {"foreign": foreign, "ours": ours}
        notes = one.meta.notes | {"machine": json.dumps(facts)}
        seen.append(replace(one, meta=msgspec.structs.replace(one.meta, notes=notes)))
    found = [json.loads(trace.meta.notes["machine"])["foreign"] for trace in join(seen).ranks]
    assert found == [0.25, 0.5]


# What the job is


class Shards(IterableDataset):
    def __init__(self, rank):
        self.rank = rank

    def __iter__(self):
        info = get_worker_info()
        return iter(range(6 + 4 * self.rank + 2 * (info.id if info else 0)))


def test_what_workers_of_all_ranks_yield_is_what_each_has():
    """Iterable-style: 6 and 8 samples on rank 0, 10 and 12 on rank 1; dealt anew to others."""
    seen = [watched(rank, DataLoader(Shards(rank), 2, num_workers=2)) for rank in range(2)]
    scenario = join(seen).meta.scenario
    assert scenario.dataset.sharding == (6, 8, 10, 12)
    assert scenario.job.deal == "distributed"
    again = simulate_job(scenario)
    assert [trace.size.sum() for trace in again.ranks] == [14, 22]
    assert with_changes(scenario, {"job.ranks": 3}).dataset.sharding == (6,) * 6


def test_indices_of_samplers_of_their_own_are_dealt_in_turn(tmp_path):
    """Each rank's sampler gives other indices: what is simulated fetches the same."""
    lists = [[5, 3, 1, 7], [0, 2, 6, 4]]
    seen = [watched(rank, DataLoader(Rows(8), 2, sampler=lists[rank])) for rank in range(2)]
    job = join(seen)
    assert job.meta.scenario.loader.sampler == (5, 0, 3, 2, 1, 6, 7, 4)
    again = simulate_job(job.meta.scenario, samples=True)
    assert [trace.samples.index.tolist() for trace in again.ranks] == lists
    save_job(job, tmp_path / "job.npz")
    assert load_job(tmp_path / "job.npz").meta.scenario == job.meta.scenario
    # all fetch all, where nobody deals
    alike = [watched(rank, DataLoader(Rows(8), 2)) for rank in range(2)]
    assert join(alike).meta.scenario.job.deal == "same"


def test_waiting_is_no_part_of_a_step():
    """A step that takes 2 ms, and then waits 10 ms for other ranks, is one of 2 ms."""

    class Late(Rank):
        def meet(self):
            time.sleep(0.01)

    late = Late(rank=0, world=1, ranks=1, meets=True)
    seen = observe(DataLoader(Rows(), 2), step=lambda batch: time.sleep(0.002), rank=late)
    waits = seen.finished - seen.stepped
    assert (waits >= 0.01).all()
    scenario = calibration(join([seen])).scenario
    took = np.median(seen.stepped - seen.returned)
    assert scenario.consumer.step.mean < took + np.median(waits) / 2
