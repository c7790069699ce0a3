"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache."""

from __future__ import annotations

from itertools import count

import simpy

from dlsim.engine.clock import Steps
from dlsim.engine.cores import Sharing
from dlsim.scenario import Storage


class Disk:
    """The storage of one machine during one simulation."""

    def __init__(self, env: simpy.Environment, storage: Storage) -> None:
        self.env = env
        self.bandwidth = (
            None if storage.bandwidth is None else Sharing(env, capacity=storage.bandwidth)
        )
        rate = storage.requests_per_second
        self.interval = 0.0 if rate is None else 1 / rate
        self.room = storage.cache
        self._cached: set[int] = set()
        self._next_request = 0.0
        self._reader = count()

    def read(self, index: int, size: float, latency: float) -> Steps:
        """Read `size` bytes of sample `index`; what is in the page cache takes no time.

        A sample read for the first time stays in the cache if there is room for it; nothing is
        evicted, since epochs that are larger than the cache would find nothing else in it.
        """
        if index in self._cached:
            return
        if self.interval:
            begin = max(self.env.now, self._next_request)
            self._next_request = begin + self.interval
            yield self.env.timeout(begin - self.env.now)
        if latency > 0:
            yield self.env.timeout(latency)
        if self.bandwidth is not None:
            yield self.bandwidth.serve(size, next(self._reader))
        if index not in self._cached and size <= self.room:
            self.room -= size
            self._cached.add(index)
