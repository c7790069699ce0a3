"""What limits configurations, as shares of the time by cause: the account of a few runs of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlsim.scenario import Scenario
from dlsim.trace.causes import ranked
from dlsim.whatif.extent import IDLE, replicated
from dlsim.whatif.parallel import run_all
from dlsim.whatif.replicate import Replications
from dlsim.whatif.statistics import Interval, interval

FEW = 3  # runs whose accounts tell what limits: one takes some times as long as its metrics


def shares(prefix: str, runs: Replications) -> dict[str, Interval]:
    """What `runs` have of each cause, the greatest first; where one has none, that is 0.

    Runs in which no time passes have no shares, and are left out, as they are of the stall.
    """
    passed = ~np.isnan(runs["stall"])
    found = {
        metric.removeprefix(prefix): interval(np.nan_to_num(values[passed]))
        for metric, values in runs.metrics.items()
        if metric.startswith(prefix)
    }
    return {cause: found[cause] for cause in ranked(means(found))}


def means(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """The mean of each interval."""
    return {cause: found.mean for cause, found in intervals.items()}


def idle(scenario: Scenario, stall: float, replications: int, seed: int) -> dict[str, float]:
    """The share of the time for which each cause keeps training idle, the greatest first.

    Of the first `replications` of the experiment `seed`, three at most, and of a job, which takes
    long, one; as parts of `stall`, which more of them may have told.
    """
    few = 1 if scenario.is_job else min(replications, FEW)
    found = means(shares(IDLE, replicated(scenario, few, seed, shares=True)))
    total = sum(found.values())
    times = stall / total if total > 0 and stall == stall else 1.0
    return {cause: times * share for cause, share in found.items()}


def idle_of_all(
    scenarios: Sequence[Scenario], stalls: Sequence[float], replications: int, seed: int, jobs: int
) -> list[dict[str, float]]:
    """The same of each of `scenarios`; `jobs`: see `dlsim.whatif.replicate`."""
    tasks = (
        (row, case, float(stall), replications, seed)
        for row, (case, stall) in enumerate(zip(scenarios, stalls, strict=True))
    )
    found = dict(run_all(_numbered, tasks, jobs))
    return [found[row] for row in range(len(scenarios))]


def _numbered(
    row: int, scenario: Scenario, stall: float, replications: int, seed: int
) -> tuple[int, dict[str, float]]:
    return row, idle(scenario, stall, replications, seed)
