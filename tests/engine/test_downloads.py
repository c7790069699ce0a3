"""Files that workers download ahead, as streaming data sets do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import IterableDataset, Scenario, ScenarioError, Stage
from dlsim.scenario import Download, from_tree, to_tree
from dlsim.trace import account
from dlsim.whatif.bounds import bounds, disagrees


def of(wait: float, download: Download | None, workers: int = 1, **changes: object) -> Scenario:
    """Six files of four samples; each file takes a second to come alone, each sample `wait`."""
    fetch = (Stage("read", wait=dlsim.Constant(wait), read_bytes=dlsim.Constant(1.0)),)
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=workers, prefetch_factor=1 if workers else None),
        dataset=IterableDataset(0, fetch=fetch, shards=(4,) * 6, download=download),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=4.0)),
    )
    return dlsim.replace(scenario, changes)


def firsts(scenario: Scenario) -> list[float]:
    """When the first sample of each file comes, of one worker."""
    trace = dlsim.simulate(scenario)
    return trace.returned[trace.order][::4].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_file_comes_while_this_one_is_in_use(workers: int) -> None:
    """Of files that are used up sooner than the next has come, each takes as long as it comes."""
    found = firsts(of(0.1, Download(shards=2), workers))
    assert found == pytest.approx([1.1, 2.1, 3.1, 4.1, 5.1, 6.1])


def test_samples_that_take_longer_wait_for_the_first_file_alone() -> None:
    """Slow samples hide all downloads but the first."""
    found = firsts(of(1.0, Download(shards=2)))
    assert found == pytest.approx([2.0, 6.0, 10.0, 14.0, 18.0, 22.0])


def test_one_file_at_a_time_is_nothing_ahead() -> None:
    """The next one is begun when its first sample is asked for."""
    found = firsts(of(0.1, Download(shards=1)))
    assert np.diff(found) == pytest.approx([1.4] * 5)


def test_several_at_once() -> None:
    """From storage of which each download has a rate of its own, four come in the time of one."""
    latency = {"machine.storage": {"latency": 1.0}}
    found = firsts(of(0.05, Download(shards=4, at_once=4), **latency))
    assert found[:4] == pytest.approx([1.05, 1.25, 1.45, 1.65])
    one = firsts(of(0.05, Download(shards=4), **latency))
    assert one == pytest.approx([1.05, 2.05, 3.05, 4.05, 5.05, 6.05])


def test_as_far_ahead_as_samples_say() -> None:
    """With four samples ahead, a file is begun when the one before is entered; with none, late."""
    far, none = (firsts(of(0.5, Download(samples=n))) for n in (4, 0))
    assert far == pytest.approx([1.5, 3.5, 5.5, 7.5, 9.5, 11.5])
    assert np.diff(none) == pytest.approx([3.0] * 5)


def test_workers_share_what_comes() -> None:
    """Two workers that download share the bandwidth; a file both need comes once."""
    two = dlsim.simulate(of(0.1, Download(shards=2), 2))
    assert two.returned[two.order][:2].tolist() == pytest.approx([2.1, 2.1])
    streaming = of(0.1, Download(samples=8), 2, **{"dataset.sharding": "streaming"})
    same = dlsim.simulate(streaming)
    assert same.returned[same.order][::4].tolist() == pytest.approx([1.1, 2.1, 3.1, 4.1, 5.1, 6.1])


@pytest.mark.parametrize(("cache", "second"), [(None, 2.4), (24.0, 2.4), (12.0, 6.4)])
def test_a_cache_with_room_for_all_is_read_again(cache: float | None, second: float) -> None:
    """Of a smaller one, files are gone when they are needed again, as others made room."""
    scenario = of(0.1, Download(shards=2, cache=cache), epochs=2)
    trace = dlsim.simulate(scenario)
    assert trace.epochs.ended[1] - trace.epochs.started[1] == pytest.approx(second)


def test_a_file_that_has_gone_before_it_was_used_comes_again() -> None:
    """A cache for one file, and four downloaded ahead: each is downloaded twice, but the last."""
    found = firsts(of(1.0, Download(shards=6, cache=4.0)))
    # six have come by 6.0, of which the sixth is there; the first was in use from 1.0 on
    assert len(found) == 6
    assert found[0] == pytest.approx(2.0)
    assert found[1] > 6.0


@pytest.mark.parametrize("persistent", [False, True])
def test_leaving_early_ends_downloads(persistent: bool) -> None:
    """What nobody waits for any more takes no bandwidth from the next epoch."""
    changes = {"loader.persistent_workers": persistent, "consumer.stop_after": 5}
    scenario = of(0.1, Download(shards=2, cache=4.0), epochs=3, **changes)
    trace = dlsim.simulate(scenario)
    came = trace.returned[trace.order].reshape(3, 5) - trace.epochs.started[:, None]
    assert came[0] == pytest.approx([1.1, 1.2, 1.3, 1.4, 2.1])
    # persistent workers are told of the next epoch when they have done what they were at
    late = 0.1 if persistent else 0.0
    assert came[1] == pytest.approx(came[0] + late, abs=0.2)
    assert came[2] == pytest.approx(came[1])


def test_ranks_of_a_node_have_one_cache() -> None:
    """Two ranks that take turns of the same files download each once."""
    changes = {"dataset.sharding": "streaming", "job.ranks": 2}
    job = dlsim.simulate_job(of(0.1, Download(samples=8), **changes))
    assert max(trace.end for trace in job.ranks) == pytest.approx(6.2)


def test_waiting_for_files_is_waiting_for_storage() -> None:
    """The account says so, and no bound disagrees; more ahead is tried, where files wait."""
    scenario = of(0.1, Download(shards=2))
    found = account(dlsim.simulate(scenario)).idle
    assert max(found, key=lambda cause: found[cause]) == "storage"
    assert bounds(scenario).binds == "storage"
    for workers in (0, 1, 2):
        one = of(0.3, Download(shards=1), workers)
        assert disagrees(bounds(one), dlsim.replicate(one, 1)) is None
    gains = {
        each.change.name: each.gain.mean
        for each in dlsim.explain(of(0.3, Download(shards=1)), 2).gains
    }
    assert gains["twice as far downloaded ahead"] > 0.3


def test_without_downloads_samples_read_one_by_one() -> None:
    """A quarter of a second each, and no more."""
    assert firsts(of(0.0, None)) == pytest.approx([0.25 + n for n in range(6)])


@settings(max_examples=100)
@given(
    st.integers(0, 4),
    st.lists(st.integers(0, 6), min_size=1, max_size=8),
    st.sampled_from(["none", "litdata", "streaming"]),
    st.builds(Download, shards=st.integers(1, 4), at_once=st.integers(1, 3))
    | st.builds(Download, samples=st.integers(0, 9), cache=st.sampled_from([None, 1.0, 9.0])),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_every_sample_comes_once(
    workers: int, shards: list[int], sharding: str, rule: Download, size: int, epochs: int
) -> None:
    """Whatever is downloaded when, the batches are those that there are without."""
    changes = {
        "dataset.shards": shards,
        "dataset.sharding": sharding,
        "loader.batch_size": size,
        "epochs": epochs,
    }
    ahead, plain = (dlsim.simulate(of(0.1, each, workers, **changes)) for each in (rule, None))
    assert ahead.size[ahead.order].tolist() == plain.size[plain.order].tolist()
    assert np.all(ahead.requested[ahead.order] <= ahead.returned[ahead.order])


def test_a_file_says_so() -> None:
    """It is read and written as any other part."""
    scenario = of(0.1, Download(shards=2, cache=1e9))
    assert from_tree(to_tree(scenario)) == scenario
    tree = to_tree(scenario)
    tree["dataset"]["download"] = {"samples": 64, "cache": "100 GB"}
    assert from_tree(tree).dataset.download == Download(samples=64, cache=1e11)
    with pytest.raises(ScenarioError, match=r"expected simpy or auto for dataset\.download"):
        dlsim.simulate(scenario, engine="compiled")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset.download": {}}, "shards: expected shards or samples"),
        ({"dataset.download": {"shards": 1, "samples": 1}}, "expected shards or samples"),
        ({"dataset.download": {"shards": 0}}, "shards: expected an integer of at least 1"),
        ({"dataset.download": {"shards": 1, "cache": 0}}, "cache"),
        ({"dataset.shards": None}, "download: needs shards"),
    ],
)
def test_refuses_what_says_too_little(changes: dict[str, object], said: str) -> None:
    """How far ahead, of which files, and what they are made of."""
    with pytest.raises(ScenarioError, match=said):
        of(0.1, Download(shards=2), **changes)


DELAY, WAIT, SAMPLES, EACH = 0.5, 0.05, 32, 8


def slow_chunks(folder: Path) -> Any:
    """litdata's own data set, whose chunks come from storage that takes `DELAY` for each."""
    from litdata.streaming import Cache, StreamingDataset, downloader
    from litdata.streaming.resolver import Dir

    class Slow(downloader.LocalDownloader):  # type: ignore[misc]
        def download_file(self, remote_filepath: str, local_filepath: str) -> None:
            """As of a local folder, but later."""
            time.sleep(0 if remote_filepath.endswith("index.json") else DELAY)
            super().download_file(remote_filepath.removeprefix("slow://"), local_filepath)

    class Sleeping(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Any:
            """A sample, which takes `WAIT`."""
            sample = super().__getitem__(index)
            time.sleep(WAIT)
            return sample

    downloader.register_downloader("slow://", Slow, overwrite=True)
    cache = Cache(str(folder / "remote"), chunk_size=EACH)
    for sample in range(SAMPLES):
        cache._add_item(sample, sample)
    cache.done()
    cache.merge()
    (folder / "local").mkdir()
    there = Dir(path=str(folder / "local"), url=f"slow://{folder / 'remote'}")
    data = Sleeping(there, shuffle=False, drop_last=False)
    data.set_batch_size(1)
    return data


@pytest.mark.oracles
def test_litdata_downloads_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """litdata's own threads: the order, and no sample sooner than simulated."""
    pytest.importorskip("litdata")
    data = pytest.importorskip("torch.utils.data")
    monkeypatch.setenv("LITDATA_ASYNC_CHUNK_PREFETCH", "0")  # one chunk at a time
    monkeypatch.setenv("LITDATA_CACHE_DIR", os.fspath(tmp_path))
    came, order = [], []
    for batch in data.DataLoader(slow_chunks(tmp_path), batch_size=1, num_workers=1):
        came.append(time.perf_counter())
        order += batch.tolist()
    changes = {
        "dataset.shards": [EACH] * (SAMPLES // EACH),
        "dataset.sharding": "litdata",
        "machine.storage": {"latency": DELAY},
        "loader.prefetch_factor": 2,
    }
    trace = dlsim.simulate(of(WAIT, Download(shards=2), **changes))
    assert order == [*range(SAMPLES)]
    simulated = trace.returned[trace.order]
    assert came[-1] - came[0] > 0.97 * (simulated[-1] - simulated[0])
