"""SPDL's, torchdata.nodes' and grain's own pipelines, as released, under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from itertools import count
from typing import Any, TypeAlias

from dlsim.engine.draws import WAIT
from dlsim.engine.pipelines.run import SOURCE, Row, Run
from dlsim.scenario import ScenarioError, Stage
from dlsim.scenario.errors import lacking
from dlsim.scenario.pipeline import (
    GRAIN,
    NODES,
    SPDL,
    Aggregate,
    Batcher,
    Mapper,
    ParallelMapper,
    Pipe,
    Pipeline,
    Prefetcher,
    Read,
    Region,
    Workers,
)
from dlsim.trace.pipeline import PipelineTrace
from dlsim.validation.virtual.clock import Clock
from dlsim.validation.virtual.threads import virtual_threads

Operation: TypeAlias = Callable[[int], Callable[[Any], Any]]
Items: TypeAlias = Generator[Any, None, None]
PATIENCE = 60.0  # seconds that pass after training has left, for what is under way
PACKAGES = {SPDL: "spdl", NODES: "torchdata", GRAIN: "grain"}


def run_virtual_pipeline(pipeline: Pipeline, seed: int = 0) -> PipelineTrace:
    """What the package's own code makes of `pipeline` under `seed`: a trace in virtual seconds.

    Its threads and event loop are its own, and run one at a time. Raises `ScenarioError` where the
    package is not installed, for stages that do anything but wait, and for those in processes.
    """
    package = PACKAGES[pipeline.like]
    if find_spec(package) is None:
        raise ScenarioError(lacking(f"like: {pipeline.like}", package, "oracles"))
    for at, link in enumerate(pipeline.links):
        if isinstance(link, Region | Workers):
            raise ScenarioError(f"links.{at}: expected one without processes, got {link}")
    real = Real(pipeline, seed)
    with virtual_threads(real.clock):
        return real.run.trace(real.train())


def items(pipeline: Pipeline, source: Iterator[Any], operation: Operation) -> Items:
    """What the package that `pipeline` is of makes of `source`, if stage n does `operation(n)`.

    grain reads a source by index: there, `operation(0)` is done with an index, for an item.
    """
    made_by = {SPDL: spdl, NODES: nodes, GRAIN: grain}
    return made_by[pipeline.like](pipeline, source, operation)


class Real:
    """A pipeline of the real package whose items are numbers and whose stages sleep."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline, self.run, self.clock = pipeline, Run(pipeline, seed), Clock()
        for stage in filter(None, self.run.stages):
            if stage.cpu is not None or stage.read_bytes is not None:
                raise ScenarioError(f"links: expected stages that only wait, got {stage.name}")
        self._made: list[dict[str, int]] = [{} for _ in pipeline.links]  # by SPDL's Aggregates

    def source(self) -> Iterator[int]:
        """The items."""
        for item in range(self.pipeline.length):
            self.perform(SOURCE, item)
            yield item

    def operation(self, number: int) -> Callable[[Any], Any]:
        """What stage `number` does."""

        def apply(item: Any) -> Any:
            for each in self.items(item):
                self.perform(number, each)
            return item

        return apply

    def perform(self, number: int, item: int) -> None:
        """What a stage does for an item: it takes the time that chance gives it."""
        run, clock, stage = self.run, self.clock, self.run.stages[number]
        run.begun[number].append((clock.now, item))
        if isinstance(stage, Stage) and stage.wait is not None:
            clock.sleep(run.of(stage.wait, WAIT, number, item))
        run.ended[number].append((clock.now, item))

    def items(self, item: Any) -> list[int]:
        """The numbers of the items in a list; SPDL's aggregates are items of their own."""
        if isinstance(item, int):
            return [item]
        if self.pipeline.like == SPDL:
            made = self._made[_depth(item)]
            return [made.setdefault(repr(item), len(made))]
        return [each for some in item for each in self.items(some)]

    def train(self) -> list[Row]:
        """What training gets."""
        clock, rows = self.clock, list[Row]()
        built = items(self.pipeline, self.source(), self.operation)
        last = self.pipeline.stop_after
        while len(rows) != last:
            requested = clock.now
            item = next(built, None)
            if item is None:
                break
            returned = clock.now
            clock.sleep(self.run.step.of(len(rows)))
            rows.append((self.items(item)[0], requested, returned, clock.now))
        clock.sleep(PATIENCE)
        built.close()
        clock.sleep(PATIENCE)  # in which threads end that were told to
        return rows


def spdl(pipeline: Pipeline, source: Iterator[Any], operation: Operation) -> Items:
    """The items of SPDL's own pipeline over a `source`, whose stage n does `operation(n)`."""
    from concurrent.futures import ThreadPoolExecutor

    from spdl.pipeline import PipelineBuilder
    from spdl.pipeline.defs import MAIN_PROCESS, ProcessPoolExecutorConfig

    builder, pools = PipelineBuilder().add_source(source), list[ThreadPoolExecutor]()
    numbers = count(1)

    def add(link: Pipe | Aggregate) -> None:
        number = next(numbers)
        if isinstance(link, Aggregate):
            builder.aggregate(link.size, drop_last=link.drop_last)
            return
        pool = None if link.threads is None else ThreadPoolExecutor(link.threads)
        pools.extend([] if pool is None else [pool])
        builder.pipe(
            operation(number),
            concurrency=link.concurrency,
            output_order=link.output_order,
            executor=pool,
        )

    for link in pipeline.links:
        if isinstance(link, Region):
            processes = ProcessPoolExecutorConfig(max_workers=link.workers, mp_context="forkserver")
            builder.to(processes)
            for pipe in link.links:
                add(pipe)
            builder.to(MAIN_PROCESS)
        else:
            assert isinstance(link, Pipe | Aggregate)
            add(link)
    builder.add_sink(pipeline.buffer_size)
    built = builder.build(num_threads=pipeline.num_threads)
    try:
        with built.auto_stop():
            yield from built
    finally:
        for pool in pools:
            pool.shutdown()


def nodes(pipeline: Pipeline, source: Iterator[Any], operation: Operation) -> Items:
    """The same of torchdata.nodes' own."""
    from torchdata import nodes

    node: Any = nodes.IterableWrapper(source)
    for number, link in enumerate(pipeline.links, 1):
        if isinstance(link, ParallelMapper):
            node = nodes.ParallelMapper(
                node,
                operation(number),
                num_workers=link.num_workers,
                in_order=link.in_order,
                max_concurrent=link.max_concurrent,
                prebatch=link.prebatch,
            )
        elif isinstance(link, Prefetcher):
            node = nodes.Prefetcher(node, link.prefetch_factor)
        elif isinstance(link, Batcher):
            node = nodes.Batcher(node, link.batch_size, drop_last=link.drop_last)
        else:
            node = nodes.Unbatcher(node)
    yield from nodes.Loader(node)


def grain(pipeline: Pipeline, source: Iterator[Any], operation: Operation) -> Items:
    """The same of grain's own."""
    from grain import MapDataset, ReadOptions
    from grain.multiprocessing import MultiprocessingOptions

    made: Any = MapDataset.range(pipeline.length)
    made = made.map(operation(SOURCE))
    for number, link in enumerate(pipeline.links, 1):
        if isinstance(link, Batcher):
            made = made.batch(link.batch_size, drop_remainder=link.drop_last, batch_fn=list)
        elif isinstance(link, Workers):
            made = made.mp_prefetch(
                MultiprocessingOptions(link.num_workers, per_worker_buffer_size=link.buffer_size)
            )
        else:
            assert isinstance(link, Read | Mapper)
            made = made.map(operation(number))
        if isinstance(link, Read):
            reading = ReadOptions(link.num_threads, link.prefetch_buffer_size)
            made = made.to_iter_dataset(reading)
    made = iter(made)
    try:
        yield from made
    finally:
        made.close()


def _depth(item: Any) -> int:
    """In how many lists inside one another the first item lies, beside the outermost."""
    return 1 + _depth(item[0]) if isinstance(item[0], list) else 0
