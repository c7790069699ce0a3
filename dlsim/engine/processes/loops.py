"""The loop around `next()`: what stands between the loader and the training step.

Each loop is a loader around a loader: `start_epoch`, `next` and `leave` mean the same. The plain
loop is the loader itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import simpy

from dlsim.engine.processes.clock import Steps, sleep
from dlsim.engine.processes.consumer import Iterated, Loader, LoaderError
from dlsim.engine.processes.messages import Batch
from dlsim.engine.processes.run import Run

Make: TypeAlias = Callable[[Run], Loader]


def looped(run: Run, make: Make) -> Iterated:
    """What the training loop of the scenario calls `next()` of, around the loaders it makes."""
    loop = run.scenario.consumer.loop
    if loop == "accelerate":
        return Accelerate(make(run))
    if loop == "rebind" or run.scenario.loader.stateful:
        return Rebinding(run, make)
    if loop == "lightning":
        return DataFetcher(run, Rebinding(run, make))
    if loop == "thread":
        return ReadingThread(run, make(run))
    return make(run)


class Rebinding:
    """`it = iter(loader)` while an iterator lives that was left early.

    The old one goes, and waits for its workers, once the new one has started its own and sent its
    window. Until then there are twice the workers. Persistent ones serve one iterator anew.
    """

    def __init__(self, run: Run, make: Make) -> None:
        self.run, self.make = run, make
        self.loader = make(run)
        self.left = False

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`; then what the name was bound to goes."""
        self.epoch = epoch
        old = self.loader
        if epoch > 0 and not self.run.scenario.loader.persistent_workers:
            self.loader = self.make(self.run.beside(epoch))
        yield from self.loader.start_epoch(epoch)
        if self.left:
            yield from old.leave()
        self.left = False

    def next(self) -> Steps:
        """`next(it)`."""
        return (yield from self.loader.next())

    def leave(self) -> Steps:
        """The epoch is left: its workers stay until the next has begun, or training ends."""
        self.left = not self.run.scenario.loader.persistent_workers
        if self.epoch + 1 == self.run.scenario.epochs:
            yield from self.loader.leave()


class OneAhead:
    """One batch ahead, to know the last one: before a batch is given, the next has come.

    It takes the first batch when an epoch begins.
    """

    def __init__(self, loader: Loader | Rebinding) -> None:
        self.loader = loader

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(fetcher)`, which takes the first batch."""
        yield from self.loader.start_epoch(epoch)
        self.ahead: Batch | None = yield from self.loader.next()

    def next(self) -> Steps:
        """The batch that came last, once the next has come, or word that there is none."""
        batch = self.ahead
        if batch is not None:
            self.ahead = yield from self.loader.next()
        return batch

    def leave(self) -> Steps:
        """The loop is left early."""
        yield from self.loader.leave()


class DataFetcher(OneAhead):
    """The data fetcher of Lightning 2.6: one batch ahead where it cannot count.

    It can where the loader has a length, and where an epoch is limited, as that of a sanity check.
    """

    def __init__(self, run: Run, loader: Rebinding) -> None:
        self.run, self.loader = run, loader

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(fetcher)`, which takes the first batch if it is to be ahead."""
        self.counts = self.run.last is not None
        if self.counts:
            yield from self.loader.start_epoch(epoch)
        else:
            yield from super().start_epoch(epoch)

    def next(self) -> Steps:
        """The next batch."""
        return (yield from self.loader.next() if self.counts else super().next())


class Accelerate(OneAhead):
    """The same as a generator: nothing happens before its first `next()`.

    `DataLoaderShard` of accelerate 1.15.
    """

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`, which does nothing yet."""
        self.epoch, self.begun = epoch, False
        yield from ()

    def next(self) -> Steps:
        """The batch that came last, once the next has come; the first time it begins the epoch."""
        if not self.begun:
            self.begun = True
            yield from super().start_epoch(self.epoch)
        return (yield from super().next())


class ReadingThread:
    """A thread that calls `next()` back to back and puts batches into a queue of limited size.

    prefetch_generator's `BackgroundGenerator`, and MONAI's `ThreadDataLoader`. The thread holds
    one batch more while the queue is full. A loop that leaves early
    waits for the `next()` it is in.
    """

    def __init__(self, run: Run, loader: Loader) -> None:
        self.run, self.loader = run, loader

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`, and the thread is started."""
        yield from self.loader.start_epoch(epoch)
        self.queue = simpy.Store(self.run.env, self.run.scenario.consumer.queue)
        self.leaving = False
        self.thread = self.run.env.process(self._read())

    def _read(self) -> Steps:
        found: Batch | LoaderError | None
        while not self.leaving:
            try:
                found = yield from self.loader.next()
            except LoaderError as error:
                found = error
            yield self.queue.put((found,))
            if not isinstance(found, Batch):
                return

    def next(self) -> Steps:
        """The oldest batch in the queue; what the thread's `next()` raised is raised here."""
        (found,) = yield self.queue.get()
        yield sleep(self.run.env, 0.0, self.run.turns.last)
        if isinstance(found, LoaderError):
            raise found
        return found

    def leave(self) -> Steps:
        """The loop is left early."""
        self.leaving = True
        if self.queue.items:
            yield self.queue.get()  # room for what the thread holds
        if self.thread.is_alive:
            yield self.thread
        yield from self.loader.leave()
