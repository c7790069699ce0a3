"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache.

A job may have one storage for all its nodes. Then each node has its cache, and its share of a
bandwidth (`network.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import simpy

from dlsim.engine.processes.clock import Alarms, Steps, sleep, until
from dlsim.engine.processes.cores import Sharing
from dlsim.engine.processes.network import Network, Reader
from dlsim.scenario import RemoteStorage, Storage


class Source:
    """Where bytes come from: requests begin one after another, and share a `bandwidth`."""

    def __init__(
        self, env: simpy.Environment, rate: float | None, bandwidth: Sharing | Network | None
    ) -> None:
        self.env, self.bandwidth = env, bandwidth
        self.interval = 0.0 if rate is None else 1 / rate
        self._next_request = 0.0

    def read(self, reader: Reader, turn: int, size: float, latency: float) -> Steps:
        """`reader` reads `size` bytes, the first of which come after `latency` seconds."""
        if self.interval:
            begin = max(self.env.now, self._next_request)
            self._next_request = begin + self.interval
            if begin > self.env.now:
                yield until(self.env, begin, turn)
        if latency > 0:
            yield sleep(self.env, latency, turn)
        if self.bandwidth is not None and size > 0:
            yield self.bandwidth.serve(size, reader, turn)


def local(env: simpy.Environment, storage: Storage, alarms: Alarms) -> Source:
    """The disk of one node."""
    most = storage.bandwidth or inf
    bandwidth = (
        None if storage.bandwidth is None else Sharing(env, lambda n: most / n, alarms=alarms)
    )
    return Source(env, storage.requests_per_second, bandwidth)


def remote(env: simpy.Environment, storage: RemoteStorage, ranks: int, nodes: int) -> Source:
    """The storage of all nodes, on each of which are so many ranks."""
    limits = storage.bandwidth or inf, storage.node_bandwidth or inf
    network = None if limits == (inf, inf) else Network(env, *limits, ranks=ranks, nodes=nodes)
    return Source(env, storage.requests_per_second, network)


class Disk:
    """What the processes of a node read from: a source, and a page cache of so many bytes."""

    def __init__(self, source: Source, cache: float) -> None:
        self.source, self.room = source, cache
        self._cached: set[tuple[int, int]] = set()

    def read(
        self,
        reader: Reader,
        turn: int,
        stage: int,
        indices: Sequence[int],
        size: float,
        latency: float,
    ) -> Steps:
        """`reader` reads `size` bytes for one `stage` of the samples `indices`.

        What is in the page cache takes no time. What is read for the first time stays there if
        there is room for it, but for reads of nothing; nothing is evicted, since epochs that are
        larger than the cache would find nothing else in it.
        """
        if self._cached and self._holds(stage, indices):
            return
        yield from self.source.read(reader, turn, size, latency)
        if 0 < size <= self.room and not self._holds(stage, indices):
            self.room -= size
            self._cached.update((stage, index) for index in indices)

    def _holds(self, stage: int, indices: Sequence[int]) -> bool:
        """Whether one stage of all these samples is in the page cache."""
        return all((stage, index) in self._cached for index in indices)
