"""What torch's loader is made of here: user code, data sets and samplers of virtual time alone.

Each takes as long as the scenario says, by the same random numbers as the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DistributedSampler, get_worker_info
from torch.utils.data import IterableDataset as TorchIterable

from dlsim.engine.facts import MAIN, Raised, failure, index_order, shard_of
from dlsim.engine.processes.sampler import index_lists
from dlsim.engine.samples import ServiceTimes
from dlsim.scenario import IterableDataset, Scenario
from dlsim.validation.virtual.clock import Clock
from dlsim.validation.virtual.record import Batch, Watcher


class UserError(Exception):
    """What simulated user code raises; torch rebuilds it in the main process from its text."""


def _raise(raised: Raised | None, number: int) -> None:
    if raised is not None:
        raise UserError(f"<{raised.kind}|{number}|{raised.message}>")


class VirtualWork:
    """The user's code, made of nothing but virtual time: samples, collate, `worker_init_fn`."""

    def __init__(self, scenario: Scenario, seed: int, clock: Clock, watcher: Watcher) -> None:
        self.scenario, self.seed = scenario, seed
        self.clock, self.watcher = clock, watcher
        self.epoch = 0

    def fetch(self, indices: Sequence[int], seconds: float) -> None:
        """One call of the dataset, for one sample or a whole batch of them."""
        number = self.watcher.fetching(indices, seconds)
        self.clock.sleep(seconds)
        for index in indices:
            _raise(failure(self.scenario, "fetch", index), number)

    def collate(self, data: Any) -> Batch:
        """`collate_fn`: the batch is the number it goes by."""
        number = self.watcher.collating()
        self.clock.sleep(self.watcher.job(number).collate)
        _raise(failure(self.scenario, "collate", number), number)
        batch = Batch(number, len(data) if isinstance(data, list) else 1)
        self.watcher.collated(batch)
        return batch

    def init(self, worker: int) -> None:
        """`worker_init_fn`."""
        _raise(failure(self.scenario, "worker_init_fn", worker), worker)


class VirtualMap:
    """A map-style dataset whose samples are their indices."""

    def __init__(self, length: int, work: VirtualWork) -> None:
        self.length, self.work = length, work

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.work.fetch([index], self.work.watcher.service_time())
        return index


class VirtualBatchedMap(VirtualMap):
    """The same with `__getitems__`."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.work.fetch(indices, self.work.watcher.service_time())
        return indices


class Saved:
    """What a dataset has that saves its state, which takes as long as the scenario says."""

    work: VirtualWork

    def state_dict(self) -> dict[str, Any]:
        """A state with nothing in it; in the main process it is of no time that is watched."""
        if not self.work.clock.in_main:
            self.work.watcher.saving()
            self.work.clock.sleep(self.work.scenario.costs.snapshot)
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing in it."""


class SavedMap(Saved, VirtualMap):
    """A map-style dataset with a state."""


class SavedBatchedMap(Saved, VirtualBatchedMap):
    """The same with `__getitems__`."""


class VirtualIterable(TorchIterable[int]):
    """An iterable-style dataset, sharded as the scenario says."""

    def __init__(self, dataset: IterableDataset, work: VirtualWork) -> None:
        self.dataset, self.work = dataset, work

    def __iter__(self) -> Iterator[int]:
        # The epoch is looked at now; a generator's body would look when it is first used.
        return self._samples(self.work.epoch)

    def _samples(self, epoch: int) -> Iterator[int]:
        info = get_worker_info()
        worker = MAIN if info is None else info.id
        work = self.work
        service = ServiceTimes(self.dataset.fetch, work.seed, epoch, worker + 1)
        for index in shard_of(work.scenario, worker):
            work.fetch([index], float(service.take([index])[0]))
            yield index


class SavedIterable(Saved, VirtualIterable):
    """An iterable-style dataset with a state."""


class Endless:
    """A sampler that begins anew by itself, with the next epoch."""

    def __init__(self, sampler: Any, work: VirtualWork) -> None:
        self.sampler, self.work = sampler, work

    def __iter__(self) -> Iterator[Any]:
        for epoch in count():
            self.work.epoch = epoch
            self.work.watcher.draw(epoch)
            yield from self.sampler


class Distributed:
    """Torch's DistributedSampler over the scenario's order: its numbers are places in it.

    What torch shuffles it shuffles by random numbers of its own, in place of which come ours.
    """

    def __init__(self, scenario: Scenario, work: VirtualWork) -> None:
        self.scenario, self.work = scenario, work
        job = scenario.job
        self.order = Order(scenario, work)
        self.length = len(index_order(scenario, work.seed, 0))
        self.sampler: DistributedSampler[int] = DistributedSampler(
            range(self.length),  # type: ignore[arg-type]
            job.world,
            job.rank,
            shuffle=scenario.loader.shuffle,
            drop_last=job.drop_last,
        )

    def __iter__(self) -> Iterator[int]:
        order = list(self.order)
        self.sampler.set_epoch(self.work.epoch)
        if self.scenario.loader.shuffle:
            with mock.patch.object(torch, "randperm", return_value=torch.tensor(order)):
                return iter(list(self.sampler))
        return (order[place] for place in list(self.sampler))


class Dealt:
    """A batch sampler with the batches that are dealt to this rank."""

    def __init__(self, scenario: Scenario, work: VirtualWork) -> None:
        self.scenario, self.work = scenario, work

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, index_lists(self.scenario, self.work.seed, self.work.epoch))


class Order:
    """A sampler with the scenario's order: recorded, or shuffled by its seed in each epoch."""

    def __init__(self, scenario: Scenario, work: VirtualWork) -> None:
        self.scenario, self.work = scenario, work

    def __len__(self) -> int:
        return len(index_order(self.scenario, self.work.seed, 0))

    def __iter__(self) -> Iterator[int]:
        return map(int, index_order(self.scenario, self.work.seed, self.work.epoch))
