"""What a real run would do with other settings: `predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import dlsim.scenario as scenarios
from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.scenario.loader import WITHOUT_WORKERS
from dlsim.scenario.units import duration
from dlsim.trace.job import JobTrace, ranks_of
from dlsim.trace.metrics import known, waits
from dlsim.trace.summary import number
from dlsim.trace.trace import Trace
from dlsim.validation.calibrating import cost_errors
from dlsim.validation.calibrating.checks import Check, missed
from dlsim.validation.calibrating.doubts import Doubts, doubts
from dlsim.validation.calibrating.parts import Run, added, both_ways, even, parts, seldom_together
from dlsim.validation.calibrating.running import epoch, rate, simulated
from dlsim.validation.calibrating.scenario import Calibration
from dlsim.whatif.parallel import check_counts, replication_seed

# Which costs a change replaces, so that how sure they were does not matter any more.
REPLACED = {
    "consumer": ("step",),
    "dataset.fetch": ("wait", "cpu"),
    "costs.take": ("take",),
    "costs.serialise": ("serialise",),
    "costs.hand_over": ("hand_over",),
    "costs.receive": ("receive",),
    "costs.pin": ("pin",),
    "costs.worker_start": ("worker_start",),
}


@dataclass(frozen=True)
class Estimate:
    """A predicted value and the interval in which 95 % of real runs should find theirs."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a real run of `scenario` would do; `str()` says it in a few lines.

    `epoch`: seconds of an epoch; `throughput`: samples a second; `wait_p95`: seconds, the 95th
    percentile of waits for a batch; of a job, those of all ranks. `trace`: one of the simulated
    runs; of a job, its first rank. `checks`: the watched runs beside their own simulations, and
    `memory`: how they differ in theirs, if they do. `doubts`: why the epoch's interval is as wide
    as it is, and which further run would narrow it.
    """

    scenario: Scenario
    epoch: Estimate
    throughput: Estimate
    wait_p95: Estimate
    trace: Trace
    checks: tuple[Check, ...] = ()
    memory: str = ""
    doubts: Doubts | None = None

    def __str__(self) -> str:
        lines: list[tuple[str, Estimate, Callable[[float], str]]] = [
            ("epoch", self.epoch, duration),
            ("samples/s", self.throughput, number),
            ("wait p95", self.wait_p95, duration),
        ]
        said = [
            f"{name:<10} {show(e.value):>10}  ({show(e.low)} to {show(e.high)})"
            for name, e, show in lines
        ]
        why = str(self.doubts) if self.doubts is not None else ""
        return "\n".join([*said, *filter(None, (why, self.memory)), *map(str, self.checks)])


def predict(
    calibration: Calibration,
    changes: Mapping[str, object],
    *,
    replications: int = 20,
    seed: int = 0,
) -> Prediction:
    """What a real run of the calibrated loader would do with other settings, and how sure that is.

    `changes`: values by dotted key, as `{"loader.num_workers": 8}` or `{"job.ranks": 2}`; what
    torch refuses without workers goes when they do. What happens without workers, runs without
    them tell, if there were any. The values are means of `replications` simulated runs. The
    intervals hold 95 % of real runs, if the scenario is right: they allow for the randomness of a
    run, for what the observed runs left uncertain, for what was missed of them, and for how much
    real runs differ though nothing is known to.

    An iterable-style dataset's samples are shared out among another number of workers evenly, as
    torch's documentation does it; where yours differ, say so in `"dataset.sharding"`.

    Raises `ScenarioError` for changes that make no scenario, `WhatIfError` for a bad number.
    """
    check_counts(replications=replications)
    if calibration.alone is not None and changes.get("loader.num_workers") == 0:
        calibration = calibration.alone
    changed = replace(
        calibration,
        scenario=with_changes(calibration.scenario, changes),
        errors=errors_after(calibration.errors, changes),
    )
    seeds = [replication_seed(seed, number) for number in range(replications)]
    runs = [simulated(changed.scenario, s) for s in seeds]
    shifted = both_ways(changed, changed.errors, seeds[0]) | seldom_together(changed, seeds[0])

    def found(figure: Callable[[Run], float]) -> tuple[Estimate, Doubts | None]:
        values = np.array([figure(run) for run in runs])
        if not values.any():  # what is relative to nothing tells nothing
            seen = (figure(run) for pair in shifted.values() for run in pair)
            return Estimate(0.0, 0.0, max(seen, default=0.0)), None
        of_costs = parts(values[0], shifted, figure, float(values.mean()))
        apart = chance(values), cost_errors.UNEXPLAINED, missed(calibration.checks)
        rest = [even(deviation) for deviation in apart]
        given = estimate(values, added([*of_costs.values(), *rest]))
        return given, doubts(of_costs, rest, calibration.runs)

    of_epoch, why = found(epoch)
    return Prediction(
        scenario=changed.scenario,
        epoch=of_epoch,
        throughput=found(rate)[0],
        wait_p95=found(wait_p95)[0],
        trace=ranks_of(runs[0])[0],
        checks=calibration.checks,
        memory=calibration.memory,
        doubts=why,
    )


def chance(values: Floats) -> float:
    """By how much one more such value would differ from their mean: relative to it."""
    count = len(values)
    return (
        float(np.std(values, ddof=1) / values.mean() * (1 + 1 / count) ** 0.5) if count > 1 else 0.0
    )


def estimate(values: Floats, reach: Floats) -> Estimate:
    """The mean of some values, and an interval that has such a `reach` below and above it.

    Costs are factors: their errors, and so those of times, are relative.
    """
    value = float(values.mean())
    below, above = np.exp(reach)
    return Estimate(value, value / float(below), value * float(above))


def wait_p95(run: Trace | JobTrace) -> float:
    """The 95th percentile of the seconds waited for a batch, on any rank; NaN without batches."""
    times = known(np.concatenate([waits(trace) for trace in ranks_of(run)]))
    return float(np.percentile(times, 95)) if len(times) else float("nan")


def errors_after(errors: Mapping[str, float], changes: Mapping[str, object]) -> dict[str, float]:
    """How sure the costs are that the changes leave; what is given is sure."""
    given = {
        name
        for key, names in REPLACED.items()
        if any(change.startswith(key) for change in changes)
        for name in names
    }
    return {name: 0.0 if name in given else error for name, error in errors.items()}


def with_changes(scenario: Scenario, changes: Mapping[str, object]) -> Scenario:
    """The scenario with the changes, and with what has to change with them."""
    asked = dict(changes)
    workers = asked.get("loader.num_workers", scenario.loader.num_workers)
    if workers == 0:
        for key, value in WITHOUT_WORKERS.items():
            asked.setdefault(f"loader.{key}", value)
    dataset: Any = scenario.dataset
    given = isinstance(dataset, IterableDataset) and dataset.given
    if given and isinstance(workers, int):
        job: Any = {
            key: asked.get(f"job.{key}", getattr(scenario.job, key))
            for key in ("ranks", "nodes", "deal")
        }
        each = max(workers, 1) * (job["ranks"] * job["nodes"] if job["deal"] != "same" else 1)
        if each != len(dataset.sharding):
            asked.setdefault("dataset.sharding", shares(sum(dataset.sharding), each))
    return scenarios.replace(scenario, asked)


def shares(length: int, workers: int) -> tuple[int, ...]:
    """So many samples for each worker, consecutive and as equal as torch's documentation does."""
    share = -(-length // max(workers, 1))
    return tuple(max(0, min(share, length - worker * share)) for worker in range(max(workers, 1)))
