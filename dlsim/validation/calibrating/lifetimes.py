"""How long workers live besides working, in a run that was observed: to start, and to go.

A worker may be blocked before it takes work, in `worker_init_fn`; and its first sample may take
longer than others do, as a file is opened or something is imported with it. Both are its start.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.engine.facts import MAIN
from dlsim.trace.first_batches import first_of_each, processes
from dlsim.trace.libraries import cores_busy, helping
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats, Integers

LEAST = 0.5e-3  # seconds that first samples take longer, or nothing is made of it
CHANCE = 0.02  # that the first ones are the longest by chance, at most


def lifetimes(
    seen: Observation, machine: dict[str, float], between: float, put: float
) -> dict[str, Any]:
    """Starting, getting ready and exiting: seconds for each worker, in epochs that start them.

    Workers start one after another, and exit beside each other, as far as there are cores. Getting
    ready is all that a worker computes before its first batch, and the main process does not wait
    for: what does not fit into a pipe, a worker that is spawned reads after all its imports, and
    until then its start is not over. Exiting is what it computes after its last batch. `machine`:
    what is known of it, in numbers; `between`: the CPU seconds of a worker between two batches,
    beside fetching, collating and pickling. `begin`: for which workers are blocked before they take
    work, `first_samples` apart. `begin_put`: how much longer than `put` each it took to send the
    index lists that are sent first.
    """
    assert seen.meta.scenario is not None
    loader, epochs = seen.meta.scenario.loader, seen.epochs
    workers = loader.num_workers
    start, ready, stop, held = [], [], [], []
    blocked = seen.initialised - seen.initialising - seen.init_cpu - seen.init_queued
    blocked = np.maximum(blocked, 0.0)
    begin = blocked[(seen.worker != MAIN) & ~np.isnan(blocked)]
    for epoch in range(len(epochs.first) if workers else 0):
        here = np.flatnonzero(seen.epoch_of(np.arange(len(seen))) == epoch)
        if not len(here) or (epoch and loader.workers_stay):
            continue
        start.append((started(seen, here) - epochs.started[epoch]) / workers)
        sent = seen.sent[here][seen.sent[here] <= epochs.primed[epoch]]
        if len(sent):
            held.append(max(epochs.primed[epoch] - sent[0] - put * len(sent), 0.0))
        for worker in range(workers):
            mine = here[(seen.worker[here] == worker) & ~np.isnan(seen.cpu_started[here])][:1]
            over = epochs.started[epoch] + (worker + 1) * start[-1]
            later = np.maximum((seen.initialised - blocked)[mine] - over, 0.0)
            ready += np.fmin(seen.cpu_started[mine], later).tolist()
        last = np.fmax(np.nanmax(seen.finished[here]), np.nanmax(seen.fetched[here]))
        if not loader.workers_stay and not np.isnan(epochs.ended[epoch]):
            cores = machine.get("cores", 1.0)
            stop.append(max(epochs.ended[epoch] - last, 0.0) * min(1.0, cores / workers))
    told = exiting(seen, machine.get("workers_cpu", float("nan")), between)
    ended = told if len(told) else np.array(stop)
    return {
        "start": np.array(start),
        "ready": np.array(ready),
        "begin": begin,
        "begin_put": np.array(held),
        "stop": ended,
    }


def started(seen: Observation, here: Integers) -> float:
    """When the workers were started that the batches of an epoch, `here`, were sent to.

    A stateful loader then waits for all of them to be ready, and torch's sends at once.
    """
    assert seen.meta.scenario is not None
    begun = seen.initialising[here]
    if seen.meta.scenario.loader.stateful and not np.isnan(begun).all():
        return float(np.nanmax(begun))
    return float(seen.sent[here[0]])


def first_samples(
    seen: Observation, batch: Integers, wait: Floats, cpu: Floats
) -> tuple[Floats, Floats]:
    """By how much each process's first sample exceeds the typical other one: waiting, and CPU.

    `batch`, `wait`, `cpu`: of each sample, or each call for a batch; in them the first ones are
    made typical. None is longer where they are not so surely: they have to be among the longest,
    all of them, or beyond, as chance has it once in fifty times, and twice as long as others.
    Chance makes one the longest of n once in n times, and then k times as long as the next once in
    k times at most, as far as the mean of what it draws from is finite (Pareto's law).

    A library that is imported starts threads, and these spin for a while: that is CPU of the first
    sample, too, as far as it waited for a core meanwhile.
    """
    assert seen.samples is not None
    first = first_of_each(processes(seen)[batch])
    rest = np.ones(len(batch), bool)
    rest[first] = False
    none = np.zeros(len(first))
    if not len(first) or not rest.any():
        return none, none
    took = wait + cpu
    chance = float(np.prod([as_long(took[rest], took[row]) for row in first]))
    typical = float(np.median(took[rest]))
    if chance > CHANCE or float(took[first].mean()) - typical < max(LEAST, typical):
        return none, none
    more = []
    for values in (wait, cpu):
        usual = np.minimum(values[first], np.median(values[rest]))
        more.append(values[first] - usual)
        values[first] = usual
    if cores_busy(seen) > 1:  # threads compute in all samples
        return more[0], more[1]
    queued = np.bincount(seen.samples.batch, seen.sample_queued, len(seen))
    spun = np.minimum(np.nan_to_num(helping(seen)), queued)[batch[first]]
    return more[0], more[1] + spun


def as_long(others: Floats, seconds: float) -> float:
    """How likely one more like the `others` takes `seconds` or more, at most about."""
    longest = float(others.max())
    beyond = longest / seconds if seconds > longest else 1.0
    return beyond * max(float((others >= seconds).mean()), 1 / (1 + len(others)))


def exiting(seen: Observation, used: float, between: float) -> Floats:
    """CPU seconds that each worker used after its last batch; none where it cannot be told.

    `used`: by all workers until they were gone; NaN if that is not known.
    """
    assert seen.samples is not None
    assert seen.meta.scenario is not None
    loader = seen.meta.scenario.loader
    fetching = seen.batch_cpu + np.nan_to_num(helping(seen))
    until = seen.cpu_started + fetching + np.nan_to_num(seen.serialise_cpu)
    process = np.where(np.isnan(until), -1, processes(seen))
    last = len(seen) - 1 - first_of_each(process[::-1])
    generations = 1 if loader.workers_stay else len(seen.epochs.first)
    if np.isnan(used) or not len(last) or len(last) < loader.num_workers * generations:
        return np.empty(0)
    return np.array([max((used - until[last].sum()) / len(last) - between, 0.0)])
