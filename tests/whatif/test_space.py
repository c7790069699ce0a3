from __future__ import annotations

from pathlib import Path

import pytest

import dlsim
from dlsim.cli import main
from dlsim.scenario import Machine
from dlsim.whatif import compare, explain, sweep
from dlsim.whatif.space import space

MIB = 2**20


def scenario(sample_bytes: float = MIB, workers: int = 2, **changes: object) -> dlsim.Scenario:
    """Batches of 10 samples from workers that are too slow, two batches ahead for each."""
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=workers),
        dataset=dlsim.MapDataset(
            200,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))],
            sample_bytes=dlsim.Constant(sample_bytes),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0)),
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (scenario(0.0), "Does it fit? How large a sample is, is not stated"),
        (scenario(), "It fits nearly everywhere: batches on their way take up to 50 MiB"),
        (scenario(2 * MIB), "Does it fit? Batches on their way take up to 100 MiB of /dev/shm;"),
        (scenario(workers=0), "Does it fit? Batches on their way take up to 10 MiB of memory;"),
        (
            scenario(machine=Machine(shm=64 * MIB, memory=1024 * MIB)),
            "It fits: batches on their way take up to 50 MiB of the 64 MiB of /dev/shm.",
        ),
        (
            scenario(machine=Machine(memory=1024 * MIB)),
            "It fits: batches on their way take up to 50 MiB of the 1 GiB of memory; what /dev/shm "
            "has is not stated",
        ),
        (
            scenario(machine=Machine(shm=40 * MIB)),
            "It does not fit: batches on their way take up to 50 MiB, /dev/shm has 40 MiB; "
            "num_workers * prefetch_factor of at most 3 would; so would a larger /dev/shm (docker "
            "run --shm-size).",
        ),
        (
            scenario(machine=Machine(shm=15 * MIB)),
            "It does not fit: batches on their way take up to 50 MiB, /dev/shm has 15 MiB; "
            "smaller batches would; so would a larger /dev/shm (docker run --shm-size).",
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
    roomy, tight = (scenario(machine=Machine(shm=size * MIB)) for size in (100, 60))
    best = explain(roomy, 3).setting
    assert best is not None
    assert best.change.setting == "num_workers=4"
    assert "It fits: batches on their way take up to 90 MiB" in str(explain(roomy, 3))
    assert explain(tight, 3).setting is None
    assert "num_workers=3, does not fit" in str(explain(tight, 3))
    none = explain(scenario(machine=Machine(shm=40 * MIB)), 3)
    assert "no single change of the loader that fits into memory helps" in str(none)


def test_compare_says_what_does_not_fit() -> None:
    """What is faster but does not fit is said not to, in the first line."""
    tight = scenario(machine=Machine(shm=60 * MIB))
    first, _, third, *_ = str(
        compare(tight, dlsim.replace(tight, {"loader.num_workers": 4}), 3)
    ).splitlines()
    assert first.startswith("B is faster than A, but it does not fit: ")
    assert third.startswith("A: It fits: ")
    assert " B: It does not fit: " in third


def test_sweep_takes_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of a sweep that do not fit are marked and not taken; the table has their bytes."""
    path = tmp_path / "tight.toml"
    dlsim.dump(scenario(machine=Machine(shm=60 * MIB)), path)
    assert main(["sweep", str(path), "--vary", "loader.num_workers=1:3", "--jobs", "1"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Take num_workers=2: ")
    assert first.endswith("it is the fastest that fits.")
    assert second.endswith(" 1 of these 3 configurations do not (!).")
    table = sweep(dlsim.load(path), {"loader.num_workers": [1, 3]}, 2, jobs=1)
    assert table["memory"].tolist() == [30 * MIB, 70 * MIB]
    assert table["memory_limit"].tolist() == [60 * MIB] * 2
    assert main(["sweep", str(path), "--vary", "loader.num_workers=3:4", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("No configuration fits.\nIt does not fit: ")


def test_sweeps_of_long_epochs_take_a_part() -> None:
    """Without a number of replications, a part of a long epoch stands for it."""
    long = dlsim.replace(scenario(workers=4), {"dataset.length": 400_000})
    table = sweep(long, {"loader.num_workers": [1, 20]}, None, jobs=1)
    assert table["batches"].tolist() == [40_000, 40_000]
    # nothing is random: a batch comes every 10 s from one worker, every 1 s from enough of them
    assert table["epoch_time"] == pytest.approx([400_001, 40_010], rel=1e-6)
