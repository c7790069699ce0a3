from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.scenario import DlsimError, Machine
from dlsim.testing import assert_fits, assert_stall_below, assert_throughput_above
from tests.cli.test_cli import SMALL

# Two workers that take 3 s for a batch, steps of 0.5 s: 24 samples in 13 s, 69.2 % of it waiting.
TIGHT = dlsim.Scenario(
    loader=dlsim.Loader(batch_size=3, num_workers=2),
    dataset=dlsim.MapDataset(
        24,
        fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))],
        sample_bytes=dlsim.Constant(1000.0),
    ),
    consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
)


class Rows(Dataset):
    """Samples that are waited for."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        time.sleep(0.01)
        return 1 / (index != self.bad)

    bad = -1


class Bad(Rows):
    """One sample raises."""

    bad = 40


def test_what_holds_passes(tmp_path: Path) -> None:
    """Scenarios and files that hold what is asserted pass in silence."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    for subject in (TIGHT, path, str(path)):
        assert_stall_below(subject, 0.70)
        assert_throughput_above(subject, 1.84)
        assert_stall_below(subject, "70%")
        assert_throughput_above(subject, "1.84 samples/s")


def test_limits_that_state_nothing() -> None:
    """A limit that is text and no share or throughput is refused by name."""
    with pytest.raises(DlsimError, match="limit: expected a share such as"):
        assert_stall_below(TIGHT, "5 s")
    with pytest.raises(DlsimError, match="samples_per_s: expected a throughput such as"):
        assert_throughput_above(TIGHT, "fast")


@pytest.mark.parametrize("limit", [5, "500%", -0.1, float("nan"), True, None])
def test_limits_that_always_hold_are_none(limit: Any) -> None:
    """A stall is at most a share, so that 5 is not taken for 5%; no throughput is negative."""
    with pytest.raises(DlsimError, match=r"limit: expected a share such as 0\.05 or"):
        assert_stall_below(TIGHT, limit)
    if limit not in (5, True):
        with pytest.raises(DlsimError, match="samples_per_s: expected a throughput such as"):
            assert_throughput_above(TIGHT, limit)


def test_a_scenario_states_its_own_step() -> None:
    """A step and a number of batches are of a loader that is watched."""
    with pytest.raises(DlsimError, match="step: expected none, as a scenario states its own, got"):
        assert_stall_below(TIGHT, "70%", step="50 ms")
    with pytest.raises(DlsimError, match="batches: expected none"):
        assert_throughput_above(TIGHT, 1.0, batches=3)


def test_a_failure_explains() -> None:
    """What does not hold says by how much, what limits, what helps, and what would hold."""
    with pytest.raises(AssertionError) as caught:
        assert_stall_below(TIGHT, 0.6)
    first, second, third = str(caught.value).splitlines()
    assert first == "training is idle 69.2 % of the time (± 0.0 %), expected less than 60.0 %"
    assert second.startswith("Training is idle 69.2 % of the time: 46.2 % for fetching samples")
    assert third == "num_workers=3, prefetch_factor=1 would hold it"
    assert {Path(entry.path) for entry in caught.traceback.filter(caught)} == {Path(__file__)}
    with pytest.raises(AssertionError, match=r"^training gets 1\.85 samples/s \(± 0 samples/s\), "):
        assert_throughput_above(TIGHT, 2.0)


def test_chance_is_not_enough() -> None:
    """A mean below the limit whose interval reaches beyond it does not pass."""
    read = dlsim.Stage("read", wait=dlsim.Exponential(1.0))
    random = dlsim.replace(TIGHT, {"dataset.fetch": [read]})
    found = dlsim.replicate(random, 10).interval("stall")
    between = (found.mean + found.high) / 2
    with pytest.raises(AssertionError, match="training is idle"):
        assert_stall_below(random, between)
    assert_stall_below(random, found.high + 1e-9)


def test_what_does_not_fit() -> None:
    """Batches that outgrow the machine are refused, with the window that would fit."""
    slow = dlsim.replace(TIGHT, {"consumer.step": dlsim.Constant(9.0)})
    assert_fits(dlsim.replace(slow, {"machine": Machine(shm=15_000)}))
    with pytest.raises(
        AssertionError, match=r"/dev/shm has 8.79 KiB, .* of at most 2 would, however slow the"
    ):
        assert_fits(dlsim.replace(slow, {"machine": Machine(shm=9_000)}))
    with pytest.raises(AssertionError, match=r"memory has 1000 B, .*; smaller batches would\.$"):
        assert_fits(dlsim.replace(slow, {"machine": Machine(memory=1_000)}))
    with pytest.raises(DlsimError, match="expected memory, shm or descriptors"):
        assert_fits(TIGHT)


def test_a_real_loader() -> None:
    """A DataLoader is watched; what does not hold is diagnosed, what fails is said."""
    loader = DataLoader(Rows(), 3, num_workers=1)
    assert_throughput_above(loader, 1.0)
    assert_stall_below(loader, 0.95, step=lambda batch: time.sleep(0.03))
    assert_throughput_above(loader, 1.0, step="1 ms", batches=6)
    with pytest.raises(DlsimError, match="step: expected a duration such as"):
        assert_stall_below(loader, 0.95, step="soon")
    with pytest.raises(AssertionError) as caught:
        assert_throughput_above(loader, 1e6)
    first, speed, answer, _ = str(caught.value).splitlines()
    assert first.endswith(" samples/s, expected more than 1,000,000 samples/s")
    assert "; simulated " in speed
    assert answer.startswith("Training is idle ")
    with pytest.raises(AssertionError, match="why is not known: run: expected at least 5 batches"):
        assert_stall_below(loader, 0.01, batches=3)
    with pytest.raises(AssertionError, match="the loader fails: ZeroDivisionError"):
        assert_stall_below(DataLoader(Bad(), 3), 0.5)
