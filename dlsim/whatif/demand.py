"""What a batch of a scenario asks of each resource on average, before anything is simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlsim.engine.effort import counts
from dlsim.scenario import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    MapDataset,
    Mixture,
    Pareto,
    Recorded,
    Scenario,
    Uniform,
)
from dlsim.scenario.machine import PIPE_BYTES


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Means for one batch; seconds unless said otherwise.

    `batches`, `samples`: of one epoch; `longest`: batches of the worker that has most of them.
    In a worker: `reads` at full bandwidth, `waits`, `computes` (stages, collate and taking the
    message), `helps` (other threads of libraries meanwhile), `serialises`; `writes`, beside all
    else; `hands_over`, while the main process waits; `writes_along`, while the main process reads.
    `downloads`: as `reads`, where threads download files ahead, and workers wait only for what is
    not there. `latency`: until an index list is there. In the
    main process: `dispatches` (sending an index list), `receives` (reading and rebuilding),
    `pins`, `copies`, `step` on `threads` threads of its cores (0: on an accelerator). Of storage:
    `bytes` and `requests`.
    """

    batches: float
    samples: float
    longest: float
    reads: float
    downloads: float
    waits: float
    computes: float
    helps: float
    serialises: float
    writes: float
    hands_over: float
    writes_along: float
    latency: float
    dispatches: float
    receives: float
    pins: float
    copies: float
    step: float
    threads: int
    locks: float
    bytes: float
    requests: float

    @property
    def fetches(self) -> float:
        """Seconds from taking the message to the collated batch, if nothing is shared."""
        return self.reads + self.waits + self.computes

    @property
    def computes_in_workers(self) -> float:
        """Processor seconds of the worker and its threads."""
        handing = self.writes + self.hands_over + self.writes_along
        return self.computes + self.helps + self.serialises + handing


def demand(scenario: Scenario) -> Demand:
    """The mean demand of a batch of `scenario`, over all its epochs."""
    loader, dataset, costs = scenario.loader, scenario.dataset, scenario.charged
    batches, samples, longest = counts(scenario)
    per_batch = samples / batches if batches else 0.0
    batched = isinstance(dataset, MapDataset) and dataset.batched
    calls = 1.0 if batched else per_batch
    indices = None if batched else _indices(scenario)
    made = int(batches * scenario.epochs)
    workers = loader.num_workers > 0
    size = per_batch * dataset.sample_bytes.mean
    through_pipe = scenario.through_pipe
    handed = costs.hand_over.of(dataset.tensors, size)
    received = costs.receive.of(dataset.tensors, size)
    large = through_pipe and size > PIPE_BYTES
    along = large and not costs.reading
    storage = scenario.machine.storage
    missed = 1 - _cached(scenario, samples)
    read = [s.read_bytes for s in dataset.fetch if s.read_bytes is not None]
    read_bytes = missed * calls * sum(_mean(d, indices, made) for d in read)
    requests = missed * calls * len(read)
    if scenario.downloads:
        requests = missed * per_batch * len(dataset.shards) / dataset.length  # type: ignore[union-attr,arg-type]
    waited = sum(_mean(s.wait, indices, made) for s in dataset.fetch if s.wait is not None)
    computed = sum(_mean(s.cpu, indices, made) for s in dataset.fetch if s.cpu is not None)
    round_trips = calls * costs.index_latency if scenario.policy == "row" else 0.0
    collated = _mean(dataset.collate, None, made) if dataset.collate is not None else 0.0
    step = scenario.consumer
    reading = (read_bytes / storage.bandwidth if storage.bandwidth else 0.0) + (
        requests * storage.latency.mean if storage.latency else 0.0
    )
    return Demand(
        batches=batches,
        samples=samples,
        longest=longest,
        reads=0.0 if scenario.downloads else reading,
        downloads=reading if scenario.downloads else 0.0,
        waits=calls * waited + round_trips,
        computes=calls * computed
        + collated
        + scenario.sharing(size)
        + (costs.take if workers else 0.0),
        helps=calls
        * sum(
            (s.threads - 1) * (1 - s.lock * loader.threads) * _mean(s.cpu, indices, made)
            for s in dataset.fetch
            if s.cpu is not None
        ),
        serialises=costs.serialise.of(dataset.tensors, size) if workers else 0.0,
        writes=handed if workers and through_pipe and not large else 0.0,
        hands_over=handed if workers and (large or not through_pipe) and not along else 0.0,
        writes_along=handed if workers and along else 0.0,
        latency=costs.index_latency if workers and scenario.policy == "torch" else 0.0,
        dispatches=costs.index_put if workers else 0.0,
        receives=(max(received, handed) if along else received) if workers else 0.0,
        pins=costs.pin.of(dataset.tensors, size) if scenario.pins else 0.0,
        copies=costs.copy_byte * size if step.device == "accelerator" else 0.0,
        step=_mean(step.step, None, made) + step.step_per_sample * per_batch,
        threads=step.threads if step.device == "cpu" else 0,
        locks=calls
        * sum(
            s.lock * _mean(s.cpu, indices, made)
            for s in dataset.fetch
            if s.cpu is not None and loader.threads
        ),
        bytes=read_bytes,
        requests=requests,
    )


def variation(scenario: Scenario) -> float:
    """The greatest coefficient of variation of any time or size in `scenario`, perhaps infinite.

    No sum of them varies more.
    """
    return max(cv(part) for part in (*_of_samples(scenario), *_of_batches(scenario)))


def variance_of_runs(scenario: Scenario) -> float:
    """The variance of how long runs of `scenario` take, at most, over the square of their mean.

    That of what varies most of all that they are the sums of.
    """
    batches, samples, _ = counts(scenario)
    batched = isinstance(scenario.dataset, MapDataset) and scenario.dataset.batched
    calls = batches if batched else samples
    parts = [(cv(part), calls) for part in _of_samples(scenario)]
    parts += [(cv(part), batches) for part in _of_batches(scenario)]
    return max(ratio**2 / max(scenario.epochs * count, 1) for ratio, count in parts)


def _of_samples(scenario: Scenario) -> list[Distribution]:
    """What is drawn for each sample, or for each call that fetches a batch of them."""
    dataset = scenario.dataset
    parts = [part for s in dataset.fetch for part in (s.wait, s.cpu, s.read_bytes)]
    parts += [dataset.sample_bytes, scenario.machine.storage.latency]
    return [part for part in parts if part is not None]


def _of_batches(scenario: Scenario) -> list[Distribution]:
    """What is drawn for each batch."""
    parts = (scenario.consumer.step, scenario.dataset.collate, scenario.jitter)
    return [part for part in parts if part is not None]


def cv(distribution: Distribution) -> float:
    """The coefficient of variation, standard deviation over mean; perhaps infinite."""
    mean = distribution.mean
    if mean == 0:
        return 0.0
    match distribution:
        case Constant():
            return 0.0
        case Uniform(low, high):
            return (high - low) / math.sqrt(12) / mean
        case Exponential():
            return 1.0
        case Gamma(_, ratio) | Lognormal(_, ratio):
            return ratio
        case Pareto(_, shape):
            return 1 / math.sqrt(shape * (shape - 2)) if shape > 2 else math.inf
        case Mixture(parts, weights):
            whole = sum(weights)
            roots = [
                math.sqrt(weight / whole) * (part.mean / mean) * math.hypot(1, cv(part))
                for part, weight in zip(parts, weights, strict=True)
                if weight > 0
            ]
            root = math.hypot(*roots)  # not squares, which may be too large for a float
            return math.sqrt(max(root * root - 1, 0.0))
        case Empirical(values) | Recorded(values):
            return float(np.std(values)) / mean


def _indices(scenario: Scenario) -> Sequence[int] | None:
    """The dataset indices whose records count, if they are not all of the dataset's."""
    loader = scenario.loader
    if loader.batch_sampler is not None:
        return [index for batch in loader.batch_sampler for index in batch]
    if loader.sampler is not None:
        return loader.sampler
    return range(scenario.dataset.length)


def _mean(distribution: Distribution, indices: Sequence[int] | None, batches: int) -> float:
    """The mean; of a record, of the values at `indices`, or of the first `batches`."""
    if not isinstance(distribution, Recorded):
        return distribution.mean
    values = np.asarray(distribution.values)
    used = values[:batches] if indices is None else values[[i for i in indices if i < len(values)]]
    return float(used.mean()) if len(used) else 0.0


def _cached(scenario: Scenario, samples: float) -> float:
    """At most this share of all reads finds its sample in the page cache."""
    dataset, cache = scenario.dataset, scenario.machine.storage.cache
    once = sum(s.read_bytes.mean for s in dataset.fetch if s.read_bytes is not None)
    if not cache or not once or not samples:
        return 0.0
    distinct = min(samples, dataset.length)
    again = 1 - distinct / (samples * scenario.epochs)
    return again * min(1.0, cache / (once * distinct))
