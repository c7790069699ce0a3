"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache.

A job may have one storage for all its nodes. Then each node has its cache, and its share of a
bandwidth: all reads get equal ones, as far as their node can take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from math import inf
from typing import TypeAlias, cast

import simpy

from dlsim.engine.processes.clock import Steps, happen, sleep, until
from dlsim.engine.processes.cores import Sharing
from dlsim.scenario import RemoteStorage, Storage

Reader: TypeAlias = tuple[int, int]  # rank, and the worker's number or MAIN


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


def local(env: simpy.Environment, storage: Storage) -> Source:
    """The disk of one node."""
    most = storage.bandwidth or inf
    bandwidth = None if storage.bandwidth is None else Sharing(env, lambda n: most / n)
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
        if self._holds(stage, indices):
            return
        yield from self.source.read(reader, turn, size, latency)
        if 0 < size <= self.room and not self._holds(stage, indices):
            self.room -= size
            self._cached.update((stage, index) for index in indices)

    def _holds(self, stage: int, indices: Sequence[int]) -> bool:
        """Whether one stage of all these samples is in the page cache."""
        return all((stage, index) in self._cached for index in indices)


class Network:
    """A bandwidth shared by the reads of several nodes, each of which can take `most` of it.

    Reads on one node are as fast as each other; those of a node with few reads are as fast as the
    whole allows, and of one with many as the node does (max-min fairness).
    """

    def __init__(
        self, env: simpy.Environment, capacity: float, most: float, *, ranks: int, nodes: int
    ) -> None:
        self.env, self.capacity, self.most, self.ranks = env, capacity, most, ranks
        # Of each node, by reader: the level at which it is done; how many came before; the rest.
        self._reads: list[dict[Reader, tuple[float, int, simpy.Event, int]]]
        self._reads = [{} for _ in range(nodes)]
        self._levels = [0.0] * nodes  # bytes that each read of a node would have had since ever
        self._rates = [0.0] * nodes
        self._since = env.now
        self._number = count()
        self._alarm = 0

    def serve(self, amount: float, reader: Reader, turn: int) -> simpy.Event:
        """An event that happens, for the one who has this `turn`, when so many bytes are read."""
        self._advance()
        node, done = reader[0] // self.ranks, self.env.event()
        due = self._levels[node] + amount
        self._reads[node][reader] = due, next(self._number), done, turn
        self._set_alarm()
        return done

    def leave(self, reader: Reader) -> None:
        """The reader goes; its event never happens."""
        self._advance()
        if self._reads[reader[0] // self.ranks].pop(reader, None) is not None:
            self._set_alarm()

    def _advance(self) -> None:
        """Bring the levels up to this moment."""
        passed, self._since = self.env.now - self._since, self.env.now
        self._levels = [
            level + passed * rate for level, rate in zip(self._levels, self._rates, strict=True)
        ]

    def _set_alarm(self) -> None:
        """Share the bandwidth among those who read now, and wake up when the first is done."""
        self._rates = shares([len(reads) for reads in self._reads], self.capacity, self.most)
        self._alarm += 1
        due = [
            (max(0.0, min(reads.values())[0] - level) / rate, node)
            for node, (reads, level, rate) in enumerate(
                zip(self._reads, self._levels, self._rates, strict=True)
            )
            if reads
        ]
        if due:
            delay, node = min(due)
            alarm = self.env.timeout(delay, (self._alarm, node))
            alarm.callbacks.append(self._ring)

    def _ring(self, alarm: simpy.Event) -> None:
        number, node = cast(tuple[int, int], alarm.value)
        if number != self._alarm:
            return
        self._advance()
        reads = self._reads[node]
        # The level is what it was to be; computed from the time it might fall short of it.
        self._levels[node] = max(self._levels[node], min(reads.values())[0])
        for reader, (due, _, done, turn) in sorted(reads.items(), key=lambda read: read[1][:2]):
            if due > self._levels[node]:
                break
            del reads[reader]
            happen(done, turn)
        self._set_alarm()


def shares(reads: Sequence[int], capacity: float, most: float) -> list[float]:
    """Bytes a second of each read on nodes that have so many, of a `capacity` in all.

    No node takes more than `most`; what it leaves goes to reads of the others (max-min fairness).
    """
    found = [0.0] * len(reads)
    left, waiting = capacity, sum(reads)
    # Nodes with the most reads reach their limit first.
    for node in sorted(range(len(reads)), key=lambda node: -reads[node]):
        if reads[node] == 0:
            break
        found[node] = min(left / waiting, most / reads[node])
        left -= found[node] * reads[node]
        waiting -= reads[node]
    return found
