"""The training loop around torch's loader in virtual time: its steps, its errors, its end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from msgspec import structs

from dlsim.engine.facts import MAIN, failure, last_of_epoch, made_again
from dlsim.scenario import Scenario
from dlsim.trace.trace import Problem
from dlsim.validation.virtual.clock import Clock
from dlsim.validation.virtual.data import UserError, VirtualWork
from dlsim.validation.virtual.dispatching import Dispatched, VirtualBroadcasts
from dlsim.validation.virtual.loops import Fetcher, Looped, looped
from dlsim.validation.virtual.new_loader import Inner, new_loader
from dlsim.validation.virtual.record import Batch, Watcher


class Others(Protocol):
    """Other ranks of a job, as one of them meets them."""

    broadcasts: VirtualBroadcasts | None

    def stepped(self, batch: int) -> None:
        """The step on a batch is done."""

    def epoch_over(self, *, last: bool) -> None:
        """The loop over the loader is left."""

    def left(self, problem: Problem | None) -> None:
        """The last epoch is over, or something went wrong."""


class Loop:
    """A loop over a loader of torch; `validation`: another one, for which it stops."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        clock: Clock,
        watcher: Watcher,
        broadcasts: VirtualBroadcasts | None = None,
        *,
        evaluates: bool = False,
    ) -> None:
        self.scenario, self.clock, self.watcher = scenario, clock, watcher
        self.validation: Loop | None = None
        self.last = last_of_epoch(scenario)
        self.epoch = 0
        self.dispatched: Dispatched | None = None
        if broadcasts is not None:
            self.dispatched = Dispatched(scenario, seed, clock, watcher, broadcasts)
            self.looped: Looped = self.dispatched
            self.inner, self.work = self.dispatched.inner, self.dispatched.work
            return
        self.work = VirtualWork(scenario, seed, clock, watcher)
        make = partial(new_loader, scenario, clock, watcher, self.work)
        self.looped, loader = looped(scenario, make, evaluates=evaluates)
        if scenario.loader.resume:
            loader.load_state_dict(state_after(scenario, seed))
        self.inner = Inner(loader, watcher)
        if watcher.validation is not None:
            beside = watcher.validation
            self.validation = Loop(beside.scenario, beside.seed, clock, beside, evaluates=True)

    def one_epoch(self, others: Others | None = None, most: int | None = None) -> None:
        """`iter(loader)`, and a step for each batch, of which there are at `most` so many."""
        limits = [each for each in (self.scenario.consumer.stop_after, most) if each is not None]
        last = self.last if most is None else min(most, self.last or most)
        if isinstance(self.looped, Fetcher):
            self.looped.limit = min(limits, default=None)
        scenario, watcher, recorder = self.scenario, self.watcher, self.watcher.recorder
        epoch, endless, clock = self.epoch, scenario.loader.endless, self.clock
        self.epoch += 1
        watcher.start_epoch(epoch)
        if not endless:
            self.work.epoch = epoch
        if epoch == 0:
            watcher.skip(scenario.loader.resume - made_again(scenario))
        if epoch == 0 or not endless:
            try:
                self.iterator: Iterator[Batch] | None = iter(self.looped)
            except Exception:
                watcher.end_epoch(self.inner.passed)
                raise
        if epoch == 0 and scenario.loader.resume:  # else a loop has what was passed over
            watcher.thrown_away(self.inner.passed)
        recorder.epoch_primed[-1] = clock.now
        own = scenario.validation
        every = 0 if own is None or own.every is None else own.every
        try:
            assert self.iterator is not None
            for batch in _returned(self.iterator, watcher, self.inner):
                clock.sleep(watcher.step(batch))
                if others is not None:
                    others.stepped(batch.number)
                recorder.finished[batch.number] = clock.now
                if every and watcher.count % every == 0:
                    self._validate()
                if watcher.count == last:
                    break
        finally:
            if self.dispatched is None:
                watcher.end_epoch(self.inner.passed)
            else:
                self.dispatched.end_epoch()
        keeps = scenario.consumer.loop in ("rebind", "lightning") or scenario.loader.stateful
        if own is not None and not every and keeps:
            self._validate()
        final = epoch + 1 == scenario.epochs
        if not endless and (final or scenario.consumer.loop != "rebind"):
            self.iterator = None  # unless workers are persistent, this shuts them down
        if final and not scenario.loader.persistent_workers:
            self.looped.close()
        if own is not None and not every and not keeps:
            self._validate()
        recorder.epoch_ended[-1] = clock.now
        if self.dispatched is not None:
            self.dispatched.ended_epoch()

    def sanity_check(self) -> None:
        """What Lightning's trainer does before it trains."""
        own = self.scenario.validation
        if own is not None and own.num_sanity_val_steps > 0:
            self._validate(own.num_sanity_val_steps)

    def _validate(self, most: int | None = None) -> None:
        assert self.validation is not None
        try:
            self.validation.one_epoch(most=most)
        except (UserError, UnboundLocalError, RuntimeError) as error:
            found = self.validation.failed(error)
            self.validation.watcher.problem = found
            raise ValidationFailed(found.kind, f"validation: {found.message}") from None

    def failed(self, error: Exception) -> Problem:
        """What is written down of an error that ended the loop."""
        if isinstance(error, ValidationFailed):
            return Problem(error.kind, error.message, MAIN, self.clock.now)
        if self.dispatched is not None:
            behind = self.dispatched.behind
            behind.problem = found = _problem(error, self.clock.now, behind, 0)
            return Problem(found.kind, found.message, MAIN, found.time)
        return _problem(error, self.clock.now, self.watcher, 0)

    def forget(self) -> None:
        """Let persistent workers go when the loaders do."""
        self.inner.forget()
        if self.validation is not None:
            self.validation.forget()


class ValidationFailed(Exception):
    """What ended validation ends training, too."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def training_loop(
    scenario: Scenario, seed: int, clock: Clock, watcher: Watcher, others: Others | None = None
) -> tuple[float, Problem | None]:
    """The loop over all epochs; when it ended, and the error that ended it if one did."""
    loop = Loop(scenario, seed, clock, watcher, None if others is None else others.broadcasts)
    problem, raised = None, Exception()
    try:
        loop.sanity_check()
        for epoch in range(scenario.epochs):
            loop.one_epoch(others)
            if others is not None:
                others.epoch_over(last=epoch + 1 == scenario.epochs)
    except (UserError, RuntimeError, ValidationFailed) as error:
        problem, raised = loop.failed(error), error
    loop.forget()
    clock.after_others()
    watcher.is_over()
    if others is not None:
        others.left(problem)
    end = clock.now
    # Its frames hold the iterator in a cycle, which might be collected in some worker.
    raised.__traceback__ = None
    return end, problem


def state_after(scenario: Scenario, seed: int) -> dict[str, Any]:
    """The state of a stateful loader after the batches that `scenario` goes on from.

    It is that of another run, in which nothing goes wrong.
    """
    batches, loader = scenario.loader.resume, scenario.loader
    before = structs.replace(
        scenario, loader=structs.replace(loader, resume=0, timeout=0.0), failures=(), epochs=1
    )
    clock = Clock()
    watcher = Watcher(before, seed, clock, samples=False)
    with contextlib.closing(clock):
        work = VirtualWork(before, seed, clock, watcher)
        loop, made = looped(before, partial(new_loader, before, clock, watcher, work))
        inner = Inner(made, watcher)
        watcher.start_epoch(0)
        iterator = iter(loop)
        for _ in range(batches):
            next(iterator)
        state: dict[str, Any] = made.state_dict()
        del iterator
        inner.forget()
        loop.close()
    return state


def _returned(iterator: Iterator[Batch], watcher: Watcher, inner: Inner) -> Iterator[Batch]:
    """What `next(iterator)` returns, one by one, written down; so is what it raises, if caught."""
    catches = watcher.scenario.consumer.on_error == "continue"
    while True:
        requested = watcher.request()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (UserError, UnboundLocalError, RuntimeError) as error:
            if not catches:
                raise
            problem = _problem(error, watcher.clock.now, watcher, inner.passed)
            watcher.recorder.caught.append(problem)
            error.__traceback__ = None
            continue
        watcher.returned(batch, requested)
        yield batch


def _problem(error: Exception, now: float, watcher: Watcher, passed: int) -> Problem:
    """What was raised `now`, when torch had passed over the epoch's first `passed` batches."""
    found = re.search(r"<(\w+)\|(-?\d+)\|(.*)>", str(error))
    if isinstance(error, UnboundLocalError):  # worker_init_fn failed, and this is not the first job
        number = watcher.passed_last(passed)
        worker = int(watcher.recorder.worker[number])
        raised = failure(watcher.scenario, "worker_init_fn", worker)
        assert raised is not None
        kind, message = raised.kind, raised.message
    elif found is None:
        if "timed out" not in str(error):
            raise error
        return Problem("timeout", str(error), MAIN, now)
    else:
        kind, number, message = found[1], int(found[2]), found[3]
        if kind == "worker_init_fn" and watcher.scenario.loader.stateful:
            return Problem(kind, message, MAIN, now)
        if kind == "worker_init_fn":  # here the number is the worker's
            number = watcher.first_job[number]
    watcher.failed(number)
    return Problem(kind, message, number, now)
