"""Running a scenario for which the recurrence says everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlsim.engine.compiled.jobs import MOST_SAMPLES, Block, IndexLists, Jobs
from dlsim.engine.compiled.recurrence import schedule
from dlsim.engine.compiled.state import most_samples
from dlsim.engine.consumer import JOIN_TIMEOUT
from dlsim.engine.draws import LARGEST_BLOCK
from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.trace import MOMENTS, RETURNED, Epochs, Meta, Trace


def suits(scenario: Scenario) -> bool:
    """Whether all batches come back, in order, and nobody loses patience."""
    loader = scenario.loader
    return (
        isinstance(scenario.dataset, MapDataset)
        and loader.in_order
        and loader.window > 0
        and loader.timeout == 0
        and scenario.consumer.stop_after is None
        and not scenario.failures
    )


def simulate_in_order(
    scenario: Scenario, seed: int, meta: Meta, progress: Callable[[int], object]
) -> Trace:
    """The trace of a scenario that suits; `meta` is put into it."""
    loader, costs, dataset = scenario.loader, scenario.costs, scenario.dataset
    assert isinstance(dataset, MapDataset)
    batches = IndexLists(scenario, seed, 0, indices=False).batches
    total = batches * scenario.epochs
    round_trip = costs.index_latency if scenario.policy == "row" else 0.0
    latency = costs.index_latency - round_trip
    moments = np.empty((len(MOMENTS), total))
    workers, size = np.empty(total, np.int32), np.empty(total, np.int32)
    clock = np.zeros(3)
    free = np.empty(loader.num_workers)
    latest, taken_in = np.zeros((2, 1 << loader.window.bit_length()), np.int64)
    epoch_moments: list[list[float]] = []
    block = max(1, min(LARGEST_BLOCK, MOST_SAMPLES // max(most_samples(scenario), 1)))
    for epoch in range(scenario.epochs):
        started = clock[1]
        if epoch == 0 or not loader.persistent_workers:
            for _ in range(loader.num_workers):
                clock[1] += costs.worker_start
        else:
            clock[1] += latency  # until all workers, idle as they are, have acknowledged
        clock[0] = clock[1]
        free[:] = clock[0]
        jobs = Jobs(scenario, seed, epoch, epoch * batches, indices=False)
        while jobs.more:
            begin = epoch * batches + jobs.taken
            drawn = jobs.take(block)
            check(jobs, drawn, begin)
            schedule(
                moments, workers, clock, free, latest, taken_in, epoch * batches, begin,
                loader.window, scenario.consumer.run_ahead, latency, round_trip, dataset.batched,
                drawn.offsets, drawn.services, drawn.collates, drawn.steps,
            )  # fmt: skip
            size[begin : begin + len(drawn.steps)] = np.diff(drawn.offsets)
            progress(len(drawn.steps))
        if not loader.persistent_workers:
            clock[1] = joined(clock[1], clock[1] + latency, loader.num_workers)
        clock[1] = max(clock[1], clock[2])
        epoch_moments.append([started, clock[0], clock[1]])
    columns: dict[str, Any] = dict(zip(MOMENTS, moments, strict=True))
    return Trace(
        **columns,
        worker=workers,
        size=size,
        status=np.full(total, RETURNED, np.uint8),
        order=np.arange(total),
        epochs=epochs([epoch * batches for epoch in range(scenario.epochs)], epoch_moments),
        meta=meta,
    )


def check(jobs: Jobs, drawn: Block, begin: int) -> None:
    """Raise `ScenarioError` if one of the batches from `begin` on is not in the records."""
    sums = drawn.collates + drawn.steps
    if jobs.batched:
        sums += drawn.services
    if np.isnan(sums).any():
        jobs.complain(begin + int(np.argmax(np.isnan(sums))))


def joined(now: float, stopped: float, workers: int) -> float:
    """When the main process has waited for workers that all stop at one moment, in seconds."""
    for _ in range(workers):
        if now < stopped:
            now = min(stopped, now + JOIN_TIMEOUT)
    return now


def epochs(first: Sequence[int], moments: Sequence[Sequence[float]]) -> Epochs:
    """The epochs of a trace, from the first batch and started, primed, ended of each."""
    started, primed, ended = np.array(moments, np.float64).T
    return Epochs(first=np.array(first, np.int64), started=started, primed=primed, ended=ended)
