"""What a real run would do with other settings: `predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from dlsim.validation.calibrating.running import epoch, rate, simulated
from dlsim.validation.calibrating.scenario import Calibration
from dlsim.whatif.parallel import check_counts, replication_seed
from dlsim.whatif.statistics import t_quantile

CONFIDENCE = 0.95

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
    """A predicted value and the interval in which 95 % of real runs should find theirs.

    `spread`: the standard deviation of the logarithm of one more run's, 0 where nothing varies.
    """

    value: float
    low: float
    high: float
    spread: float = 0.0

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a real run of `scenario` would do; `str()` says it in a few lines.

    `epoch`: seconds of an epoch; `throughput`: samples a second; `wait_p95`: seconds, the 95th
    percentile of waits for a batch; of a job, those of all ranks. `trace`: one of the simulated
    runs; of a job, its first rank. `checks`: the watched runs beside their own simulations, and
    `memory`: how they differ in theirs, if they do. `doubting`: finds `doubts`.
    """

    scenario: Scenario
    epoch: Estimate
    throughput: Estimate
    wait_p95: Estimate
    trace: Trace
    checks: tuple[Check, ...] = ()
    memory: str = ""
    doubting: partial[Doubts] | None = None

    @cached_property
    def doubts(self) -> Doubts | None:
        """Why the epoch's interval is as wide as it is, and which further run would narrow it.

        Found out when it is asked for: it takes a simulation for each cost that is not sure.
        """
        return None if self.doubting is None else self.doubting()

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
    them tell, if there were any. The intervals hold 95 % of real runs, if the scenario is right:
    they allow for the randomness of a run, for what the observed runs left uncertain, and for
    how much real runs differ though nothing is known to. The values are means.

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
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1 << 31,)))
    seeds = [replication_seed(seed, number) for number in range(replications)]
    sure = [simulated(changed.scenario, s) for s in seeds[: max(3, replications // 4)]]
    unsure = [simulated(changed.draw(rng), s) for s in seeds]
    figures = {
        "epoch": epoch,
        "throughput": rate,
        "wait_p95": wait_p95,
    }
    estimates = {
        name: estimate(
            np.array([f(t) for t in sure]),
            np.array([f(t) for t in unsure]),
            missed(calibration.checks),
        )
        for name, f in figures.items()
    }
    reach = t_quantile(CONFIDENCE, max(replications, 2))
    return Prediction(
        scenario=changed.scenario,
        trace=ranks_of(sure[0])[0],
        checks=calibration.checks,
        memory=calibration.memory,
        doubting=partial(
            doubts, changed, epoch(sure[0]), estimates["epoch"].spread, reach, seeds[0]
        ),
        **estimates,
    )


def estimate(sure: Floats, unsure: Floats, missed: float = 0.0) -> Estimate:
    """The mean of some values, and an interval for one more of others like `unsure`.

    `missed`: by how much watched runs are missed, as a logarithm: by as much others may be.
    """
    value = float(sure.mean())
    if not value > 0:
        return Estimate(value, value, float(np.max(unsure, initial=value)))
    count = len(unsure)
    # Costs are factors: their errors, and so those of times, are relative.
    spread = float(np.std(np.log(np.maximum(unsure, 1e-9) / value), ddof=1)) if count > 1 else 0.0
    spread = (spread**2 * (1 + 1 / count) + cost_errors.UNEXPLAINED**2 + missed**2) ** 0.5
    factor = float(np.exp(t_quantile(CONFIDENCE, max(count, 2)) * spread))
    return Estimate(value, value / factor, value * factor, spread)


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
