"""What was drawn for runs, in place of what is expected: the scenario that they were runs of.

A closed-form bound holds for means. Of a few runs the means are others, and a run in which all
takes a hundredth longer than expected shows how near it is to its bound only beside its own.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
from msgspec import structs

from dlsim.engine.draws import COLLATE, CPU, READ, STEP, WAIT, Stream
from dlsim.scenario import Distribution, MapDataset, Scenario
from dlsim.scenario.distributions import scaled
from dlsim.whatif.demand import cv
from dlsim.whatif.luck import batch_calls, told
from dlsim.whatif.stretching import repeats

D = TypeVar("D", bound=Distribution | None)


def is_told(scenario: Scenario) -> bool:
    """Whether it can be told what is drawn for runs of `scenario`, but for batches left on the way.

    Not of jobs, not where workers have numbers of their own, or the latency of storage is random.
    """
    latency = scenario.machine.storage.latency
    alike = latency is None or cv(latency) == 0
    return (
        alike
        and isinstance(scenario.dataset, MapDataset)
        and not scenario.is_job
        and told(scenario)
    )


def as_drawn(whole: Scenario, part: Scenario, seeds: tuple[int, ...]) -> Scenario:
    """`whole` with the means of what was drawn for the runs of `part`, which stands for it.

    As it is where that cannot be told.
    """
    if not is_told(part):
        return whole
    dataset, consumer = whole.dataset, whole.consumer
    counted = repeats(part, whole)
    sizes = batch_calls(part)
    each = partial(_rescaled, weights=counted.tobytes(), epochs=part.epochs, seeds=seeds)
    of_samples = partial(each, calls=sizes.tobytes())
    of_batches = partial(each, calls=np.ones_like(sizes).tobytes())
    fetch = tuple(
        structs.replace(
            stage,
            wait=of_samples(stage.wait, (WAIT, i)),
            cpu=of_samples(stage.cpu, (CPU, i)),
            read_bytes=of_samples(stage.read_bytes, (READ, i)),
        )
        for i, stage in enumerate(dataset.fetch)
    )
    collate = of_batches(dataset.collate, (COLLATE,))
    return structs.replace(
        whole,
        dataset=structs.replace(dataset, fetch=fetch, collate=collate),
        consumer=structs.replace(consumer, step=of_batches(consumer.step, (STEP,))),
    )


@lru_cache(maxsize=64)  # most candidates have the same
def _rescaled(
    distribution: D,
    role: tuple[int, ...],
    *,
    calls: bytes,
    weights: bytes,
    epochs: int,
    seeds: tuple[int, ...],
) -> D:
    """`distribution` with the mean of what was drawn of it in one role.

    `calls`: numbers that each batch takes; `weights`: for how many batches each one stands, a
    column for each epoch.
    """
    if distribution is None or cv(distribution) == 0:
        return distribution
    sizes = np.frombuffer(calls, np.int64)
    counted = np.frombuffer(weights).reshape(len(sizes), epochs)
    begins, every, drawn = np.cumsum(sizes) - sizes, range(int(sizes.sum())), 0.0
    for seed in seeds:
        for epoch in range(epochs):
            numbers = Stream(distribution, "", role, seed, epoch).array(every)
            drawn += float(counted[:, epoch] @ np.add.reduceat(numbers, begins))
    expected = len(seeds) * float(counted.sum(axis=1) @ sizes) * distribution.mean
    return scaled(distribution, drawn / expected)
