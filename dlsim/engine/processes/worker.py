"""A worker: takes jobs off its index queue, fetches, collates, and puts the outcome on a queue.

It follows torch's `_worker_loop`.
"""

from __future__ import annotations

import simpy

from dlsim.engine.facts import MAIN, Raised, failure
from dlsim.engine.processes.buffer import Pool
from dlsim.engine.processes.clock import Steps, sleep
from dlsim.engine.processes.fetch import fetch, source
from dlsim.engine.processes.messages import ENDED, HELLO, RESUME, STOP, Answer, Outcome
from dlsim.engine.processes.run import Run


def worker(run: Run, number: int, epoch: int, pool: Pool) -> Steps:
    """Worker process `number`, started in `epoch`, until it is told to stop or terminated."""
    try:
        yield sleep(run.env, 0.0, run.turns.worker(number))
        costs = run.costs
        yield from run.compute(number, costs.worker_ready + costs.first_cpu)
        blocked = costs.blocked(number)
        if blocked > 0:
            yield sleep(run.env, blocked, run.turns.worker(number))
        if failure(run.scenario, "worker_init_fn", number) is None:
            yield from save(run, number)
        yield from work(run, number, epoch, pool)
    except simpy.Interrupt:  # terminated, having taken too long to stop
        if run.recorder.samples is not None:
            run.recorder.samples.cut(pool.at[number], run.env.now)


def work(run: Run, number: int, epoch: int, pool: Pool) -> Steps:
    """One job after another."""
    env, recorder, costs = run.env, run.recorder, run.costs
    samples = source(run, epoch, number)
    # What worker_init_fn raised is told once, as the answer to the first job. There is nothing to
    # fetch with then, until a new epoch makes it; jobs before that fail, too.
    broken = failure(run.scenario, "worker_init_fn", number)
    told, equipped = broken is None, broken is None
    ended = False
    while True:
        job = yield from pool.index_queues.get(number)
        if job is STOP:
            samples.close()
            yield from run.compute(number, costs.worker_stop)
            return
        if job is HELLO:
            send(run, pool, Answer(number, MAIN, broken))
            continue
        if job is RESUME:
            epoch += 1
            samples.close()
            samples = source(run, epoch, number)
            ended, equipped = False, True
            yield from save(run, number)
            send(run, pool, Answer(number, MAIN, None))
            continue
        if ended or pool.closing:
            continue
        pool.at[number] = job.number
        recorder.worker[job.number] = number
        outcome: Outcome
        size = 0.0
        if broken is not None and not (told and equipped):
            outcome, told = broken, True
            recorder.started[job.number] = env.now
            recorder.size[job.number] = 0
        else:
            yield from run.compute(number, costs.take)
            outcome, size = yield from fetch(run, job, number, samples)
        ended = outcome is ENDED
        if ended or (job.snapshot and not isinstance(outcome, Raised)):
            yield from save(run, number)
        send(run, pool, Answer(number, job.number, outcome, size, job.jitter))


def save(run: Run, number: int) -> Steps:
    """A worker of a stateful loader saves its state."""
    if run.scenario.loader.stateful:
        yield from run.compute(number, run.costs.snapshot)


def send(run: Run, pool: Pool, answer: Answer) -> None:
    """Put an answer on the result queue; through the feeder thread where that takes time."""
    if run.feeds:
        pool.outboxes[answer.worker].put(answer)
        return
    if answer.number != MAIN:
        run.recorder.arrived[answer.number] = run.env.now
    pool.result_queue.put(answer, answer.worker)
