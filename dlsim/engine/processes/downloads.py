"""Files that a thread of each worker downloads ahead, into a cache that the node's workers share.

As litdata and mosaicml-streaming do it (`streaming/reader.py`, `base/dataset.py`): a sample is
there when its file is. Which worker has which samples is none of this file's business.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, groupby
from math import inf
from typing import TYPE_CHECKING

import simpy

from dlsim.engine.processes.clock import Steps, happen
from dlsim.scenario import Download, IterableDataset, Recorded, Scenario

if TYPE_CHECKING:
    from dlsim.engine.processes.run import Run

# Worker w itself is the reader DOWNLOADING + w of files that it downloads again, its n-th thread is
# (n + 2) * DOWNLOADING + w.
DOWNLOADING = 1 << 41


class Cache:
    """The files on a node's disk: those used longest ago make room for others.

    A file that someone is downloading is not downloaded once more, but waited for.
    """

    def __init__(self, scenario: Scenario) -> None:
        rule = getattr(scenario.dataset, "download", None)
        self.room = inf if rule is None or rule.cache is None else rule.cache
        self.used = 0.0
        self.sizes: OrderedDict[int, float] = OrderedDict()  # the one used longest ago first
        self.coming: dict[int, simpy.Event] = {}

    def has(self, file: int) -> bool:
        """Whether the file is there; it counts as used then."""
        if file in self.sizes:
            self.sizes.move_to_end(file)
            return True
        return False

    def keep(self, file: int, size: float) -> None:
        """The file is there; what does not fit beside it goes."""
        self.used += size
        while self.sizes and self.used > self.room:
            self.used -= self.sizes.popitem(last=False)[1]
        self.sizes[file] = size


class Downloads:
    """The thread of one worker: the files of its samples, in the order in which it needs them."""

    def __init__(self, run: Run, worker: int, indices: Sequence[int]) -> None:
        self.run, self.worker = run, worker
        dataset = run.scenario.dataset
        assert isinstance(dataset, IterableDataset)
        assert dataset.download is not None
        self.rule: Download = dataset.download
        self.cache = run.node.files
        self.sizes, self.latency = file_sizes(dataset), latency(run.scenario)
        ends = [*accumulate(dataset.shards or ())]
        self.files: list[int] = []  # one after another,
        self.begins: list[int] = []  # and the first sample of the worker that is in each
        place = 0
        for file, samples in groupby(indices, lambda index: bisect_right(ends, index)):
            self.files.append(file)
            self.begins.append(place)
            place += sum(1 for _ in samples)
        self.asked, self.file = 0, 0  # the sample that the worker wants, and the place of its file
        self.moved, self.done = run.env.event(), run.env.event()
        turn = run.turns.of(worker)
        self.threads = [
            run.env.process(self._download(each, turn)) for each in range(self.rule.at_once)
        ]
        self.next = 0

    def sample(self, place: int) -> Steps:
        """The worker wants its `place`-th sample, and waits until the file is there."""
        self.asked = place
        self.file = bisect_right(self.begins, place) - 1
        self._move()
        file = self.files[self.file]
        while not self.cache.has(file):
            if file in self.cache.coming:
                yield self.cache.coming[file]
            elif self.next > self.file:  # it has gone again
                yield from self._fetch(
                    file, DOWNLOADING + self.worker, self.run.turns.of(self.worker)
                )
            else:
                yield self.done

    def stop(self) -> None:
        """The worker ends, and with it what it downloads."""
        for thread in self.threads:
            if thread.is_alive:
                thread.interrupt("the worker has ended")

    def _move(self) -> None:
        moved, self.moved = self.moved, self.run.env.event()
        happen(moved, self.run.turns.of(self.worker))

    def _allowed(self, number: int) -> bool:
        """Whether the `number`-th file is one of those that are downloaded ahead now."""
        if self.rule.shards is not None:
            return number < self.file + self.rule.shards
        assert self.rule.samples is not None
        return self.begins[number] <= self.asked + self.rule.samples

    def _download(self, thread: int, turn: int) -> Steps:
        """One file after another, as far ahead as is allowed."""
        reader = (2 + thread) * DOWNLOADING + self.worker
        with suppress(simpy.Interrupt):
            while self.next < len(self.files):
                if not self._allowed(self.next):
                    yield self.moved
                    continue
                file = self.files[self.next]
                self.next += 1
                if file in self.cache.coming:
                    yield self.cache.coming[file]
                elif not self.cache.has(file):
                    yield from self._fetch(file, reader, turn)
                done, self.done = self.done, self.run.env.event()
                happen(done, turn)

    def _fetch(self, file: int, reader: int, turn: int) -> Steps:
        run, storage = self.run, self.run.disk.source
        coming = self.cache.coming[file] = run.env.event()
        try:
            yield from storage.read(run.customer(reader), turn, self.sizes[file], self.latency)
            self.cache.keep(file, self.sizes[file])
        except simpy.Interrupt:
            if storage.bandwidth is not None:
                storage.bandwidth.leave([run.customer(reader)])
            raise
        finally:
            del self.cache.coming[file]
            happen(coming, turn)


def file_sizes(dataset: IterableDataset) -> list[float]:
    """The bytes of each file: what its samples read, one with another where that is random."""
    asked = [stage.read_bytes for stage in dataset.fetch if stage.read_bytes is not None]
    sizes, first = [], 0
    for count in dataset.shards or ():
        sizes.append(
            sum(
                sum(each.values[first : first + count])
                if isinstance(each, Recorded)
                else count * each.mean
                for each in asked
            )
        )
        first += count
    return sizes


def latency(scenario: Scenario) -> float:
    """Seconds until the first byte of a file comes, on average."""
    storage = scenario.job.storage if scenario.job.remote else scenario.machine.storage
    return 0.0 if storage.latency is None else storage.latency.mean
