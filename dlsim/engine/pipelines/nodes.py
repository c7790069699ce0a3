"""torchdata.nodes' pipelines: `next()` of the last node asks the one before it, and so on.

As in torchdata 0.11 (`nodes/map.py`, `_populate_queue.py`): a ParallelMapper or a Prefetcher has a
thread that takes a slot, asks the node before for an item, and puts it into a queue; the slot is
given back when the item is given out.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import simpy

from dlsim.engine.pipelines.run import END, SOURCE, Run, Steps, flat
from dlsim.scenario.pipeline import Batcher, Link, ParallelMapper, Prefetcher, Unbatcher


class Node(Protocol):
    """Something that can be asked for the next item."""

    def next(self, thread: int) -> Steps:
        """The next item, or END, asked for by a thread."""


STARTING = 0.01  # seconds that a ParallelMapper sleeps once its threads are started


def build(run: Run) -> Steps:
    """`iter(loader)`: starts all nodes, the first one first, and returns the last."""
    node: Node = Source(run)
    for number, link in enumerate(run.pipeline.links, 1):
        node = _node(run, node, number, link)
        if isinstance(link, ParallelMapper):
            yield run.env.timeout(STARTING)
    return node


def _node(run: Run, before: Node, number: int, link: Link) -> Node:
    if isinstance(link, Batcher):
        return Batches(before, link.batch_size, drop_last=link.drop_last)
    if isinstance(link, Unbatcher):
        return Items(before)
    if isinstance(link, Prefetcher):
        return Ahead(run, before, link.prefetch_factor)
    assert isinstance(link, ParallelMapper)
    if link.prebatch is None:
        return Mapped(run, before, number, link)
    lists = Batches(before, link.prebatch, drop_last=False)
    return Items(Mapped(run, lists, number, link))


class Source:
    """The items themselves, each read where it is asked for."""

    def __init__(self, run: Run) -> None:
        self.run, self.items = run, iter(range(run.pipeline.length))

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        item = next(self.items, END)
        if isinstance(item, int):
            yield from self.run.perform(SOURCE, item, thread)
        return item


class Batches:
    """Lists of so many items."""

    def __init__(self, before: Node, size: int, *, drop_last: bool) -> None:
        self.before, self.size, self.drop_last = before, size, drop_last

    def next(self, thread: int) -> Steps:
        """The next list, or END."""
        items: list[Any] = []
        while len(items) < self.size:
            item = yield from self.before.next(thread)
            if item is END:
                return END if self.drop_last or not items else items
            items.append(item)
        return items


class Items:
    """The items of lists, one by one."""

    def __init__(self, before: Node) -> None:
        self.before, self.rest = before, deque[Any]()

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        while not self.rest:
            items = yield from self.before.next(thread)
            if items is END:
                return END
            self.rest.extend(items)
        return self.rest.popleft()


class Ahead:
    """A thread that has read so many items more than were given out."""

    def __init__(self, run: Run, before: Node, slots: int) -> None:
        self.queue = simpy.Store(run.env)
        self.slots = simpy.Container(run.env, capacity=slots, init=slots)
        run.env.process(reader(run, before, self.slots, self.queue))

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        _, item = yield self.queue.get()
        yield self.slots.put(1)
        return item


class Mapped:
    """A thread that reads, and workers that take from one queue what it has read.

    In order, what is done early is held back, and keeps its slot.
    """

    def __init__(self, run: Run, before: Node, number: int, link: ParallelMapper) -> None:
        self.run, self.number, self.in_order = run, number, link.in_order
        self.todo, self.done = simpy.Store(run.env), simpy.Store(run.env)
        self.slots = simpy.Container(run.env, capacity=link.slots, init=link.slots)
        self.early: dict[int, Any] = {}
        self.wanted = 0
        self.last: int | None = None  # the number of the end
        run.env.process(reader(run, before, self.slots, self.todo))
        for _ in range(link.num_workers):
            run.env.process(self._work())

    def _work(self) -> Steps:
        thread = self.run.thread()
        while True:
            place, item = yield self.todo.get()
            if item is not END:
                for each in flat(item):
                    yield from self.run.perform(self.number, each, thread)
            yield self.done.put((place, item))

    def next(self, thread: int) -> Steps:
        """The next item, or END when all before it have been given out."""
        while self.wanted not in self.early if self.in_order else True:
            if self.last == self.wanted:
                return END
            place, item = yield self.done.get()
            if item is END:
                self.last = place
            elif self.in_order:
                self.early[place] = item
            else:
                return (yield from self._given(item))
        return (yield from self._given(self.early.pop(self.wanted)))

    def _given(self, item: Any) -> Steps:
        self.wanted += 1
        yield self.slots.put(1)
        return item


def reader(run: Run, before: Node, slots: simpy.Container, queue: simpy.Store) -> Steps:
    """The thread that takes a slot, asks for an item, and puts it, with its place, into a queue."""
    thread, place, item = run.thread(), 0, None
    while item is not END:
        yield slots.get(1)
        item = yield from before.next(thread)
        yield queue.put((place, item))
        place += 1
