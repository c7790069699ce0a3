"""The main process: `next()`, and the training step.

`Workers` follows torch's `_MultiProcessingDataLoaderIter`, `MainProcess` its
`_SingleProcessDataLoaderIter`; both are the loader that `training_loop` iterates over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dlsim.engine.buffer import Mailbox
from dlsim.engine.clock import Steps, settle, until
from dlsim.engine.dispatcher import Dispatcher
from dlsim.engine.run import Run
from dlsim.engine.sampler import Jobs
from dlsim.engine.worker import (
    ENDED,
    MAIN,
    RESUME,
    STOP,
    Fetched,
    Outcome,
    Pool,
    Raised,
    fetch,
    source,
    worker,
)
from dlsim.trace import trace as fates
from dlsim.trace.trace import Problem

JOIN_TIMEOUT = 5.0  # torch's MP_STATUS_CHECK_INTERVAL, seconds it waits for a worker to exit


class LoaderError(Exception):
    """What `next()` raises in the training loop; the simulation ends there."""

    def __init__(self, kind: str, message: str, batch: int) -> None:
        super().__init__(message)
        self.kind, self.batch = kind, batch


class Workers:
    """The loader with workers."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`: start the workers, or wake persistent ones; then send the window."""
        run = self.run
        loader = run.scenario.loader
        if epoch == 0 or not loader.persistent_workers:
            yield from self._start_workers(epoch)
        else:
            yield from self._resume_workers()
        self.dispatcher.start_epoch(Jobs(run.scenario, run.seed, epoch))
        self.dispatcher.prime()

    def _start_workers(self, epoch: int) -> Steps:
        run = self.run
        count = run.scenario.loader.num_workers
        self.pool = Pool([Mailbox(run.env) for _ in range(count)], Mailbox(run.env))
        for number in range(count):
            yield until(run.env, run.env.now + run.scenario.costs.worker_start)
            self.pool.processes.append(run.env.process(worker(run, number, epoch, self.pool)))
        self.dispatcher = Dispatcher(run.env, run.scenario, self.pool.index_queues, run.recorder)

    def _resume_workers(self) -> Steps:
        """Tell every worker that an epoch begins, and wait for all to say so.

        What they still had to do of the last epoch is done first, and thrown away.
        """
        for number in range(len(self.pool.index_queues)):
            self.dispatcher.deliver(number, RESUME)
        waiting_for = len(self.pool.index_queues)
        while waiting_for > 0:
            answer = yield from self._receive()
            if answer.outcome is None:
                waiting_for -= 1
            else:
                self.run.recorder.status[answer.number] = fates.DISCARDED

    def _receive(self) -> Steps:
        """Torch's `_get_data`: the next answer; the timeout counts for each one anew."""
        loader = self.run.scenario.loader
        answer = yield from self.pool.result_queue.get_within(loader.timeout)
        if answer is None:
            message = f"DataLoader timed out after {loader.timeout} seconds"
            raise LoaderError("timeout", message, MAIN)
        if answer.outcome is not None:
            self.run.recorder.received[answer.number] = self.run.env.now
        return answer

    def next(self) -> Steps:
        """`next(iterator)`: the number of the batch returned, or None at the end of the epoch."""
        dispatcher = self.dispatcher
        tasks, in_order = dispatcher.tasks, self.run.scenario.loader.in_order
        while True:
            if not self._find_wanted():
                if not self.run.scenario.loader.persistent_workers:
                    yield from self.close()
                return None
            wanted = dispatcher.wanted
            if tasks.holds(wanted):
                dispatcher.wanted += 1
                return self._process(wanted)
            answer = yield from self._receive()
            if answer.outcome is ENDED:
                self.run.recorder.status[answer.number] = fates.ENDED
                if not self.run.scenario.loader.persistent_workers:
                    dispatcher.deliver(answer.worker, STOP)
                dispatcher.ended(answer.worker)
                continue
            tasks.hold(answer.number, answer.outcome)
            if answer.number == wanted:
                dispatcher.wanted += 1
                return self._process(wanted)
            if not in_order:
                return self._process(answer.number)

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
                tasks.release(dispatcher.wanted)
            dispatcher.wanted += 1
        return False

    def _process(self, number: int) -> int:
        """Torch's `_process_data`: send the next batch, then return this one or raise for it."""
        owner = self.dispatcher.tasks.owner(number)
        assert owner is not None
        outcome = self.dispatcher.tasks.release(number)
        self.dispatcher.returned(owner)
        return checked(self.run, number, outcome)

    def step(self, number: int) -> float:
        """Seconds that the training step on batch `number` takes."""
        return self.dispatcher.steps.pop(number)

    def close(self) -> Steps:
        """Torch's `_shutdown_workers`: nothing new is begun, and everyone exits or is terminated.

        A worker gets five seconds to finish the batch it is at; the waits are one after another.
        """
        run, pool = self.run, self.pool
        yield from settle(run.env)
        pool.closing = True
        for number in range(len(pool.processes)):
            self.dispatcher.deliver(number, STOP)
        for process in pool.processes:
            if process.is_alive:
                yield process | run.env.timeout(JOIN_TIMEOUT)
        for process in pool.processes:
            if process.is_alive:
                process.interrupt("terminate")


class MainProcess:
    """The loader without workers: everything happens inside `next()`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`, which sends nothing."""
        run = self.run
        self.jobs = Jobs(run.scenario, run.seed, epoch)
        self.samples = source(run.scenario, run.seed, epoch, MAIN)
        yield from ()

    def next(self) -> Steps:
        """`next(iterator)`: fetch a batch; its number, or None at the end of the epoch."""
        env, recorder = self.run.env, self.run.recorder
        indices = self.jobs.next_indices()
        if indices is None:
            return None
        number = len(recorder)
        self.job = self.jobs.job(number, indices)
        recorder.sent_to(MAIN, len(indices), env.now)
        outcome = yield from fetch(self.run, self.job, MAIN, self.samples)
        recorder.arrived[number] = recorder.received[number] = env.now
        if outcome is ENDED:
            recorder.status[number] = fates.ENDED
            return None
        return checked(self.run, number, outcome)

    def step(self, number: int) -> float:
        """Seconds that the training step on batch `number` takes."""
        return self.job.step

    def close(self) -> Steps:
        """Nobody has to be waited for."""
        yield from ()


Loader: TypeAlias = Workers | MainProcess


def checked(run: Run, number: int, outcome: Outcome) -> int:
    """The batch number, if a batch came of it; else `LoaderError` with what was raised."""
    if isinstance(outcome, Raised):
        run.recorder.status[number] = fates.FAILED
        raise LoaderError(outcome.kind, outcome.message, number)
    assert isinstance(outcome, Fetched)
    return number


def training_loop(run: Run, loader: Loader, progress: Callable[[int], object]) -> Steps:
    """All epochs: a step for each batch, until the loader or `stop_after` ends the epoch.

    An exception ends the loop; it is written down, and nothing is raised.
    """
    env, recorder, scenario = run.env, run.recorder, run.scenario
    stop_after = scenario.consumer.stop_after
    try:
        for epoch in range(scenario.epochs):
            recorder.epoch(env.now)
            yield from loader.start_epoch(epoch)
            recorder.epoch_primed[-1] = env.now
            count = 0
            while True:
                requested = env.now
                number = yield from loader.next()
                if number is None:
                    break
                recorder.returned_to_user(number, requested, env.now)
                yield until(env, env.now + loader.step(number))
                recorder.finished[number] = env.now
                count += 1
                progress(1)
                if count == stop_after:
                    if not scenario.loader.persistent_workers:
                        yield from loader.close()
                    break
            recorder.epoch_ended[-1] = env.now
    except LoaderError as error:
        recorder.problem = Problem(error.kind, str(error), error.batch, env.now)
