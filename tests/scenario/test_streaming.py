"""Which samples streaming data sets give to which worker, as litdata, streaming, webdataset do."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import accumulate, product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Constant, IterableDataset, Job, Loader, Scenario, Stage
from dlsim.engine.facts import shard_of
from dlsim.engine.ranks import fair_share, rank_scenario
from dlsim.scenario import ScenarioError


def dealt(
    dataset: IterableDataset, workers: int, batch_size: int = 1, **job: int
) -> list[list[list[int]]]:
    """What each worker of each rank is dealt."""
    loader = Loader(num_workers=workers, batch_size=batch_size)
    scenario = Scenario(loader=loader, dataset=dataset, job=Job(**job))
    ranks = [rank_scenario(scenario, rank) for rank in range(scenario.job.world)]
    return [[list(shard_of(rank, worker)) for worker in range(workers)] for rank in ranks]


def runs(*ends: int) -> list[list[int]]:
    """Consecutive samples up to each end."""
    return [[*range(a, b)] for a, b in zip((0, *ends), ends, strict=False)]


def test_litdata() -> None:
    """Whole batches in runs, one more for the first workers, the rest for the one after these."""
    assert dealt(IterableDataset(26, "litdata"), 3, 4) == [runs(10, 18, 26)]
    assert dealt(IterableDataset(30, "litdata"), 3, 4) == [runs(12, 22, 30)]
    assert dealt(IterableDataset(3, "litdata"), 2, 4) == [[[0, 1, 2], []]]


def test_litdata_of_several_ranks() -> None:
    """Each rank has equally many batches; what is left over nobody has."""
    assert dealt(IterableDataset(31, "litdata"), 2, 3, ranks=2) == [
        [[*range(9)], [*range(9, 15)]],
        [[*range(15, 24)], [*range(24, 30)]],
    ]


def test_streaming() -> None:
    """Batch j of the order is made by worker j mod the workers, whatever their number."""
    dataset = IterableDataset(14, "streaming")
    three = dealt(dataset, 3, 3)
    assert three == [[[0, 1, 2, 9, 10, 11], [3, 4, 5, 12, 13], [6, 7, 8]]]
    for workers in (1, 2, 3, 5):
        scenario = Scenario(loader=Loader(num_workers=workers, batch_size=3), dataset=dataset)
        trace = dlsim.simulate(scenario, samples=True)
        assert trace.samples is not None
        returned = [trace.samples.index[trace.samples.batch == batch] for batch in trace.order]
        assert [sample for batch in returned for sample in batch] == [*range(14)]


def test_streaming_of_several_ranks() -> None:
    """Nodes have runs, their ranks take turns; who would have fewer has some again."""
    assert dealt(IterableDataset(7, "streaming"), 2, 2, ranks=2) == [
        [[0, 2], [4, 6]],
        [[1, 3], [5, 5]],
    ]
    nodes = dealt(IterableDataset(7, "streaming"), 1, 2, nodes=2)
    assert nodes == [[[0, 1, 2, 2]], [[3, 4, 5, 6]]]


def test_shards_in_turn_go_to_ranks_first() -> None:
    """webdataset's split_by_node and split_by_worker: shard i to rank i mod 2, there in turn."""
    dataset = IterableDataset(0, shards=(1,) * 8)
    assert dealt(dataset, 2, ranks=2) == [[[0, 4], [2, 6]], [[1, 5], [3, 7]]]
    in_runs = IterableDataset(0, shards=(1,) * 8, dealt="runs")
    assert dealt(in_runs, 2, ranks=2) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    uneven = Scenario(
        loader=Loader(num_workers=2), dataset=IterableDataset(0, shards=(3, 4, 5)), job=Job(ranks=2)
    )
    assert fair_share(uneven).dataset.length == 8


@pytest.mark.parametrize("rule", ["litdata", "streaming"])
def test_both_engines_deal_alike(rule: str) -> None:
    """The same samples come to the same workers, in one rank and in jobs."""
    fetch = (Stage("read", wait=dlsim.Exponential(0.1)),)
    dataset = IterableDataset(103, rule, fetch)  # type: ignore[arg-type]
    scenario = Scenario(loader=Loader(num_workers=3, batch_size=8), dataset=dataset)
    one, other = (
        dlsim.simulate(scenario, 1, engine=e, samples=True) for e in ("simpy", "compiled")
    )
    assert dlsim.trace.difference(one, other) is None
    assert len(one.order) == 13
    job = dlsim.replace(scenario, {"job.ranks": 2, "consumer.step": 0.05})
    assert len(dlsim.simulate_job(job, 1).ranks) == 2


def test_more_workers_are_tried_where_samples_are_dealt_to_any_number() -> None:
    """Advice may change the workers: a streaming data set deals to any number."""
    fetch = (Stage("read", wait=Constant(0.1)),)
    scenario = Scenario(
        loader=Loader(num_workers=1, batch_size=8), dataset=IterableDataset(800, "streaming", fetch)
    )
    explained = dlsim.explain(scenario, 2)
    gains = {gain.change.name: gain.gain.mean for gain in explained.gains}
    assert gains["one more worker"] == pytest.approx(1.0, abs=0.05)


def test_a_rule_that_is_not_known() -> None:
    """The error lists those that are."""
    with pytest.raises(ScenarioError, match="sharding: expected none, split, litdata, streaming"):
        IterableDataset(8, "mosaic")  # type: ignore[arg-type]


cases = st.fixed_dictionaries(
    {
        "nodes": st.integers(1, 3),
        "ranks": st.integers(1, 4),
        "workers": st.integers(1, 5),
        "batch_size": st.integers(1, 8),
        "shards": st.lists(st.integers(0, 24), min_size=1, max_size=8),
    }
)


def ours(case: dict[str, Any], **rule: Any) -> list[list[list[int]]]:
    """What is dealt here in one of the `cases`."""
    dataset = IterableDataset(sum(case["shards"]), **rule)
    job = {"nodes": case["nodes"], "ranks": case["ranks"]}
    return dealt(dataset, case["workers"], case["batch_size"], **job)


class Interval(NamedTuple):
    """What litdata knows of a chunk: where it lies, and which of its samples are meant."""

    chunk_start: int
    roi_start_idx: int
    roi_end_idx: int
    chunk_end: int


def module(name: str) -> ModuleType:
    """A module of a package that is installed, without what the package imports besides."""
    package, _, rest = name.partition(".")
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs {package}")
    path = Path(found.origin).parent / f"{rest.replace('.', '/')}.py"
    there = spec_from_file_location(name, path)
    assert there is not None
    assert there.loader is not None
    loaded = module_from_spec(there)
    there.loader.exec_module(loaded)
    return loaded


@pytest.mark.oracles
@settings(max_examples=500)
@given(cases)
def test_litdata_s_own_code(case: dict[str, Any]) -> None:
    """litdata's own code gives each worker of each rank the same samples in the same order."""
    needed = {
        "litdata.streaming.item_loader": SimpleNamespace(Interval=Interval),
        "litdata.utilities.env": SimpleNamespace(_DistributedEnv=object),
    }
    with mock.patch.dict(sys.modules, needed):
        associate = module("litdata.utilities.shuffle")._associate_chunks_and_intervals_to_workers
    ends = [*accumulate(case["shards"])]
    chunks = [Interval(b - n, b - n, b, b) for b, n in zip(ends, case["shards"], strict=True)]
    world, workers = case["nodes"] * case["ranks"], case["workers"]
    env = SimpleNamespace(world_size=world, global_rank=0, num_nodes=case["nodes"])
    size, drop_last = case["batch_size"], world > 1
    _, given_out = associate(env, range(len(chunks)), chunks, drop_last, workers, size)
    theirs = [[i for _, a, b, _ in each for i in range(a, b)] for each in given_out]
    mine = ours(case, sharding="litdata")
    assert mine == [theirs[rank * workers : (rank + 1) * workers] for rank in range(world)]


@pytest.mark.oracles
@settings(max_examples=500)
@given(cases)
def test_streaming_s_own_code(case: dict[str, Any]) -> None:
    """So does mosaicml-streaming's, with as many canonical nodes as nodes, its default."""
    partition = module("streaming.base.partition.orig").get_partitions_orig
    length, nodes, ranks = sum(case["shards"]), case["nodes"], case["ranks"]
    assume(length > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few samples are many times repeated
        work = partition(length, nodes, nodes, ranks, case["workers"], case["batch_size"])
    theirs = [
        [[sample for sample in batches.flatten().tolist() if sample != -1] for batches in of_rank]
        for of_node in work
        for of_rank in of_node
    ]
    assert ours(case, sharding="streaming") == theirs


@pytest.mark.oracles
@settings(max_examples=100)
@given(cases)
def test_webdataset_s_own_code(case: dict[str, Any]) -> None:
    """webdataset's split_by_node, then split_by_worker, give each worker the same shards."""
    pytest.importorskip("webdataset")
    from webdataset import shardlists

    ends = [*accumulate(case["shards"])]
    shards = [[*range(b - n, b)] for b, n in zip(ends, case["shards"], strict=True)]
    world = case["nodes"] * case["ranks"]
    theirs: list[list[list[int]]] = [[] for _ in range(world)]
    for rank, worker in product(range(world), range(case["workers"])):
        who = rank, world, worker, case["workers"]
        with mock.patch.object(shardlists.utils, "pytorch_worker_info", return_value=who):
            mine = shardlists.split_by_worker(shardlists.split_by_node(shards))
            theirs[rank].append([sample for shard in mine for sample in shard])
    assert ours(case, shards=tuple(case["shards"])) == theirs
