"""Torch's own DataLoader, unmodified, under a virtual clock: what the simulation must equal.

The installed torch decides who gets which batch and when; the dataset, the collate function and
the training step only let virtual time pass, by the same random numbers as the simulation.
"""

from __future__ import annotations

import contextlib
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol
from unittest import mock

import numpy as np
import torch
from msgspec import structs
from torch.utils.data import DataLoader, _utils

from dlsim.engine.facts import (
    CAPACITY_AWARE_SINCE,
    MAIN,
    failure,
    last_of_epoch,
    made_again,
)
from dlsim.engine.processes.epochs import Metas
from dlsim.engine.ranks import rank_seed
from dlsim.engine.simulation import versions
from dlsim.scenario import IterableDataset, Scenario, ScenarioError
from dlsim.scenario.errors import require
from dlsim.trace.trace import Meta, Problem, Trace
from dlsim.validation.virtual.clock import Clock, VirtualContext
from dlsim.validation.virtual.data import (
    Dealt,
    Distributed,
    Endless,
    Order,
    SavedBatchedMap,
    SavedIterable,
    SavedMap,
    UserError,
    VirtualBatchedMap,
    VirtualIterable,
    VirtualMap,
    VirtualWork,
)
from dlsim.validation.virtual.loops import looped, of_rank
from dlsim.validation.virtual.record import Batch, Watcher


def run_virtual(scenario: Scenario, seed: int = 0, *, samples: bool = False) -> Trace:
    """The trace of the installed torch's DataLoader under a virtual clock.

    It equals `simulate(scenario, seed, samples=samples)`, or one of the two is wrong. Raises
    `ScenarioError` for what the installed torch cannot run: another policy than torch's, or the
    rules of another release.
    """
    check_runnable(scenario)
    if scenario.is_job and scenario.job.rank is None:
        raise ScenarioError("job: expected one rank (run_virtual_job is for jobs)")
    seed = rank_seed(seed, scenario.job.rank or 0)
    clock = Clock()
    watcher = Watcher(scenario, seed, clock, samples=samples)
    with undisturbed(), contextlib.closing(clock):
        end, problem = training_loop(scenario, seed, clock, watcher)
    return watcher.trace(metas(seed), problem, end)


def metas(seed: int) -> Metas:
    """What traces of torch's own code tell about themselves, under `seed`."""

    def meta(scenario: Scenario, problem: Problem | None, caught: Sequence[Problem] = ()) -> Meta:
        return Meta(
            engine="torch",
            scenario=scenario,
            seed=seed,
            versions={**versions(), "torch": torch.__version__},
            problem=problem,
            caught=tuple(caught),
        )

    return meta


def check_runnable(scenario: Scenario) -> None:
    """Raise `ScenarioError` for what the installed torch cannot run in virtual time."""
    installed = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if scenario.policy != "torch":
        raise ScenarioError(f"policy: expected torch, whose code is run, got {scenario.policy!r}")
    for key, torchs in (("dispatch", "turns"), ("refill", "return"), ("start_together", 1)):
        value = getattr(scenario.loader, key)
        require(value == torchs, f"loader.{key}", f"{torchs}, as torch's code has it", value)
    aware = CAPACITY_AWARE_SINCE
    other_rules = installed < (2, 6) or (installed < aware) != (scenario.torch_release < aware)
    if not scenario.loader.in_order and other_rules:
        raise ScenarioError(
            f"torch: expected rules that the installed torch {torch.__version__} follows, "
            f"got those of {scenario.torch}"
        )
    if scenario.loader.threads:
        raise ScenarioError("loader.workers: expected processes, as torch has them, got threads")
    if not scenario.ideal:
        raise ScenarioError(
            "machine, costs, pin_memory: expected an ideal machine, on which time is virtual"
        )
    if scenario.validation is not None:
        check_runnable(scenario.validating)


class Others(Protocol):
    """Other ranks of a job, as one of them meets them."""

    def stepped(self, batch: int) -> None:
        """The step on a batch is done."""

    def epoch_over(self, *, last: bool) -> None:
        """The loop over the loader is left."""

    def left(self, problem: Problem | None) -> None:
        """The last epoch is over, or something went wrong."""


class Loop:
    """A loop over a loader of torch; `validation`: another one, for which it stops."""

    def __init__(self, scenario: Scenario, seed: int, clock: Clock, watcher: Watcher) -> None:
        self.scenario, self.clock, self.watcher = scenario, clock, watcher
        self.work = VirtualWork(scenario, seed, clock, watcher)
        make = partial(_loader, scenario, clock, watcher, self.work)
        self.looped, loader = looped(scenario, make)
        if scenario.loader.resume:
            loader.load_state_dict(state_after(scenario, seed))
        self.inner = _Inner(loader, watcher)
        self.last = last_of_epoch(scenario)
        self.epoch = 0
        self.validation: Loop | None = None
        if watcher.validation is not None:
            beside = watcher.validation
            self.validation = Loop(beside.scenario, beside.seed, clock, beside)

    def one_epoch(self, others: Others | None = None) -> None:
        """`iter(loader)`, and a step for each batch."""
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
                if watcher.count == self.last:
                    break
        finally:
            watcher.end_epoch(self.inner.passed)
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

    def _validate(self) -> None:
        assert self.validation is not None
        try:
            self.validation.one_epoch()
        except (UserError, UnboundLocalError, RuntimeError) as error:
            found = self.validation.failed(error)
            self.validation.watcher.problem = found
            raise ValidationFailed(found.kind, f"validation: {found.message}") from None

    def failed(self, error: Exception) -> Problem:
        """What is written down of an error that ended the loop."""
        if isinstance(error, ValidationFailed):
            return Problem(error.kind, error.message, MAIN, self.clock.now)
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
    loop = Loop(scenario, seed, clock, watcher)
    problem, raised = None, Exception()
    try:
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
        loop, made = looped(before, partial(_loader, before, clock, watcher, work))
        inner = _Inner(made, watcher)
        watcher.start_epoch(0)
        iterator = iter(loop)
        for _ in range(batches):
            next(iterator)
        state: dict[str, Any] = made.state_dict()
        del iterator
        inner.forget()
        loop.close()
    return state


def _returned(iterator: Iterator[Batch], watcher: Watcher, inner: _Inner) -> Iterator[Batch]:
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


class _Inner:
    """The iterator of torch's loader, known but not kept alive."""

    def __init__(self, loader: DataLoader[Any], watcher: Watcher) -> None:
        self.watcher, self.alone = watcher, loader.num_workers == 0
        self.state: dict[str, Any] = {}
        make = loader._get_iterator
        self.loader = loader
        loader._get_iterator = partial(self._made, make)  # type: ignore[method-assign]

    def forget(self) -> None:
        """Break the cycle, so that persistent workers go when the loader does."""
        del self.loader._get_iterator

    def _made(self, make: Callable[[], Any]) -> Any:
        try:
            iterator = make()
        except Exception as error:  # a stateful loader makes batches again in here
            frames = traceback.walk_tb(error.__traceback__)
            found = (frame.f_locals.get("self") for frame, _ in frames)
            self.state = next((vars(it) for it in found if hasattr(it, "_rcvd_idx")), {})
            raise
        self.state = vars(iterator)
        if self.alone:
            iterator._next_data = partial(self._next_data, iterator._next_data)
        return iterator

    def _next_data(self, fetch: Callable[[], Any]) -> Any:
        """Without workers: a batch is fetched, or there is none."""
        self.watcher.begin_alone()
        try:
            return fetch()
        except StopIteration:
            self.watcher.exhausted()
            raise

    @property
    def passed(self) -> int:
        """How many batches of the epoch torch has passed over."""
        return int(self.state.get("_rcvd_idx", 0))


def _loader(
    scenario: Scenario,
    clock: Clock,
    watcher: Watcher,
    work: VirtualWork,
    made: Callable[..., DataLoader[Any]],
) -> DataLoader[Any]:
    ours, settings = scenario.loader, dict[str, Any]()
    dataset: Any
    saved = scenario.costs.snapshot > 0
    if isinstance(scenario.dataset, IterableDataset):
        dataset = (SavedIterable if saved else VirtualIterable)(scenario.dataset, work)
        if scenario.job.keeps:
            dataset = of_rank(scenario)(dataset)
    else:
        kind = VirtualBatchedMap if scenario.dataset.batched else VirtualMap
        if saved:
            kind = SavedBatchedMap if scenario.dataset.batched else SavedMap
        dataset = kind(scenario.dataset.length, work)
        deal = "same" if scenario.job.world == 1 else scenario.job.deal
        if deal == "distributed":
            settings["sampler"] = Distributed(scenario, work)
        elif deal == "batches":
            settings["batch_sampler"] = Dealt(scenario, work)
        elif ours.batch_sampler is not None:
            settings["batch_sampler"] = [list(batch) for batch in ours.batch_sampler]
        elif ours.sampler is not None or ours.shuffle:
            settings["sampler"] = Order(scenario, work)
    if "batch_sampler" not in settings:
        settings.update(batch_size=ours.batch_size, drop_last=ours.drop_last)
    if not ours.in_order:  # which releases before 2.6 do not know
        settings["in_order"] = False
    if ours.num_workers:
        settings["multiprocessing_context"] = VirtualContext(
            clock,
            ours.num_workers,
            worker_start=scenario.charged.worker_start,
            index_latency=scenario.charged.index_latency,
            observer=watcher,
        )
    if ours.stateful:
        settings["snapshot_every_n_steps"] = ours.snapshot_every_n_steps
    loader = made(
        dataset,
        num_workers=ours.num_workers,
        # Without an accelerator torch does nothing about it, which is what is asked of it here.
        pin_memory=ours.pin_memory and not torch.accelerator.is_available(),
        prefetch_factor=ours.prefetch_factor,
        persistent_workers=ours.persistent_workers,
        timeout=ours.timeout,
        worker_init_fn=work.init,
        collate_fn=work.collate,
        **settings,
    )
    if ours.endless:
        # As timm and ultralytics do it: torch allows no other change of a loader that is made.
        which = "sampler" if ours.batch_size is None else "batch_sampler"
        object.__setattr__(loader, which, Endless(getattr(loader, which), work))
    return loader


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep what torch's worker loop does to its process from happening to this one."""
    threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        with (
            mock.patch.object(_utils.signal_handling, "_set_worker_signal_handlers", _nothing),
            mock.patch.object(torch.multiprocessing, "_set_thread_name", _nothing),
            mock.patch.object(_utils.worker, "_worker_info", None),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])


def _nothing(*_: object) -> None:
    """Torch's worker loop installs signal handlers and names its thread; ours must not."""
