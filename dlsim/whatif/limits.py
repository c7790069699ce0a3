"""What limits configurations, as shares of the time by cause: the account of a few runs of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.causes import ranked
from dlsim.whatif.extent import replicated, shortened
from dlsim.whatif.parallel import Besides
from dlsim.whatif.replicate import Replications, replicate
from dlsim.whatif.statistics import Interval, interval
from dlsim.whatif.stretching import IDLE, causes
from dlsim.whatif.tables import Table

FEW = 3  # runs whose accounts tell what limits: one takes some times as long as its metrics


def shares(prefix: str, runs: Mapping[str, Floats]) -> dict[str, Interval]:
    """What runs, a value for each in each metric, have of each cause, the greatest first.

    Where one has none, that is 0. Runs in which no time passes have no shares, and are left out, as
    they are of the stall.
    """
    passed = ~np.isnan(runs["stall"])
    found = {
        metric.removeprefix(prefix): interval(np.nan_to_num(values[passed]))
        for metric, values in runs.items()
        if metric.startswith(prefix)
    }
    return {cause: found[cause] for cause in ranked(means(found))}


def means(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """The mean of each interval."""
    return {cause: found.mean for cause, found in intervals.items()}


def looked_into(scenario: Scenario) -> Besides:
    """Of how many runs causes tell what limits `scenario`: of a job, which takes long, of one."""
    return Besides(1 if scenario.is_job else FEW, partial(causes, whole=scenario))


def limited(
    scenario: Scenario, replications: int, seed: int, jobs: int = 1
) -> tuple[Replications, dict[str, float]]:
    """`replications` of `scenario` from beginning to end, and what limits it, as `idle` has it.

    That is told by the first of them or, where these are long, by parts of as many.
    """
    told, part = looked_into(scenario), shortened(scenario) != scenario
    runs = replicate(scenario, replications, seed, jobs=jobs, besides=None if part else told)
    few = min(replications, told.few)
    first = replicated(scenario, few, seed, shares=True) if part else runs.first(few)
    return runs, idle(means(shares(IDLE, first.metrics)), runs.interval("stall").mean)


def idle_in(table: Table, row: int) -> dict[str, float]:
    """The same of a row of what `sweep` finds with `causes`."""
    found = {
        name.removeprefix(IDLE): float(values[row])
        for name, values in table.items()
        if name.startswith(IDLE) and values[row] > 0
    }
    return idle(found, float(table["stall"][row]))


def idle(found: Mapping[str, float], stall: float) -> dict[str, float]:
    """The share of the time for which each cause keeps training idle, the greatest first.

    `found`: of a few runs; as parts of `stall`, which more of them may have told.
    """
    total = sum(found.values())
    times = stall / total if total > 0 and stall == stall else 1.0
    return {cause: times * share for cause, share in ranked(found).items()}
