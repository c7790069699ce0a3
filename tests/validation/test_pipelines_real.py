"""Simulated pipelines against SPDL, torchdata.nodes and grain, run for real with sleeps.

What does not depend on how fast the machine is: orders, what is begun while training idles, and
that sleeps take no less than they should.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim import Pipeline, Recorded, Stage
from dlsim.scenario.pipeline import (
    GRAIN,
    NODES,
    SPDL,
    Aggregate,
    Batcher,
    Link,
    Mapper,
    ParallelMapper,
    Pipe,
    Prefetcher,
    Read,
    Region,
    Unbatcher,
    Workers,
)
from dlsim.validation.virtual.pipeline import PACKAGES, items

pytestmark = pytest.mark.oracles


PATIENCE = 60.0  # seconds in which all that is begun ahead has to have begun


class Logged:
    """What a stage does, in whichever process: it writes down the item, and sleeps."""

    def __init__(self, path: Path, number: int, times: Sequence[float] | None) -> None:
        self.path, self.number, self.times = path, number, times

    def __call__(self, item: Any) -> Any:
        """The item itself, after its time, or after those of all in a list."""
        for each in item if isinstance(item, list) else [item]:
            with self.path.open("a") as log:
                log.write(f"{self.number}\n")
            if self.times is not None:
                time.sleep(self.times[int(each)])
        return item


class Real:
    """A pipeline of the real package: its items are numbers, its stages sleep."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline, self.log = pipeline, folder / "begun"
        self.log.touch()
        self.expected = dlsim.simulate_pipeline(pipeline)

    @property
    def begun(self) -> list[int]:
        """How many items each stage has begun with."""
        found = Counter(map(int, self.log.read_text().split()))
        return [found[number] for number in range(len(self.pipeline.stages))]

    def operation(self, number: int) -> Logged:
        """What a stage does."""
        stage = self.pipeline.stages[number]
        if stage is None:
            return Logged(self.log, number, None)
        assert isinstance(stage.wait, Recorded)
        return Logged(self.log, number, stage.wait.values)

    def run(self) -> tuple[list[int], float]:
        """The first item of each that training got, and how long all took in seconds."""
        taken = []
        source = map(self.operation(0), range(self.pipeline.length))
        built = items(self.pipeline, source, self.operation)
        began = time.perf_counter()
        for item in built:
            taken.append(first(item))
            if len(taken) == self.pipeline.stop_after:
                self.settle()
                break
        took = time.perf_counter() - began
        built.close()
        return taken, took

    def settle(self) -> None:
        """Wait until as much is begun as there should be, and then whether there is more."""
        wanted = [len(moments.began) for moments in self.expected.stages]
        deadline = time.monotonic() + PATIENCE
        while self.begun != wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.7)


def first(item: Any) -> int:
    """The first item in a list, or the item."""
    return first(item[0]) if isinstance(item, list) else int(item)


def stage(seed: int, length: int) -> Stage:
    """A stage that takes 20 to 100 ms, in steps of 20."""
    rng = np.random.default_rng(seed)
    return Stage("work", wait=Recorded((rng.integers(1, 6, length) * 0.02).tolist()))


def pipe(seed: int, concurrency: int = 1, output_order: str = "completion") -> Pipe:
    """A stage of SPDL's pipeline."""
    return Pipe(stage(seed, 60), concurrency=concurrency, output_order=output_order)


def mapper(seed: int, workers: int, **more: Any) -> ParallelMapper:
    """A stage of torchdata.nodes' pipeline."""
    return ParallelMapper(stage(seed, 60), num_workers=workers, **more)


PIPELINES: dict[str, tuple[str, tuple[Link, ...]]] = {
    "one": (SPDL, (pipe(1, 4),)),
    "two": (SPDL, (pipe(2, 3), pipe(3, 2))),
    "in order": (SPDL, (pipe(4, 3, "input"), pipe(5, 2, "input"))),
    "aggregated": (SPDL, (pipe(6, 4), Aggregate(3))),
    "mapped": (NODES, (mapper(7, 3),)),
    "any order": (NODES, (mapper(8, 2, in_order=False),)),
    "ahead": (NODES, (mapper(9, 2), Prefetcher(3))),
    "prebatched": (NODES, (mapper(10, 2, prebatch=3),)),
    "batched": (NODES, (mapper(11, 3), Batcher(4), Prefetcher(2), Unbatcher())),
    "few slots": (NODES, (mapper(12, 3, max_concurrent=2),)),
    "region": (SPDL, (pipe(13), Region((pipe(14, 2), pipe(15)), workers=2), pipe(16, 2))),
    "workers": (GRAIN, (Read(stage(17, 60), 2, 4), Workers(2))),
    "batches before": (GRAIN, (Batcher(4), Read(stage(18, 60), 2, 3), Workers(2, 2))),
    "batches in each": (
        GRAIN,
        (Read(stage(19, 60), 2, 4), Mapper(stage(20, 60)), Batcher(3, drop_last=False), Workers(3)),
    ),
}
CASES = [
    pytest.param(
        like,
        links,
        id=name,
        marks=pytest.mark.skipif(find_spec(PACKAGES[like]) is None, reason=like),
    )
    for name, (like, links) in PIPELINES.items()
]


@pytest.mark.parametrize(("like", "links"), CASES)
def test_what_is_begun_while_training_idles(
    like: str, links: tuple[Link, ...], tmp_path: Path
) -> None:
    """After two items were taken, each stage has begun exactly what the simulation says."""
    pipeline = Pipeline(like=like, length=60, links=links, stop_after=2, num_threads=16)
    real = Real(pipeline, tmp_path)
    real.run()
    assert real.begun == [len(moments.began) for moments in real.expected.stages]


@pytest.mark.parametrize(("like", "links"), CASES)
def test_all_items_come_and_take_their_time(
    like: str, links: tuple[Link, ...], tmp_path: Path
) -> None:
    """The same items come, in the order of input where that is kept, no sooner than simulated."""
    pipeline = Pipeline(like=like, length=12, links=links, num_threads=16)
    real = Real(pipeline, tmp_path)
    taken, took = real.run()
    found = real.expected
    ordered = not any(isinstance(link, Region) for link in links) and all(
        getattr(link, "output_order", "input") == "input" and getattr(link, "in_order", True)
        for link in links
    )
    if ordered:
        assert taken == found.item.tolist()
    elif not any(isinstance(link, Aggregate) for link in links):
        assert sorted(taken) == sorted(found.item.tolist())
    assert len(taken) == len(found.item)
    assert took > 0.99 * found.elapsed


def in_a_process(item: int) -> tuple[int, int]:
    """Some items take twenty times as long; in which process they were done."""
    time.sleep(0.1 if item % 5 == 0 else 0.005)
    return item, os.getpid()


@pytest.mark.skipif(find_spec("spdl") is None, reason="needs spdl")
def test_items_are_dealt_to_the_processes_of_a_region() -> None:
    """SPDL's stages in processes: item i goes to worker i mod n, however busy that one is."""
    from spdl.pipeline import PipelineBuilder
    from spdl.pipeline.defs import MAIN_PROCESS, ProcessPoolExecutorConfig

    length, workers = 30, 3
    region = ProcessPoolExecutorConfig(max_workers=workers, mp_context="forkserver")
    builder = PipelineBuilder().add_source(range(length)).to(region)
    built = builder.pipe(in_a_process).to(MAIN_PROCESS).add_sink(3).build(num_threads=4)
    with built.auto_stop():
        taken = dict(built)
    assert sorted(taken) == [*range(length)]
    names = {pid: number for number, pid in enumerate(dict.fromkeys(map(taken.get, range(length))))}
    times = Recorded([0.1 if item % 5 == 0 else 0.005 for item in range(length)])
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers, dispatch="dealt", in_order=False),
        dataset=dlsim.MapDataset(length, fetch=[Stage("work", wait=times)]),
    )
    trace = dlsim.simulate(scenario)
    assert [names[taken[item]] for item in range(length)] == trace.worker.tolist()
