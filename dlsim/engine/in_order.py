"""Replications in order by NumPy, all at once, for where nothing can be compiled.

The recurrence is that of `dlsim.engine.compiled.recurrence`, which explains it. Here every number
is an array with one entry for each replication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from dlsim.engine.compiled.jobs import MOST_SAMPLES, Block, IndexLists, Jobs
from dlsim.engine.compiled.settings import most_samples
from dlsim.engine.draws import Floats
from dlsim.engine.facts import JOIN_TIMEOUT, last_of_epoch, only_processes, round_trip
from dlsim.engine.sums import after_equal_ones
from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.trace import MOMENTS, RETURNED, Epochs, Meta, Trace

Moment = TypeVar("Moment", float, Floats)  # seconds, of one run or of each of several

AT_ONCE = 30  # replications take hardly longer than one
MOST_BATCHES = 2_000_000  # of all replications that are simulated at once: 128 MB


def suits(scenario: Scenario) -> bool:
    """Whether all batches come back, in order, and nobody loses patience."""
    loader = scenario.loader
    return (
        scenario.ideal
        and isinstance(scenario.dataset, MapDataset)
        and loader.in_order
        and loader.window > 0
        and not loader.endless
        and loader.dispatch in ("turns", "dealt")  # which are one in order
        and loader.refill == "return"
        and only_processes(scenario) is None
        and loader.timeout == 0
        and last_of_epoch(scenario) is None
        and not scenario.failures
    )


def traces(
    scenario: Scenario,
    metas: Sequence[Meta],
    progress: Callable[[int], object] = lambda batches: None,
) -> Iterator[Trace]:
    """The traces of a scenario that suits, under the seeds in `metas`, which are put into them.

    `progress` is called with the number of batches that were simulated since it was last called.
    """
    batches = IndexLists(scenario, 0, 0, indices=False).batches * scenario.epochs
    together = max(1, MOST_BATCHES // max(batches, 1))
    for begin in range(0, len(metas), together):
        some = metas[begin : begin + together]
        seeds = [meta.seed or 0 for meta in some]
        yield from Replications(scenario, seeds, progress).traces(some)


class Replications:
    """Some replications of a scenario that suits: `moments` by name, batch and replication."""

    def __init__(
        self, scenario: Scenario, seeds: Sequence[int], progress: Callable[[int], object]
    ) -> None:
        self.scenario, self.seeds, self.progress = scenario, seeds, progress
        self.batches = IndexLists(scenario, 0, 0, indices=False).batches
        self.total = self.batches * scenario.epochs
        self.block = max(1, MOST_SAMPLES // max(most_samples(scenario) * len(seeds), 1))
        self.moments = np.empty((len(MOMENTS), self.total, len(seeds)))
        self.size = np.empty(self.total, np.int32)
        self.worker = np.arange(self.total) % max(self.batches, 1) % scenario.loader.num_workers
        self.free = np.zeros((scenario.loader.num_workers, len(seeds)))
        self.round_trip = round_trip(scenario)
        self.latency = scenario.charged.index_latency - self.round_trip
        self.now = np.zeros(len(seeds))  # when next() is called
        self.accelerator = np.zeros(len(seeds))  # when it has done all steps given to it
        self.epochs = [self._epoch(epoch) for epoch in range(scenario.epochs)]

    def traces(self, metas: Sequence[Meta]) -> Iterator[Trace]:
        """A trace for each, in order."""
        first = [epoch * self.batches for epoch in range(self.scenario.epochs)]
        moments, ends = np.ascontiguousarray(self.moments.transpose(2, 0, 1)), np.array(self.epochs)
        for number, meta in enumerate(metas):
            yield Trace(
                **dict(zip(MOMENTS, moments[number], strict=True)),
                worker=self.worker.astype(np.int32),
                size=self.size,
                status=np.full(self.total, RETURNED, np.uint8),
                order=np.arange(self.total),
                epochs=epochs(first, ends[:, :, number]),
                meta=meta,
            )

    def _epoch(self, epoch: int) -> tuple[Floats, Floats, Floats]:
        """Simulate it: when it started, was primed, and ended."""
        loader, began, first = self.scenario.loader, self.now, epoch * self.batches
        if epoch == 0 or not loader.persistent_workers:
            self.now = all_started(self.scenario, self.now)
        else:
            self.now = self.now + self.latency
        primed = self.free[:] = self.now
        jobs = [Jobs(self.scenario, seed, epoch, first, indices=False) for seed in self.seeds]
        done = first
        while jobs[0].more:
            drawn = [each.take(self.block) for each in jobs]
            for each, block in zip(jobs, drawn, strict=True):
                each.check(block, done)
            self._schedule(drawn, done, first, primed, batched=jobs[0].batched)
            done += len(drawn[0].steps)
            self.progress(len(drawn) * len(drawn[0].steps))
        self._receive(first, done)
        if not loader.persistent_workers:
            stopped = self.now + self.latency
            pairs = zip(self.now.tolist(), stopped.tolist(), strict=True)
            self.now = np.array([joined(now, then, loader.num_workers) for now, then in pairs])
        self.now = np.maximum(self.now, self.accelerator)
        return began, primed, self.now

    def _schedule(
        self, drawn: Sequence[Block], begin: int, first: int, primed: Floats, *, batched: bool
    ) -> None:
        """Fill in the columns of the next batches, from `begin` on."""
        window, ahead = self.scenario.loader.window, self.scenario.consumer.run_ahead
        sent, started, fetched, arrived, _, requested, returned, finished = self.moments
        services = np.stack([block.services[:, 0] for block in drawn], axis=1)
        collates = np.stack([block.collates for block in drawn], axis=1)
        steps = np.stack([block.steps for block in drawn], axis=1)
        offsets, alike = drawn[0].offsets.tolist(), len(services) == 1
        self.size[begin : begin + len(steps)] = np.diff(drawn[0].offsets)
        now, accelerator = self.now, self.accelerator
        for i, k in enumerate(range(begin, begin + len(steps))):
            worker = self.worker[k]
            sent[k] = returned[k - window] if k - first >= window else primed
            end = np.maximum(self.free[worker], sent[k] + self.latency)
            calls = range(i, i + 1) if batched else range(offsets[i], offsets[i + 1])
            started[k] = end + self.round_trip if calls else end
            if alike:
                end = np.array(
                    [
                        after_equal_ones(begin, len(calls), self.round_trip, seconds)
                        for begin, seconds in zip(end.tolist(), services[0].tolist(), strict=True)
                    ]
                )
            for call in () if alike else calls:
                end = end + self.round_trip + services[call]
            end = end + collates[i]
            fetched[k] = arrived[k] = self.free[worker] = end
            requested[k] = now
            now = returned[k] = np.maximum(now, end)
            accelerator = finished[k] = np.maximum(now, accelerator) + steps[i]
            if k - first >= ahead:
                now = np.maximum(now, finished[k - ahead])
        self.now, self.accelerator = now.copy(), accelerator.copy()

    def _receive(self, first: int, end: int) -> None:
        """Fill in when batches were received: in the first call that wanted a later message.

        A call whose batch an earlier one has received reads no messages.
        """
        _, _, _, arrived, received, requested, _, _ = self.moments
        window, each = self.scenario.loader.window, np.arange(len(self.seeds))
        reads = np.ones((end, len(self.seeds)), bool)
        for k in range(first, end):
            low = max(k - window + 1, first)
            message, others = arrived[k], arrived[low : k + 1]
            ranks = (self.worker[low : k + 1] > self.worker[k])[:, np.newaxis]
            later = (others > message) | ((others == message) & ranks)
            later &= reads[low : k + 1]
            later[-1] = True
            call = low + later.argmax(axis=0)
            reads[k] = call == k
            received[k] = np.maximum(message, requested[call, each])


def all_started(scenario: Scenario, now: Moment) -> Moment:
    """When all workers are started, one after another or several at a time, from `now` on."""
    loader, each = scenario.loader, scenario.charged.worker_start
    for _ in range(0, loader.num_workers, loader.start_together):
        now = now + each
    return now


def joined(now: float, stopped: float, workers: int) -> float:
    """When the main process has waited for workers that all stop at one moment, in seconds."""
    for _ in range(workers):
        now = min(stopped, now + JOIN_TIMEOUT)
        if now == stopped:
            break  # the others have stopped too
    return now


def epochs(first: Sequence[int], moments: Sequence[Sequence[float]] | Floats) -> Epochs:
    """The epochs of a trace, from the first batch and started, primed, ended of each."""
    started, primed, ended = np.array(moments, np.float64).T
    return Epochs(first=np.array(first, np.int64), started=started, primed=primed, ended=ended)
