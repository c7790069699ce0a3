"""Watching a run of a user's DataLoader from outside: `observe`."""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Callable
from itertools import islice
from math import isnan
from pathlib import Path
from threading import get_ident
from time import monotonic, sleep
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from dlsim.engine.simulation import versions
from dlsim.scenario.errors import is_integer, is_number, require
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Meta
from dlsim.validation.observing import accelerator, machine
from dlsim.validation.observing.assemble import Assembly, Setup
from dlsim.validation.observing.probe import MAIN, Probe
from dlsim.validation.observing.problem import DEAD, problem_of
from dlsim.validation.observing.rank import Rank
from dlsim.validation.observing.records import read, started_with
from dlsim.validation.observing.room import with_room
from dlsim.validation.observing.settings import assumed, length, settings
from dlsim.validation.observing.siblings import siblings
from dlsim.validation.observing.turns import turn
from dlsim.validation.observing.unwatchable import ObserveError, check_alone, check_handed_on
from dlsim.validation.observing.wrapped_loader import Failure, Log, Returning, watch

DEATH_NOTICE = 0.5  # seconds to wait for torch to say that a worker is gone


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a loader was watched; `seen` is the trace of the run until then."""

    def __init__(self, seen: Observation) -> None:
        super().__init__()
        self.seen = seen


def observe(
    loader: DataLoader[Any],
    *,
    step: Callable[[Any], object] | None = None,
    batches: int | None = None,
    seconds: float | None = None,
    epochs: int = 1,
    samples: bool = True,
    rank: Rank | None = None,
    progress: Callable[[int], object] = lambda batches: None,
) -> Observation:
    """The trace of a real run of `loader`, in seconds since its first epoch began.

    A copy of the loader is run, whose dataset, sampler, `collate_fn` and `worker_init_fn` are
    wrapped; user code sees its own dataset, the same indices and batches, and random numbers as
    without observation. `step` is called with each batch (None: nothing is done with it). Each
    epoch is left after `batches` batches (None: at its end, or after one batch more than the loader
    says that it has), the first one also after `seconds`, if these pass before. `samples`: keep the
    times of every sample, too. `rank`: which rank of a job this process is; all begin together, and
    where they meet after each step, `stepped` is when this one had come. `progress` is called with
    the number of batches finished since last time.

    Not observed, NaN: `arrived` (but without workers), and `received` of what is not returned; of
    word that a worker's iterator has ended, `received` is the earliest that it can have been.
    The index of an iterable-style dataset's sample is -1. `meta.scenario` holds the settings of
    the loader; it has no durations. `meta.notes`: what watching cost (`overhead`), and what the
    machine did besides (`steal`, `foreign_cpu`), where it tells; all in numbers, in seconds, cores
    and bytes, as JSON (`machine`), with the most memory of its own that a worker was seen to have,
    the CPU time of all workers until they were gone, and how fast the machine was before and after
    (`machine.pace`, the slower one).

    An exception in a worker, in the sampler, or of the loader ends the trace and is found in
    `meta.problem`, as when a worker dies (kind `worker`; what was not returned stays pending). An
    exception in `step` is raised. Raises `ObserveError` for a loader that cannot be watched,
    `ScenarioError` for a bad number of batches, seconds or epochs, and for Ctrl-C `Interrupted`,
    a KeyboardInterrupt that holds the trace of what was seen until then.
    """
    require(
        batches is None or (is_integer(batches) and batches > 0),
        "batches",
        "an integer of at least 1, or None",
        batches,
    )
    require(
        seconds is None or (is_number(seconds) and seconds > 0),
        "seconds",
        "a number above 0, or None",
        seconds,
    )
    require(is_integer(epochs) and epochs > 0, "epochs", "an integer of at least 1", epochs)
    log = Log()
    interruption: KeyboardInterrupt | None = None
    told = None if batches is not None else length(loader)
    last = batches if told is None else told
    memory = machine.WorkerMemory(progress, last if seconds is None else None)
    with tempfile.TemporaryDirectory(prefix="dlsim-", ignore_cleanup_errors=True) as directory:
        probe = Probe(Path(directory), samples=samples)
        watched = watch(loader, probe, log)
        pace, before, children = machine.pace(), machine.load(), machine.ended_children()
        pages = machine.new_pages()
        if loader.num_workers == 0:
            probe.open(MAIN)
        accelerator.begin(loader)
        log.clock.settle()
        if rank is not None:
            rank.meet()
        meet = rank.meet if rank is not None and rank.meets else None
        try:
            batches = run(watched, log, step, meet, batches, told, seconds, epochs, memory)
        except KeyboardInterrupt as interrupt:
            let_go(interrupt)
            if not log.returns:
                raise
            interruption = interrupt
            log.failure = Failure("interrupted", monotonic())
        finally:
            # Workers that outlive an epoch go with the loader.
            vars(watched).clear()
            if loader.num_workers == 0:
                probe.close()
        after, children = machine.load(), machine.ended_children() - children
        pages = machine.new_pages() - pages
        log.device.extend(zip(*log.clock.moments(), strict=True))
        rows = read(Path(directory))
        pages -= started_with(rows)
    setup = Setup(
        num_workers=loader.num_workers,
        iterable=isinstance(loader.dataset, IterableDataset),
        in_order=loader.in_order,
        persistent_workers=loader.persistent_workers,
        samples=samples,
    )
    assembly = Assembly(log, rows, setup)
    problem = problem_of(assembly)
    watching = machine.overhead(assembly.took, samples=samples)
    facts = machine.facts(before, after, watching)
    facts["trained"] = float(step is not None or bool(log.own))
    facts["pace"], facts["siblings"] = max(pace, machine.pace()), siblings()
    facts["slice"] = turn()
    facts |= machine.paged(pages, len(log.returns))
    known = {"worker_bytes": memory.bytes, "workers_cpu": children, "copy": copying(loader, log)}
    known["own"] = float(np.median(log.own)) if log.own else float("nan")
    facts |= {name: value for name, value in known.items() if not isnan(value)}
    notes = {
        "overhead": str(watching),
        "machine": json.dumps(facts),
        **machine.contention(before, after),
    }
    if told is not None and batches == told + 1:
        notes["left"] = f"as it goes on after the {told:,} batches that it says it has"
    if rank is not None:
        notes["rank"] = json.dumps(rank.facts(assembly.zero))
    known_as = settings(loader, assembly, batches, epochs, rank)
    if isinstance(known_as, str):
        notes["no_scenario"] = known_as
    else:
        notes["scenario"] = "the settings of the loader, without durations"
        if (taken := assumed(assembly)) is not None:
            notes["assumed"] = taken
    seen = assembly.observation(
        Meta(
            engine="observed",
            scenario=None if isinstance(known_as, str) else known_as,
            versions=versions("torch"),
            problem=problem,
            notes=notes,
        )
    )
    if interruption is not None:
        raise Interrupted(seen) from interruption
    return seen


def run(
    watched: DataLoader[Any],
    log: Log,
    step: Callable[[Any], object] | None,
    meet: Callable[[], object] | None,
    batches: int | None,
    told: int | None,
    seconds: float | None,
    epochs: int,
    memory: machine.WorkerMemory,
) -> int | None:
    """The training loop; after how many batches each epoch was left, None for at its end.

    `told`: how many it has by the loader's own word; who goes on beyond that may never end.
    `log` takes down how it goes, and the exception that ends it, if any.
    """
    when = None
    try:
        try:
            most = batches if told is None else told + 1
            for epoch in range(epochs):
                limit, before = seconds if epoch == 0 else None, len(log.finished)
                late = run_epoch(watched, log, step, meet, most, limit, memory)
                done = len(log.finished) - before
                if late or (told is not None and done == most):
                    batches = most = done
        except (OSError, EOFError):
            # The connection to a dead worker may break before torch says, by a signal, that the
            # worker died; that exception is raised here, then.
            when = monotonic()
            sleep(DEATH_NOTICE)
            raise
    except Exception as error:
        if log.in_step and not DEAD.search(str(error)):
            raise  # a debugger finds all in its frames, which hold no workers
        let_go(error)
        if not log.draws or isinstance(error, ObserveError):
            raise
        log.failure = Failure(f"{type(error).__name__}: {error}", when or monotonic())
    return batches


def let_go(error: BaseException) -> None:
    """Take from an exception what its frames hold: the workers, which end with their iterator.

    While there is one, it may write into the files of its probe.
    """
    traceback.clear_frames(error.__traceback__)


@with_room
def run_epoch(
    watched: DataLoader[Any],
    log: Log,
    step: Callable[[Any], object] | None,
    meet: Callable[[], object] | None,
    batches: int | None,
    seconds: float | None,
    memory: machine.WorkerMemory,
) -> bool:
    """One pass over the loader; whether it was left because the `seconds` had passed."""
    late, finished, here, told = False, log.finished, {get_ident()}, memory.progress
    # Of a sampler without end, a window of the epoch's batches is already sent.
    log.first.append(len(log.returns if log.endless else log.draws))
    log.started.append(monotonic())
    iterator = iter(watched)
    plain, asked = isinstance(iterator, Returning), monotonic()
    try:
        for batch in islice(iterator, batches):
            if not finished or log.takers != here or len(log.returns) != len(finished) + 1:
                check_taken(watched, log)
            log.in_step = True
            log.entered.append(monotonic() if plain else since_torchs(log, asked))
            if step is not None:
                before = log.clock.mark()
                step(batch)
                log.clock.step(before, log.clock.mark())
            finished.append(monotonic())
            if meet is not None:
                meet()
                log.released.append(monotonic())
            log.in_step = False
            told(1)
            if len(finished) in memory.after:
                if len(finished) == memory.last:
                    log.clock.settle()  # the accelerator goes on meanwhile
                memory.look()
            if seconds is not None and monotonic() - log.started[0] >= seconds:
                late = True
                break
            asked = monotonic()
    except BaseException:
        del iterator
        raise
    log.clock.settle()
    log.left.append(monotonic() - memory.apart(len(finished)))
    del log.returns[len(finished) :]  # taken by the loader's own loop, and given to nobody
    del iterator  # workers that do not persist go with it
    log.ended.append(monotonic() - memory.apart(len(finished)))
    return late


def since_torchs(log: Log, asked: float) -> float:
    """When torch's `next()` returned the batch that the loader's own loop, `asked` then, gave.

    What that loop does to a batch is the beginning of the step on it.
    """
    back = log.returns[-1]
    log.own.append(monotonic() - asked - (back.returned - back.requested))
    return back.returned


def check_taken(watched: DataLoader[Any], log: Log) -> None:
    """Raise `ObserveError` unless batches are taken as a plain loop over torch's loader does."""
    here = get_ident() in log.takers and len(log.takers) == 1
    check_handed_on(watched, len(log.returns), len(log.finished) + 1, here=here)
    if not log.finished:
        check_alone(watched, log.children)


def copying(loader: DataLoader[Any], log: Log) -> float:
    """Seconds for copying a typical batch to the accelerator; NaN where steps are the host's."""
    sizes = [payload.tensor_bytes for payload in log.payloads.values()]
    if not sizes or not any(ended > 0 for _, ended in log.device):
        return float("nan")
    return accelerator.copying(float(np.median(sizes)), pinned=loader.pin_memory)
