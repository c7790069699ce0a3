"""The loop over a loader: all epochs of training, and validation in between.

Validation is the same loop over another loader, an epoch for each time that it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dlsim.engine.facts import MAIN, keeps_iterator, last_of_epoch
from dlsim.engine.processes.barrier import StepsToBarrier
from dlsim.engine.processes.clock import Steps
from dlsim.engine.processes.consumer import Iterated, LoaderError, made
from dlsim.engine.processes.dispatching import Dispatched
from dlsim.engine.processes.loops import looped
from dlsim.engine.processes.run import Run
from dlsim.engine.processes.training import Training
from dlsim.scenario import Scenario
from dlsim.trace.trace import Meta, Problem, Trace

Progress: TypeAlias = Callable[[int], object]
# What a trace tells about itself: of a scenario, what ended it, and what was caught.
Metas: TypeAlias = Callable[[Scenario, Problem | None, Sequence[Problem]], Meta]


class Loop:
    """A loop over the loader of a run; `validation`: another one, for which it stops."""

    def __init__(self, run: Run, progress: Progress, validation: Loop | None = None) -> None:
        self.run, self.progress, self.validation = run, progress, validation
        self.reading = run.reading()
        self.loader: Iterated = (
            looped(run, made) if self.reading is None else Dispatched(run, made(self.reading))
        )
        self.training = training_of(run)
        self.last = last_of_epoch(run.scenario)
        self.epoch = 0

    def one_epoch(self, most: int | None = None) -> Steps:
        """A step for each batch, until the loader, `stop_after` or `most` ends the epoch."""
        last = self.last if most is None else min(most, self.last or most)
        self.run.last = last
        run, recorder, env = self.run, self.run.recorder, self.run.env
        recorder.epoch(env.now, endless=run.scenario.loader.endless)
        yield from self.loader.start_epoch(self.epoch)
        recorder.epoch_primed[-1] = env.now
        count, every = 0, self._every
        while count != last:
            requested = env.now
            try:
                batch = yield from self.loader.next()
            except LoaderError as error:
                if run.scenario.consumer.on_error != "continue":
                    raise
                recorder.caught.append(error.at(env.now))
                continue
            if batch is None:
                break
            recorder.returned_to_user(batch.number, requested, env.now)
            yield from self.training.step(batch.number, batch.step, batch.size)
            count += 1
            self.progress(1)
            if every and count % every == 0:
                yield from self._validate()
        yield from self.training.drain()
        yield from self._leave(early=count == last)
        recorder.epoch_ended[-1] = env.now
        self.epoch += 1

    @property
    def _every(self) -> int:
        """After how many batches of an epoch validation comes; 0: not before its end."""
        own = self.run.scenario.validation
        return 0 if own is None or own.every is None else own.every

    def _leave(self, *, early: bool) -> Steps:
        """The end of an epoch, at which validation may come before the iterator goes, or after."""
        validates = self.validation is not None and not self._every
        first = validates and keeps_iterator(self.run.scenario)
        if first:
            yield from self._validate()
        if early:
            yield from self.loader.leave()
        if validates and not first:
            yield from self._validate()

    def sanity_check(self) -> Steps:
        """Some batches of validation before training begins, as Lightning has it."""
        own = self.run.scenario.validation
        if own is not None and own.num_sanity_val_steps > 0:
            yield from self._validate(own.num_sanity_val_steps)

    def _validate(self, most: int | None = None) -> Steps:
        """Stop for validation, when the accelerator has done all that it was given."""
        assert self.validation is not None
        yield from self.training.catch_up()
        try:
            yield from self.validation.one_epoch(most)
        except LoaderError as error:
            self.validation.run.recorder.problem = error.at(self.run.env.now)
            raise LoaderError(error.kind, f"validation: {error}", MAIN) from None

    def trace(self, metas: Metas, problem: Problem | None, end: float) -> Trace:
        """What happened until `end`, with what ended it; in validation and reading, what theirs."""
        run, beside = self.run, self.validation
        theirs = None if beside is None else beside.trace(metas, beside.run.recorder.problem, end)
        behind = None
        if self.reading is not None:
            own = self.reading.recorder
            behind = own.trace(metas(self.reading.scenario, own.problem, ()), end)
        meta = metas(run.scenario, problem, run.recorder.caught)
        return run.recorder.trace(meta, end, validation=theirs, reading=behind)

    def end(self) -> None:
        """All is over: who still works is terminated."""
        within: object = self.loader
        while hasattr(within, "loader"):  # a loop has the loader that it is around
            within = within.loader
        pool = getattr(within, "pool", None)  # of workers that were started
        if pool is not None:
            self.run.terminate(pool.processes)
        if self.validation is not None:
            self.validation.end()


def training_of(run: Run) -> Training | StepsToBarrier:
    """Where steps are computed: up to a barrier, if there is one after steps."""
    every = run.scenario.job.sync
    if run.barrier is not None and isinstance(every, int):
        return StepsToBarrier(run, run.barrier, every)
    return Training(run)


def loop_of(run: Run, progress: Progress) -> Loop:
    """The loop of a rank, with that of validation where there is one."""
    beside = run.validating()
    return Loop(run, progress, None if beside is None else Loop(beside, progress))


def training_loop(loop: Loop) -> Steps:
    """All epochs.

    An exception is written down, and nothing is raised: it ends the loop, or the loop catches what
    `next()` raises and goes on.
    """
    run = loop.run
    epochs = run.scenario.epochs
    try:
        yield from loop.sanity_check()
        for epoch in range(epochs):
            yield from loop.one_epoch()
            if run.barrier is not None:
                yield from run.barrier.end_epoch(run.rank, last=epoch + 1 == epochs)
    except LoaderError as error:
        run.recorder.problem = error.at(run.env.now)
