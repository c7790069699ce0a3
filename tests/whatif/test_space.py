from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim.cli import main
from dlsim.report import run_text
from dlsim.scenario import Machine
from dlsim.testing import assert_fits
from dlsim.trace.memory import DESCRIPTORS, uses
from dlsim.whatif import compare, explain, sweep
from dlsim.whatif.space import a_batch, at_most, space
from tests.strategies import on_machines

MIB = 2**20


def scenario(
    sample_bytes: float = MIB, workers: int = 2, step: float = 1.0, **changes: object
) -> dlsim.Scenario:
    """Batches of 10 samples from workers that are too slow, if a step does not take longer."""
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=workers),
        dataset=dlsim.MapDataset(
            200,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))],
            sample_bytes=dlsim.Constant(sample_bytes),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
        **changes,  # type: ignore[arg-type]
    )


def slow(sample_bytes: float = MIB, **changes: object) -> dlsim.Scenario:
    """The same with a step that takes longer: the window is full of batches."""
    return scenario(sample_bytes, step=100.0, **changes)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (scenario(0.0), "Does it fit? How large a sample is, is not stated"),
        (slow(), "It fits nearly everywhere: batches on their way take up to 50 MiB"),
        (
            slow(MIB, job=dlsim.Job(ranks=2)),
            "Does it fit? Batches on their way of all 2 ranks of a node take up to 100 MiB of /dev",
        ),
        (slow(2 * MIB), "Does it fit? Batches on their way take up to 100 MiB of /dev/shm;"),
        (scenario(workers=0), "Does it fit? Batches on their way take up to 20 MiB of memory;"),
        (
            slow(machine=Machine(shm=64 * MIB, memory=1024 * MIB)),
            "It fits: batches on their way take up to 50 MiB of the 64 MiB of /dev/shm.",
        ),
        (
            slow(machine=Machine(memory=1024 * MIB)),
            "It fits: batches on their way take up to 50 MiB of the 1 GiB of memory; what /dev/shm "
            "has is not stated",
        ),
        (
            slow(machine=Machine(shm=40 * MIB)),
            "It does not fit: batches on their way take up to 50 MiB, /dev/shm has 40 MiB, "
            "outgrown at batch 4; num_workers * prefetch_factor of at most 3 would, however slow "
            "the step; so would a larger /dev/shm (docker run --shm-size).",
        ),
        (
            slow(machine=Machine(shm=15 * MIB)),
            "It does not fit: batches on their way take up to 50 MiB, /dev/shm has 15 MiB, "
            "outgrown at batch 1, and one worker with prefetch_factor=1 may take 20 MiB; smaller "
            "batches would; so would a larger /dev/shm (docker run --shm-size).",
        ),
    ],
)
def test_words(case: dlsim.Scenario, said: str) -> None:
    """Whether it fits is said in one line, with the numbers, what is missing, and what would fit.

    A window of 4 and one batch in training, 10 samples each: 50 samples.
    """
    assert str(space(case)).startswith(said)


def test_what_does_not_fit_is_not_advised() -> None:
    """`explain` names no setting that outgrows the machine, and marks those that would."""
    roomy, tight = (scenario(machine=Machine(shm=size * MIB)) for size in (100, 35))
    best = explain(roomy, 3).setting
    assert best is not None
    assert best.change.setting == "num_workers=4"
    assert "It fits: batches on their way take up to 50 MiB" in str(explain(roomy, 3))
    assert explain(tight, 3).setting is None
    assert "num_workers=3, does not fit" in str(explain(tight, 3))
    none = explain(scenario(machine=Machine(shm=25 * MIB)), 3)
    assert "no single change of the loader that fits into memory helps" in str(none)


def test_compare_says_what_does_not_fit() -> None:
    """What is faster but does not fit is said not to, in the first line."""
    tight = scenario(machine=Machine(shm=35 * MIB))
    first, *rest = str(
        compare(tight, dlsim.replace(tight, {"loader.num_workers": 4}), 3)
    ).splitlines()
    assert first.startswith("B is faster than A, but it does not fit: ")
    assert any(line.startswith("A: It fits: ") and " B: It does not fit: " in line for line in rest)


def test_sweep_takes_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of a sweep that do not fit are marked and not taken; the table has their bytes."""
    path = tmp_path / "tight.toml"
    dlsim.dump(scenario(machine=Machine(shm=35 * MIB)), path)
    assert main(["sweep", str(path), "--vary", "loader.num_workers=1:3", "--jobs", "1"]) == 0
    first, _, room, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Take num_workers=2: ")
    assert first.endswith("it is the fastest that fits.")
    assert room.endswith(" 1 of these 3 configurations do not (!).")
    table = sweep(dlsim.load(path), {"loader.num_workers": [1, 3]}, 2, jobs=1)
    assert table["memory"].tolist() == [20 * MIB, 40 * MIB]
    assert table["memory_limit"].tolist() == [35 * MIB] * 2
    assert main(["sweep", str(path), "--vary", "loader.num_workers=3:4", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("No configuration fits.\nIt does not fit: ")


def test_sweeps_of_long_epochs_take_a_part() -> None:
    """Without a number of replications, a part of a long epoch stands for it."""
    long = dlsim.replace(scenario(workers=4), {"dataset.length": 400_000})
    table = sweep(long, {"loader.num_workers": [1, 20]}, None, jobs=1)
    assert table["batches"].tolist() == [40_000, 40_000]
    # nothing is random: a batch comes every 10 s from one worker, every 1 s from enough of them
    assert table["epoch_time"] == pytest.approx([400_001, 40_010], rel=1e-6)


def small(
    workers: int, batch: int, length: int, sample: float, **changes: object
) -> dlsim.Scenario:
    """Samples of so many MiB in 10 ms each, steps of 50 ms."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=batch, num_workers=workers),
        dataset=dlsim.MapDataset(
            length,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))],
            sample_bytes=dlsim.Constant(sample * MIB),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.05)),
    )
    return dlsim.replace(scenario, changes)


def test_epochs_shorter_than_the_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four batches an epoch and the one kept are 160 MiB, with 4 workers and 8, in each command."""
    case = small(8, 32, 128, 1, **{"loader.persistent_workers": True}, epochs=3)
    case = dlsim.replace(case, {"machine.shm": 256 * MIB})
    said = "It fits: batches on their way take up to 160 MiB of the 256 MiB of /dev/shm"
    assert said in run_text(dlsim.simulate(case))
    assert said in str(explain(case, 3))
    assert_fits(case)
    path = tmp_path / "short.toml"
    dlsim.dump(case, path)
    assert main(["sweep", str(path), "--vary", "loader.num_workers=2,4,8", "--jobs", "1"]) == 0
    first, _, room, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Take num_workers=4: ")
    assert room == f"{said}."
    assert main(["advise", str(path), "--jobs", "1"]) == 0
    assert "num_workers=4" in capsys.readouterr().out


def test_a_window_that_forbids_workers() -> None:
    """Batches of 40 MiB and 64 MiB of /dev/shm: one worker and one batch ahead need 80 MiB."""
    case = small(1, 8, 800, 5, **{"loader.prefetch_factor": 100, "machine.shm": 64 * MIB})
    assert space(case).fits is False
    assert "and one worker with prefetch_factor=1 may take 80 MiB; " in str(space(case))
    assert space(dlsim.replace(case, {"machine.shm": 80 * MIB, "loader.prefetch_factor": 1})).fits


def test_too_many_open_files() -> None:
    """More tensors on their way than files may be open do not fit, however small they are."""
    case = small(4, 1, 400, 0, **{"dataset.tensors": 200, "machine.descriptors": 1024})
    case = dlsim.replace(case, {"loader.in_order": True, "consumer.step": 1.0})
    assert space(case).fits is None  # 425 files in main; of bytes nothing is known
    over = dlsim.replace(case, {"machine.descriptors": 400})
    assert str(space(over)).startswith(
        "It does not fit: a process has up to 425 files open, and may have 400, outgrown at batch "
    )
    with pytest.raises(AssertionError, match="files open"):
        assert_fits(over)


def test_long_runs_take_what_their_beginning_takes() -> None:
    """A part of a long run that stands for it is not counted beyond its last batch."""
    long = small(3, 1, 20_000, 1, **{"machine.shm": 64 * MIB})
    whole = space(long, dlsim.simulate(long))
    assert (space(long).needed, space(long).fits) == (whole.needed, True)


@settings(max_examples=60, deadline=None)
@given(on_machines(), st.sampled_from([1.0, 10.0, 100.0]), st.integers(1, 400))
def test_bounds_hold(scenario: dlsim.Scenario, each: float, limit: int) -> None:
    """No run takes more than the bound says, and all commands agree whether it fits."""
    case = dlsim.replace(scenario, {"dataset.sample_bytes": each, "machine.shm": limit})
    trace = dlsim.simulate(case)
    for use in uses(trace):
        if use.resource != DESCRIPTORS:
            assert use.needed <= at_most(case, use.resource) * a_batch(case)
    assert space(case).fits is space(case, trace).fits


@pytest.mark.parametrize("drop_last", [False, True])
def test_what_a_timeout_leaves_under_way(drop_last: bool) -> None:
    """Of a stream of one sample no batch of two takes more than that sample, dropped or not."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=1, timeout=0.5, drop_last=drop_last),
        dataset=dlsim.IterableDataset(
            1,
            fetch=[dlsim.Stage("read", cpu=dlsim.Constant(1.0))],
            sample_bytes=dlsim.Constant(10.0),
        ),
    )
    _, whole, *_ = uses(dlsim.simulate(case))
    assert whole.needed == a_batch(case) == 10.0


def test_the_largest_batch_of_a_loop_that_is_left_early() -> None:
    """One batch of two of the three samples takes both samples' bytes, not a share of the epoch."""
    case = scenario(workers=0)
    data = dlsim.IterableDataset(3, sample_bytes=dlsim.Constant(1.0))
    changes = {"loader.batch_size": 2, "consumer.stop_after": 1}
    case = dlsim.replace(structs.replace(case, dataset=data), changes)
    assert a_batch(case) == 2
    assert space(case, dlsim.simulate(case)).uses[1].needed == 2


def test_nothing_limits_what_arrives_from_a_sampler_without_end() -> None:
    """Where each arrival sends for more and no epoch ends that, no bound is claimed."""
    case = scenario(machine=Machine(shm=4096 * MIB))
    case = dlsim.replace(case, {"loader.refill": "arrival"})
    assert at_most(case) == 20
    endless = dlsim.replace(case, {"loader.endless": True})
    assert at_most(endless) == math.inf
    assert str(space(endless)).endswith(" of /dev/shm; a longer run may take any amount.")


def test_processes_take_memory_besides_batches() -> None:
    """Forked workers copy a share of the main process, spawned ones have theirs, threads none."""
    machine = Machine(memory=1e9, main_memory=4e8, copied=0.5, worker_memory=5e7, shm=1e9)
    forked = scenario(machine=machine, workers=4)
    batches = at_most(forked) * a_batch(forked)
    assert forked.own_memory == 4e8 + 4 * (2e8 + 5e7)
    assert space(forked).fits is False
    assert "processes and batches on their way take up to" in str(space(forked))
    spawned = dlsim.replace(forked, {"loader.multiprocessing_context": "spawn"})
    assert spawned.own_memory == 4e8 + 4 * 5e7
    assert space(spawned).fits is True
    assert uses(dlsim.simulate(slow(machine=machine)))[1].needed <= 4e8 + 2 * 2.5e8 + batches
    threads = dlsim.replace(forked, {"loader.workers": "threads"})
    assert threads.own_memory == 4e8
    assert not space(forked).fits_within(1e9)
    assert space(threads).fits_within(1e9)


def test_the_largest_window_leaves_room_for_processes() -> None:
    """What is recommended for a machine that is too small counts what processes take."""
    full = slow(machine=Machine(memory=100 * MIB, main_memory=65 * MIB, shm=1e9))
    assert space(full).fits is False
    assert space(full).largest_window == 2
    with_two = dlsim.replace(full, {"loader.prefetch_factor": 1})
    assert space(with_two).fits is True
