"""A pipeline of stages: what is asked of loaders that are not a DataLoader with workers.

SPDL's, torchdata.nodes' and grain's pipelines are chains of stages, each with a concurrency of its
own and room for so many items behind it. A `Pipeline` is such a chain, and the training step behind
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from msgspec import Struct

from dlsim.scenario.checks import (
    check_conflict,
    check_distribution,
    check_flags,
    check_integer,
    check_struct,
    check_text,
    check_tuples,
)
from dlsim.scenario.dataset import ZERO, Stage
from dlsim.scenario.distributions import Duration
from dlsim.scenario.errors import ScenarioError, require
from dlsim.scenario.files import read_as
from dlsim.scenario.machine import Machine
from dlsim.scenario.tree import decoded

Like: TypeAlias = Literal["spdl-0.8", "torchdata.nodes-0.11", "grain-0.2"]
Order: TypeAlias = Literal["completion", "input"]
SPDL, NODES, GRAIN = get_args(Like)


class Pipe(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pipe"):
    """SPDL's `pipe`: so many items at a time, in the threads of the pipeline or in its own.

    Args:
        stage: What is done for each item.
        concurrency: Tasks under way, those that wait to hand on their result among them.
        output_order: Whether results are handed on as they are done, or as items came.
        threads: The threads of a pool of its own; none: those that all stages share.
    """

    stage: Stage
    concurrency: int = 1
    output_order: Order = "completion"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_integer(self, "concurrency", 1)
        orders = get_args(Order)
        require(self.output_order in orders, "output_order", " or ".join(orders), self.output_order)
        if self.threads is not None:
            check_integer(self, "threads", 1)


class Aggregate(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="aggregate"):
    """SPDL's `aggregate`: `size` items become one.

    Args:
        size: How many.
        drop_last: Whether what is left over at the end is left out.
    """

    size: int
    drop_last: bool = False

    def __post_init__(self) -> None:
        check_integer(self, "size", 1)
        check_flags(self, "drop_last")


class Region(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="region"):
    """SPDL's stages in processes: each process has all of them, and items are dealt out in turn.

    Args:
        links: The stages, `pipe`s in order of completion. Each process has as many threads as they
            have tasks.
        workers: How many processes.
    """

    links: tuple[Pipe, ...]
    workers: int

    def __post_init__(self) -> None:
        check_tuples(self, "links")
        check_integer(self, "workers", 1)
        require(len(self.links) > 0, "links", "at least one pipe", self.links)
        for at, link in enumerate(self.links):
            fit = isinstance(link, Pipe) and link.output_order == "completion"
            require(fit and link.threads is None, f"links.{at}", _IN_REGIONS, link)


_IN_REGIONS = "a pipe in order of completion, without threads of its own"


class ParallelMapper(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="map"):
    """torchdata.nodes' `ParallelMapper`: a thread reads as many items as there are slots.

    Args:
        stage: What one of the workers does for each item.
        num_workers: Threads that do it.
        in_order: Whether items are given out as they were read.
        max_concurrent: Slots: items read and not given out; none: 2 * num_workers. Not more than
            num_workers, which the package refuses.
        prebatch: Items to a slot; none: one, and not in a list.
    """

    stage: Stage
    num_workers: int
    in_order: bool = True
    max_concurrent: int | None = None
    prebatch: int | None = None

    def __post_init__(self) -> None:
        check_integer(self, "num_workers", 1)
        check_flags(self, "in_order")
        if self.max_concurrent is not None:
            check_integer(self, "max_concurrent", 1)
            require(
                self.max_concurrent <= self.num_workers,
                "max_concurrent",
                f"at most num_workers ({self.num_workers}), as torchdata.nodes has it",
                self.max_concurrent,
            )
        if self.prebatch is not None:
            check_integer(self, "prebatch", 1)

    @property
    def slots(self) -> int:
        """Items, or lists of `prebatch` of them, that are read and not given out."""
        return 2 * self.num_workers if self.max_concurrent is None else self.max_concurrent


class Prefetcher(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="prefetch"):
    """torchdata.nodes' `Prefetcher`: a thread that reads ahead.

    Args:
        prefetch_factor: How many items.
    """

    prefetch_factor: int

    def __post_init__(self) -> None:
        check_integer(self, "prefetch_factor", 1)


class Batcher(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="batch"):
    """torchdata.nodes' `Batcher`: `batch_size` items become one, where the next one is asked for.

    Args:
        batch_size: How many.
        drop_last: Whether what is left over at the end is left out, as it is there by default.
    """

    batch_size: int
    drop_last: bool = True

    def __post_init__(self) -> None:
        check_integer(self, "batch_size", 1)
        check_flags(self, "drop_last")


class Unbatcher(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unbatch"):
    """torchdata.nodes' `Unbatcher`: the items of a batch, one by one."""


class Read(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="read"):
    """grain's `to_iter_dataset`: threads read ahead, and hand on in order.

    So many reads are begun with the first item that is asked for, and one more with each other.

    Args:
        stage: What is done there for each item, besides reading the source.
        num_threads: How many threads.
        prefetch_buffer_size: How many reads are begun ahead.
    """

    stage: Stage
    num_threads: int = 16
    prefetch_buffer_size: int = 500

    def __post_init__(self) -> None:
        check_integer(self, "num_threads", 1)
        check_integer(self, "prefetch_buffer_size", 1)


class Mapper(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="apply"):
    """grain's `map` of an IterDataset: one item after another, where the next one is asked for.

    Args:
        stage: What is done for each item.
    """

    stage: Stage


class Workers(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="workers"):
    """grain's `mp_prefetch`: each of so many processes has all links before, over its slice.

    Process i reads i, i + num_workers, and so on. One is taken from each in strict turns.

    Args:
        num_workers: How many processes.
        buffer_size: Room for what each has ready, in it and once more in the main process.
    """

    num_workers: int
    buffer_size: int = 1

    def __post_init__(self) -> None:
        check_integer(self, "num_workers", 1)
        check_integer(self, "buffer_size", 1)


Link: TypeAlias = (
    Pipe
    | Aggregate
    | Region
    | ParallelMapper
    | Prefetcher
    | Batcher
    | Unbatcher
    | Read
    | Mapper
    | Workers
)
LINKS: dict[str, tuple[type, ...]] = {
    SPDL: (Pipe, Aggregate, Region),
    NODES: (ParallelMapper, Prefetcher, Batcher, Unbatcher),
    GRAIN: (Batcher, Read, Mapper, Workers),
}


class Pipeline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source, stages, and the training loop behind them, of one epoch.

    Raises `ScenarioError` where the parts do not fit each other.

    Args:
        like: Whose pipeline it is.
        length: Items of the source.
        source: What reading an item takes; none: nothing.
        links: The stages, in order.
        buffer_size: Items that wait at the sink of SPDL's pipeline.
        num_threads: Threads that the stages of SPDL's pipeline share.
        step: How long training on an item takes.
        stop_after: Leave after so many items; none: at the end.
        machine: The machine it runs on. The share of a stage's `cpu` for which Python's lock is
            held (`Stage.lock`) holds up all threads that want it.
        name: What it is called.
    """

    like: Like
    length: int
    links: tuple[Link, ...]
    source: Stage | None = None
    buffer_size: int = 3
    num_threads: int = 4
    step: Duration = ZERO
    stop_after: int | None = None
    machine: Machine = Machine()
    name: str = ""

    def __post_init__(self) -> None:
        known = get_args(Like)
        require(self.like in known, "like", " or ".join(known), self.like)
        check_tuples(self, "links")
        check_text(self, "name", empty=True)
        check_integer(self, "length", 0)
        check_integer(self, "buffer_size", 1)
        check_integer(self, "num_threads", 1)
        if self.stop_after is not None:
            check_integer(self, "stop_after", 1)
        check_distribution(self, "step")
        check_struct(self, "machine", Machine)
        kinds = LINKS[self.like]
        words = ", ".join(kind.__name__ for kind in kinds)
        for at, link in enumerate(self.links):
            require(isinstance(link, kinds), f"links.{at}", f"one of {words}", link)
        lists = False
        for at, link in enumerate(self.links):
            check_conflict(
                isinstance(link, Unbatcher) and not lists,
                f"links.{at}",
                "an Unbatcher needs batches before it",
            )
            if isinstance(link, (Batcher, Unbatcher)):
                check_conflict(
                    lists and isinstance(link, Batcher),
                    f"links.{at}",
                    "a Batcher of batches is not simulated",
                )
                lists = isinstance(link, Batcher)
        if self.like == GRAIN:
            self._check_grain()

    def _check_grain(self) -> None:
        kinds = [type(link) for link in self.links]
        read = kinds.index(Read) if Read in kinds else len(kinds)
        alone = kinds.count(Read) == 1 and all(kind is Batcher for kind in kinds[:read])
        names = [str(kind.__struct_config__.tag) for kind in kinds]
        require(alone, "links", "one read, with nothing but a batch before it", names)
        require(Workers not in kinds[:-1], "links", "workers behind all others", names)

    @property
    def stages(self) -> tuple[Stage | None, ...]:
        """What the source does for each item, and then each link; a region has several of them."""
        regions = (link.links if isinstance(link, Region) else (link,) for link in self.links)
        links = chain.from_iterable(regions)
        return (self.source, *(getattr(link, "stage", None) for link in links))


def load_pipeline(path: str | Path) -> Pipeline:
    """The pipeline in the TOML file at `path`.

    Raises `ScenarioError` naming file, key, what was expected and what was given.
    """
    return read_as(_pipeline, path)


def _pipeline(tree: Mapping[str, Any]) -> Pipeline:
    if "loader" in tree:
        raise ScenarioError("expected a pipeline, got a scenario, which dlsim run takes")
    return decoded(tree, Pipeline)
