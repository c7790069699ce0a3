from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from msgspec import structs
from torch.utils.data import DataLoader

import dlsim
from dlsim.cli import main
from dlsim.scenario import Constant, Cost, Costs, Recorded, Stage
from dlsim.trace.first_batches import first_batches
from dlsim.validation import (
    calibrate,
    calibrate_throughput,
    calibration,
    fit_throughput,
    observe,
    predict,
)
from dlsim.validation.calibrating import throughput, throughput_models
from dlsim.validation.calibrating.accounts import CalibrateError
from dlsim.validation.calibrating.checks import missed
from dlsim.validation.calibrating.collating import blocked
from dlsim.validation.calibrating.cost_errors import (
    PACE,
    PRIOR,
    beginnings,
    errors_of,
    unsteadiness,
)
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.crowding import contention, crowding, paired
from dlsim.validation.calibrating.firsts import beyond
from dlsim.validation.calibrating.lifetimes import (
    as_long,
    exiting,
    first_samples,
    started,
)
from dlsim.validation.calibrating.lock import held_up, mean_share
from dlsim.validation.calibrating.moving import costs_of, starting
from dlsim.validation.calibrating.scenario import of_runs, siblings
from dlsim.validation.calibrating.steps import per_sample
from dlsim.validation.calibrating.throughput_models import Fitting, simulated
from dlsim.validation.calibrating.work import consumer_of
from dlsim.whatif.space import space
from tests.validation.test_replay import Rows, watched

TRANSPORT = Costs(serialise=Cost(message=3e-4), receive=Cost(message=3e-4))


def test_waits_are_found_by_index():
    """Of a dataset seen whole, each sample keeps the time that it was blocked."""
    scenario = calibrate(observe(DataLoader(Rows(), 3, num_workers=2)), transport=TRANSPORT)
    wait = scenario.dataset.fetch[0].wait
    assert isinstance(wait, Recorded)
    assert len(wait.values) == 24
    assert min(wait.values) > 0.0015
    assert scenario.costs.take > 0
    assert scenario.costs.worker_ready > 0
    assert scenario.machine.cores >= 1


class Opening(Rows):
    """The first sample of each worker waits for a file to be opened."""

    opened = False

    def __getitem__(self, index):
        if not self.opened:
            time.sleep(0.3)
        self.opened = True
        return super().__getitem__(index)


def prepare(worker):
    """A `worker_init_fn` that waits."""
    time.sleep(0.4)


@pytest.mark.parametrize(
    ("dataset", "init", "blocked", "first"),
    [
        (Rows(), None, 0.0, 0.0),
        (Rows(), prepare, 0.4, 0.0),
        (Opening(), None, 0.0, 0.3),
        (Opening(), prepare, 0.4, 0.3),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_starts_that_wait_are_kept_as_such(dataset, init, blocked, first, persistent):
    """What workers wait for before their first batch, or with their first sample, is a start.

    It is no more than what passed then, however long the machine stands still meanwhile; and what
    other samples wait for is no more than what passed with one of them.
    """
    loader = DataLoader(
        dataset, 3, num_workers=2, worker_init_fn=init, persistent_workers=persistent
    )
    seen = observe(loader, epochs=2)
    scenario = calibrate(seen, transport=TRANSPORT)
    costs, rows = scenario.costs, seen.samples
    process = rows.worker + (0 if persistent else 2 * seen.epoch_of(rows.batch))
    _, firsts = np.unique(process, return_index=True)
    passed = rows.fetched - rows.started
    assert 0.9 * blocked <= costs.worker_wait <= np.nanmax(seen.initialised - seen.initialising)
    assert 0.9 * first <= costs.first_sample <= passed[firsts].max()
    others = np.delete(passed, firsts).max()
    assert max(scenario.dataset.fetch[0].wait.values) < others + 0.1
    spared = dlsim.replace(scenario, {"costs.worker_wait": 0.0, "costs.first_sample": 0.0})
    starts = []
    # Else the first worker waits while the second one is started, or shares a core with others.
    besides = (
        "worker_start",
        "worker_ready",
        "first_start",
        "first_cpu",
        "first_put",
        "first_next",
        "first_receive",
    )
    for case in (scenario, spared):
        changes = {"machine.cores": None} | {f"costs.{key}": 0.0 for key in besides}
        trace = dlsim.simulate(dlsim.replace(case, changes))
        starts.append(trace.started[trace.epochs.first] - trace.epochs.started)
    later = starts[0] - starts[1]
    assert later[0] == pytest.approx(costs.worker_wait + costs.first_sample, abs=0.05)
    assert later[1] == pytest.approx(0.0 if persistent else later[0], abs=0.05)


class Box:
    """What a batch is put into; the first one that is rebuilt in a process takes long."""

    rebuilt = False

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return rebuild_box, (self.content,)


def rebuild_box(content):
    """A box, unpickled."""
    if not Box.rebuilt:
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
    Box.rebuilt = True
    return Box(content)


def test_what_the_first_batch_takes_to_be_rebuilt_comes_after_it():
    """As where its class is imported: the first batch is there, and is returned so much later."""
    Box.rebuilt = False
    seen = observe(DataLoader(Rows(), 3, num_workers=2, collate_fn=Box))
    scenario = calibrate(seen, transport=TRANSPORT)
    assert 0.18 < scenario.costs.first_receive < 0.3
    assert scenario.costs.first_next < 0.1
    alone = dlsim.replace(scenario, {"machine.cores": None})
    spared = dlsim.replace(alone, {"costs.first_receive": 0.0})
    late, soon = dlsim.simulate(alone), dlsim.simulate(spared)
    later = late.returned[0] - soon.returned[0]
    assert later == pytest.approx(scenario.costs.first_receive, abs=0.03)  # if others come first


class Importing(Rows):
    """The first sample of each process computes for 0.2 s what others find there."""

    there = False

    def __getitem__(self, index):
        began = time.thread_time()
        while not self.there and time.thread_time() < began + 0.2:
            pass
        self.there = True
        return super().__getitem__(index)


def test_turns_on_cores_are_those_of_the_machine():
    """What `observe` saw of turns between processes is the slice; none are where none were."""
    seen = observe(DataLoader(Rows(), 3, num_workers=1))
    machine = json.loads(seen.meta.notes["machine"])
    assert machine["slice"] == 0 or 2e-4 < machine["slice"] < 0.1
    for seconds, expected in ((0.004, 0.004), (0.0, None)):
        notes = seen.meta.notes | {"machine": json.dumps(machine | {"slice": seconds})}
        again = replace(seen, meta=structs.replace(seen.meta, notes=notes))
        assert calibrate(again, transport=TRANSPORT).machine.slice == expected


class Pickled:
    """Its first pickling in a process computes for 0.2 s."""

    known: set[int] = set()  # processes

    def __reduce__(self):
        began = time.thread_time()
        while os.getpid() not in self.known and time.thread_time() < began + 0.2:
            pass
        self.known.add(os.getpid())
        return Pickled, ()


def pickled(samples):
    """A `collate_fn` whose batches take long to be pickled for the first time."""
    return Pickled()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_first_pickling_computes_is_each_worker_own(workers):
    """What a feeder thread does once is no batch's cost, however few batches there are."""
    seen = observe(DataLoader(Rows(), 3, num_workers=workers, collate_fn=pickled))
    costs = calibrate(seen, transport=TRANSPORT).costs
    assert 0.19 <= costs.first_serialise < 0.3
    assert costs.serialise.message < 0.02


def test_firsts_are_told_from_the_typical_other_one():
    """The excess is over the median of the others; nothing is, where there are none to compare."""
    values = np.array([5.0, 1.0, np.nan, 2.0, 9.0, 0.0])
    more, left = beyond(values, [0, 5])
    assert more.tolist() == [3.0, 0.0]  # 1, 2 and 9 are known of the others
    assert left[[0, 5]].tolist() == [2.0, 0.0]
    assert left[1:5].tolist() == pytest.approx([1.0, np.nan, 2.0, 9.0], nan_ok=True)
    assert beyond(values[:1], [0])[0].tolist() == [0.0]
    assert beyond(values[[2, 1]], [0])[0].tolist() == [0.0]


@pytest.mark.parametrize(
    ("taken", "each", "first"),
    [
        ({1: 7.0, 2: 10.0}, 3.0, 4.0),  # the first one takes 4 s longer
        ({1: 7.0}, 7.0, 0.0),  # which one number of workers does not tell
        ({1: 3.0, 2: 10.0}, 4.0, 0.0),  # nor those of which later ones take longer
        ({}, None, 0.0),
    ],
)
def test_runs_of_several_numbers_of_workers_tell_what_the_first_takes(taken, each, first):
    """Seconds to start them all grow by those of one, from what comes once."""
    runs = [
        SimpleNamespace(
            scenario=dlsim.Scenario(
                loader=dlsim.Loader(num_workers=workers), dataset=dlsim.MapDataset(1)
            ),
            start=np.array([taken[workers] / workers] if workers in taken else []),
        )
        for workers in (1, 2)
    ]
    assert starting(runs) == pytest.approx((each, first))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_a_first_sample_computes_is_each_process_own(workers):
    """What is imported with a first sample is no sample's cost, however few samples there are."""
    scenario = calibrate(
        observe(DataLoader(Importing(), 3, num_workers=workers)), transport=TRANSPORT
    )
    assert 0.2 <= scenario.costs.first_cpu < 0.3
    assert scenario.dataset.fetch[0].cpu.mean < 0.01
    assert scenario.costs.worker_ready < 0.2


def test_one_sample_far_beyond_the_rest_is_no_chance():
    """Of Pareto samples whose mean is just infinite, chance makes a first one a start as rarely."""
    rng = np.random.default_rng(0)
    assert as_long(np.ones(12), 4.0) == pytest.approx(1 / 52)
    draws = 1 / rng.random((20_000, 13))
    taken = np.mean([as_long(row[1:], row[0]) <= 0.02 for row in draws])
    assert 0.01 < taken < 0.03


def test_runs_of_other_start_methods_are_told_apart():
    """Starts by another method than that of the first run are its own, and change no others."""
    seen = observe(DataLoader(Rows(), 3, num_workers=1))
    scenario = dlsim.replace(seen.meta.scenario, {"loader.multiprocessing_context": "spawn"})
    spawned = replace(
        seen,
        meta=structs.replace(seen.meta, scenario=scenario),
        epochs=replace(seen.epochs, started=seen.epochs.started - 1.0),
    )
    alone = calibrate(seen, transport=TRANSPORT).costs
    costs = calibrate(seen, spawned, transport=TRANSPORT).costs
    (other,) = costs.starts
    assert (costs.worker_start, other.method) == (alone.worker_start, "spawn")
    assert other.worker_start == pytest.approx(alone.worker_start + 1.0)


def test_a_start_is_no_sample_that_is_long_by_chance():
    """Where any sample may be long, the first ones are like all others."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(0.0, 1.5, 400)
    for length in (lengths, np.sort(lengths)):
        dataset = dlsim.MapDataset(400, fetch=[Stage("read", wait=Recorded(tuple(length)))])
        loader = dlsim.Loader(batch_size=4, num_workers=2)
        seen = watched(dlsim.simulate(dlsim.Scenario(loader=loader, dataset=dataset), samples=True))
        wait = seen.samples.fetched - seen.samples.started
        later, _ = first_samples(seen, seen.samples.batch, wait, np.zeros(400))
        assert not later.any()


def test_the_reasons_come_with_the_scenario():
    """`calibration` says how samples are distributed, and can be asked for again and again."""
    seen = observe(DataLoader(Rows(), 3, num_workers=1))
    for _ in range(2):
        found = calibration(seen, transport=TRANSPORT)
    assert found.scenario == calibrate(seen, transport=TRANSPORT)
    assert {"wait", "cpu", "step"} <= found.fits.keys()


def test_what_was_observed_survives_a_file(tmp_path: Path):
    """Calibrating on a saved and loaded run gives the same scenario."""
    seen = observe(DataLoader(Rows(), 3, num_workers=1))
    dlsim.save(seen, tmp_path / "run.npz")
    again = dlsim.load_trace(tmp_path / "run.npz")
    assert calibrate(again, transport=TRANSPORT) == calibrate(seen, transport=TRANSPORT)


def test_runs_without_workers_tell_of_those():
    """Where some runs have workers and some have none, each kind tells of its own."""
    alone = observe(DataLoader(Rows(), 3))
    found = calibration(observe(DataLoader(Rows(), 3, num_workers=1)), alone, transport=TRANSPORT)
    assert found.scenario.loader.num_workers == 1
    assert found.alone is not None
    assert found.alone.scenario == calibrate(alone, transport=TRANSPORT)
    assert predict(found, {"loader.num_workers": 0}).scenario == found.alone.scenario
    assert predict(found, {"loader.batch_size": 6}).scenario.loader.num_workers == 1


def test_how_unevenly_batches_are_received_is_seen():
    """By calls that received one batch, but for the first of all, relative to their mean."""
    fetch = (Stage("read", wait=Constant(0.01)),)
    trace = dlsim.simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(batch_size=4, num_workers=1),
            dataset=dlsim.MapDataset(32, fetch),
            consumer=dlsim.Consumer(step=Constant(0.05)),
        ),
        samples=True,
    )
    used = np.array([9, 1, 2, 3, 2, 1, 3, 2]) * 1e-3
    run = accounts(watched(trace, thread_returned=used))
    assert run.jitter == pytest.approx(np.array([1, 2, 3, 2, 1, 3, 2]) / 2)
    jitter = calibrate(watched(trace, thread_returned=used), transport=TRANSPORT).costs.jitter
    assert jitter.mean == pytest.approx(1.0)
    assert jitter.cv == pytest.approx(np.std([1, 2, 3, 2, 1, 3, 2], ddof=1) / 2)
    # Those of calls that received others' batches, too, say nothing of one.
    early = trace.received.copy()
    early[3] = early[2]
    run = accounts(watched(replace(trace, received=early), thread_returned=used))
    assert run.jitter == pytest.approx(np.array([1, 2, 1, 3, 2]) / 1.8)


def test_a_main_process_that_rests_tells_of_its_like():
    """What moving a batch takes, runs tell whose main process is blocked in steps as the first's.

    All runs tell what fetching takes.
    """
    loader = DataLoader(Rows(), 3, num_workers=1)
    resting = accounts(observe(loader, step=lambda batch: time.sleep(0.005)))
    busy = accounts(observe(loader))
    resting, busy = (
        replace(run, receive=np.full(8, seconds), crowding=np.zeros(8))
        for run, seconds in ((resting, 0.001), (busy, 0.004))
    )
    for runs, seconds in (([resting, busy], 0.001), ([busy, resting], 0.004)):
        scenario = of_runs(runs, TRANSPORT).scenario
        received = scenario.costs.receive.of(runs[0].tensors, runs[0].bytes)
        assert received == pytest.approx(seconds)
        assert scenario.dataset.fetch[0].wait.mean == pytest.approx(
            np.concatenate([resting.wait, busy.wait]).mean(), rel=0.2
        )


def blocked_run(**seen):
    """A run as if watched, whose samples take 10 ms; batches of 4 are `collating` as said."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=2),
        dataset=dlsim.MapDataset(80, fetch=[Stage("read", wait=Constant(0.01))]),
    )
    trace = dlsim.simulate(scenario, samples=True)
    return watched(trace, collating=trace.fetched - 0.02, **seen), trace


def test_a_collate_that_is_blocked_is_a_stage():
    """What it reads, say, takes as long with other workers; other time it has none of its own."""
    seen, trace = blocked_run()
    assert blocked(seen) == pytest.approx(np.full(len(seen), 0.02))
    last = calibrate(seen, transport=Costs()).dataset.fetch[-1]
    assert (last.name, last.wait.mean) == ("collate", pytest.approx(0.02 / 4))
    computing, _ = blocked_run(collate_cpu=np.full(len(seen), 0.02))
    assert not blocked(computing).any()
    pickled = np.append(trace.fetched[2:], [np.nan, np.nan])  # the batch before, meanwhile
    beside, _ = blocked_run(serialising=pickled - 0.02, serialised=pickled)
    assert not blocked(beside)[2:].any()
    assert calibrate(watched(trace), transport=Costs()).dataset.fetch[-1].wait is None


@pytest.mark.parametrize(
    ("initialised", "ready"),
    [([2.1, 4.2], [0.1, 0.2]), ([4.0, 9.0], [1.5, 1.5]), ([np.nan] * 2, [1.5, 1.5])],
    ids=["read late", "beside", "not seen"],
)
def test_what_a_start_waits_for_is_counted_once(initialised, ready):
    """A start that takes until the worker has read its dataset is all that it takes to be ready."""
    nothing = np.full(80, np.nan)
    nothing[:2] = initialised
    seen = replace(
        computed(2, 0.01),
        initialising=nothing,
        initialised=nothing,
        init_cpu=np.zeros(80),
        init_queued=np.zeros(80),
        cpu_started=np.full(80, 1.5),
        sent=np.full(80, 4.0),
    )
    found = accounts(seen)
    assert found.start.tolist() == [2.0]
    assert found.ready == pytest.approx(ready)


class Stored(Rows):
    """What is pickled to workers fits into no pipe."""

    def __init__(self):
        self.content = bytes(1_000_000)


def test_a_spawned_worker_reads_a_large_dataset_when_it_has_imported():
    """Its start is over then, and it is ready."""
    loader = DataLoader(Stored(), 3, num_workers=1, multiprocessing_context="spawn")
    costs = calibrate(observe(loader), transport=TRANSPORT).costs
    assert costs.worker_ready < costs.worker_start / 2


def test_a_stateful_loader_waits_for_its_workers():
    """That is no part of starting them, which is over when the last one begins."""
    seen, _ = blocked_run(initialising=np.full(20, np.nan))
    seen.initialising[:2] = -0.3, -0.2
    here = np.arange(20)
    assert started(seen, here) == seen.sent[0]
    loader = dlsim.replace(seen.meta.scenario, {"loader.stateful": True})
    stateful = replace(seen, meta=structs.replace(seen.meta, scenario=loader))
    assert started(stateful, here) == -0.2


def test_pickling_holds_up_the_worker():
    """From when a worker has time and the index list until the batch before is pickled."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(8, (Stage("read", wait=Constant(1.0)),)),
    )
    seen = watched(dlsim.simulate(scenario, samples=True))
    late = replace(
        seen,
        started=seen.started + np.where(np.arange(8) < 2, 0, 0.3),
        serialised=seen.fetched + 0.3,
        serialise_cpu=np.full(8, 0.3),
    )
    assert held_up(seen).tolist() == [0] * 8
    assert held_up(late).tolist() == pytest.approx([0, 0] + [0.3] * 6)
    # Where the next batch was begun before, nothing was held up.
    assert held_up(replace(late, started=seen.started)).tolist() == [0] * 8


def locking(lock, *, step=0.0, queued=0.0, writing=0.0):
    """A run as if watched: four samples of 2.5 ms, beside which the last four are pickled in 4 ms.

    `lock`: for what share of it that holds the worker up. `queued`: seconds from each batch to the
    next in which the worker waits for a core, though it did not; `writing`: those for which a batch
    is written into the pipe, as NumPy arrays are.
    """
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=1),
        dataset=dlsim.MapDataset(
            160,
            (Stage("compute", cpu=Constant(0.0025)),),
            sample_bytes=Constant(250.0),
            path="pipe" if writing else "shm",
        ),
        consumer=dlsim.Consumer(step=Constant(step)),
        machine=dlsim.Machine(cores=2),
        costs=Costs(serialise=Cost(message=0.004), hand_over=Cost(message=writing), lock=lock),
    )
    trace = dlsim.simulate(scenario, samples=True)
    batches = np.arange(len(trace))
    notes = trace.meta.notes | {"machine": json.dumps({"cores": 2.0, "trained": step > 0})}
    seen = watched(
        replace(trace, meta=structs.replace(trace.meta, notes=notes)),
        serialised=trace.arrived - writing,
        serialise_cpu=np.full(len(trace), 0.004),
        thread_started=0.01 * batches,
        cpu_started=0.01 * batches + (0.004 + writing) * np.maximum(batches - 1, 0),
        cpu_fetched=0.01 * (batches + 1) + (0.004 + writing) * batches,
        pickled_bytes=np.full(len(trace), 1000.0 if writing else 0.0),
        queued_started=queued * batches,
    )
    return replace(seen, sample_cpu=np.full(160, 0.0025))


@pytest.mark.parametrize("lock", [0.0, 0.25, 0.8, 1.0])
def test_how_far_pickling_holds_up_a_worker_is_seen(lock):
    """By how long it takes from one batch to the next; that is no wait of samples besides."""
    found = calibration(locking(lock), transport=TRANSPORT)
    assert found.scenario.costs.lock == pytest.approx(lock, abs=1e-3)
    assert found.scenario.costs.serialise.message == pytest.approx(0.004, rel=0.03)
    assert found.scenario.dataset.fetch[0].wait is None
    assert found.checks[0].off == pytest.approx(0.0, abs=0.01)


def test_writing_into_the_pipe_holds_nobody_up():
    """Only pickling does, of what is computed beside the thread that fetches."""
    found = calibration(locking(0.25, writing=0.003), transport=TRANSPORT)
    costs = found.scenario.costs
    assert costs.lock == pytest.approx(0.25, abs=1e-3)
    assert costs.serialise.message == pytest.approx(0.004, rel=0.03)
    assert costs.hand_over.message == pytest.approx(0.003, rel=0.1)
    assert found.checks[0].off == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("size", "reading"), [(1e6, 0.6), (1e3, 0.0)])
def test_reading_from_the_pipe_is_receiving_without_rebuilding(size, reading):
    """Of 10 ms, 2 are rebuilding, and 2 letting go of the batch before; what fits has no turns."""
    seen = locking(0.25, writing=0.003)
    batches = np.arange(len(seen))
    seen = replace(
        seen,
        pickled_bytes=np.full(len(seen), size),
        returned=seen.received,
        thread_requested=0.01 * batches,
        thread_returned=0.01 * batches + 0.008,
        rebuild_cpu=np.full(len(seen), 0.002),
    )
    costs = calibrate(seen, transport=TRANSPORT).costs
    assert costs.receive.of(1, size) == pytest.approx(0.010, rel=0.01)
    assert costs.reading == pytest.approx(reading, rel=0.01)


@pytest.mark.parametrize("waits", [{"step": 0.02}, {"queued": 0.005}])
def test_workers_that_wait_do_not_tell_how_far_pickling_holds_them_up(waits):
    """One that is idle has time for it, and so has one that waits for a core for longer."""
    assert calibrate(locking(0.25, **waits), transport=TRANSPORT).costs.lock == 1.0
    assert not len(accounts(locking(0.25, **waits)).lock)
    assert len(accounts(locking(0.25, queued=0.003)).lock)
    other = locking(0.25)  # tells of it, with whatever steps it was watched
    found = calibrate(locking(0.25, **waits), other, transport=TRANSPORT)
    assert found.costs.lock == pytest.approx(0.25, abs=1e-3)


def test_what_a_sample_waits_for_beside_pickling_is_its_own_beyond_the_lock():
    """Pickling takes 4 ms or, as the worker is held up for all of it, 8 ms; a file takes longer."""
    seen = locking(1.0)
    rows = seen.samples
    late = (rows.batch == 20) & (rows.index == rows.index[rows.batch == 20].min())
    pickled = float((seen.serialised - seen.serialising).mean())
    slow = replace(rows, fetched=rows.fetched + np.where(late, 0.05, 0.0))
    wait = accounts(replace(seen, samples=slow)).wait
    own = slow.fetched - slow.started - seen.sample_cpu
    assert wait[late] == pytest.approx(own[late] - pickled)
    assert wait[~late] == pytest.approx(np.zeros(159), abs=1e-9)


def test_a_share_is_told_where_chance_leaves_it():
    """Batches that differ too much, or are too few, tell none; a mean beyond 0 or 1 is either."""
    assert mean_share(np.array([0.2, 0.3] * 10)) == pytest.approx(0.25)
    assert mean_share(np.array([-1.0, 1.5] * 10)) == 1.0
    assert mean_share(np.full(4, 0.25)) == 1.0
    assert [mean_share(np.full(20, share)) for share in (-0.1, 1.1)] == [0.0, 1.0]


def test_without_workers_all_that_next_computes_is_accounted_for():
    """What is not of samples is of collating, or done once, but for what the watching costs."""
    seen = observe(DataLoader(Rows(), 3))
    run = accounts(seen)
    used = (seen.thread_returned - seen.thread_requested).sum()
    watching = 24 * run.machine["watch_sample"] + 8 * run.machine["watch_batch"]
    once = run.begin_cpu.sum() + run.begin_next.sum()
    known = run.cpu.sum() + run.collate.sum() + once
    assert known == pytest.approx(used - watching, rel=0.05)


@pytest.mark.parametrize(("busy", "threads"), [(1.0, 1), (1.15, 1), (1.4, 2), (2.0, 2), (2.1, 2)])
def test_threads_of_a_step(busy, threads):
    """A second thread that is busy for part of a step, waits for the first in the rest."""
    run = accounts(observe(DataLoader(Rows(), 3)))
    computing = np.full(7, 0.005)
    run = replace(run, step_cpu=computing, step_wait=np.zeros(7), step_threads=busy)
    consumer, _ = consumer_of([run])
    assert (consumer.device, consumer.threads) == ("cpu", threads)
    assert consumer.step.mean == pytest.approx(0.005)


def test_what_stands_for_a_step_pins_nothing_without_an_accelerator():
    """A step that sleeps is a pause, if torch finds no accelerator: of pinning nothing is said."""
    run = accounts(observe(DataLoader(Rows(), 3)))
    asleep = replace(run, step_cpu=np.zeros(7), step_wait=np.full(7, 0.005))
    for found, device in ((0.0, "pause"), (1.0, "accelerator")):
        consumer, _ = consumer_of([replace(asleep, machine={"accelerator": found})])
        assert (consumer.device, consumer.step.mean) == (device, pytest.approx(0.005))


def test_threads_that_wait_on_a_core_waste_what_the_step_does_not_need():
    """Beside workers their steps compute for longer; what they need, a run without any tells."""
    run = accounts(observe(DataLoader(Rows(), 3)))
    loader = run.scenario.loader
    alone = replace(run, step_cpu=np.full(7, 0.002), step_wait=np.zeros(7), step_threads=2.0)
    with_workers = msgspec.structs.replace(loader, num_workers=2)
    scenario = msgspec.structs.replace(run.scenario, loader=with_workers)
    beside = replace(alone, step_cpu=np.linspace(0.003, 0.013, 7), linger=0.008, scenario=scenario)
    consumer, _ = consumer_of([beside], 0.0, [alone, beside])
    assert (consumer.linger, consumer.threads) == (0.008, 2)
    assert consumer.step.mean == pytest.approx(0.002)
    # With nothing else to go by, the typical one does.
    assert consumer_of([beside])[0].step.mean == pytest.approx(0.008)


def test_steps_grow_with_the_batch():
    """Runs of two batch sizes tell what a step takes for each sample, and what it takes besides."""
    rng = np.random.default_rng(0)
    runs = []
    for size in (2, 4):
        seen = accounts(observe(DataLoader(Rows(), size)))
        steps = 0.01 + 0.003 * size + rng.normal(0, 1e-4, 12)
        runs.append(replace(seen, step_wait=steps, step_cpu=np.zeros(12)))
    each = per_sample([2, 4], [run.step_wait for run in runs])
    assert each == pytest.approx(0.003, rel=0.1)
    consumer, _ = consumer_of(runs, each)
    assert consumer.step_per_sample == each
    assert consumer.step.mean == pytest.approx(0.01, rel=0.1)
    assert [consumer.seconds(size) for size in (2, 4)] == pytest.approx([0.016, 0.022], rel=0.02)


def test_no_law_where_none_can_be_told():
    """One size, or steps that differ by chance or get shorter, tell no law; none begins below 0."""
    rng = np.random.default_rng(0)
    some, others = rng.gamma(2.0, 0.01, (2, 20))
    assert per_sample([8, 8], [some, others]) == 0
    assert per_sample([8, 16], [some, others]) == 0
    assert per_sample([8, 16], [np.full(9, 0.02), np.full(9, 0.01)]) == 0
    assert per_sample([8, 16], [np.full(9, 0.01), np.full(9, 0.04)]) == pytest.approx(0.00225)


def test_pace_differs_from_run_to_run():
    """Two runs, one at half the pace: 35 % (log 2 of two) beside what was known before."""
    run = accounts(observe(DataLoader(Rows(), 3)))
    slow = replace(run, cpu=2 * run.cpu, collate=2 * run.collate)
    assert unsteadiness([run]) == pytest.approx(PACE)
    assert unsteadiness([run, run, run]) == pytest.approx(PACE * 0.5**0.5)
    squares = 2 * np.var([0, np.log(2)])
    assert unsteadiness([run, slow]) == pytest.approx(((squares + PRIOR * PACE**2) / 3) ** 0.5)


def test_first_samples_differ_from_run_to_run():
    """By 20 % in two runs; one that took fifty times as long found files cold: it tells nothing."""
    run = accounts(observe(DataLoader(Rows(), 3)))
    once, longer, cold = (
        replace(run, begin_wait=np.full(2, seconds), begin_cpu=np.full(2, seconds))
        for seconds in (0.1, 0.12, 5.0)
    )
    none = replace(run, begin_wait=np.empty(0), begin_cpu=np.empty(0))
    found = [once, longer, cold, none]
    assert beginnings(found) == pytest.approx(np.log([0.2, 0.24]))
    squares = 2 * np.var(np.log([0.2, 0.24])) + PRIOR * PACE**2
    assert errors_of(found)["begin"] == pytest.approx((squares / 3 * (1 + 1 / 4)) ** 0.5)


def test_too_few_batches_are_refused():
    """A run of a few batches is refused in one line."""
    seen = observe(DataLoader(Rows(), 12, num_workers=1))
    with pytest.raises(CalibrateError, match="expected at least 5 batches to calibrate, got 2"):
        calibrate(seen, transport=TRANSPORT)


def test_simulated_runs_are_refused():
    """A trace without what only watching tells is refused in one line."""
    loader = dlsim.Loader(batch_size=2)
    with pytest.raises(CalibrateError, match="expected a run that dlsim observe watched"):
        calibrate(dlsim.simulate(dlsim.Scenario(loader=loader, dataset=dlsim.MapDataset(20))))


def test_throughputs_are_met():
    """A scenario of three throughputs has these throughputs."""
    table = {0: 517.7, 2: 844.5, 8: 1275.7}
    scenario = calibrate_throughput(table, batch_size=32, cores=16)
    assert simulated(scenario, 2, 32) == pytest.approx(844.5, rel=0.02)
    assert simulated(scenario, 8, 32) == pytest.approx(1275.7, rel=0.02)


@pytest.mark.parametrize("step", [None, 0.065])
def test_a_step_is_told_from_fetching(step: float | None):
    """Without workers both follow one another; with workers the longer of the two limits."""
    table = {0: 508, 1: 797, 2: 870, 4: 985, 8: 948}
    found = fit_throughput(table, batch_size=64, step=step)
    assert found.scenario.consumer.step.mean == pytest.approx(0.066, rel=0.05)
    assert found.seconds["fetch"] == pytest.approx(0.06, rel=0.05)
    assert found.worst < 0.08
    assert found.made_of.endswith("with 8 workers it is step-bound")


@pytest.mark.parametrize(
    ("table", "cores"),
    [
        ({4: 0.19, 12: 0.352, 18: 0.251}, None),
        ({1: 265, 2: 410, 4: 446, 8: 321, 16: 173, 32: 92}, None),
        ({0: 100, 1: 95, 2: 180, 4: 300, 8: 210}, 4),
    ],
)
def test_the_peak_of_a_table_survives(table: dict[int, float], cores: float | None):
    """Where more workers were slower, they are so in the scenario, and 5 % are met."""
    found = fit_throughput(table, batch_size=32, cores=cores)
    assert max(found.fitted, key=found.fitted.get)[0] == max(table, key=table.get)
    assert found.worst < 0.05
    assert found.scenario.machine.crosstalk > 0


def test_a_fit_takes_few_simulations(monkeypatch: pytest.MonkeyPatch):
    """What nothing explains, so that all is tried, takes less than a thousand simulations."""
    made = list[object]()

    def counted(*given):
        made.append(given)
        return simulated(*given)

    monkeypatch.setattr(throughput_models, "BATCHES", 30)
    monkeypatch.setattr(throughput_models, "simulated", counted)
    found = fit_throughput({0: 100, 2: 60, 4: 300, 8: 90}, batch_size=8)
    assert found.worst > 0.05
    assert len(made) < 1000


def test_receiving_is_not_told_from_a_step_without_0_workers():
    """A table that flattens, without a run without workers, may hide a step: that is said."""
    table = {1: 100, 2: 195, 4: 300, 8: 310}
    unsure = "what is called receiving may be the step: 0 workers would tell"
    assert unsure in str(fit_throughput(table, batch_size=32))
    assert unsure not in str(fit_throughput(table, batch_size=32, step=0.1))


def test_a_scenario_gives_its_own_throughputs_back():
    """What a fitted scenario makes is fitted again, with its step, and nothing is remarked on."""
    made = {
        workers: simulated(fit_throughput(STEADY, batch_size=8, cores=4).scenario, workers, 8)
        for workers in (0, 1, 2, 3, 4)
    }
    found = fit_throughput(made, batch_size=8, cores=4)
    assert found.worst < 0.02
    assert found.remarks == ()


def test_two_batch_sizes_tell_how_the_step_grows(capsys, tmp_path: Path, monkeypatch):
    """A step of 20 ms and 1 ms a sample is told from fetching 2 ms a sample, by 8 and 32."""
    steps = [("fetch", "step"), ("fetch", "step", "growing")]
    assert {*steps} <= {*throughput_models.shapes({(0, 8): 1.0, (2, 8): 2.0, (2, 9): 2.0}, None)}
    monkeypatch.setattr(throughput_models, "BATCHES", 12)
    monkeypatch.setattr(throughput, "shapes", lambda *_, **__: steps)
    out = tmp_path / "scenario.toml"
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=8),
        dataset=dlsim.MapDataset(64, fetch=[Stage("read", cpu=dlsim.Gamma(0.002, 0.3))]),
        consumer=dlsim.Consumer(Constant(0.02), step_per_sample=0.001),
    )
    rates = [
        f"{workers}@{size}={simulated(case, workers, size):.5g}"
        for size, workers in ((8, 0), (8, 1), (8, 4), (32, 0), (32, 4))
    ]
    command = ["calibrate", "--throughput", ",".join(rates), "--batch-size", "8", "-o", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("batch  workers      given     fitted      off\n    8        0 ")
    assert "a batch of 8: fetching 1" in said
    found = dlsim.load(out)
    assert found.consumer.step.mean == pytest.approx(0.02, rel=0.1)
    assert found.consumer.step_per_sample == pytest.approx(0.001, rel=0.05)
    assert found.dataset.fetch[0].cpu.mean == pytest.approx(0.002, rel=0.05)
    assert main([*command, "--step", "50 ms"]) == 2
    assert "step: expected none, as it is fitted to several batch" in capsys.readouterr().err
    twice = ["calibrate", "--throughput", "1=2,2=3,2@32=3", "-o", str(out)]
    assert main(twice) == 2
    assert "expected each number of workers once for a batch size, got 2 twice" in (
        capsys.readouterr().err
    )


STEADY = {0: 40.0, 1: 60.0, 2: 118.0, 4: 119.0}


def test_more_than_linear_is_no_loader(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """It is said so, below the table, with by how much the fit is off."""
    out = str(tmp_path / "scenario.toml")
    assert main(["calibrate", "--throughput", "1=87,3=278,6=644", "-o", out]) == 0
    said = capsys.readouterr().out
    assert "6 workers make 2.3 times as much as 3, which are 2 times as many: no loader" in said
    assert "the fit is off by up to 14%" in said
    assert "workers      given     fitted      off" in said
    with pytest.warns(UserWarning, match="no loader does that"):
        calibrate_throughput({1: 87, 3: 278, 6: 644}, batch_size=32)


def test_throughputs_that_no_loader_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate next to nothing is refused; one far below the others is fitted as well as can be."""
    with pytest.raises(CalibrateError, match="expected samples a second by workers, got 1=5e-324"):
        calibrate_throughput({1: 5e-324, 2: 500.0}, batch_size=32)
    for name, few in (("BATCHES", 10), ("ROUNDS", 1)):
        monkeypatch.setattr(f"dlsim.validation.calibrating.throughput_models.{name}", few)
    fitting = Fitting({(0, 1): 0.75, (1, 1): 1e-9, (2, 1): 2.0}, None, 1.0, None)
    assert fitting.best(("fetch", "beside", "receive"))["fetch"] > 0


def test_a_step_that_is_too_long_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """No loader makes a batch sooner than the step it was measured with."""
    out = str(tmp_path / "scenario.toml")
    command = ["calibrate", "--throughput", "1=87,3=278", "-o", out, "--batch-size", "32"]
    assert main([*command, "--step", "1 s"]) == 2
    assert "step: expected at most 115 ms" in capsys.readouterr().err


def test_the_size_of_a_sample_may_be_stated_with_throughputs(tmp_path: Path, capsys):
    """It tells what fits and changes nothing else; without it, nobody can tell what fits."""
    out = str(tmp_path / "scenario.toml")
    command = ["calibrate", "--throughput", "0=517.7,2=844.5,8=1275.7", "-o", out]
    rates = []
    for stated, told in ((), "How large a sample is, is not stated"), (("600 KB",), "54.9 MiB"):
        assert main([*command, *[f"--sample-bytes={size}" for size in stated]]) == 0
        scenario = dlsim.load(out)
        rates.append(simulated(scenario, 2, 32))
        assert told in str(space(dlsim.replace(scenario, {"loader.num_workers": 1})))
    assert rates[0] == pytest.approx(rates[1])
    assert main([*command, "--sample-bytes", "large"]) == 2
    assert "--sample-bytes: expected a size such as" in capsys.readouterr().err


def test_one_throughput_is_too_little(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """The command line says in one line what is missing."""
    out = str(tmp_path / "scenario.toml")
    assert main(["calibrate", "--throughput", "0=500,2=800", "-o", out]) == 2
    assert "expected at least two numbers of workers above 0" in capsys.readouterr().err
    huge = ["--throughput", "1=5,2=9", "--batch-size", "1000000000"]
    assert main(["calibrate", *huge, "-o", out]) == 2
    assert "batch_size: expected at most 1,000,000, got 1,000,000,000" in capsys.readouterr().err


def test_runs_tell_cores_themselves(capsys, tmp_path: Path):
    """What is stated of a machine whose throughputs are given is not ignored beside runs."""
    assert main(["calibrate", "run.npz", "--cores", "3", "-o", str(tmp_path / "a.toml")]) == 2
    assert "--cores, --sample-bytes and --step go with --throughput" in capsys.readouterr().err


def test_a_number_of_workers_has_one_throughput(capsys, tmp_path: Path):
    """Of two throughputs with as many workers, neither is taken silently."""
    given = ["--throughput", "1=500,2=800,1=510"]
    assert main(["calibrate", *given, "-o", str(tmp_path / "scenario.toml")]) == 2
    assert "--throughput: expected each number of workers once" in capsys.readouterr().err


def test_work_says_what_siblings_leave_of_a_core():
    """A probe says that cores are siblings, and what they do for it; of work, work tells better.

    On two cores, work that takes 1.5 times as long while the other core is busy, all the time.
    """
    shares = paired(np.array([0.0, 0.5, 1.0]), 2.0)
    assert shares.tolist() == pytest.approx([0, 0.5, 1])
    assert paired(np.array([0.0, 1 / 3, 1.0]), 4.0).tolist() == pytest.approx([0, 0, 1])
    shares = np.linspace(0, 1, 40)
    assert contention(shares, 1 + 0.5 * shares, 1.0) == pytest.approx(0.5, abs=0.01)
    assert contention(np.ones(40), np.ones(40), 1.0) == 1.0
    assert contention(shares, np.ones(40)) == 0.0


def test_siblings_are_in_the_scenario_where_a_probe_found_them():
    """Of one run, the probe says what busy siblings do; a little less is what all cores do."""
    seen = observe(DataLoader(Rows(), 3, num_workers=2))
    for told, found in ((0.6, 0.6), (0.95, 1.0)):
        notes = json.loads(seen.meta.notes["machine"]) | {"siblings": told, "cores": 2.0}
        changed = seen.meta.notes | {"machine": json.dumps(notes)}
        run = replace(seen, meta=structs.replace(seen.meta, notes=changed))
        machine = calibrate(run, transport=TRANSPORT).machine
        assert machine.siblings == pytest.approx(found)
        assert machine.contention == 0.0


@pytest.mark.parametrize(("listed", "times"), [(0, 1.0), (16, 1.8), (12, 1.6)])
def test_tensors_that_come_with_samples_cost_as_many_of_them_as_a_batch_has(listed, times):
    """A batch twice as large has twice as many of these, and as many of all others.

    Of 10 ms that handing over takes, 2 are the message's and 8 those of its 16 tensors.
    """
    unit = Cost(message=2e-3, tensor=5e-4)
    run = replace(
        accounts(computed(2, 0.01)),
        **{"tensors": 16.0, "listed": float(listed), "bytes": 1000.0, "path": "shm"},
        hand_over=np.full(80, 0.01),
    )
    found = costs_of([run], Costs(hand_over=unit)).hand_over
    assert found.of(16, 1000) == pytest.approx(0.01)
    assert found.of(16, 2000) == pytest.approx(0.01 * times)


@pytest.mark.parametrize(("size", "listed", "found"), [(8, 8, 8), (8, 7, 0), (2, 6, 0)])
def test_fewer_tensors_than_samples_come_with_none(size, listed, found):
    """Nor is it told of batches so small that those of all samples may be as many."""
    seen = computed(2, 0.01)
    columns = {name: np.full(80, value) for name, value in (("tensors", 9.0), ("listed", listed))}
    assert accounts(replace(seen, size=np.full(80, size), **columns)).listed == found


def test_one_run_with_cores_of_their_own_tells_that_none_are_siblings():
    """A probe that was disturbed says that cores are siblings; one that was not, that they are not.

    In 6 of 94 quiet runs on two cores the probe gave 0.54 to 0.84, in all others 1.0.
    """
    seen = accounts(computed(2, 0.01))
    told = [replace(seen, machine=seen.machine | {"siblings": share}) for share in (0.55, 1.0, 0.6)]
    assert siblings(told) == 1.0
    assert siblings(told[::2]) == 0.6


def test_who_fetches_alone_is_not_crowded_by_itself():
    """Without workers the main process is all there is: no other core is busy while it fetches."""
    seen = computed(0, 0.01)
    used = seen.returned - seen.requested
    own = replace(seen, thread_requested=0 * used, thread_returned=used)
    assert crowding(own, 2.0) == pytest.approx(0.0)


def computed(workers, first, *, contention=0.0, later=0.01):
    """A run on two cores as if watched: the first sample of each worker computes for `first`."""
    cpu = np.full(80, later)
    cpu[:workers] = first
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers),
        dataset=dlsim.MapDataset(80, (Stage("compute", cpu=Recorded(tuple(cpu))),)),
        machine=dlsim.Machine(cores=2, contention=contention),
    )
    seen = watched(dlsim.simulate(scenario, samples=True))
    notes = seen.meta.notes | {"machine": json.dumps({"cores": 2.0, "trained": False})}
    return replace(
        seen,
        sample_cpu=seen.samples.fetched - seen.samples.started,
        meta=structs.replace(seen.meta, notes=notes),
    )


@pytest.mark.parametrize("slower", [0.0, 0.5, 1.0])
def test_what_busy_neighbours_cost_a_first_sample_is_counted_once(slower):
    """Calibrated, it is what it would be alone; simulated, neighbours make it longer again."""
    found = calibration(
        *(computed(workers, 0.5, contention=slower) for workers in (2, 1)), transport=TRANSPORT
    )
    assert found.scenario.machine.contention == pytest.approx(slower, abs=0.01)
    assert found.scenario.costs.first_cpu == pytest.approx(0.49, rel=0.01)
    assert [check.off for check in found.checks] == pytest.approx([0, 0], abs=0.01)


def test_first_batches_tell_nothing_of_crowding():
    """The first batch of each worker takes longer for more reasons than busy neighbours."""
    seen = computed(2, 0.01)
    first = first_batches(seen)
    assert first.tolist() == [True] * 2 + [False] * 78
    crowded = np.where(first, 1.0, np.linspace(0.0, 0.4, 80))
    run = replace(accounts(seen), crowding=crowded, collate=np.where(first, 0.02, 0.0))
    alone = accounts(computed(1, 0.01))
    assert of_runs([run, alone], TRANSPORT).scenario.machine.contention == pytest.approx(0)


def test_files_are_cold_once():
    """What first samples take in a run that finds nothing read before, they take in no other.

    Those of runs that differ by less, all tell.
    """
    runs = [computed(workers, first) for workers, first in ((2, 1.9), (1, 0.5), (2, 0.6))]
    costs = calibrate(*runs, transport=TRANSPORT).costs
    assert costs.first_cpu == pytest.approx((0.49 + 2 * 0.59) / 3)
    assert calibrate(runs[0], transport=TRANSPORT).costs.first_cpu == pytest.approx(1.89)
    # Reading files is computing in part.
    cold = computed(2, 0.75)
    cpu = cold.sample_cpu.copy()
    cpu[:2] -= 0.2
    found = calibration(replace(cold, sample_cpu=cpu), *runs[1:], transport=TRANSPORT)
    costs = found.scenario.costs
    assert (costs.first_sample, costs.first_cpu) == pytest.approx((0.0, (0.49 + 2 * 0.59) / 3))
    # That the cold run took longer is understood.
    assert [check.cold for check in found.checks] == [True, False, False]
    assert missed(found.checks) == missed(found.checks[1:])
    assert "for the first time" in str(found.checks[0])


@pytest.mark.parametrize("persistent", [False, True])
def test_what_a_worker_computes_after_its_last_batch(persistent):
    """All that workers used until they were gone, but for what each had used by its last batch."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2, persistent_workers=persistent),
        dataset=dlsim.MapDataset(8, (Stage("read", wait=Constant(1.0)),)),
        epochs=2,
    )
    seen = watched(dlsim.simulate(scenario, samples=True))
    # Four batches of each worker in each epoch, of one second each; 0.25 for pickling.
    started = np.tile([1, 1, 2, 2, 3, 3, 4, 4], 2) + (0.0 if not persistent else 4.0) * (
        np.arange(16) >= 8
    )
    seen = replace(
        seen,
        cpu_started=started,
        sample_cpu=np.ones(16),
        serialise_cpu=np.full(16, 0.25),
        collate_cpu=np.zeros(16),
    )
    processes, last = (2, 9.25) if persistent else (4, 5.25)
    used = processes * (last + 0.5 + 0.125)
    assert exiting(seen, used, between=0.125).tolist() == pytest.approx([0.5])
    assert len(exiting(seen, float("nan"), between=0.125)) == 0
    idle = replace(seen, cpu_started=np.where(seen.worker == 1, np.nan, started))
    assert len(exiting(idle, used, between=0.125)) == 0


def test_what_the_clocks_make_less_than_nothing_costs_nothing():
    """Sending that took next to no time may be measured as -1.6 µs: it is 0, not an error."""
    run = accounts(observe(DataLoader(Rows(), 3, num_workers=1)))
    assert costs_of([replace(run, put=np.full(4, -1.6e-6))], TRANSPORT).index_put == 0.0
