"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache."""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from dlsim.engine.processes.clock import Steps, sleep, until
from dlsim.engine.processes.cores import Sharing
from dlsim.scenario import Storage


class Disk:
    """The storage of one machine during one simulation."""

    def __init__(self, env: simpy.Environment, storage: Storage) -> None:
        self.env = env
        bandwidth = storage.bandwidth
        self.bandwidth = None if bandwidth is None else Sharing(env, lambda n: bandwidth / n)
        rate = storage.requests_per_second
        self.interval = 0.0 if rate is None else 1 / rate
        self.room = storage.cache
        self._cached: set[tuple[int, int]] = set()
        self._next_request = 0.0

    def read(
        self,
        reader: int,
        turn: int,
        stage: int,
        indices: Sequence[int],
        size: float,
        latency: float,
    ) -> Steps:
        """Process `reader` reads `size` bytes for one `stage` of the samples `indices`.

        What is in the page cache takes no time. What is read for the first time stays there if
        there is room for it, but for reads of nothing; nothing is evicted, since epochs that are
        larger than the cache would find nothing else in it.
        """
        if self._holds(stage, indices):
            return
        if self.interval:
            begin = max(self.env.now, self._next_request)
            self._next_request = begin + self.interval
            if begin > self.env.now:
                yield until(self.env, begin, turn)
        if latency > 0:
            yield sleep(self.env, latency, turn)
        if self.bandwidth is not None and size > 0:
            yield self.bandwidth.serve(size, reader, turn)
        if 0 < size <= self.room and not self._holds(stage, indices):
            self.room -= size
            self._cached.update((stage, index) for index in indices)

    def _holds(self, stage: int, indices: Sequence[int]) -> bool:
        """Whether one stage of all these samples is in the page cache."""
        return all((stage, index) in self._cached for index in indices)
