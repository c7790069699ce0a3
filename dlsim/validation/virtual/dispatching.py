"""accelerate's DataLoaderDispatcher on every rank of a job: its own code, unmodified.

What is virtual are its collectives: who broadcasts, or is told, waits until all have come.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DataLoader

from dlsim.engine.draws import BROADCAST, STEP, Stream
from dlsim.engine.facts import MAIN
from dlsim.engine.processes.sampler import Job
from dlsim.scenario import Scenario, ScenarioError
from dlsim.scenario.errors import lacking
from dlsim.validation.virtual.clock import Clock, Thread
from dlsim.validation.virtual.data import VirtualWork
from dlsim.validation.virtual.new_loader import Inner, new_loader
from dlsim.validation.virtual.record import Batch, Watcher


class VirtualBroadcasts:
    """What rank 0 says, all others hear; of batches some time after the last rank has come."""

    def __init__(self, clock: Clock, scenario: Scenario, seed: int) -> None:
        self.clock, self.world = clock, scenario.job.world
        time = scenario.job.broadcast_time
        self.times = Stream(time, "job.broadcast_time", (BROADCAST,), seed)
        self.ranks: dict[Thread, Dispatched] = {}
        self.here: list[Dispatched] = []
        self.sent = 0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let accelerate's loops use these."""
        if find_spec("accelerate") is None:
            raise ScenarioError(lacking("job.deal: dispatched", "accelerate", "oracles"))
        from accelerate import data_loader

        with ExitStack() as stack:
            for name in ("broadcast_object_list", "broadcast"):
                stack.enter_context(mock.patch.object(data_loader, name, getattr(self, name)))
            yield

    def broadcast_object_list(self, objects: list[Any], from_process: int = 0) -> list[Any]:
        """In place: all have what rank 0 has."""
        mine = self.ranks[self.clock.current]
        objects[:] = self._meet(mine, [*objects], 0.0)
        if objects[0] is not None:
            mine.opened()
        return objects

    def broadcast(self, tensor: torch.Tensor, from_process: int = 0) -> torch.Tensor:
        """In place: the tensors have the same shape everywhere."""
        mine, seconds = self.ranks[self.clock.current], 0.0
        if len(self.here) + 1 == self.world:
            seconds = self.times.take((self.sent,))[0]
            self.sent += 1
        tensor.copy_(self._meet(mine, tensor, seconds))
        mine.received()
        return tensor

    def _meet(self, mine: Dispatched, value: Any, seconds: float) -> Any:
        if mine.rank == 0:
            self.said = value
        self.here.append(mine)
        if len(self.here) == self.world:
            for each in self.here:
                each.heard = self.said
                self.clock.wake(each.thread, self.clock.now + seconds)
            self.here = []
        self.clock.wait()
        return mine.heard


class Dispatched:
    """The loop of one rank, and what is watched of it and of the loader behind."""

    heard: Any = None

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        clock: Clock,
        watcher: Watcher,
        broadcasts: VirtualBroadcasts,
    ) -> None:
        assert watcher.reading is not None
        self.scenario, self.seed, self.clock = scenario, seed, clock
        self.watcher, self.behind = watcher, watcher.reading
        self.rank, self.thread = scenario.job.rank or 0, clock.current
        broadcasts.ranks[self.thread] = self
        self.work = VirtualWork(scenario.reading, seed, clock, self.behind)
        self.loop = new_loader(scenario.reading, clock, self.behind, self.work, self._dispatcher)
        self.epoch = 0

    def _dispatcher(self, dataset: Any, **settings: Any) -> Any:
        """accelerate's loop, which is told that it is this rank of so many."""
        from accelerate.data_loader import DataLoaderDispatcher

        job = self.scenario.job
        made = DataLoaderDispatcher(
            dataset,
            split_batches=job.split_batches,
            _drop_last=self.scenario.loader.drop_last,
            **settings,
        )
        made.state = SimpleNamespace(
            process_index=self.rank, num_processes=job.world, device=torch.device("cpu")
        )
        self.inner = Inner(made.base_dataloader, self.behind)
        made.base_dataloader.__iter__ = partial(self._begin, made.base_dataloader)
        return made

    def _begin(self, loader: DataLoader[Any]) -> Any:
        """`iter()` of the loader behind, which is told of each batch that is taken of it."""
        self.behind.start_epoch(self.epoch)
        self.work.epoch = self.epoch
        iterator: Any = DataLoader.__iter__(loader)
        self.behind.recorder.epoch_primed[-1] = self.clock.now
        if loader.num_workers == 0:
            iterator._next_data = partial(self._taken, iterator._next_data)
        elif "_next_data" not in vars(iterator):
            known, take = weakref.ref(iterator), type(iterator)._next_data  # it goes with its name
            iterator._next_data = lambda: self._taken(lambda: take(known()))
        return iterator

    def _taken(self, take: Any) -> torch.Tensor:
        """What accelerate gets for a batch: as many numbers as it has samples."""
        requested = self.behind.request()
        batch = take()
        self.behind.returned(batch, requested)
        return torch.full((batch.size,), batch.number)

    def __iter__(self) -> Iterator[Batch]:
        steps = self.scenario.consumer.step
        stream = Stream(steps, "consumer.step", (STEP,), self.seed, self.epoch)
        recorder = self.watcher.recorder
        for number, mine in enumerate(self.loop, len(recorder)):
            step = stream.take((len(recorder.order),))[0]
            self.watcher.gives(Job(number, (), None, 0.0, step, 1.0))
            recorder.size[number] = len(mine)
            yield Batch(number, len(mine))

    def opened(self) -> None:
        """Word of a round has come."""
        self.watcher.recorder.sent_to(MAIN, 0, self.clock.now)

    def received(self) -> None:
        """The batches of the round that word came of last have come."""
        recorder = self.watcher.recorder
        recorder.received[len(recorder) - 1] = self.clock.now

    def end_epoch(self) -> None:
        """The loop is left: what the loader has passed over is known."""
        self.behind.end_epoch(self.inner.passed)

    def ended_epoch(self) -> None:
        """The iterator has gone."""
        self.behind.recorder.epoch_ended[-1] = self.clock.now
        self.epoch += 1

    def close(self) -> None:
        """The iterator has closed its workers when it was dropped."""
