"""Differences between scenarios, less what chance gave their runs: control variates.

What is drawn for a run is known before anything is simulated, and so is its mean. Where workers
happened to get slow samples, a run is slow for that reason; regression over the replications tells
by how much, and the interval of what remains is narrower. Workers take batches in turn, so that it
counts what the batches of each turn take together; where the step limits, what all steps take.
S. S. Lavenberg and P. D. Welch, A perspective on the use of control variables to increase the
efficiency of Monte Carlo simulations, Management Science 27(3), 1981.

Runs depend on luck in a straight line only as long as the same worker is the last, so that the
interval is that of the jackknife, which need not believe in lines (HC3: J. G. MacKinnon and
H. White, Some heteroskedasticity-consistent covariance matrix estimators with improved finite
sample properties, Journal of Econometrics 29(3), 1985).
"""

from __future__ import annotations

import math

import numpy as np

from dlsim.engine.draws import COLLATE, STEP, ServiceTimes, Stream
from dlsim.scenario import Distribution, MapDataset, Recorded, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import counts, variation
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.replicate import Replications
from dlsim.whatif.statistics import ROUNDING, Interval, interval, t_quantile

FEWEST = 20  # replications from which luck is told: of fewer, intervals come out too wide
SHARE = 0.3  # of the replications: more coefficients are not told from so few
MOST = 2_000_000  # samples of a run; of more, drawing them takes as long as simulating
ALIKE = 1e-6  # relative; what differs by less is the same control


def paired(a: Replications, b: Replications, metric: str) -> Interval:
    """The interval for the mean of `b - a` in `metric`, replication by replication.

    Both must come from one experiment seed: they saw common random numbers, and what these do to
    both alike cancels. What they do to one of them is allowed for where it can be told, so that
    the mean is not quite that of the differences. Raises `WhatIfError` if they do not, or differ
    in number.
    """
    return _less_luck(a, b, b[metric] - a[metric])


def gained(a: Replications, b: Replications, metric: str = "samples_per_s") -> Interval:
    """The interval for the mean of `b / a - 1` in `metric`: 0.25 is a quarter more.

    As `paired`; pairs without a ratio, of runs that return nothing, are left out.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = b[metric] / a[metric] - 1
    return _less_luck(a, b, np.where(np.isfinite(ratio), ratio, math.nan))


def luck(scenario: Scenario, seed: int) -> Floats:
    """How many seconds more than expected are drawn for a run under `seed`.

    For the batches of each worker's turn (without workers, for all), then for all steps.
    """
    loader, dataset = scenario.loader, scenario.dataset
    turns, size = max(loader.num_workers, 1), loader.batch_size or 1
    batches, samples = (int(count) for count in counts(scenario)[:2])
    sizes = np.minimum(size, samples - size * np.arange(batches))
    batched = isinstance(dataset, MapDataset) and dataset.batched
    collate, step = dataset.collate, scenario.consumer.step
    expected = (1 if batched else sizes) * sum(time.mean for time in _times(scenario))
    found = np.zeros(turns + 1)
    turn = np.arange(batches) % turns
    for epoch in range(scenario.epochs if batches else 0):
        calls = range(batches if batched else samples)
        took = ServiceTimes(dataset.fetch, seed, epoch).array(calls)
        more = (took if batched else np.add.reduceat(took, size * np.arange(batches))) - expected
        if collate is not None:
            more += Stream(collate, "", seed, COLLATE, epoch).array(range(batches)) - collate.mean
        found[:turns] += np.bincount(turn, more, turns)
        steps = Stream(step, "", seed, STEP, epoch).array(range(batches))
        found[-1] += float((steps - step.mean).sum())
    rounding = ROUNDING * batches * max(float(np.max(expected, initial=0.0)), step.mean)
    return np.where(np.abs(found) > rounding, found, 0.0)


def _less_luck(a: Replications, b: Replications, values: Floats) -> Interval:
    """The interval for the mean of `values`, of what luck does not explain."""
    if a.seed != b.seed or len(a) != len(b):
        raise WhatIfError(
            f"paired: expected as many replications of one seed, got {len(a)} of seed {a.seed} "
            f"and {len(b)} of seed {b.seed}"
        )
    plain = interval(values, a.confidence)
    cases = list(dict.fromkeys((a.scenario, b.scenario)))
    if (
        len(values) < FEWEST
        or not plain.half_width > 0
        or np.isnan(values).any()
        or not all(map(_told, cases))
    ):
        return plain
    most = SHARE * len(values)
    if max(case.loader.num_workers for case in cases) >= most:
        return plain
    drawn = np.hstack([_binding(case, [luck(case, seed) for seed in a.seeds]) for case in cases])
    scale = np.abs(drawn).max(axis=0)
    design = np.column_stack([np.ones(len(values)), drawn[:, scale > 0] / scale[scale > 0]])
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    new = sizes > ALIKE * sizes[0]
    rank, left = int(new.sum()), left[:, new]
    if rank > most:
        return plain
    mean = right[new, 0] / sizes[new] @ left.T  # the mean of what is left, as weights of `values`
    rest = (values - left @ (left.T @ values)) / (1 - (left**2).sum(axis=1))
    half = t_quantile(a.confidence, len(values) - rank + 1) * float(np.linalg.norm(mean * rest))
    return Interval(float(mean @ values), half, plain.count, a.confidence)


def _binding(scenario: Scenario, drawn: list[Floats]) -> Floats:
    """What counts of the luck of each run: where the step limits, only that of the steps."""
    return np.array(drawn)[:, -1 if bounds(scenario).binds == "step" else 0 :]


def _told(scenario: Scenario) -> bool:
    """Whether luck can be told from the draws, and its size be relied on."""
    dataset, loader = scenario.dataset, scenario.loader
    drawn = [*_times(scenario), scenario.consumer.step, dataset.collate]
    return (
        isinstance(dataset, MapDataset)
        and loader.batch_sampler is None
        and not scenario.failures
        and not any(isinstance(time, Recorded) for time in drawn)
        and math.isfinite(variation(scenario))
        and scenario.epochs * counts(scenario)[1] <= MOST
    )


def _times(scenario: Scenario) -> list[Distribution]:
    """What is drawn for each sample (or call)."""
    stages = scenario.dataset.fetch
    return [time for s in stages for time in (s.wait, s.cpu) if time is not None]
