"""SPDL's pipeline: a task for each item of a stage, and a queue for two items behind each stage.

As in SPDL 0.8 (`spdl/pipeline/_components`): a stage takes an item when fewer than `concurrency`
tasks are under way, and a task is over when its result was put into the next queue. A region of
stages in processes (`_fuse.py`, `_subprocess_pipeline_pool.py`) is such a pipeline in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from dlsim.engine.pipelines.run import END, SOURCE, Pool, Run, Steps, hand_on
from dlsim.engine.processes.buffer import Turnstile
from dlsim.scenario.pipeline import Aggregate, Link, Pipe, Region

BETWEEN = 2  # items that a queue between two stages has room for
SINK = 3  # and the sink of a pipeline in a process of a region


class Sink:
    """Where training takes items."""

    def __init__(self, queue: simpy.Store) -> None:
        self.queue = queue

    def next(self, thread: int) -> Steps:
        """The next item, or END."""
        return (yield self.queue.get())


def build(run: Run) -> Sink:
    """Start all stages; the sink of the last one."""
    pipeline = run.pipeline
    queue = simpy.Store(run.env, BETWEEN)
    run.env.process(source(run, queue))
    pool = Pool(run, pipeline.num_threads)
    return Sink(started(run, pool, pipeline.links, 1, queue, pipeline.buffer_size))


def started(
    run: Run, shared: Pool, links: Sequence[Link], number: int, queue: simpy.Store, room: int
) -> simpy.Store:
    """The sink, with `room` for so many items, of stages from `number` on behind a `queue`."""
    env = run.env
    for link in links:
        behind = simpy.Store(env, BETWEEN)
        if isinstance(link, Aggregate):
            env.process(aggregate(link, queue, behind))
        elif isinstance(link, Region):
            region(run, link, number, queue, behind)
            number += len(link.links) - 1
        else:
            assert isinstance(link, Pipe)
            pool = shared if link.threads is None else Pool(run, link.threads, shared.lock)
            kind = in_order if link.output_order == "input" else as_completed
            env.process(kind(run, pool, number, link.concurrency, queue, behind))
        queue, number = behind, number + 1
    sink = simpy.Store(env, room)
    env.process(hand_on(queue, sink))
    return sink


def region(run: Run, link: Region, number: int, queue: simpy.Store, behind: simpy.Store) -> None:
    """Stages in processes: item i goes to process i mod `workers`, however busy that one is."""
    env, room = run.env, max(4, 2 * link.workers)
    back = simpy.Store(env, room)
    inboxes = [simpy.Store(env, room) for _ in range(link.workers)]
    for inbox in inboxes:
        pool = Pool(run, sum(pipe.concurrency for pipe in link.links), Turnstile(env))
        first = simpy.Store(env, BETWEEN)
        env.process(hand_on(inbox, first))
        env.process(hand_on(started(run, pool, link.links, number, first, SINK), back))
    env.process(deal(queue, inboxes))
    env.process(collect(back, link.workers, behind))


def deal(queue: simpy.Store, inboxes: Sequence[simpy.Store]) -> Steps:
    """One item to each process in turn; none overtakes another that waits for a full inbox."""
    place = 0
    while (item := (yield queue.get())) is not END:
        yield inboxes[place % len(inboxes)].put(item)
        place += 1
    for inbox in inboxes:
        yield inbox.put(END)


def collect(back: simpy.Store, workers: int, behind: simpy.Store) -> Steps:
    """What comes back from processes, as it comes, until all have ended."""
    while workers:
        item = yield back.get()
        if item is END:
            workers -= 1
        else:
            yield behind.put(item)
    yield behind.put(END)


def source(run: Run, queue: simpy.Store) -> Steps:
    """A thread that reads the next item when the last one is in the queue."""
    thread = run.thread()
    for item in range(run.pipeline.length):
        yield from run.perform(SOURCE, item, thread)
        yield queue.put(item)
    yield queue.put(END)


def as_completed(
    run: Run, pool: Pool, number: int, concurrency: int, queue: simpy.Store, behind: simpy.Store
) -> Steps:
    """A stage whose results are handed on as they are done."""

    def task(item: int) -> Steps:
        yield from pool.perform(item, number)
        yield behind.put(item)

    tasks: list[simpy.Process] = []
    while (item := (yield queue.get())) is not END:
        tasks.append(run.env.process(task(item)))
        if len(tasks) >= concurrency:
            yield run.env.any_of(tasks)
            tasks = [task for task in tasks if task.is_alive]
    yield run.env.all_of(tasks)
    yield behind.put(END)


def in_order(
    run: Run, pool: Pool, number: int, concurrency: int, queue: simpy.Store, behind: simpy.Store
) -> Steps:
    """A stage whose results are handed on as items came.

    Tasks lie in a queue of their own, from which the first is waited for: so that besides those in
    the queue there are the one that is waited for, and the one that is to be put.
    """
    tasks = simpy.Store(run.env, concurrency)

    def hand_out() -> Steps:
        while (entry := (yield tasks.get())) is not END:
            task, item = entry
            yield task
            yield run.env.timeout(0)  # asyncio's wait lets others go on first, if it is done, too
            yield behind.put(item)
        yield behind.put(END)

    run.env.process(hand_out())
    while (item := (yield queue.get())) is not END:
        yield tasks.put((run.env.process(pool.perform(item, number)), item))
    yield tasks.put(END)


def aggregate(link: Aggregate, queue: simpy.Store, behind: simpy.Store) -> Steps:
    """So many items become one, which is numbered as such."""
    made = held = 0
    while (yield queue.get()) is not END:
        held += 1
        if held == link.size:
            yield behind.put(made)
            made, held = made + 1, 0
    if held and not link.drop_last:
        yield behind.put(made)
    yield behind.put(END)
