"""Simulated pipelines against SPDL and torchdata.nodes, run for real with sleeps.

What does not depend on how fast the machine is: orders, what is begun while training idles, and
that sleeps take no less than they should.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim import Pipeline, Recorded, Stage
from dlsim.scenario.pipeline import (
    NODES,
    SPDL,
    Aggregate,
    Batcher,
    Link,
    ParallelMapper,
    Pipe,
    Prefetcher,
    Unbatcher,
)
from dlsim.validation.virtual.pipeline import items

pytestmark = pytest.mark.oracles


class Real:
    """A pipeline of the real package: its items are numbers, its stages sleep."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.begun: Counter[int] = Counter()

    def source(self) -> Iterator[int]:
        """The items, counted as they are read."""
        for item in range(self.pipeline.length):
            self.begun[0] += 1
            yield item

    def operation(self, number: int) -> Any:
        """What a stage does: it counts, and sleeps."""
        link = self.pipeline.links[number - 1]
        assert isinstance(link, Pipe | ParallelMapper)
        stage = link.stage

        def apply(item: Any) -> Any:
            for each in item if isinstance(item, list) else [item]:
                self.begun[number] += 1
                assert isinstance(stage.wait, Recorded)
                time.sleep(stage.wait.values[each])
            return item

        return apply

    def run(self) -> tuple[list[int], float]:
        """The first item of each that training got, and how long all took in seconds."""
        taken = []
        built = items(self.pipeline, self.source(), self.operation)
        began = time.perf_counter()
        for item in built:
            taken.append(first(item))
            if len(taken) == self.pipeline.stop_after:
                self.settle()
                break
        return taken, time.perf_counter() - began

    def settle(self) -> None:
        """Wait until nothing more is begun."""
        before = None
        while before != self.begun:
            before = self.begun.copy()
            time.sleep(0.7)


def first(item: Any) -> int:
    """The first item in a list, or the item."""
    return first(item[0]) if isinstance(item, list) else item


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
}
NEEDED = {SPDL: "spdl", NODES: "torchdata"}
CASES = [
    pytest.param(
        like, links, id=name, marks=pytest.mark.skipif(find_spec(NEEDED[like]) is None, reason=like)
    )
    for name, (like, links) in PIPELINES.items()
]


@pytest.mark.parametrize(("like", "links"), CASES)
def test_what_is_begun_while_training_idles(like: str, links: tuple[Link, ...]) -> None:
    """After two items were taken, each stage has begun exactly what the simulation says."""
    pipeline = Pipeline(like=like, length=60, links=links, stop_after=2, num_threads=16)
    real = Real(pipeline)
    real.run()
    found = dlsim.simulate_pipeline(pipeline)
    begun = [len(moments.began) for moments in found.stages]
    assert [real.begun[number] for number in range(len(begun))] == begun


@pytest.mark.parametrize(("like", "links"), CASES)
def test_all_items_come_and_take_their_time(like: str, links: tuple[Link, ...]) -> None:
    """The same items come, in the order of input where that is kept, no sooner than simulated."""
    pipeline = Pipeline(like=like, length=12, links=links, num_threads=16)
    taken, took = Real(pipeline).run()
    found = dlsim.simulate_pipeline(pipeline)
    ordered = all(getattr(link, "output_order", "input") == "input" for link in links) and all(
        getattr(link, "in_order", True) for link in links
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
