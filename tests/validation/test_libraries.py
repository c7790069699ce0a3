from __future__ import annotations

import ctypes
import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.engine.usable import usable_cores
from dlsim.report import run_text
from dlsim.scenario import Constant, Costs, Stage
from dlsim.trace.first_batches import first_batches
from dlsim.trace.libraries import cores_busy, helping, worth_limiting
from dlsim.trace.observation import Observation
from dlsim.validation import calibrate, diagnose_run, observe, one_thread_each
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.lifetimes import exiting
from dlsim.validation.calibrating.predict import predict
from dlsim.validation.calibrating.scenario import calibration
from dlsim.validation.calibrating.spinning import LONG, lingering_between
from dlsim.validation.observing.one_thread import MAPS, SETTERS, limited
from tests.validation.test_replay import watched


def blas_threads():
    """How many threads each OpenBLAS of this process says it computes with."""
    for file in {line.split(maxsplit=5)[-1].strip() for line in MAPS.read_text().splitlines()}:
        if "openblas" in file:
            library = ctypes.CDLL(file)
            for name in (setter.replace("_set_", "_get_") for setter in SETTERS["openblas"]):
                if hasattr(library, name):
                    yield getattr(library, name)()


class Matrices(Dataset):
    """Each sample multiplies matrices, and notes with how many threads BLAS would."""

    def __init__(self):
        self.threads = torch.zeros(24, dtype=torch.int64).share_memory_()

    def __len__(self):
        return 24

    def __getitem__(self, index):
        rows = np.full((600, 600), 1.0 + index)
        product = (rows @ rows)[:10]
        self.threads[index] = max(blas_threads())
        return product


class Sums(Dataset):
    """Each sample computes in one thread, and is so large that a feeder writes it for long."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return np.full(500_000, float(sum(number * number for number in range(100_000))))


def seen_with(threads: float, seconds: float = 0.02, epochs: int = 1) -> Observation:
    """A run as if watched, whose samples keep so many cores busy for some seconds each."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=2),
        dataset=dlsim.MapDataset(80, fetch=[Stage("multiply", wait=Constant(seconds))]),
        epochs=epochs,
    )
    trace = dlsim.simulate(scenario, samples=True)
    spent = threads * 4 * seconds
    turn = np.arange(len(trace)) // 2  # of each worker
    return replace(
        watched(trace),
        sample_cpu=np.full(80 * epochs, seconds),
        cpu_started=turn * spent,
        cpu_fetched=(turn + 1) * spent,
        thread_started=turn * 4 * seconds,
    )


@pytest.mark.parametrize("threads", [1.0, 1.9, 4.0])
def test_cores_that_a_sample_keeps_busy(threads):
    """What a process uses beyond its fetching thread, beside what that uses."""
    seen = seen_with(threads)
    assert cores_busy(seen) == pytest.approx(threads)
    assert helping(seen) == pytest.approx(np.full(len(seen), (threads - 1) * 0.08))


@pytest.mark.parametrize(("helpers", "counted"), [(0.9, 2.0), (2.9, 4.0)])
def test_threads_that_spin_while_the_sample_waits_are_no_more_than_there_are(helpers, counted):
    """A sample computes for 2 ms and waits for 18, while threads wait for more work on cores."""
    seen = seen_with(1 + helpers)
    waiting = replace(
        seen,
        sample_cpu=np.full(80, 0.002),
        thread_started=seen.thread_started / 10,
        cpu_started=seen.cpu_started - seen.thread_started * 0.9,
        cpu_fetched=seen.cpu_fetched - (seen.thread_started + 0.08) * 0.9,
    )
    assert helping(waiting) == pytest.approx(np.full(len(seen), helpers * 0.08))
    assert cores_busy(waiting) == pytest.approx(counted)


def test_threads_that_start_with_a_worker_do_not_count():
    """They spin for a while beside its first batch, in every epoch that starts workers."""
    seen = seen_with(1.0, epochs=2)
    spun = np.where(first_batches(seen), 0.16, 0.0)
    assert np.count_nonzero(spun) == 4
    assert cores_busy(replace(seen, cpu_fetched=seen.cpu_fetched + spun)) == 1


def test_little_more_than_a_core_is_one():
    """What others of a process use, or of short samples, is no sign of a library's threads."""
    assert not worth_limiting(seen_with(1.15))
    assert cores_busy(seen_with(2.0, 0.0001)) == 1


def test_what_a_feeder_pickles_is_not_a_library_s():
    """The pickling of the batch before, in another thread, may take as long as fetching."""
    seen = seen_with(1.9)
    pickled = replace(
        seen, serialised=seen.fetched + 0.07, serialise_cpu=np.full(len(seen), 0.9 * 0.08)
    )
    assert helping(pickled)[2:] == pytest.approx(np.zeros(len(seen) - 2), abs=1e-9)


@pytest.mark.parametrize(("queued", "counted"), [(0.0, 0.0), (0.03, 0.03), (0.2, 0.1)])
def test_threads_that_an_import_starts_are_of_the_first_sample(queued, counted):
    """They spin for a while, and keep it waiting where cores are short; that is all they do.

    Later samples have no threads, and nothing is pickled before there is a batch.
    """
    seen = seen_with(1.0)
    first = first_batches(seen)
    cpu, waited = seen.sample_cpu.copy(), np.zeros(80)
    cpu[:8:4], waited[:8:4] = 0.5, queued
    later = np.where(first, 0.0, 0.48)
    run = replace(
        seen,
        sample_cpu=cpu,
        sample_queued=waited,
        cpu_started=seen.cpu_started + np.where(first, 0.0, 0.48 + 0.1),
        cpu_fetched=seen.cpu_fetched + 0.48 + 0.1,
        thread_started=seen.thread_started + later,
    )
    assert helping(run) == pytest.approx(np.where(first, 0.1, 0.0))
    found = accounts(run)
    assert found.busy == 1
    assert found.begin_cpu == pytest.approx([0.48 + counted] * 2)
    assert found.serialise.sum() == pytest.approx(0.0, abs=1e-9)


def test_threads_become_a_stage():
    """Calibrated, a stage has as many threads, of which one alone would compute no more.

    What that is, those samples tell that found cores.
    """
    seen = seen_with(1.9)
    cpu = np.where(np.arange(80) % 10 < 2, 0.005, 0.02375)
    queued = np.where(np.arange(80) % 10 < 2, 0.0, 0.02)
    assert cpu.mean() == pytest.approx(0.02)
    scenario = calibrate(replace(seen, sample_cpu=cpu, sample_queued=queued), transport=Costs())
    stage = scenario.dataset.fetch[0]
    assert stage.threads == 2
    assert stage.cpu.mean * (1 - stage.spin) == pytest.approx(0.005)
    assert stage.cpu.mean == pytest.approx(0.02)
    two = dlsim.replace(scenario, {"machine.cores": 2, "loader.num_workers": 4})
    found = dlsim.explain(two, 3)
    gains = {gain.change.name: gain.gain.mean for gain in found.gains}
    assert 2 < gains["one thread in each worker"] < 3
    assert calibrate(seen_with(1.0), transport=Costs()).dataset.fetch[0].threads == 1


@pytest.mark.parametrize("threads", [1.0, 1.9])
def test_what_threads_compute_for_the_last_batch_is_no_exit(threads):
    """Nor is it the start of a worker, where they compute for all others."""
    seen = seen_with(threads)
    used = float(np.nanmax(seen.cpu_fetched))
    assert exiting(seen, 2 * used + 0.02, 0.0) == pytest.approx([0.01])


def test_threads_that_sleep_are_work():
    """Ones that are busy half of the time share out work, beside what one thread does alone.

    As much is computed in all, and with a single thread nothing would be gained.
    """
    seen = seen_with(1.5)
    scenario = calibrate(seen, transport=Costs())
    alone, together = scenario.dataset.fetch[:2]
    assert (alone.threads, together.threads, together.spin) == (1, 2, 0)
    assert (alone.cpu.mean, together.cpu.mean) == pytest.approx((0.01, 0.01))
    two = dlsim.replace(scenario, {"machine.cores": 2, "loader.num_workers": 4})
    gains = {gain.change.name: gain.gain.mean for gain in dlsim.explain(two, 3).gains}
    assert abs(gains.get("one thread in each worker", 0.0)) < 0.1


@pytest.mark.parametrize(("seconds", "together"), [(0.03, 0.016), (0.025, 0.01)])
def test_threads_that_share_out_work_do_less_of_it_where_cores_are_short(seconds, together):
    """What all compute there is the work: beside idle cores, waiting for each other is more."""
    helped, alone = seen_with(1.8), seen_with(1.2, seconds)
    for runs in ((helped, alone), (alone, helped)):
        first, second = calibrate(*runs, transport=Costs()).dataset.fetch[:2]
        assert (first.threads, second.threads) == (1, 2)
        assert second.cpu.mean == pytest.approx(together)
        assert first.cpu.mean + second.cpu.mean == pytest.approx(0.02)
        assert first.cpu.mean + 2 * second.cpu.mean == pytest.approx(1.2 * seconds)


def test_threads_that_spin_do_so_in_all_runs():
    """Then it is no less work where cores are short; one thread does what the shorter ones tell."""
    stage = calibrate(seen_with(1.9), seen_with(1.7, 0.04), transport=Costs()).dataset.fetch[0]
    assert (stage.threads, stage.spin) == (2, 0)


@pytest.mark.parametrize("threads", [1.0, 1.1, 1.4, 1.9])
def test_what_threads_compute_is_no_pickling(threads):
    """Of all that a process uses beside its fetching thread, the feeder's is what it pickles."""
    seen = accounts(seen_with(threads))
    assert seen.busy == pytest.approx(threads)
    assert seen.serialise.sum() == pytest.approx(0.0, abs=1e-9)


def test_threads_that_spin_make_intervals_wide_where_cores_are_short():
    """They may be on cores in turn, and wait for one another there; one thread waits for nobody."""
    seen, late = seen_with(1.9), np.arange(80) % 2
    hindered = replace(seen, sample_cpu=0.01 + 0.02 * late, sample_queued=0.02 * late)
    found = calibration(hindered, transport=Costs())
    two = replace(found, scenario=dlsim.replace(found.scenario, {"machine.cores": 2}))
    wide = predict(two, {"loader.num_workers": 4}, replications=3)
    assert 3 < wide.epoch.high / wide.epoch.value < 6
    assert wide.epoch.low > 0.6 * wide.epoch.value
    assert "limit them to one in each worker" in str(wide.doubts)
    enough = predict(found, {"machine.cores": 16.0, "loader.num_workers": 4}, replications=3)
    assert enough.epoch.high < 2 * enough.epoch.value
    alone = predict(two, {"dataset.fetch.0.spin": 0.0}, replications=3)
    assert alone.epoch.high < 2 * alone.epoch.value


def in_turns(seen: Observation, workers: int) -> Observation:
    """The same of a run with so many workers, on two cores that processes have in turns."""
    machine = {"cores": 2.0, "slice": 0.004}
    settings = dlsim.replace(seen.meta.scenario, {"loader.num_workers": workers})
    notes = {**seen.meta.notes, "machine": json.dumps(machine)}
    return replace(seen, meta=msgspec.structs.replace(seen.meta, scenario=settings, notes=notes))


def test_threads_that_meet_by_chance_compute_as_long_as_where_all_had_cores():
    """What two workers' samples compute for longer, a simulation finds out, and by how much more
    four do: seven times as long as alone, not three. Intervals reach to either side.
    """
    alone, beside = in_turns(seen_with(1.9, 0.01), 1), in_turns(seen_with(1.9, 0.03), 2)
    found = calibration(beside, alone, transport=Costs())
    stage = found.scenario.dataset.fetch[0]
    assert (stage.threads, stage.spin, stage.linger) == (2, 0, LONG)
    assert stage.cpu.mean == pytest.approx(0.01)
    assert found.scenario.machine.contention == 0
    two, four = (predict(found, {"loader.num_workers": n}, replications=3) for n in (2, 4))
    assert two.epoch.value == pytest.approx(3 * 0.8, rel=0.2)
    assert four.epoch.value == pytest.approx(7 * 0.8, rel=0.2)
    assert four.epoch.low < 0.6 * four.epoch.value
    assert four.epoch.high > 1.7 * four.epoch.value


def test_how_long_threads_linger_is_told_by_samples_that_wait():
    """Threads that compute for 4 ms more than the sample, which waits for 18, linger so long."""
    seen = seen_with(1.0)
    batch, wait = seen.samples.batch, np.full(80, 0.018)
    own = np.full(len(seen), 4 * 0.002)
    for more, expected in ((0.004, 0.004), (0.018, LONG)):
        helped = replace(
            seen,
            sample_cpu=np.full(80, 0.002),
            cpu_started=np.zeros(len(seen)),
            cpu_fetched=2 * own + 4 * more,
        )
        found = lingering_between(helped, batch, wait, 2.0)
        assert found == pytest.approx(expected, abs=1e-4)
    assert lingering_between(seen, batch, wait, 1.0) == 0


def test_one_thread_is_said_first():
    """With how much faster a run with one was, and what to paste; untried, with what to do."""
    seen, alone = seen_with(1.9), seen_with(1.0, 0.005)
    found = diagnose_run(seen, alone=alone)
    first, *_, last = str(found).splitlines()
    assert first.startswith("Each sample keeps 1.9 cores busy, by threads of libraries")
    assert "limit threads in worker_init_fn: 4 times as fast (tried)" in first
    assert "threadpool_limits(1)" in str(found)
    assert last.endswith("worker_init_fn=one_thread)")
    untried = str(diagnose_run(seen)).splitlines()
    assert "limit them in worker_init_fn" in untried[0]
    assert "worker_init_fn" not in untried[-1]
    assert str(diagnose_run(alone)).splitlines()[0].startswith("Training ")
    assert run_text(seen).startswith("Each sample keeps 1.9 cores busy")
    in_vain = str(diagnose_run(seen, alone=seen)).splitlines()
    assert in_vain[0].endswith("share out work; with one thread each it was no faster (tried).")
    assert "worker_init_fn" not in in_vain[-1]
    assert "cores busy" not in run_text(alone)
    assert "cores busy" not in run_text(replace(seen, worker=np.full(len(seen), -1)))


@pytest.mark.skipif(usable_cores() < 2, reason="libraries have a thread for each core")
def test_threads_of_a_real_library_are_limited():
    """BLAS has a thread for each core in a worker, and one in the run that tries it."""
    data = Matrices()
    loader = DataLoader(data, 4, num_workers=1)
    observe(loader)
    assert (data.threads > 1).all()
    data.threads.zero_()
    assert one_thread_each(seen_with(1.9), loader) is not None
    had = data.threads[data.threads > 0]  # a slow machine may not come to all of them
    assert len(had)
    assert (had == 1).all()
    assert loader.worker_init_fn is None


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_work_without_libraries_keeps_one_core_busy(num_workers):
    """However large what it makes is: nothing is tried."""
    loader = DataLoader(Sums(), 4, num_workers=num_workers, collate_fn=list)
    seen = observe(loader)
    assert cores_busy(seen) == 1
    assert one_thread_each(seen, loader) is None


class Named(Dataset):
    """Each sample is what the user's `worker_init_fn` made of it."""

    worker = -1

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Named.worker


def name(worker):
    """A user's own `worker_init_fn`."""
    Named.worker = worker


def test_a_user_s_own_worker_init_fn_is_called_as_well():
    """After libraries were told to have one thread each."""
    copy = limited(DataLoader(Named(), num_workers=2, worker_init_fn=name))
    assert [int(batch) for batch in copy] == [0, 1, 0, 1]
