"""A bandwidth shared by the reads of several nodes, each of which can take only so much of it.

All reads get equal shares, as far as their nodes can take them (max-min fairness). So a node with
so many reads that `most` of it is less than their shares is full: how fast its reads are depends on
no other node. What full nodes leave is shared equally by all reads of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TypeAlias

import simpy

from dlsim.engine.processes.clock import ALARM, happen, until

Reader: TypeAlias = tuple[int, int]  # rank, and the worker's number or MAIN


class Readers:
    """The reads of one node, by the level at which each is done: bytes each would have had.

    On a full node it rises with time; on others with the level that they have in common. `since`,
    when it was brought up to date, and `due`, when it will be that of the first read, are moments
    of the one, or levels of the other.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.reads: list[tuple[float, int, simpy.Event, int, Reader]] = []  # who is done first
        self.full = True
        self.level = self.since = 0.0
        self.due = inf
        self.version = 0  # of entries of nodes that are due, earlier ones are stale


class Network:
    """A bandwidth shared by the reads of several nodes, each of which can take `most` of it.

    As in `Sharing`, nodes that are not full need one level for all of them, and one alarm. A node
    becomes full, or no longer is, with all that have as many reads. Each event costs O(log n).
    """

    def __init__(
        self, env: simpy.Environment, capacity: float, most: float, *, ranks: int, nodes: int
    ) -> None:
        self.env, self.capacity, self.most, self.ranks = env, capacity, min(most, capacity), ranks
        self._nodes = [Readers(number) for number in range(nodes)]
        self._with: Counter[int] = Counter()  # nodes, by how many reads they have
        self._enough = 1  # reads that make a node full
        self._full = 0  # nodes that are
        self._waiting = 0  # reads on the others,
        self._level = self._rate = 0.0  # what each of them would have had, and gets in a second
        self._since = env.now
        self._due: dict[bool, list[tuple[float, int, int, Readers]]] = {False: [], True: []}
        self._number = count()
        self._alarm = 0

    def serve(self, amount: float, reader: Reader, turn: int) -> simpy.Event:
        """An event that happens, for the one who has this `turn`, when so many bytes are read."""
        node, done = self._nodes[reader[0] // self.ranks], self.env.event()
        self._advance()
        self._take_out(node)
        heappush(node.reads, (node.level + amount, next(self._number), done, turn, reader))
        self._put_in(node)
        self._share()
        return done

    def leave(self, readers: Sequence[Reader]) -> None:
        """The readers, of one node, go; their events never happen."""
        node = self._nodes[readers[0][0] // self.ranks]
        left = [read for read in node.reads if read[-1] not in readers]
        if len(left) == len(node.reads):
            return
        heapify(left)
        self._advance()
        self._take_out(node)
        node.reads = left
        self._put_in(node)
        self._share()

    def _advance(self) -> None:
        """Bring the level of those in common up to this moment."""
        self._level += (self.env.now - self._since) * self._rate
        self._since = self.env.now

    def _take_out(self, node: Readers) -> None:
        """Bring the node's level up to this moment, and count it no longer."""
        reads = len(node.reads)
        if not reads:
            return
        here = self.env.now if node.full else self._level
        if node.due <= here:
            node.level = node.reads[0][0]  # computed from what has passed it might fall short of it
        else:
            node.level += (here - node.since) * (self.most / reads if node.full else 1.0)
        node.version += 1
        self._count(node, -1)

    def _put_in(self, node: Readers) -> None:
        """Count the node as one with as many reads as it has now."""
        reads = len(node.reads)
        if not reads:
            return
        node.full = reads >= self._enough
        self._count(node, 1)
        missing = node.reads[0][0] - node.level
        if node.full:
            node.since = self.env.now
            node.due = node.since + max(0.0, missing) * (1 / (self.most / reads))
        else:
            node.since = self._level
            node.due = node.since + missing
        heappush(self._due[node.full], (node.due, node.number, node.version, node))

    def _count(self, node: Readers, by: int) -> None:
        self._with[len(node.reads)] += by
        if node.full:
            self._full += by
        else:
            self._waiting += by * len(node.reads)

    def _share(self) -> None:
        """Find out which nodes are full now, share what they leave, and set the alarm."""
        while True:
            fewer = self._enough > 1 and self._fill(self._enough - 1)
            if not fewer and self._fill(self._enough):
                break
            self._enough += -1 if fewer else 1
            self._again(self._enough if fewer else self._enough - 1)
        left = self.capacity - self._full * self.most
        self._rate = left / self._waiting if self._waiting else 0.0
        self._set_alarm()

    def _fill(self, reads: int) -> bool:
        """Whether so many reads fill a node, where more do: their shares were at least `most`."""
        these = self._with[reads] if reads >= self._enough else 0
        left = self.capacity - (self._full - these) * self.most
        return (self._waiting + these * reads) * self.most <= reads * left

    def _again(self, reads: int) -> None:
        """Nodes with so many reads are full from now on, or no longer are."""
        if self._with[reads]:
            for node in self._nodes:
                if len(node.reads) == reads:
                    self._take_out(node)
                    self._put_in(node)

    def _set_alarm(self) -> None:
        """Wake up when the first read is done."""
        for due in self._due.values():
            while due and due[0][2] != due[0][3].version:
                heappop(due)
        moments = [due[0] for due in self._due[True][:1]]
        if self._due[False]:
            missing = max(0.0, self._due[False][0][0] - self._level)
            moments.append(self.env.now + missing / self._rate)
        self._alarm += 1
        if moments:
            alarm = self._alarm
            until(self.env, min(moments), ALARM).callbacks.append(lambda _: self._ring(alarm))

    def _ring(self, alarm: int) -> None:
        """The reads of one node are done that are due now; of full nodes first."""
        if alarm != self._alarm:
            return
        self._advance()
        full = self._due[True]
        if full and full[0][0] <= self.env.now:
            node = full[0][3]
        else:
            node = self._due[False][0][3]
            self._level = max(self._level, node.due)
        self._take_out(node)
        while node.reads and node.reads[0][0] <= node.level:
            _, _, done, turn, _ = heappop(node.reads)
            happen(done, turn)
        self._put_in(node)
        self._share()
