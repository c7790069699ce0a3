"""What things cost in a run that was observed: every second in its account.

A worker's fetching thread uses CPU for samples, for collating, and for the rest, which is taking
messages and handing over batches. All else that its process uses, its feeder thread uses to
serialise. What the main thread uses inside `next()`, it uses to receive batches and to send
index lists. Waiting for a core is none of these: the simulation finds it out again.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dlsim.scenario.machine import PIPE_BYTES
from dlsim.trace.first_batches import first_batches
from dlsim.trace.libraries import cores_busy, helping
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats
from dlsim.validation.calibrating.accounts import Accounts, checked
from dlsim.validation.calibrating.collating import blocked
from dlsim.validation.calibrating.crowding import crowding
from dlsim.validation.calibrating.firsts import beyond
from dlsim.validation.calibrating.lifetimes import first_samples, lifetimes
from dlsim.validation.calibrating.lock import beside, held_up, own_waits, shares
from dlsim.validation.calibrating.receiving import main_side
from dlsim.validation.calibrating.spinning import lingering_between
from dlsim.validation.calibrating.steps import letting_go, lingering, steps

NAN = float("nan")

LEAST_LISTED = 4  # samples in a batch


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
    work, busy = worker_side(seen, machine, path), cores_busy(seen)
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
        busy=busy,
        lingers=lingering_between(seen, parts["batch"], parts["wait"], busy),
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


def listed(seen: Observation, looked: Any) -> float:
    """How many tensors of the batches `looked` at come with their samples, as in a list of images.

    One for each sample at least; of batches so small that others may be as many, none is told.
    """
    size, found = float(seen.size[looked].mean()), float(np.nan_to_num(seen.listed[looked]).mean())
    return found if found >= size >= LEAST_LISTED else 0.0


def payload(seen: Observation) -> dict[str, Any]:
    """What the mean batch is made of, and which way most of it goes."""
    looked = ~np.isnan(seen.tensors)
    if not looked.any():
        return {"tensors": 0.0, "listed": 0.0, "bytes": 0.0, "path": "shm"}
    shared, pickled = seen.tensor_bytes[looked].mean(), seen.pickled_bytes[looked].mean()
    return {
        "tensors": float(seen.tensors[looked].mean()),
        "listed": listed(seen, looked),
        "bytes": float(shared + pickled),
        "path": "shm" if shared >= pickled else "pipe",
    }
