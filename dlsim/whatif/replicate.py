"""One scenario again and again under independent random numbers, and how sure one is then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlsim.engine.effort import deciding, seconds_of
from dlsim.engine.facts import left_to_chance
from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.summary import give_or_take
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.parallel import (
    Besides,
    Measure,
    Row,
    check_counts,
    check_jobs,
    measure,
    replication_seed,
    run_all,
    simulations,
)
from dlsim.whatif.statistics import Interval, check_confidence, interval

FEWEST = 30  # replications before the half-width of an interval is believed
SPARE = 1.1  # replications asked for, over what the half-width so far calls for
SHOWN = ("samples_per_s", "wait_mean", "wait_p95", "stall", "au", "epoch_time", "failed")


@dataclass(frozen=True, eq=False)
class Replications:
    """What was measured in each replication of `scenario` in the experiment `seed`.

    `metrics`: one array for each metric, one value for each replication (names as in
    `dlsim.trace.Summary`; `steady_...` as in `Steady`; `failed`). `confidence`: of intervals.
    Replication r was simulated with `replication_seed(seed, r)`. `part`: what was simulated, where
    that is not all of `scenario` (see `dlsim.whatif.extent`).
    """

    scenario: Scenario
    seed: int
    metrics: dict[str, Floats]
    confidence: float = 0.95
    part: Scenario | None = None

    def __len__(self) -> int:
        return len(next(iter(self.metrics.values())))

    def __getitem__(self, metric: str) -> Floats:
        if metric not in self.metrics:
            known = ", ".join(self.metrics)
            raise WhatIfError(f"metric: no such metric {metric!r}; known: {known}")
        return self.metrics[metric]

    @property
    def rows(self) -> list[Row]:
        """What was measured, replication by replication."""
        columns = zip(*self.metrics.values(), strict=True)
        return [dict(zip(self.metrics, values, strict=True)) for values in columns]

    @property
    def seeds(self) -> list[int]:
        """The seed each replication was simulated with."""
        return [replication_seed(self.seed, number) for number in range(len(self))]

    def first(self, count: int) -> Replications:
        """The first `count` of them."""
        return replace(self, metrics={name: each[:count] for name, each in self.metrics.items()})

    def interval(self, metric: str) -> Interval:
        """The t interval for the mean of `metric`. Raises `WhatIfError` for an unknown one."""
        return interval(self[metric], self.confidence)

    def __str__(self) -> str:
        """A line for each of the main metrics: mean and half-width."""
        lines = [f"{len(self)} replications, {100 * self.confidence:g} % intervals"]
        for metric in SHOWN:
            found = self.interval(metric)
            lines.append(f"{metric:<14} {give_or_take(found.mean, found.half_width)}")
        return "\n".join(lines)


def replicate(
    scenario: Scenario,
    replications: int = 30,
    seed: int = 0,
    *,
    precision: float | None = None,
    metric: str = "samples_per_s",
    maximum: int = 1000,
    confidence: float = 0.95,
    jobs: int = 1,
    measured: Measure = measure,
    besides: Besides | None = None,
    before: Sequence[Row] = (),
) -> Replications:
    """`replications` of `scenario` under independent random numbers.

    `precision=0.01` goes on until the half-width of the interval of `metric` is at most 1 % of
    its mean, or `maximum` replications are made; `replications` is then where it starts. (Law's
    sequential procedure, Simulation Modeling and Analysis, §9.4.1: how many come next follows
    from the results alone, so the same ones are made whatever the `jobs`.)

    `jobs`: processes, -1 for all cores; any number but 1 goes through joblib. `measured` is what
    is measured of each trace, `besides` what else is of the first ones; `before`: what was, of the
    very first. Raises `WhatIfError` for a count, confidence, precision or metric that cannot be.
    """
    check_counts(replications=replications, maximum=maximum)
    check_confidence(confidence)
    check_jobs(jobs)
    if precision is not None and not 0 < precision < math.inf:
        raise WhatIfError(f"precision: expected a share above 0 such as 0.01, got {precision!r}")
    rows = list(before)
    wanted = replications if precision is None else min(max(replications, FEWEST), maximum)
    while len(rows) < wanted:
        runs = wanted - len(rows) if left_to_chance(scenario) else 1
        with deciding(seconds_of(scenario) * runs, scenario, jobs=jobs, runs=runs):
            rows += more(scenario, seed, range(len(rows), wanted), jobs, measured, besides)
        found = Replications(scenario, seed, columns(rows), confidence)
        if precision is not None:
            wanted = min(enough(found.interval(metric), precision), maximum)
    return found


def columns(rows: Sequence[Row]) -> dict[str, Floats]:
    """One array for each metric, from one row for each replication; NaN where a row has none."""
    names: Row = {}
    for row in rows:
        names |= row
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}


def more(
    scenario: Scenario,
    seed: int,
    numbers: range,
    jobs: int,
    measured: Measure,
    besides: Besides | None = None,
) -> list[Row]:
    """What is `measured` in the replications `numbers` of `scenario`, in order."""
    if jobs == 1 or not left_to_chance(scenario):
        return simulations(scenario, seed, numbers, measured, besides)
    tasks = ((scenario, seed, number, measured, besides) for number in numbers)
    return [row for _, row in sorted(run_all(_one, tasks, jobs), key=lambda pair: pair[0])]


def _one(
    scenario: Scenario, seed: int, number: int, measured: Measure, besides: Besides | None
) -> tuple[int, Row]:
    return number, simulations(scenario, seed, [number], measured, besides)[0]


def enough(found: Interval, precision: float) -> int:
    """How many replications make the relative half-width at most `precision`: no more, or some."""
    allowed = precision * abs(found.mean)
    if found.half_width <= allowed or math.isnan(found.mean):
        return found.count
    if allowed == 0:
        return 2 * found.count
    needed = SPARE * found.count * (found.half_width / allowed) ** 2
    return int(min(max(math.ceil(needed), found.count + 1), 4 * found.count))
