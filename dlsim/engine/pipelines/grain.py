"""grain's pipelines: threads that read ahead, and processes of which one is asked after the other.

As in grain 0.2 (`dataset/transformations/prefetch.py`, `process_prefetch.py`, `interleave.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import simpy

from dlsim.engine.pipelines.nodes import Batches, Node
from dlsim.engine.pipelines.run import END, SOURCE, Pool, Run, Steps, flat, hand_on
from dlsim.engine.processes.buffer import Turnstile
from dlsim.scenario.pipeline import Batcher, Link, Mapper, Read, Workers


def build(run: Run) -> Node:
    """The last node: that of a chain, or of as many as there are processes."""
    links = run.pipeline.links
    if links and isinstance(links[-1], Workers):
        return InTurn(run, links[:-1], links[-1])
    return chained(run, links, slice(None), run.lock)


def chained(run: Run, links: Sequence[Link], part: slice, lock: Turnstile) -> Node:
    """The last node of a chain over a part of the items, in the process that has the `lock`."""
    items: Sequence[Any] = range(run.pipeline.length)
    node: Node | None = None
    for number, link in enumerate(links, 1):
        if isinstance(link, Read):
            node = Ahead(run, items[part], number, link, lock)
        elif isinstance(link, Mapper):
            assert node is not None
            node = Applied(run, node, number)
        else:
            assert isinstance(link, Batcher)
            if node is None:
                items = batches(items, link)
            else:
                node = Batches(node, link.batch_size, drop_last=link.drop_last)
    assert node is not None
    return node


def batches(items: Sequence[Any], link: Batcher) -> Sequence[Any]:
    """Lists of so many items."""
    size = link.batch_size
    end = len(items) - (len(items) % size if link.drop_last else 0)
    return [items[at : at + size] for at in range(0, end, size)]


class Ahead:
    """Reads under way, the first of which is waited for."""

    def __init__(
        self, run: Run, items: Sequence[Any], number: int, link: Read, lock: Turnstile
    ) -> None:
        self.run, self.items, self.number = run, iter(items), number
        self.ahead, self.reads = link.prefetch_buffer_size, deque[simpy.Process]()
        self.pool = Pool(run, link.num_threads, lock)

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        while len(self.reads) <= self.ahead and (item := next(self.items, END)) is not END:
            self.reads.append(self.run.env.process(self._read(item)))
        return (yield self.reads.popleft()) if self.reads else END

    def _read(self, item: Any) -> Steps:
        yield from self.pool.perform(item, SOURCE, self.number)
        return item


class Applied:
    """Something that is done for an item by whoever asks for it."""

    def __init__(self, run: Run, before: Node, number: int) -> None:
        self.run, self.before, self.number = run, before, number

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        item = yield from self.before.next(thread)
        for each in () if item is END else flat(item):
            yield from self.run.perform(self.number, each, thread)
        return item


class InTurn:
    """Processes with a chain each, of which the next one in turn is waited for."""

    def __init__(self, run: Run, links: Sequence[Link], link: Workers) -> None:
        env = run.env
        self.ready: list[simpy.Store] = []
        for worker in range(link.num_workers):
            lock = Turnstile(env)
            node = chained(run, links, slice(worker, None, link.num_workers), lock)
            inside, outside = (simpy.Store(env, link.buffer_size) for _ in range(2))
            env.process(work(run, node, lock, inside))
            env.process(hand_on(inside, outside))
            self.ready.append(outside)
        self.turn = 0

    def next(self, thread: int) -> Steps:
        """The next item, or END when all have ended; one that has is passed over from then on."""
        while self.ready:
            self.turn %= len(self.ready)
            item = yield self.ready[self.turn].get()
            if item is not END:
                self.turn += 1
                return item
            del self.ready[self.turn]
        return END


def work(run: Run, node: Node, lock: Turnstile, queue: simpy.Store) -> Steps:
    """A process that makes the next item when the last one is in the queue."""
    thread, item = run.thread(lock), None
    while item is not END:
        item = yield from node.next(thread)
        yield queue.put(item)
