"""Distinct samples, samples that never come, and workers without data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Consumer, IterableDataset, Loader, MapDataset, Scenario, Stage
from dlsim.cli import main
from dlsim.report import run_text
from dlsim.trace.work import different, in_an_epoch, told, work
from dlsim.whatif import compare, explain
from tests.strategies import scenarios


def iterable(
    workers: int, batch: int, length: int, step: float = 0.02, **dataset: object
) -> Scenario:
    """Samples of 10 ms each, partial batches dropped if there are more than one to a batch."""
    return Scenario(
        loader=Loader(batch_size=batch, num_workers=workers, drop_last=batch > 1),
        dataset=IterableDataset(
            length,
            fetch=[Stage("read", wait=dlsim.Constant(0.01))],
            **dataset,  # type: ignore[arg-type]
        ),
        consumer=Consumer(step=dlsim.Constant(step)),
    )


def swept(scenario: Scenario, workers: str, path: Path) -> None:
    """Print what a sweep over workers prints."""
    dlsim.dump(scenario, path)
    assert main(["sweep", str(path), "--vary", f"loader.num_workers={workers}", "--jobs", "1"]) == 0


@settings(max_examples=150, deadline=None)
@given(scenarios(), st.integers(0, 1000))
def test_distinct_is_what_samples_say(scenario: Scenario, seed: int) -> None:
    """The number of distinct samples is that of distinct indices in the batches returned."""
    trace = dlsim.simulate(scenario, seed, samples=True)
    assert trace.samples is not None
    whole = trace.as_one_epoch
    kept = np.isin(trace.samples.batch, trace.order)
    batches, indices = trace.samples.batch[kept], trace.samples.index[kept]
    if scenario.loader.endless:
        passes = batches // scenario.loader.batches(scenario.dataset.length)
    else:
        passes = whole.epoch_of(batches)
    found = work(trace)
    assert found is not None
    assert found.returned == trace.size[trace.order].sum()
    assert found.distinct == len(set(zip(passes.tolist(), indices.tolist(), strict=True)))


@settings(max_examples=150, deadline=None)
@given(scenarios())
def test_what_is_expected_of_an_epoch_comes(scenario: Scenario) -> None:
    """Without errors and early ends a run has in each epoch what was expected of the scenario."""
    calm = {"failures": [], "loader.timeout": 0.0, "consumer.stop_after": None}
    case = dlsim.replace(scenario, {**calm, "loader.endless": False})
    found, expected = work(dlsim.simulate(case)), in_an_epoch(case)
    assert found is not None
    for name in ("returned", "distinct", "lost", "there"):
        assert getattr(found, name) == case.epochs * getattr(expected, name)
    if case.loader.in_order:
        assert found.without == expected.without


def test_each_worker_repeats_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An iterable that is not shared out makes ten distinct samples a second with any workers."""
    case = iterable(4, 1, 100, step=0.0)
    case = dlsim.replace(case, {"dataset.fetch.0.wait": 0.1})
    assert "That is 10 distinct samples/s." in run_text(dlsim.simulate(case))
    one = dlsim.replace(case, {"loader.num_workers": 1})
    first, *lines = str(compare(one, case, 3)).splitlines()
    assert first == "A and B are as fast as each other: nothing is random."
    assert ["distinct", "samples/s", "10", "10", "0", "±", "0"] in [line.split() for line in lines]
    assert "now 10 distinct samples/s" in str(explain(case, 3))
    swept(case, "1,2,4", tmp_path / "unsharded.toml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Take num_workers=1: 10 ± 0 distinct samples/s")
    assert "distinct samples/s" in lines[4]


def test_no_worker_has_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand samples for ten workers in batches of 128: seven workers at most get one."""
    case = iterable(10, 128, 1000, sharding="split")
    said = (
        "No worker has a batch: each has at most 100 samples, and drop_last drops what is less "
        "than 128. At most 7 workers get one."
    )
    assert run_text(dlsim.simulate(case)).startswith(f"No batch was returned. {said}")
    assert told(case, in_an_epoch(case)) == said
    swept(case, "7:8", tmp_path / "dropped.toml")
    out = capsys.readouterr().out
    assert out.startswith("Take num_workers=7: ")
    assert "104 of 1,000 samples never come (drop_last in each worker)." in out


def test_samples_that_each_worker_drops() -> None:
    """Of 46 samples as 16, 15 and 15 in batches of eight, 14 never come."""
    case = iterable(3, 8, 46, sharding=(16, 15, 15))
    found = work(dlsim.simulate(case))
    assert found is not None
    assert (found.returned, found.lost, found.there) == (32, 14, 46)
    said = "14 of 46 samples never come (drop_last in each worker)."
    assert said in run_text(dlsim.simulate(case))
    assert said in str(explain(case, 3))


def test_shards_are_dealt_to_any_number_of_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One large shard holds all up; even shares are 3.2 times as fast, and are what is named."""
    case = dlsim.replace(iterable(4, 8, 1600), {"loader.drop_last": False})
    case = dlsim.replace(case, {"dataset.shards": [1300, 100, 100, 100]})
    assert dlsim.summarize(dlsim.simulate(case)).samples_per_s == pytest.approx(123, abs=0.5)
    found = explain(case, 3)
    assert found.gains[0].change.name == "even shares"
    assert found.gains[0].samples_per_s == pytest.approx(392, abs=0.5)
    swept(case, "1,2,4,8", tmp_path / "shards.toml")
    assert capsys.readouterr().out.startswith("Take num_workers=4: ")
    eight = dlsim.replace(case, {"loader.num_workers": 8})
    assert "4 of 8 workers have no data." in run_text(dlsim.simulate(eight))


@pytest.mark.parametrize(
    ("dealt", "mine"),
    [("turns", [[0, 1, 2, 6], [3, 4, 5, 7, 8]]), ("runs", [[0, 1, 2, 3, 4, 5], [6, 7, 8]])],
)
def test_how_shards_are_dealt(dealt: str, mine: list[list[int]]) -> None:
    """Shard i goes to worker i mod W, or consecutive shards go to each; indices stay the same."""
    dataset = IterableDataset(0, shards=(3, 3, 1, 2), dealt=dealt)  # type: ignore[arg-type]
    assert dataset.length == 9
    assert [list(dataset.shard(worker, 2)) for worker in range(2)] == mine
    assert list(dataset.shard(0, 0)) == list(range(9))
    shard = dataset.shard(1, 2)
    assert [shard[i] for i in range(len(shard))] == mine[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset.shards": [-1]}, "dataset.shards: expected a list of integers of at least 0"),
        ({"dataset.dealt": "once"}, "dealt: expected"),
        ({"dataset.shards": [8], "dataset.sharding": "split"}, "sharding: excludes shards"),
    ],
)
def test_refused(changes: dict[str, object], says: str) -> None:
    """Shards that cannot be are refused in one line with key, expected and given."""
    with pytest.raises(dlsim.ScenarioError, match=says):
        dlsim.replace(iterable(2, 1, 8), changes)


def test_a_sampler_that_repeats() -> None:
    """Indices that a sampler has twice in an epoch count once."""
    case = Scenario(
        loader=Loader(batch_size=2, sampler=(0, 0, 1, 1, 2), drop_last=True),
        dataset=MapDataset(5),
        epochs=2,
    )
    found = work(dlsim.simulate(case))
    assert found is not None
    assert (found.returned, found.distinct, found.lost, found.there) == (8, 4, 2, 6)


@given(st.lists(st.integers(-5, 5)))
def test_different_numbers_are_counted(numbers: list[int]) -> None:
    """As a set of them would, also of none."""
    assert different(np.array(numbers, np.int64)) == len(set(numbers))
