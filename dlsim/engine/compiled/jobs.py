"""The sampler's jobs as arrays: index lists, and all that chance decides about each batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.draws import (
    COLLATE,
    SAMPLER,
    STEP,
    Floats,
    Indices,
    ServiceTimes,
    Stream,
    generator,
)
from dlsim.scenario import Constant, IterableDataset, MapDataset, Recorded, Scenario

MOST_SAMPLES = 65536  # of one block of jobs


class Block(NamedTuple):
    """Some jobs in a row, under the names of `State`; times are in seconds."""

    offsets: NDArray[np.int64]
    indices: NDArray[np.int64]
    services: Floats
    collates: Floats
    steps: Floats


class Jobs:
    """The jobs of one epoch, which begins with batch `number`.

    Dataset indices are made only where somebody asks for them; `batches` is how many jobs there
    are, None for the endless ones of an iterable-style dataset.
    """

    def __init__(
        self, scenario: Scenario, seed: int, epoch: int, number: int, *, indices: bool
    ) -> None:
        dataset = scenario.dataset
        self._number = number
        self._lists = None
        self.batched = isinstance(dataset, MapDataset) and dataset.batched
        self.batches: int | None = None
        if isinstance(dataset, MapDataset):
            indices = indices or replays(dataset)
            self._lists = IndexLists(scenario, seed, epoch, indices=indices)
            self.batches = self._lists.batches
            self._service = ServiceTimes(dataset.fetch, seed, epoch)
        self.taken = 0
        collate = dataset.collate or Constant(0.0)
        self._collate = Stream(collate, "dataset.collate", seed, COLLATE, epoch)
        self._step = Stream(scenario.consumer.step, "consumer.step", seed, STEP, epoch)
        self.replayed = any(isinstance(d, Recorded) for d in (collate, scenario.consumer.step)) or (
            self.batched and replays(dataset)
        )

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
        services = np.empty(0)
        if self._lists is not None:
            offsets = self._lists.offsets(begin, end)
            samples: Indices = range(offsets[0], offsets[-1])
            if self._lists.order is not None:
                samples = indices = self._lists.order[offsets[0] : offsets[-1]]
            services = self._service.array(numbers if self.batched else samples)
            offsets = offsets - offsets[0]
        return Block(
            offsets, indices, services, self._collate.array(numbers), self._step.array(numbers)
        )

    def complain(self, number: int) -> None:
        """Raise `ScenarioError` about what was not recorded of batch `number`."""
        at = (number,)
        if self.batched:
            self._service.take(at)
        self._collate.take(at)
        self._step.take(at)


class IndexLists:
    """Torch's batch sampler for a map-style dataset, as one array and where each list begins.

    Without `indices` there is no `order`, as only the lengths of the lists matter.
    """

    def __init__(self, scenario: Scenario, seed: int, epoch: int, *, indices: bool) -> None:
        loader, length = scenario.loader, scenario.dataset.length
        self._size = loader.batch_size or 1
        self._offsets: NDArray[np.int64] | None = None
        self.order: NDArray[np.int64] | None = None
        if loader.batch_sampler is not None:
            lengths = [len(batch) for batch in loader.batch_sampler]
            self._offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
            self._total = int(self._offsets[-1])
            self.batches = len(lengths)
            flat = (index for batch in loader.batch_sampler for index in batch)
            if indices:
                self.order = np.fromiter(flat, np.int64, self._total)
            return
        self._total = length if loader.sampler is None else len(loader.sampler)
        whole, rest = divmod(self._total, self._size)
        self.batches = whole if loader.drop_last or rest == 0 else whole + 1
        if not indices:
            return
        if loader.sampler is not None:
            self.order = np.array(loader.sampler, np.int64)
        elif loader.shuffle:
            self.order = generator(seed, SAMPLER, epoch).permutation(length)
        else:
            self.order = np.arange(length)

    def offsets(self, begin: int, end: int) -> NDArray[np.int64]:
        """Where the lists from `begin` to `end` begin, and the last one ends."""
        if self._offsets is not None:
            return self._offsets[begin : end + 1]
        return np.minimum(np.arange(begin, end + 1) * self._size, self._total)


def replays(dataset: MapDataset | IterableDataset) -> bool:
    """Whether the time of a sample depends on its dataset index."""
    return any(isinstance(d, Recorded) for stage in dataset.fetch for d in (stage.wait, stage.cpu))
