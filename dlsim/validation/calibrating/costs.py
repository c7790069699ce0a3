"""What things cost in a run that was observed: every second in its account.

A worker's fetching thread uses CPU for samples, for collating, and for the rest, which is taking
messages and handing over batches. All else that its process uses, its feeder thread uses to
serialise. What the main thread uses inside `next()`, it uses to receive batches and to send
index lists. Waiting for a core is none of these: the simulation finds it out again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlsim.scenario import DlsimError, Scenario
from dlsim.scenario.machine import PIPE_BYTES
from dlsim.trace.first_batches import first_batches
from dlsim.trace.libraries import cores_busy, helping
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats, Integers
from dlsim.validation.calibrating.collating import blocked
from dlsim.validation.calibrating.crowding import crowding
from dlsim.validation.calibrating.firsts import beyond
from dlsim.validation.calibrating.lifetimes import first_samples, lifetimes
from dlsim.validation.calibrating.lock import beside, held_up, own_waits, shares
from dlsim.validation.calibrating.receiving import main_side
from dlsim.validation.calibrating.steps import letting_go, lingering, steps

LEAST_BATCHES = 5
NAN = float("nan")


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
    `tensors`, `bytes`, `path`: of the mean batch. `crowding`: for each batch collated, how busy the
    other cores were meanwhile, from 0 to 1, and whether it was the `first` of its process.
    `busy`: cores that a sample keeps busy, by threads of a library; `unhindered`: CPU of a typical
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
    bytes: float
    path: str
    crowding: Floats
    first: Any
    busy: float
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


def accounts(run: object) -> Accounts:
    """The accounts of an observed run; raises `CalibrateError` as `checked` does."""
    seen, scenario = checked(run)
    machine = json.loads(seen.meta.notes.get("machine", "{}"))
    fetched = np.flatnonzero(~np.isnan(seen.fetched) & (seen.size > 0))
    paid = payload(seen)
    path = str(paid["path"])
    parts: dict[str, Any] = samples(seen, machine, path) | main_side(seen) | steps(seen)
    rebuild = parts.pop("rebuild")
    large = path == "pipe" and float(paid["bytes"]) > PIPE_BYTES
    parts["reading"] = np.empty(0)
    if large and len(parts["receive"]) and not np.isnan(rebuild).all():
        parts["reading"] = np.maximum(parts["receive"] - np.nanmean(rebuild), 0.0)
    if scenario.loader.num_workers:
        collated, collate = beyond(seen.collate_cpu, first_batches(seen))
    else:
        collated, collate = beyond(seen.collate_cpu + besides(seen, machine), seen.order[:1])
        parts["begin_next"] = collated
    collate = collate[fetched]
    looking = 0.0
    if not machine.get("trained", True):
        # What passes between two batches then is letting go of the one before: part of having it.
        # The typical batch tells; after some, workers are looked at, which only watching does.
        if len(parts["step_cpu"]):
            typical = float(np.median(parts["step_cpu"]))
            parts["receive"] = parts["receive"] + typical
            looking = float(np.maximum(parts["step_cpu"] - typical, 0.0).mean())
        parts["step_cpu"], parts["step_wait"] = np.zeros((2, len(parts["step_cpu"])))
    elif not scenario.loader.num_workers:
        # An accelerator works beside the host, which does one thing after another.
        beside = float(np.median(parts["host"])) if parts["ahead"] else 0.0
        collate = collate + letting_go(seen) + beside
    elif not scenario.loader.pin_memory:
        parts["receive"] = parts["receive"] + letting_go(seen)
    work = worker_side(seen, machine, path)
    known = [work[name] for name in ("take", "hand_over") if len(work[name])]
    between = float(sum(values.mean() for values in known))
    put = float(parts["put"].mean()) if len(parts["put"]) else 0.0
    taken = work.pop("begin_take")
    if scenario.loader.num_workers:
        own = parts["begin_cpu"].mean() if len(parts["begin_cpu"]) else 0.0
        parts["begin_cpu"] = own + collated + taken
    return Accounts(
        scenario=scenario,
        numbers=fetched,
        sizes=seen.size[fetched].astype(float),
        collate=collate,
        collate_wait=blocked(seen)[fetched],
        machine=machine,
        looking=looking,
        linger=lingering(seen),
        **parts,
        **work,
        **lifetimes(seen, machine, between, put),
        pin=seen.pin_cpu[seen.order][~np.isnan(seen.pin_cpu[seen.order])],
        copy=machine.get("copy", NAN),
        **paid,
        busy=cores_busy(seen),
        crowding=crowding(seen, machine.get("cores", 1.0))[fetched],
        first=first_batches(seen)[fetched],
    )


def samples(seen: Observation, machine: dict[str, float], path: str) -> dict[str, Any]:
    """What each sample, or call for a batch, was blocked and computed, without being watched."""
    rows = seen.samples
    assert rows is not None
    assert seen.meta.scenario is not None
    wall, cpu, queued = rows.fetched - rows.started, seen.sample_cpu.copy(), seen.sample_queued
    wait = np.maximum(wall - cpu - queued, 0.0)
    index, batch = rows.index, rows.batch
    began, ended = rows.started, rows.fetched
    calls, first, count = np.unique(batch, return_index=True, return_counts=True)
    if getattr(seen.meta.scenario.dataset, "batched", False):
        index, batch, cpu, queued = calls, calls, cpu[first] * count, queued[first] * count
        wait = np.maximum(wall[first] - cpu - queued, 0.0)
        began, ended = began[first], ended[first]
        first = np.arange(len(calls))
    else:
        cpu = np.maximum(cpu - machine.get("watch_sample", 0.0), 0.0)
    together = beside(seen, batch, began, ended)
    lock, wait = shares(seen, path, batch, wait, together), own_waits(seen, wait, together)
    later, computed = first_samples(seen, batch, wait, cpu)
    # Pickling holds up samples that wait as well as the taking of the next index list. Where
    # samples compute, a simulation shares the worker's time between the two by itself.
    blocked = wait.sum() / ((wait + cpu).sum() or 1.0)
    wait[first] += blocked * held_up(seen)[calls]
    return {
        "index": index,
        "batch": batch,
        "wait": wait,
        "cpu": cpu,
        "lock": lock,
        "unhindered": unhindered(cpu, queued),
        "begin_wait": later,
        "begin_cpu": computed,
    }


def unhindered(cpu: Floats, queued: Floats) -> float:
    """CPU seconds of the typical one of those samples, a tenth, that waited for a core least."""
    least = np.argsort(queued, kind="stable")[: max(len(cpu) // 10, 3)]
    return float(np.median(cpu[least])) if len(least) else 0.0


def worker_side(seen: Observation, machine: dict[str, float], path: str) -> dict[str, Any]:
    """CPU of taking, serialising and handing over, between the starts of two batches of a worker.

    What a worker uses beside fetching and pickling, it uses to write the message, to free the
    batch, and to hand it over. Writing what does not fit into the pipe is handing over. So is,
    of a batch in shared memory, what the main process waits for while it rebuilds the batch.
    """
    assert seen.samples is not None
    number = len(seen)
    accounted = seen.batch_cpu + machine.get("watch_batch", 0.0)
    first = first_batches(seen)
    # Until a worker has fetched its first batch, there is nothing to pickle.
    starting = np.where(first, np.nan_to_num(helping(seen)), 0.0)
    began, pickled = beyond(seen.serialise_cpu, first)
    longer = np.zeros(number)
    longer[first] = began
    numbers: list[int] = []
    take: list[float] = []
    beside: list[float] = []
    pickling: list[float] = []
    idle: list[float] = []
    epoch = seen.epoch_of(np.arange(number))
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(seen.cpu_started + seen.fetched))
        now, then = mine[:-1], mine[1:]
        same = seen.cpu_started[then] >= seen.cpu_started[now]  # else a new process
        now, then = now[same], then[same]
        thread = seen.thread_started[then] - seen.thread_started[now]
        used = seen.cpu_started[then] - seen.cpu_started[now] - thread - starting[now]
        for at in np.flatnonzero(first[now]):  # which is pickled beside the next
            both = used[at : at + 2]
            both[:] = max(float(both.mean() - longer[now[at]] / len(both)), 0.0)
        numbers += now.tolist()
        take += (thread - accounted[now]).tolist()
        beside += used.tolist()
        pickling += np.nan_to_num(pickled[now]).tolist()
        # Idle is a worker whose feeder is, too: pickling keeps Python's lock.
        idle_from = np.fmax(seen.fetched, seen.serialised)[now]
        waited = (idle_from < seen.sent[then]) & (epoch[now] == epoch[then])
        idle += (seen.started[then] - seen.sent[then])[waited].tolist()
    begun, taken = beyond(np.maximum(take, 0.0), first[np.array(numbers, np.int64)])
    found = {
        "take": taken,
        "begin_take": float(begun.mean()) if len(begun) else 0.0,
        "begin_serialise": began,
        "latency": np.array(idle),
    }
    if cores_busy(seen) > 1:  # what else the process uses, threads of libraries do
        return {**found, "serialise": np.array(pickling), "hand_over": np.empty(0)}
    # A batch is pickled before or after the next one is begun: what else there is, is known on
    # average only.
    rest = np.maximum(np.subtract(beside, pickling), 0.0)
    if rest.any():
        rest *= max(float(np.mean(beside) - np.mean(pickling)), 0.0) / rest.mean()
    if path == "shm" and len(rest):
        waited = (seen.received - seen.rebuilding - seen.rebuild_cpu)[seen.order]
        waited = waited[~np.isnan(waited)]
        known = float(np.median(waited)) if len(waited) else 0.0
        rest *= min(1.0, known / max(float(rest.mean()), 1e-9))
    return {**found, "serialise": beside - rest, "hand_over": rest}


def besides(seen: Observation, machine: dict[str, float]) -> Floats:
    """CPU of each `next()` without workers that is not of samples, collating, or pinning.

    It goes into drawing indices and into letting go of samples, whose memory is returned.
    """
    used = seen.thread_returned - seen.thread_requested
    known = seen.batch_cpu + machine.get("watch_batch", 0.0)
    rest: Floats = np.maximum(np.nan_to_num(used - known - np.nan_to_num(seen.pin_cpu)), 0.0)
    return rest


def payload(seen: Observation) -> dict[str, Any]:
    """What the mean batch is made of, and which way most of it goes."""
    looked = ~np.isnan(seen.tensors)
    if not looked.any():
        return {"tensors": 0.0, "bytes": 0.0, "path": "shm"}
    shared, pickled = seen.tensor_bytes[looked].mean(), seen.pickled_bytes[looked].mean()
    return {
        "tensors": float(seen.tensors[looked].mean()),
        "bytes": float(shared + pickled),
        "path": "shm" if shared >= pickled else "pipe",
    }
