"""The accounts of observed runs, and which runs have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlsim.scenario import DlsimError, Scenario
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats, Integers

LEAST_BATCHES = 5


class CalibrateError(DlsimError):
    """Runs from which no scenario can be made."""


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Seconds, one entry for each sample, batch or worker it was seen of.

    `index`, `wait`, `cpu`: of each sample (of each call, where one call fetches a batch), `batch`
    its number. `sizes`, `collate`: of each batch collated, and for how long it was blocked then,
    `collate_wait`. `take`, `serialise`, `hand_over`: CPU of
    workers for each batch. `receive`, `put`: CPU of the main process for each, inside `next()` or
    in the pin-memory thread; `reading`: what of receiving is reading from the pipe, in pieces;
    `jitter`: receiving, of each that was received by itself, relative to their mean; `pin`: of
    copying it into pinned memory. `latency`: from putting an index list until an idle worker has
    it. `step_wait`, `step_cpu`: of each step, the main thread; `step_threads`: threads busy in it;
    `linger`: for how long others of them keep a core busy when it is over; `looking`: CPU in place
    of a step, for each batch, to look
    at workers' memory. `device`: what the accelerator took for each, copying included, if it was
    seen; `host`: what passed until the host left it; `ahead`: how many steps it was ahead at most;
    `copy`: of copying a batch to the accelerator, NaN if not known. `start`,
    `ready`, `stop`: of each worker, and `begin`: for which it is blocked before it takes work;
    `begin_wait`, `begin_cpu`: by how much its first sample exceeds others, and its first batch in
    what its thread computes besides; `begin_serialise`: of its feeder thread; `begin_next`:
    of the main process in `next()`, but for `begin_receive`, in rebuilding; `begin_put`: how long
    it is held up in the first sending.
    `tensors`, `bytes`, `path`: of the mean batch; `listed`: its tensors that come with samples, one
    or more with each. `crowding`: for each batch collated, how busy the
    other cores were meanwhile, from 0 to 1, and whether it was the `first` of its process.
    `busy`: cores that a sample keeps busy, by threads of a library; `lingers`: for how long these
    keep one busy while it is blocked; `unhindered`: CPU of a typical
    one that had not to wait for a core.
    """

    scenario: Scenario
    index: Integers
    batch: Integers
    wait: Floats
    cpu: Floats
    lock: Floats
    numbers: Integers
    sizes: Floats
    collate: Floats
    collate_wait: Floats
    take: Floats
    serialise: Floats
    hand_over: Floats
    receive: Floats
    reading: Floats
    jitter: Floats
    put: Floats
    pin: Floats
    latency: Floats
    step_wait: Floats
    step_cpu: Floats
    step_threads: float
    linger: float
    looking: float
    device: Floats
    host: Floats
    ahead: int
    copy: float
    start: Floats
    ready: Floats
    begin: Floats
    begin_wait: Floats
    begin_cpu: Floats
    begin_serialise: Floats
    begin_next: Floats
    begin_receive: Floats
    begin_put: Floats
    stop: Floats
    tensors: float
    listed: float
    bytes: float
    path: str
    crowding: Floats
    first: Any
    busy: float
    lingers: float
    unhindered: float
    machine: dict[str, float] = field(default_factory=dict)


def of_batches(run: Accounts) -> Floats:
    """CPU seconds of a sample, fetched and collated, on average over each batch collated."""
    fetched = np.bincount(run.batch, run.cpu, int(run.numbers.max(initial=-1)) + 1)
    return (fetched[run.numbers] + run.collate) / np.maximum(run.sizes, 1)


def together(runs: Sequence[Accounts], name: str) -> Floats:
    """One account of all runs."""
    found: Floats = np.concatenate([getattr(run, name) for run in runs])
    return found


def by_start_method(runs: Sequence[Accounts]) -> list[list[Accounts]]:
    """The runs by how their workers were started, those like the first run first."""
    groups: dict[str, list[Accounts]] = {}
    for run in runs:
        groups.setdefault(run.scenario.loader.start_method, []).append(run)
    return list(groups.values())


def checked(seen: object, name: str = "run") -> tuple[Observation, Scenario]:
    """The observed run, from which something can be calibrated, and its settings.

    `name`: what a message calls it.

    Raises `CalibrateError` for what is no observed run, for one whose settings or samples were
    not seen, and for one of fewer than five batches.
    """
    if not isinstance(seen, Observation):
        raise CalibrateError(
            f"{name}: expected a run that dlsim observe watched, got another trace"
        )
    if len(seen.order) < LEAST_BATCHES:
        raise CalibrateError(
            f"{name}: expected at least {LEAST_BATCHES} batches to calibrate, got {len(seen.order)}"
        )
    if seen.meta.scenario is None:
        why = seen.meta.notes.get("no_scenario", "its sampler gives other than integers")
        raise CalibrateError(
            f"{name}: its loader cannot be put as a scenario: {why}; watch it with a sampler, or "
            "batch_sampler, of integers"
        )
    if seen.samples is None:
        raise CalibrateError(f"{name}: expected one observed with its samples, got one without")
    return seen, seen.meta.scenario
