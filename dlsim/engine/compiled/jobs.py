"""The sampler's jobs as arrays: index lists, and all that chance decides about each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.ahead import ahead
from dlsim.engine.draws import (
    COLLATE,
    JITTER,
    STEP,
    Floats,
    Indices,
    Sample,
    Stream,
    by_numpy,
)
from dlsim.engine.facts import batch_ends, batch_indices, storage_of
from dlsim.engine.samples import SampleDraws
from dlsim.scenario import Constant, Distribution, IterableDataset, MapDataset, Recorded, Scenario

LARGEST_BLOCK, MOST_SAMPLES = 16384, 65536  # jobs in a block, and their samples
FIRST_BLOCK = 64  # jobs or samples drawn at first
LEAST_BLOCK = 256  # where many ranks have a block each


def largest_block(samples: int, ranks: int = 1) -> int:
    """How many jobs, of so many samples at most, are drawn at a time for each of the `ranks`."""
    most = max(1, min(LARGEST_BLOCK, MOST_SAMPLES // max(samples, 1)))
    return max(most // ranks, min(most, LEAST_BLOCK))


class Block(NamedTuple):
    """Some jobs in a row, under the names of `State`; times are in seconds, sizes in bytes.

    Where all samples ask for the same, `services` has one row for all of them. Where something
    was not recorded, `steps` has NaN.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.int64]
    services: Floats
    sizes: Floats
    collates: Floats
    steps: Floats
    jitters: Floats


class Jobs:
    """The jobs of one epoch, which begins with batch `number`.

    Dataset indices are made only where somebody asks for them; `batches` is how many jobs there
    are, or are wanted; None for the endless ones of an iterable-style dataset. `sample`: see
    `draws.Stream`.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        epoch: int,
        number: int,
        *,
        indices: bool,
        sample: Sample = by_numpy,
    ) -> None:
        dataset, step = scenario.dataset, scenario.consumer.step
        collate = dataset.collate or Constant(0.0)
        self._samples = SampleDraws(scenario, seed, epoch)
        self._collate = Stream(collate, "dataset.collate", (COLLATE,), seed, epoch)
        self._step = Stream(step, "consumer.step", (STEP,), seed, epoch)
        self._jitter = Stream(scenario.jitter, "costs.jitter", (JITTER,), seed, epoch)
        for stream in (*self._samples.streams, self._collate, self._step, self._jitter):
            stream.sample = sample
        # Of an iterable-style dataset it is not known yet how many samples come.
        sized = isinstance(dataset, MapDataset)
        self._step_per_sample = scenario.consumer.step_per_sample if sized else 0.0
        self._alike = alike(scenario)
        each = (dataset.sample_bytes, collate, step, scenario.jitter)
        self._constant = self._alike and all(isinstance(one, Constant) for one in each)
        by_index = replays(dataset)
        of_batches = (collate, step, scenario.jitter)
        self._replayed = by_index or any(isinstance(one, Recorded) for one in of_batches)
        self._number, self.taken = number, 0
        self._lists: IndexLists | None = None
        self.batches: int | None = None
        self.batched = False
        if isinstance(dataset, MapDataset):
            indices = indices or by_index
            self._lists = IndexLists(scenario, seed, epoch, indices=indices)
            self.batches, self.batched = self._lists.batches, dataset.batched

    def begin(self, seed: int, epoch: int, number: int) -> None:
        """Begin with the jobs of another epoch, or under another seed."""
        self._number, self.taken = number, 0
        for each in (self._samples, self._collate, self._step, self._jitter, self._lists):
            if each is not None:
                each.begin(seed, epoch)

    def blocks(
        self, size: int, largest: int, *, alone: bool = True
    ) -> Iterator[tuple[Block, bool]]:
        """All jobs in blocks, and whether more come after each.

        Blocks grow from `size` jobs to the `largest`; from then on they are drawn ahead, if there
        is anything to draw, for a rank that is `alone`: each would have a thread of its own.
        """
        while self.more and size < largest:
            yield self.take(size), self.more
            size *= 2
        if self.more:
            rest = self._blocks_of(largest)
            yield from ahead(rest) if alone and not self._constant else rest

    def _blocks_of(self, size: int) -> Iterator[tuple[Block, bool]]:
        while self.more:
            yield self.take(size), self.more

    @property
    def more(self) -> bool:
        """Whether there are any left."""
        return self.batches is None or self.taken < self.batches

    def take(self, count: int) -> Block:
        """The next `count` jobs, or as many as there still are."""
        if self.batches is not None:
            count = min(count, self.batches - self.taken)
        begin, end = self.taken, self.taken + count
        self.taken = end
        numbers = range(self._number + begin, self._number + end)
        offsets, indices = np.zeros(1, np.int64), np.empty(0, np.int64)
        services, sizes = np.empty((0, self._samples.width)), np.empty(0)
        if self._lists is not None:
            offsets = self._lists.offsets(begin, end)
            samples: Indices = range(offsets[0], offsets[-1])
            if self._lists.order is not None:
                samples = indices = self._lists.order[offsets[0] : offsets[-1]]
            calls = numbers if self.batched else samples
            services = self._samples.amounts(calls[:1] if self._alike else calls)
            sizes = self._samples.sizes(samples)
            offsets = offsets - offsets[0]
        collates, steps, jitters = (
            stream.array(numbers) for stream in (self._collate, self._step, self._jitter)
        )
        if self._step_per_sample:
            steps = steps + self._step_per_sample * np.diff(offsets)
        if self._replayed:
            steps = self._marked(steps, collates + jitters, services, sizes, offsets)
        return Block(offsets, indices, services, sizes, collates, steps, jitters)

    def _marked(
        self,
        steps: Floats,
        others: Floats,
        services: Floats,
        sizes: Floats,
        offsets: NDArray[np.int64],
    ) -> Floats:
        """The steps, with NaN where anything of the batch was not recorded."""
        per_call = services.sum(axis=1)
        marked = steps + 0.0 * others
        if self.batched:
            marked = marked + 0.0 * per_call
        for per_sample in (sizes, () if self.batched else per_call):
            short = np.flatnonzero(np.isnan(per_sample))
            marked[np.searchsorted(offsets, short, side="right") - 1] = np.nan
        return marked

    def check(self, drawn: Block, begin: int) -> None:
        """Raise `ScenarioError` if one of the batches `drawn`, from `begin` on, has no record."""
        short = np.isnan(drawn.steps) if self._replayed else np.empty(0)
        if short.any():
            self.complain(begin + int(np.argmax(short)))

    def complain(self, number: int) -> None:
        """Raise `ScenarioError` about what was not recorded of batch `number`."""
        at = (number,)
        if self._lists is not None:
            begin, end = self._lists.offsets(number - self._number, number - self._number + 1)
            order = self._lists.order
            indices = range(begin, end) if order is None else order[begin:end].tolist()
            self._samples.work(indices, at if self.batched else None)
        for stream in (self._collate, self._step, self._jitter):
            stream.take(at)


class IndexLists:
    """Torch's batch sampler for a map-style dataset, as one array and where each list begins.

    Without `indices` there is no `order`, as only the lengths of the lists matter.
    """

    def __init__(self, scenario: Scenario, seed: int, epoch: int, *, indices: bool) -> None:
        loader, length = scenario.loader, scenario.dataset.length
        self._scenario, self._indices = scenario, indices
        self._size = loader.batch_size or 1
        self._offsets: NDArray[np.int64] | None = None
        self.begin(seed, epoch)
        if loader.batch_sampler is not None or scenario.job.rank is not None:
            self._offsets = np.append(0, batch_ends(scenario))
            self.batches = len(self._offsets) - 1
            return
        self._total = length if loader.sampler is None else len(loader.sampler)
        whole, rest = divmod(self._total, self._size)
        self.batches = whole if loader.drop_last or rest == 0 else whole + 1

    def begin(self, seed: int, epoch: int) -> None:
        """Make the lists of this epoch, under this seed."""
        self._place = seed, epoch
        self.__dict__.pop("order", None)

    @cached_property
    def order(self) -> NDArray[np.int64] | None:
        """The dataset indices in all lists, one after another; made when they are wanted."""
        if not self._indices:
            return None
        return np.asarray(batch_indices(self._scenario, *self._place), np.int64)

    def offsets(self, begin: int, end: int) -> NDArray[np.int64]:
        """Where the lists from `begin` to `end` begin, and the last one ends."""
        if self._offsets is not None:
            return self._offsets[begin : end + 1]
        made = np.arange(begin * self._size, end * self._size + 1, self._size)
        made[-1] = min(made[-1], self._total)
        return made


def alike(scenario: Scenario) -> bool:
    """Whether all samples ask for the same."""
    latency = storage_of(scenario).latency
    return all(isinstance(each, Constant) for each in (*asked(scenario.dataset), latency) if each)


def replays(dataset: MapDataset | IterableDataset) -> bool:
    """Whether what a sample asks for depends on its dataset index."""
    return isinstance(dataset.sample_bytes, Recorded) or any(
        isinstance(each, Recorded) for each in asked(dataset)
    )


def asked(dataset: MapDataset | IterableDataset) -> list[Distribution | None]:
    """What a sample may ask for, stage by stage."""
    return [each for stage in dataset.fetch for each in (stage.wait, stage.cpu, stage.read_bytes)]


def without_end(
    make: Callable[[int, int], Jobs], batches: int, largest: int, *, alone: bool
) -> Iterator[tuple[Block, bool]]:
    """The jobs of an endless sampler in blocks, `batches` in each pass, made when it begins."""
    for number in count():
        blocks = make(number, number * batches).blocks(FIRST_BLOCK, largest, alone=alone)
        yield from ((block, True) for block, _ in blocks)


def firsts(shards: Sequence[Sequence[int]]) -> list[int]:
    """At which place each shard begins: a dataset index, where each is a range of them."""
    if all(isinstance(shard, range) for shard in shards):
        return [shard.start for shard in shards if isinstance(shard, range)]
    return [0, *accumulate(map(len, shards))][:-1]


def places_of(shards: Sequence[Sequence[int]]) -> Any:
    """The dataset index at each place; none where places are dataset indices."""
    if all(isinstance(shard, range) for shard in shards):
        return np.empty(0, np.int64)
    return np.fromiter(chain.from_iterable(shards), np.int64)
