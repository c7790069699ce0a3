"""SPDL's pipeline: a task for each item of a stage, and a queue for two items behind each stage.

As in SPDL 0.8 (`spdl/pipeline/_components`): a stage takes an item when fewer than `concurrency`
tasks are under way, and a task is over when its result was put into the next queue.
"""

from __future__ import annotations

import simpy

from dlsim.engine.pipelines.run import END, SOURCE, Pool, Run, Steps
from dlsim.scenario.pipeline import Aggregate, Pipe

BETWEEN = 2  # items that a queue between two stages has room for


def build(run: Run) -> simpy.Store:
    """Start all stages; the queue at the sink, from which training takes items."""
    env, pipeline = run.env, run.pipeline
    shared = Pool(run, pipeline.num_threads)
    queue = simpy.Store(env, BETWEEN)
    env.process(source(run, queue))
    for number, link in enumerate(pipeline.links, 1):
        behind = simpy.Store(env, BETWEEN)
        if isinstance(link, Aggregate):
            env.process(aggregate(link, queue, behind))
        else:
            assert isinstance(link, Pipe)
            pool = shared if link.threads is None else Pool(run, link.threads)
            kind = in_order if link.output_order == "input" else as_completed
            env.process(kind(run, pool, number, link.concurrency, queue, behind))
        queue = behind
    sink = simpy.Store(env, pipeline.buffer_size)
    env.process(hand_on(queue, sink))
    return sink


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
        yield from pool.perform(number, item)
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
        yield tasks.put((run.env.process(pool.perform(number, item)), item))
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


def hand_on(queue: simpy.Store, sink: simpy.Store) -> Steps:
    """The sink: one item in hand, the others where training takes them."""
    item = None
    while item is not END:
        item = yield queue.get()
        yield sink.put(item)
