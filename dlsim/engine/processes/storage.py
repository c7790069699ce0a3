"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache.

A job may have one storage for all its nodes. Then each node has its cache, and its share of a
bandwidth: all reads get equal ones, as far as their node can take them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
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


class Readers:
    """The reads of one node, by the level at which each is done: bytes each would have had."""

    def __init__(self) -> None:
        self.reads: list[tuple[float, int, simpy.Event, int, Reader]] = []  # who is done first
        self.level = 0.0
        self.seen = 0.0  # the level of nodes like it when `self.level` was brought up to date
        self.version = 0  # of entries of nodes that are due, earlier ones are stale


class Alike:
    """The nodes with equally many reads: each read gets the same `rate`, in bytes a second."""

    def __init__(self) -> None:
        self.nodes = 0
        self.rate = self.level = 0.0
        self.due: list[tuple[float, int, int, Readers]] = []  # at which level a read is done


class Network:
    """A bandwidth shared by the reads of several nodes, each of which can take `most` of it.

    Reads on one node are as fast as each other; those of a node with few reads are as fast as the
    whole allows, and of one with many as the node does (max-min fairness). How fast follows from
    how many there are, so nodes with equally many have one level in common, as in `Sharing`; each
    event costs O(log n) for each number of reads that nodes have.
    """

    def __init__(
        self, env: simpy.Environment, capacity: float, most: float, *, ranks: int, nodes: int
    ) -> None:
        self.env, self.capacity, self.most, self.ranks = env, capacity, most, ranks
        self._nodes = [Readers() for _ in range(nodes)]
        self._alike: dict[int, Alike] = {}  # by how many reads a node has
        self._since = env.now
        self._number = count()
        self._alarm = 0

    def serve(self, amount: float, reader: Reader, turn: int) -> simpy.Event:
        """An event that happens, for the one who has this `turn`, when so many bytes are read."""
        node, done = self._nodes[reader[0] // self.ranks], self.env.event()
        self._advance()
        self._take_out(node)
        heappush(node.reads, (node.level + amount, next(self._number), done, turn, reader))
        self._put_in(node)
        self._set_alarm()
        return done

    def leave(self, reader: Reader) -> None:
        """The reader goes; its event never happens."""
        node = self._nodes[reader[0] // self.ranks]
        left = [read for read in node.reads if read[-1] != reader]
        if len(left) == len(node.reads):
            return
        heapify(left)
        self._advance()
        self._take_out(node)
        node.reads = left
        self._put_in(node)
        self._set_alarm()

    def _advance(self) -> None:
        """Bring the levels up to this moment."""
        passed, self._since = self.env.now - self._since, self.env.now
        for alike in self._alike.values():
            alike.level += passed * alike.rate

    def _take_out(self, node: Readers) -> None:
        """The node is no longer one with so many reads."""
        if node.reads:
            alike = self._alike[len(node.reads)]
            node.level += alike.level - node.seen
            node.version += 1
            alike.nodes -= 1
            if not alike.nodes:
                del self._alike[len(node.reads)]

    def _put_in(self, node: Readers) -> None:
        """The node is one with as many reads as it has now."""
        if node.reads:
            alike = self._alike.setdefault(len(node.reads), Alike())
            alike.nodes += 1
            node.seen = alike.level
            due = alike.level + (node.reads[0][0] - node.level)
            heappush(alike.due, (due, next(self._number), node.version, node))

    def _set_alarm(self) -> None:
        """Share the bandwidth among those who read now, and wake up when the first is done."""
        nodes = {reads: alike.nodes for reads, alike in self._alike.items()}
        rates = shares(nodes, self.capacity, self.most)
        self._alarm += 1
        due = []
        for reads, alike in self._alike.items():
            alike.rate = rates[reads]
            while alike.due[0][2] != alike.due[0][3].version:
                heappop(alike.due)
            due.append((max(0.0, alike.due[0][0] - alike.level) / alike.rate, reads))
        if due:
            delay, reads = min(due)
            alarm = self.env.timeout(delay, (self._alarm, reads))
            alarm.callbacks.append(self._ring)

    def _ring(self, alarm: simpy.Event) -> None:
        number, reads = cast(tuple[int, int], alarm.value)
        if number != self._alarm:
            return
        self._advance()
        alike = self._alike[reads]
        due, _, _, node = alike.due[0]
        # Levels are what they were to be; computed from the time they might fall short of it.
        alike.level = max(alike.level, due)
        self._take_out(node)
        node.level = max(node.level, node.reads[0][0])
        while node.reads and node.reads[0][0] <= node.level:
            _, _, done, turn, _ = heappop(node.reads)
            happen(done, turn)
        self._put_in(node)
        self._set_alarm()


def shares(nodes: Mapping[int, int], capacity: float, most: float) -> dict[int, float]:
    """Bytes a second of each read, by how many its node has, of a `capacity` in all.

    `nodes`: how many nodes have so many reads. No node takes more than `most`; what it leaves goes
    to reads of the others (max-min fairness).
    """
    found = {}
    left, waiting = capacity, sum(reads * count for reads, count in nodes.items())
    for reads in sorted(nodes, reverse=True):  # those with the most reach their limit first
        found[reads] = min(left / waiting, most / reads)
        left -= found[reads] * reads * nodes[reads]
        waiting -= reads * nodes[reads]
    return found
