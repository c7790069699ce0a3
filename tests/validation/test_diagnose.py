from __future__ import annotations

import dataclasses
import math
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import dlsim
from dlsim import Constant, Stage
from dlsim.cli import main
from dlsim.trace import load_trace
from dlsim.trace.observation import Observation
from dlsim.validation import diagnose, diagnose_run, observe
from dlsim.validation.diagnosing.memory import Room, room
from dlsim.validation.diagnosing.search import as_tried
from dlsim.validation.diagnosing.starts import lasting
from dlsim.validation.observing import target
from dlsim.whatif.statistics import Ratio
from tests.cli.test_cli import but_progress, refused
from tests.modules import module_here
from tests.validation.test_replay import watched
from tests.whatif.cases import CASES

SOURCE = """
import os, signal, time
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, does):
        self.does = does

    def __len__(self):
        return 180

    def __getitem__(self, index):
        time.sleep(0.01)
        self.does(index)
        return index


def make(does=lambda index: None, **settings):
    return DataLoader(Rows(does), batch_size=3, **{"num_workers": 1} | settings)


def short():
    return DataLoader(Rows(lambda index: None), batch_size=60)


def raises():
    return make(lambda index: [0] * 40 + [1 / (index != 40)] if index == 40 else None)


def dies():
    return make(lambda index: os.kill(os.getpid(), signal.SIGKILL) if index == 40 else None)


def hangs():
    return make(lambda index: time.sleep(60) if index == 40 else None)


def interrupts():
    parent = os.getpid()
    return make(lambda index: os.kill(parent, signal.SIGINT) if index == 40 else None)
"""


class Rows(Dataset):
    """Each sample is waited for: workers help however few cores there are."""

    def __init__(self, seconds=0.02, length=128):
        self.seconds, self.length = seconds, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return np.zeros(1000, np.float32)


class Stream(IterableDataset):
    """Numbers, shared by the workers."""

    def __iter__(self):
        info = get_worker_info()
        for index in range(info.id, 160, info.num_workers):
            time.sleep(0.02)
            yield index


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module, `diagnosed_here`, in a directory of its own."""
    with module_here(tmp_path, monkeypatch, "diagnosed_here", SOURCE) as path:
        yield path


def test_a_search_that_ends_at_its_own_limit_says_so(monkeypatch):
    """25 batches on 16 workers: no fewer do as well, and more, which are not tried, would gain."""
    monkeypatch.setattr("dlsim.validation.calibrating.transport.probe", lambda path: dlsim.Costs())
    case = CASES["one and a half rounds"]
    said = str(diagnose_run(watched(dlsim.simulate(case, samples=True))))
    assert "Keep your settings: others, with up to 16 workers, gain nothing" in said
    assert "num_workers=32 100 %" in said
    trained = dlsim.replace(case, {"consumer.step": 0.1})
    said = str(diagnose_run(watched(dlsim.simulate(trained, samples=True))))
    assert "fastest. More than 16 workers were not tried." in said


def test_the_answer_and_what_to_paste():
    """First what limits and what to set, at the end what to paste; and it was tried."""
    found = diagnose(DataLoader(Rows(), 4, num_workers=1))
    assert found.helps
    assert found.explanation.limit == "fetch"
    assert found.advised["num_workers"] > 1
    assert found.room.fits
    assert found.tried is not None
    assert len(found.tried.order) == len(found.seen.order) == 32
    assert found.tried_gain > 0
    first, second, *_, last = str(found).splitlines()
    assert first.startswith("Training is idle ")
    assert second.startswith(f"Set num_workers={found.advised['num_workers']}, prefetch_factor=")
    assert second.endswith("; it fits in memory.")
    assert last.startswith(f"DataLoader(..., num_workers={found.advised['num_workers']}, ")


def test_a_loader_that_keeps_up():
    """Where training hardly waits, settings are kept or spared, not paid for."""
    loader = DataLoader(Rows(0.001), 4, num_workers=3)
    found = diagnose(loader, step=lambda batch: time.sleep(0.04), attempt=False)
    assert found.max_stall == 0.05
    assert found.advised["num_workers"] <= 3
    assert " for fetching samples" not in str(found).splitlines()[0]


def test_a_stream_that_is_split():
    """Other numbers of workers are considered for a stream only if it is said to be split."""
    seen = observe(DataLoader(Stream(), 4, num_workers=2))
    assert diagnose_run(seen).advised["num_workers"] == 2
    assert "say --split" in str(diagnose_run(seen))
    assert diagnose_run(seen, split=True).settings["num_workers"] > 2


class Opening(Rows):
    """The first sample of each process waits for a file to be opened."""

    opened = False

    def __getitem__(self, index):
        if not self.opened:
            time.sleep(0.6)
        self.opened = True
        return super().__getitem__(index)


def prepare(worker):
    """A `worker_init_fn` that waits."""
    time.sleep(0.6)


@pytest.mark.parametrize(
    ("dataset", "init", "said"),
    [
        (Rows(0.005, 64), prepare, "each worker is blocked "),
        (Opening(0.005, 64), None, "the first sample of each takes "),
    ],
)
def test_starts_that_wait_are_named(dataset, init, said):
    """What workers wait for at their start is named, and that it may be spared in later epochs."""
    found = diagnose_run(observe(DataLoader(dataset, 4, num_workers=2, worker_init_fn=init)))
    assert said in str(found)
    assert found.advised["persistent_workers"] is True
    assert found.lasting > 1
    assert "persistent_workers=True: " in str(found).splitlines()[1]
    assert str(found).splitlines()[1].endswith("from the second epoch on; it fits in memory.")


def test_what_persistent_workers_gain_later():
    """Of an epoch of 1 s to start and 0.5 s to fetch, 1 s is spared; of a longer one, no more."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(100, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]),
        costs=dlsim.Costs(worker_wait=1.0),
    )
    assert lasting(scenario, scenario.loader, 100, 0) == pytest.approx(1 / 0.5, rel=0.01)
    assert lasting(scenario, scenario.loader, 1000, 0) == pytest.approx(1 / 5.0, rel=0.01)
    more = dlsim.replace(scenario, {"loader.num_workers": 4}).loader
    assert lasting(scenario, more, 100, 0) == pytest.approx(1.5 / 0.25 - 1, rel=0.01)
    alone = dlsim.Loader()
    assert lasting(scenario, alone, 100, 0) == 0.0


def test_workers_that_get_no_data_are_named():
    """Of a stream of two shards, only two workers of four have any."""
    found = diagnose_run(observe(DataLoader(Shards(), 4, num_workers=4)))
    assert "2 of 4 workers got no data" in str(found)


class Shards(IterableDataset):
    """Two shards, which whole workers take."""

    def __iter__(self):
        info = get_worker_info()
        for _ in range(info.id, 2, info.num_workers):
            for row in range(40):
                time.sleep(0.002)
                yield row


class Few(Rows):
    """Refuses to be shared by more than two workers."""

    def __getitem__(self, index):
        if get_worker_info().num_workers > 2:
            raise ValueError("two shards, no more")
        return super().__getitem__(index)


def waited(seconds: float) -> Observation:
    """A run as if watched, with one worker, whose samples are waited for so long."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=1),
        dataset=dlsim.MapDataset(128, fetch=[Stage("read", wait=Constant(seconds))]),
    )
    return watched(dlsim.simulate(scenario, samples=True))


def test_what_failed_is_not_advised():
    """What the trial has refuted is told as that, and what is there is kept, and pasted."""
    failed = observe(DataLoader(Few(0.0), 4, num_workers=3))
    found = dataclasses.replace(diagnose_run(waited(0.02)), tried=failed)
    assert found.settings["num_workers"] > 2
    assert found.refuted
    assert not found.changes
    assert found.advised == {"num_workers": 1, "prefetch_factor": 2}
    second, last = str(found).splitlines()[1], str(found).splitlines()[-1]
    assert second.startswith(f"Keep your settings: num_workers={found.settings['num_workers']}, ")
    assert second.endswith(" was tried, and failed.")
    assert last == "DataLoader(..., num_workers=1, prefetch_factor=2)"
    assert "tried     the settings, and failed: ValueError: two shards, no more" in str(found)


def test_loaders_that_give_what_they_have_once():
    """Running one again tells nothing of the settings, and that is said."""
    nothing = observe(DataLoader(Rows(0.0), 4, sampler=[]))
    found = dataclasses.replace(diagnose_run(waited(0.02)), tried=nothing)
    assert found.helps
    assert "tried     in vain: no batch came when the loader was run again" in str(found)


def test_what_lost_is_not_advised():
    """A gain that was promised and came to a loss; one as promised stays."""
    slow, fast = waited(0.02), waited(0.002)
    found = diagnose_run(slow)
    assert found.helps
    assert dataclasses.replace(found, tried=fast).helps
    lost = dataclasses.replace(found, seen=fast, tried=slow)
    assert lost.refuted
    assert not lost.helps


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (DataLoader(Rows(0.001, 40), 4), ", batch_size=4"),
        (
            DataLoader(
                Rows(0.001, 40), batch_sampler=[list(range(4 * i, 4 * i + 4)) for i in range(10)]
            ),
            ", batches of 4 samples from its batch_sampler",
        ),
        (DataLoader(Rows(0.001, 40), None), ", batch_size=None: each item of the dataset is one "),
    ],
)
def test_the_size_of_batches_in_words(loader, said):
    """What torch was told, and what a sample is."""
    (line,) = [
        x for x in str(diagnose_run(observe(loader))).splitlines() if x.startswith("watched")
    ]
    assert said in line


class Words(Rows):
    """Samples by names."""

    def __getitem__(self, index):
        return super().__getitem__(len(index))


def test_indices_that_are_no_integers():
    """Batches are then as many, and of as many samples, as were seen; what that assumes is said."""
    sizes = [2, 1, 3, 2, 2, 1, 4, 2]
    lists = [["a" * (n + 1) for n in range(size)] for size in sizes]
    seen = observe(DataLoader(Words(0.0), batch_sampler=lists))
    scenario = dlsim.validation.calibrate(seen, transport=dlsim.Costs())
    assert [len(batch) for batch in scenario.loader.batch_sampler] == sizes
    assert dlsim.simulate(scenario).size.tolist() == sizes
    assert "as were seen in the first one" in seen.meta.notes["assumed"]
    assert "watched" in str(diagnose_run(seen))


class Cuts:
    """What lhotse's samplers give: some cuts, for a data set that makes a whole batch of them."""

    def __init__(self, count):
        self.cuts = ["cut"] * count


class Speech(Dataset):
    """A data set without a length, asked for batches."""

    def __getitem__(self, cuts):
        time.sleep(0.002 * len(cuts.cuts))
        return np.zeros(len(cuts.cuts))


def test_a_sampler_of_whole_batches_of_one_s_own():
    """Each of them counts as a sample of a data set of as many; what each takes is resampled."""
    loader = DataLoader(Speech(), sampler=[Cuts(1 + n % 3) for n in range(30)], batch_size=None)
    seen = observe(loader)
    scenario = dlsim.validation.calibrate(seen, transport=dlsim.Costs())
    assert scenario.dataset.length == 30
    assert len(dlsim.simulate(scenario).order) == 30
    wait = scenario.dataset.fetch[0].wait
    assert wait.mean == pytest.approx(0.004, rel=0.5)
    assert len(set(wait.sample(np.random.default_rng(0), 100))) > 2


def test_an_interval_of_a_ratio():
    """As many times more as fewer, and never less than nothing."""
    found = Ratio(1.0, 2 * math.sinh(1.5), 20)
    assert found.low == pytest.approx(2 * math.exp(-1.5) - 1)
    assert found.high == pytest.approx(2 * math.exp(1.5) - 1)
    assert -1 not in found
    assert 1.0 in found


def test_room():
    """Batches must fit into /dev/shm where they are shared, and with the workers into memory."""
    known = {"batches": 100.0, "workers": 4, "each_worker": 50.0}
    roomy = Room(**known, shared=True, shm_free=100.0, memory_free=300.0)
    assert roomy.fits
    assert str(roomy) == (
        "/dev/shm 100 B of 100 B free, memory 300 B of 300 B free (50 B for each worker by itself)"
    )
    assert not Room(**known, shared=True, shm_free=99.0, memory_free=300.0).fits
    assert Room(**known, shared=False, shm_free=99.0, memory_free=300.0).fits
    assert not Room(**known, shared=False, shm_free=99.0, memory_free=299.0).fits
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset(4))
    assert room(scenario, 10.0, float("nan")).shm_free > 0


def test_the_command(module, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The command watches, keeps the run, tries; the kept run can be diagnosed again."""
    out = tmp_path / "run.npz"
    assert main(["diagnose", "diagnosed_here:make", "--batches", "40", "-o", str(out)]) == 0
    answer = capsys.readouterr().out
    assert "\ntried " in answer
    assert "watched   40 batches" in answer
    assert main(["diagnose", str(out)]) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[0] == answer.splitlines()[0]
    assert "\ntried " not in again


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("diagnosed_here:short", "diagnosed_here:short: expected at least 5 batches to calibrate"),
        (
            "diagnosed_here:raises",
            "raises: after 13 batches an error ended it, for batch 13: ZeroDivision",
        ),
        ("diagnosed_here:dies", "an error ended it, for batch 13: RuntimeError: DataLoader worker"),
        ("diagnosed_here:hangs", "diagnosed_here:hangs: no batch for 3 s: it hangs"),
        ("diagnosed_here:nothing", "diagnosed_here has no nothing"),
        ("nothing.npz", "nothing.npz: "),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    module, monkeypatch, capsys: pytest.CaptureFixture[str], loader: str, message: str
):
    """Whatever the loader does, there is an end, and one line that says what it did."""
    monkeypatch.setattr(target, "HANGS", 3.0)
    assert message in refused(capsys, "diagnose", loader)


@pytest.mark.parametrize("command", ["diagnose", "observe"])
def test_an_interruption_leaves_what_was_seen(
    module, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    """After Ctrl-C the batches seen until then are in the file that was asked for."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        out = tmp_path / "run.npz"
        assert main([command, "diagnosed_here:interrupts", "-o", str(out)]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    err = capsys.readouterr().err
    seen = load_trace(out)
    first, *_ = but_progress(err)
    assert first == f"dlsim: {out} holds the {len(seen.order)} batches seen until then"
    assert 5 <= len(seen.order) <= 14
    assert seen.meta.problem.kind == "interrupt"


@pytest.mark.parametrize(
    ("workers", "method", "spared"), [(0, "fork", True), (0, "spawn", False), (1, "fork", False)]
)
def test_what_the_watched_process_imported_the_tried_workers_have(workers, method, spared):
    """That is, those forked from one that fetched itself; what is promised of training is not."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers),
        dataset=dlsim.MapDataset(60),
        costs=dlsim.Costs(first_cpu=0.3, first_sample=0.1, worker_ready=0.01),
    )
    loader = dlsim.Loader(num_workers=2, multiprocessing_context=method)
    costs = as_tried(scenario, loader).costs
    assert (costs.first_cpu, costs.first_sample) == ((0.0, 0.0) if spared else (0.3, 0.1))
    assert costs.worker_ready == 0.01
