"""The sampler: batches of indices, in order, with all that chance decides about each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from dlsim.engine.draws import COLLATE, JITTER, STEP, Stream
from dlsim.engine.facts import batch_ends, batch_indices
from dlsim.engine.samples import SampleDraws, Work
from dlsim.scenario import Constant, MapDataset, Scenario


def index_lists(
    scenario: Scenario, seed: int, epoch: int, *, indices: bool = True
) -> Iterator[Sequence[int]]:
    """The index lists of one epoch, as torch's batch sampler makes them.

    For an iterable-style dataset a list says only how many samples to take (torch sends as many
    Nones), and the lists never end. Without a batch size every list has one index. Without
    `indices` they are places in the order, as only how many there are matters.
    """
    if not isinstance(scenario.dataset, MapDataset):
        yield from repeat(range(scenario.loader.batch_size or 1))
        return
    ends, start = batch_ends(scenario), 0
    places = range(ends[-1] if len(ends) else 0)
    order = batch_indices(scenario, seed, epoch) if indices else places
    for end in ends:
        some = order[start:end]
        yield some.tolist() if isinstance(some, np.ndarray) else some
        start = end


@dataclass(slots=True)
class Job:
    """One batch on its way: what to fetch, and what chance has decided about it.

    `work` is that of a map-style dataset; samples of an iterable-style one belong to the worker
    that takes them. `collate` and `step` are seconds, `jitter` is a factor of receiving it.
    """

    number: int
    indices: Sequence[int]
    work: Work | None
    collate: float
    step: float
    jitter: float
    snapshot: bool = False  # the worker saves its state afterwards


class Jobs:
    """The jobs of one epoch. `next_indices()` draws an index list, `job()` makes it a job.

    An endless sampler has those of all later epochs, too.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        epoch: int,
        *,
        indices: bool = True,
        at_once: bool = False,
        ideal: bool | None = None,
    ) -> None:
        self.scenario, self.seed, self._indices, self._at_once = scenario, seed, indices, at_once
        self._ideal = ideal
        self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        scenario, seed, self.epoch = self.scenario, self.seed, epoch
        dataset = scenario.dataset
        self._lists = index_lists(scenario, seed, epoch, indices=self._indices)
        self._samples = (
            SampleDraws(scenario, seed, epoch, at_once=self._at_once, ideal=self._ideal)
            if isinstance(dataset, MapDataset)
            else None
        )
        self._batched = isinstance(dataset, MapDataset) and dataset.batched
        collate = dataset.collate or Constant(0.0)
        self._collate = Stream(collate, "dataset.collate", (COLLATE,), seed, epoch)
        self._step = Stream(scenario.consumer.step, "consumer.step", (STEP,), seed, epoch)
        self._jitter = Stream(scenario.jitter, "costs.jitter", (JITTER,), seed, epoch)

    def next_indices(self) -> Sequence[int] | None:
        """The next index list, or None when the sampler has no more."""
        indices = next(self._lists, None)
        if indices is None and self.scenario.loader.endless:
            self._begin(self.epoch + 1)
            indices = next(self._lists)
        return indices

    def job(self, number: int, indices: Sequence[int]) -> Job:
        """The job of batch `number`, which fetches `indices`."""
        at = (number,)
        work = None
        if self._samples is not None:
            work = self._samples.work(indices, at if self._batched else None)
        collate, step, jitter = (
            stream.take(at)[0] for stream in (self._collate, self._step, self._jitter)
        )
        return Job(number, indices, work, collate, step, jitter)
