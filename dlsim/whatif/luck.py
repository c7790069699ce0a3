"""How much longer than expected runs take by chance, told from what is drawn for them.

A batch that takes a second longer makes its run a second longer if the run waits for it, and no
longer otherwise. Whether it does depends on all that comes after; how likely it does is known
before. So each batch is weighed: from where a run has come to, many futures are gone through, and
its weight is the share of those in which it is waited for. The same with steps. The weighed
seconds beyond expectation add up to about what chance does to the run.

Their mean is exactly zero, whatever the weights, since each depends on nothing but what was drawn
before the time that it weighs: they are a martingale (S. G. Henderson and P. W. Glynn,
Approximating martingales for variance reduction in Markov process simulation, Mathematics of
Operations Research 27(2), 2002). So they may come from a simpler loader: one that returns batches
in order on a machine that shares nothing, whose batches and steps take, on average, what closed
forms say. There, with W workers and a window of K, batch k is started when batch k - W is fetched
and batch k - K returned, and the end is the longest path through all that (see
`dlsim.engine.compiled.recurrence`). In the futures, times have a gamma distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import numpy as np

from dlsim.engine.draws import COLLATE, STEP, Stream
from dlsim.engine.effort import counts
from dlsim.engine.samples import SampleDraws
from dlsim.scenario import (
    Constant,
    Distribution,
    Job,
    MapDataset,
    Recorded,
    Scenario,
    Stage,
    Storage,
)
from dlsim.scenario.dealing import shard
from dlsim.scenario.distributions import Floats
from dlsim.trace.trace import Integers
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import cv, variation
from dlsim.whatif.statistics import ROUNDING
from dlsim.whatif.stretching import repeats

MOST = 2_000_000  # samples of a run; of more, drawing them takes as long as simulating
FUTURES, FEWEST = 100, 10  # that are gone through at each batch, and of how many a weight is made
WORK = 50_000_000  # sums of a past and a future: some tenths of a second

# The place of the draws of some batches, and how many draws each of them takes.
Shard: TypeAlias = tuple[tuple[int, ...], Integers]


@dataclass(frozen=True)
class Times:
    """What is drawn for the batches of some runs: seconds `beyond` their `mean`.

    `beyond` has a row for each batch and a column for each run and epoch; `mean` and `deviation`
    (standard) have one entry for each batch.
    """

    beyond: Floats
    mean: Floats
    deviation: Floats


@dataclass(frozen=True)
class Source:
    """What of a `scenario` decides what is drawn for its samples, and the seconds that it takes."""

    fetch: tuple[Stage, ...]
    storage: Storage
    job: Job
    rates: tuple[float, ...]
    scenario: Scenario = field(compare=False)


def told(scenario: Scenario) -> bool:
    """Whether luck can be told from the draws, and its size be relied on."""
    dataset, loader = scenario.dataset, scenario.loader
    times = [time for time, _ in _parts(scenario)]
    times += [scenario.consumer.step, dataset.collate or Constant(0.0)]
    return (
        (isinstance(dataset, MapDataset) or not dataset.uneven)
        and loader.batch_sampler is None
        and not scenario.failures
        and not any(isinstance(time, Recorded) for time in times)
        and math.isfinite(variation(scenario))
        and scenario.epochs * counts(scenario)[1] <= MOST
    )


@lru_cache(maxsize=2)  # of the two that are compared, in one metric after the other
def luck(scenario: Scenario, seeds: tuple[int, ...], whole: Scenario | None = None) -> Floats:
    """How many seconds more than expected chance gives each run of `scenario` (one that is `told`).

    A row for each of `seeds`; in columns what it makes the run longer, then what all fetching and
    all steps take. Each batch counts as often as it stands for one of the `whole`.
    """
    fetches, steps = drawn(scenario, seeds)
    counted = np.tile(repeats(scenario, whole or scenario), len(seeds))
    on_fetches, on_steps = weights(scenario, fetches, steps)
    parts = [
        on_fetches * fetches.beyond + on_steps * steps.beyond,
        fetches.beyond,
        steps.beyond,
    ]
    sums = [(counted * part).sum(axis=0).reshape(len(seeds), -1).sum(axis=1) for part in parts]
    return np.stack(sums, axis=1)


def weights(scenario: Scenario, fetches: Times, steps: Times) -> tuple[Floats, Floats]:
    """How likely each run comes to wait for each batch, and for each step, as of just before it.

    Zeros where that would take too long to tell.
    """
    shape = batches, runs = fetches.beyond.shape
    window = min(scenario.loader.window, batches)
    workers = min(scenario.loader.num_workers, window)  # with fewer slots, some have never any
    if not window:
        return np.ones(shape), np.ones(shape)
    futures = min(WORK // (batches * runs * window), FUTURES)
    if futures < FEWEST:
        return np.zeros(shape), np.zeros(shape)
    fetch_mean, step_mean = _means(scenario, fetches, steps)
    rng = np.random.default_rng(0)
    then_fetch = _others(fetch_mean, fetches.deviation, rng, futures)
    then_step = _others(step_mean, steps.deviation, rng, futures)
    started, returned = _to_the_end(then_fetch, then_step, workers, window)
    fetch, step = fetches.beyond + fetch_mean[:, None], steps.beyond + step_mean[:, None]

    on_fetches, on_steps = np.zeros(shape), np.zeros(shape)
    ready = np.full((batches + window, runs), -np.inf)  # when a batch can be started, so far
    ready[:window] = 0.0
    done = np.zeros(runs)  # the last step
    for k in range(batches):
        if fetches.deviation[k] > 0:
            on_fetches[k] = _longest(
                ready[k, :, None] + started[k],
                ready[k + 1 : k + window],
                started[k + 1 : k + window],
                done[:, None] + returned[k],
            )
        fetched = ready[k] + fetch[k]
        now = np.maximum(fetched, done)
        done = now + step[k]
        ready[k + workers] = np.maximum(ready[k + workers], fetched)
        ready[k + window] = np.maximum(ready[k + window], now)
        if steps.deviation[k] > 0:
            on_steps[k] = _longest(
                now[:, None] + (then_step[k] + returned[k + 1]),
                ready[k + 1 : k + window + 1],
                started[k + 1 : k + window + 1],
            )
    return on_fetches, on_steps


def _to_the_end(fetch: Floats, step: Floats, workers: int, window: int) -> tuple[Floats, Floats]:
    """Seconds from starting each batch, and from returning it, to the end: a column a future."""
    batches, futures = fetch.shape
    started = np.full((batches + window, futures), -np.inf)  # nothing comes of what is not there
    returned = np.zeros((batches + 1, futures))
    for k in reversed(range(batches)):
        returned[k] = np.maximum(step[k] + returned[k + 1], started[k + window])
        started[k] = fetch[k] + np.maximum(returned[k], started[k + workers])
    return started, returned


def _longest(
    path: Floats, ready: Floats, started: Floats, other: Floats | float = -math.inf
) -> Floats:
    """For each run the share of futures in which `path` is longer than all others."""
    others = (ready[:, :, None] + started[:, None, :]).max(axis=0, initial=-math.inf)
    share: Floats = (path > np.maximum(others, other)).mean(axis=1)
    return share


def _means(scenario: Scenario, fetches: Times, steps: Times) -> tuple[Floats, Floats]:
    """Mean seconds of each batch and step, with what the machine and its costs add to them."""
    periods = bounds(scenario).periods
    main = max(periods.get(name, 0.0) for name in ("step", "main process"))
    loading = max(periods.get(name, 0.0) for name in ("workers", "cores", "storage"))
    batch, step = scenario.loader.num_workers * loading, main
    # a page cache takes away, but not from what is drawn
    return (
        fetches.mean + max(batch - float(fetches.mean.mean()), 0.0),
        steps.mean + max(step - float(steps.mean.mean()), 0.0),
    )


def _others(mean: Floats, deviation: Floats, rng: np.random.Generator, count: int) -> Floats:
    """So many columns of other times with a mean and a standard deviation for each row."""
    made = np.repeat(mean[:, None], count, axis=1)
    some = deviation > ROUNDING * mean
    if some.any():
        mean, deviation = mean[some, None], deviation[some, None]
        made[some] = rng.gamma((mean / deviation) ** 2, deviation**2 / mean, (len(mean), count))
    return made


def drawn(scenario: Scenario, seeds: Sequence[int]) -> tuple[Times, Times]:
    """What fetching each batch takes in a worker that is alone, and each step, under `seeds`."""
    dataset, step = scenario.dataset, scenario.consumer.step
    collate, parts = dataset.collate or Constant(0.0), _parts(scenario)
    rates = [1.0] if scenario.ideal else [rate for _, rate in parts]
    shards, order = _shards(scenario)
    calls = np.concatenate([sizes for _, sizes in shards])[order]
    took, stepped = np.empty((2, len(order), len(seeds) * scenario.epochs))
    every = range(len(order))
    source = Source(dataset.fetch, scenario.machine.storage, scenario.job, tuple(rates), scenario)
    services = [
        _services(source, place, sizes.tobytes(), tuple(seeds), scenario.epochs)
        for place, sizes in shards
    ]
    took[:] = np.concatenate(services)[order]
    for column, (seed, epoch) in enumerate(product(seeds, range(scenario.epochs))):
        took[:, column] += Stream(collate, "", (COLLATE,), seed, epoch).array(every)
        stepped[:, column] = Stream(step, "", (STEP,), seed, epoch).array(every)
    each = np.ones(len(order))
    mean = calls * sum(part.mean * rate for part, rate in parts) + collate.mean
    variance = calls * sum(_variance(part) * rate**2 for part, rate in parts) + _variance(collate)
    return _beyond(took, mean, variance), _beyond(stepped, each * step.mean, each * _variance(step))


@lru_cache(maxsize=3)  # drawing takes longer than all else, and most changes leave it as it is
def _services(
    source: Source, place: tuple[int, ...], sizes: bytes, seeds: tuple[int, ...], epochs: int
) -> Floats:
    """Seconds of the calls of each batch drawn in one place: a column for each run and epoch."""
    calls = np.frombuffer(sizes, np.int64)
    begins, count = np.cumsum(calls) - calls, range(calls.sum())
    made = np.empty((len(calls), len(seeds) * epochs))
    for column, (seed, epoch) in enumerate(product(seeds, range(epochs))):
        amounts = SampleDraws(source.scenario, seed, epoch, *place).amounts(count)
        made[:, column] = np.add.reduceat(amounts @ source.rates, begins)
    return made


def batch_calls(scenario: Scenario) -> Integers:
    """How many calls fetch each batch of a map-style dataset: one of it, or one a sample."""
    batches, samples = (int(count) for count in counts(scenario)[:2])
    if isinstance(scenario.dataset, MapDataset) and scenario.dataset.batched:
        return np.ones(batches, np.int64)
    size = scenario.loader.batch_size or 1
    return np.minimum(size, samples - size * np.arange(batches))


def _shards(scenario: Scenario) -> tuple[list[Shard], Integers]:
    """Where samples are drawn: in one place, or by each worker of an iterable-style dataset.

    Then the order in which the batches of all, one after the other, are sent.
    """
    dataset, loader = scenario.dataset, scenario.loader
    size, batches = loader.batch_size or 1, int(counts(scenario)[0])
    if isinstance(dataset, MapDataset):
        return [((), batch_calls(scenario))], np.arange(batches)
    workers = max(loader.num_workers, 1)
    most = -(-batches // workers)
    shards: list[Shard] = []
    for worker in range(workers):
        left = len(shard(dataset, scenario.job, worker, loader))
        number = min(left // size if loader.drop_last else -(-left // size), most)
        sizes = np.minimum(size, left - size * np.arange(number))
        shards.append(((worker + 1 if loader.num_workers else 0,), sizes))
    turns = np.concatenate([np.arange(len(sizes)) for _, sizes in shards])
    return shards, np.argsort(turns, kind="stable")[:batches]


def _beyond(seconds: Floats, mean: Floats, variance: Floats) -> Times:
    beyond = seconds - mean[:, None]
    beyond[variance == 0] = 0.0  # but for rounding
    return Times(beyond, mean, np.sqrt(variance))


def _variance(distribution: Distribution) -> float:
    return (cv(distribution) * distribution.mean) ** 2


def _parts(scenario: Scenario) -> list[tuple[Distribution, float]]:
    """What is drawn for each sample (or call), and the seconds that one of it takes."""
    storage, parts = scenario.machine.storage, list[tuple[Distribution, float]]()
    for stage in scenario.dataset.fetch:
        if stage.read_bytes is not None:
            parts.append((stage.read_bytes, 1 / storage.bandwidth if storage.bandwidth else 0.0))
            parts.append((storage.latency or Constant(0.0), 1.0))
        parts += [(time, 1.0) for time in (stage.wait, stage.cpu) if time is not None]
    return parts
