"""The main process: `iter(loader)` and `next()`.

`Workers` follows torch's `_MultiProcessingDataLoaderIter`, `MainProcess` its
`_SingleProcessDataLoaderIter`; both are the loader that the loop in `epochs.py` iterates over,
perhaps by way of one of the loops in `loops.py`.
"""

from __future__ import annotations

from math import inf
from typing import Protocol, TypeAlias

from dlsim.engine.facts import MAIN, Raised, made_again, patience
from dlsim.engine.processes.buffer import Pool
from dlsim.engine.processes.clock import Steps, settle, sleep
from dlsim.engine.processes.dispatcher import Dispatcher, index_queues
from dlsim.engine.processes.fetch import fetch, source
from dlsim.engine.processes.messages import ENDED, HELLO, RESUME, STOP, Answer, Batch, Fetched
from dlsim.engine.processes.run import Run
from dlsim.engine.processes.sampler import Job
from dlsim.engine.processes.transport import (
    answers,
    feeder,
    pin,
    pin_memory_thread,
    receive,
    stop_pinning,
)
from dlsim.engine.processes.worker import worker
from dlsim.trace import trace as fates
from dlsim.trace.trace import Problem


class LoaderError(Exception):
    """What `next()` or `iter()` raises in the training loop."""

    def __init__(self, kind: str, message: str, batch: int) -> None:
        super().__init__(message)
        self.kind, self.batch = kind, batch

    def at(self, now: float) -> Problem:
        """As it is written down."""
        return Problem(self.kind, str(self), self.batch, now)


class Workers:
    """The loader with workers."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._begun = False  # whether `next()` was called

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`: start the workers, or wake persistent ones; then send the window.

        The iterator over an endless sampler is made once.
        """
        run = self.run
        loader = run.scenario.loader
        if epoch > 0 and loader.endless:
            return
        if epoch == 0 or not loader.persistent_workers:
            yield from self._start_workers(epoch)
            if loader.stateful:
                yield from self._call_all(HELLO)
        else:
            yield from self._call_all(RESUME)
        self.dispatcher.start_epoch(run.jobs(epoch))
        again = made_again(run.scenario) if epoch == 0 else 0
        if epoch == 0:
            self.dispatcher.skip(loader.resume - again)
        yield from self.dispatcher.prime()
        yield from throw_away(run, self, again)

    def _start_workers(self, epoch: int) -> Steps:
        run = self.run
        costs = run.costs
        loader = run.scenario.loader
        queues = index_queues(run)
        self.pool = pool = Pool(run.env, loader.num_workers, queues, pin_memory=run.pins)
        for number in range(loader.num_workers):
            if number % loader.start_together == 0:
                beginning = 0.0 if number or self._begun else costs.first_start
                yield from run.compute(MAIN, beginning + costs.worker_start)
            pool.processes.append(run.env.process(worker(run, number, epoch, pool)))
            if run.feeds:
                run.env.process(feeder(run, number, pool))
        if run.pins:
            pool.pin_memory_thread = run.env.process(pin_memory_thread(run, pool))
        self.dispatcher = Dispatcher(run, queues)
        if costs.first_put > 0:
            yield sleep(run.env, costs.first_put, run.turns.last)

    def _call_all(self, message: str) -> Steps:
        """Tell every worker that it, or an epoch, begins, and wait for all to say that they know.

        What they still had to do of the last epoch is done first, and thrown away.
        """
        waiting_for = len(self.pool.processes)
        for number in range(waiting_for):
            self.dispatcher.deliver(number, message)
        while waiting_for > 0:
            answer = yield from self._receive()
            if answer.number != MAIN:
                self.run.recorder.status[answer.number] = fates.DISCARDED
                continue
            if answer.outcome is not None:
                raise LoaderError(answer.outcome.kind, answer.outcome.message, MAIN)
            waiting_for -= 1

    def _receive(self) -> Steps:
        """Torch's `_get_data`: the next answer; the timeout counts for each one anew."""
        loader = self.run.scenario.loader
        answer = yield from answers(self.run, self.pool).get_within(loader.timeout)
        if answer is None:
            message = f"DataLoader timed out after {loader.timeout} seconds"
            raise LoaderError("timeout", message, MAIN)
        if not self.run.pins:
            yield from receive(self.run, answer, self.run.turns.last)
        return answer

    def next(self) -> Steps:
        """`next(iterator)`: the batch it returns, or None at the end of the epoch."""
        dispatcher = self.dispatcher
        tasks, in_order = dispatcher.tasks, self.run.scenario.loader.in_order
        while True:
            if not self._find_wanted():
                if not self.run.scenario.loader.persistent_workers:
                    yield from self.close()
                return None
            if not self._begun:
                self._begun = True
                yield from self.run.compute(MAIN, self.run.costs.first_next)
            wanted = dispatcher.wanted
            if tasks.holds(wanted):
                dispatcher.wanted += 1
                return (yield from self._process(wanted))
            answer = yield from self._receive()
            if answer.outcome is ENDED:
                self.run.recorder.status[answer.number] = fates.ENDED
                if not self.run.scenario.loader.persistent_workers:
                    dispatcher.deliver(answer.worker, STOP)
                yield from dispatcher.ended(answer.worker)
                continue
            tasks.hold(answer)
            yield from dispatcher.received(answer)
            if answer.number == wanted:
                dispatcher.wanted += 1
                return (yield from self._process(wanted))
            if not in_order:
                return (yield from self._process(answer.number))

    def _find_wanted(self) -> bool:
        """Advance to the next batch that can still come; False when there is none.

        Batches sent to workers that have ended since are skipped.
        """
        dispatcher = self.dispatcher
        tasks = dispatcher.tasks
        while dispatcher.wanted < dispatcher.sent:
            owner = tasks.owner(dispatcher.wanted)
            if owner is not None:
                if tasks.holds(dispatcher.wanted) or dispatcher.active[owner]:
                    return True
                if self.run.recorder.status[dispatcher.wanted] == fates.PENDING:
                    self.run.recorder.skipped(dispatcher.wanted)
                tasks.skip(dispatcher.wanted)
            dispatcher.wanted += 1
        return False

    def _process(self, number: int) -> Steps:
        """Torch's `_process_data`: send the next batch, then return this one or raise for it."""
        owner = self.dispatcher.tasks.owner(number)
        assert owner is not None
        job, answer = self.dispatcher.tasks.release(number)
        yield from self.dispatcher.returned(owner, answer)
        batch = checked(self.run, job, answer)
        self.dispatcher.given += 1
        return batch

    def leave(self) -> Steps:
        """The loop is left early: workers go, unless they outlive an epoch."""
        if not self.run.scenario.loader.workers_stay:
            yield from self.close()

    def close(self) -> Steps:
        """Torch's `_shutdown_workers`: nothing new is begun, and everyone exits or is terminated.

        A worker gets five seconds to finish the batch it is at; the waits are one after another.
        """
        run, pool = self.run, self.pool
        yield from settle(run.env, run.turns.last)
        yield from stop_pinning(run, pool)
        pool.closing = True
        for number in range(len(pool.processes)):
            self.dispatcher.deliver(number, STOP)
        for process in pool.processes:
            if process.is_alive:
                most = patience(run.scenario)
                yield process if most == inf else process | run.env.timeout(most)
                yield from settle(run.env, run.turns.last)
        run.terminate(pool.processes)


class MainProcess:
    """The loader without workers: everything happens inside `next()`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`, which sends nothing."""
        run = self.run
        if epoch == 0 or not run.scenario.loader.endless:
            self.jobs = run.jobs(epoch)
        self.samples = source(run, epoch, MAIN)
        if epoch == 0:
            yield from self._resume()

    def _resume(self) -> Steps:
        """Go on where a state was saved: what has none of its own is fetched again."""
        loader, again = self.run.scenario.loader, made_again(self.run.scenario)
        for _ in range(loader.resume - again):
            self.jobs.next_indices()
        yield from throw_away(self.run, self, again)

    def next(self) -> Steps:
        """`next(iterator)`: fetch a batch and return it, or None at the end of the epoch."""
        env, recorder = self.run.env, self.run.recorder
        indices = self.jobs.next_indices()
        if indices is None:
            return None
        number = len(recorder)
        job = self.jobs.job(number, indices)
        recorder.sent_to(MAIN, len(indices), env.now)
        if number == 0:
            yield from self._begin()
        outcome, size = yield from fetch(self.run, job, MAIN, self.samples)
        answer = Answer(MAIN, number, outcome, size)
        recorder.arrived[number] = recorder.received[number] = env.now
        if self.run.pins:
            yield from pin(self.run, answer, self.run.turns.last)
        if outcome is ENDED:
            recorder.status[number] = fates.ENDED
            return None
        return checked(self.run, job, answer)

    def _begin(self) -> Steps:
        """What comes with the first sample of all."""
        costs = self.run.costs
        yield from self.run.compute(MAIN, costs.first_cpu + costs.first_next)
        if costs.first_sample > 0:
            yield sleep(self.run.env, costs.first_sample, self.run.turns.last)

    def leave(self) -> Steps:
        """Nobody has to be waited for."""
        yield from ()


Loader: TypeAlias = Workers | MainProcess


def throw_away(run: Run, loader: Loader, batches: int) -> Steps:
    """Take so many batches, for a state that was saved when these had been returned."""
    taken = []
    for _ in range(batches):
        batch = yield from loader.next()
        taken.append(batch.number)
    for number in taken:  # where one of them fails, none was thrown away
        run.recorder.status[number] = fates.DISCARDED


def made(run: Run) -> Loader:
    """The loader of the scenario."""
    return Workers(run) if run.scenario.loader.num_workers else MainProcess(run)


class Iterated(Protocol):
    """What `one_epoch` iterates over: a loader, or a loop around one (`loops.py`)."""

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`."""

    def next(self) -> Steps:
        """`next(iterator)`: the batch it returns, or None at the end of the epoch."""

    def leave(self) -> Steps:
        """The loop is left early."""


def checked(run: Run, job: Job, answer: Answer) -> Batch:
    """The batch, if one came of the job; else `LoaderError` with what was raised."""
    if isinstance(answer.outcome, Raised):
        run.recorder.status[job.number] = fates.FAILED
        raise LoaderError(answer.outcome.kind, answer.outcome.message, job.number)
    samples = answer.outcome.count if isinstance(answer.outcome, Fetched) else 0
    step = job.step + run.scenario.consumer.step_per_sample * samples
    return Batch(job.number, step, answer.size)
