"""The rows of a sweep: configurations, each replicated, and summed up when it is known well enough.

Where it is not said how often, in two stages: a few replications of each, and then as many more as
these call for, so that its speed is known well enough. Intervals are right, whatever comes of that,
if they are told from the spread in the first stage: the mean of normal values does not depend on it
(C. Stein, A two-sample test for a linear hypothesis whose power is independent of the variance,
Annals of Mathematical Statistics 16(3), 1945). Where runs differ by whole rounds of the workers,
all are made at first: a few that are alike would seem to tell more than they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dlsim.engine.compiled import installed
from dlsim.engine.effort import cost, seconds_of
from dlsim.engine.facts import batches_to_simulate, left_to_chance
from dlsim.scenario import Scenario
from dlsim.whatif.designs import Configuration, configured
from dlsim.whatif.extent import ends_in_step, shortened
from dlsim.whatif.limits import looked_into, means, shares
from dlsim.whatif.parallel import Row, measure, run_all, simulations
from dlsim.whatif.replicate import columns, enough
from dlsim.whatif.statistics import interval, intervals
from dlsim.whatif.stretching import IDLE, impossible, measured

# A task is worth sending to another process if it simulates about so many batches, on either
# engine; but there are so many tasks, if possible, that every process has some to do.
TASK_BATCHES, TASK_BATCHES_COMPILED = 5000, 100_000
FEWEST_TASKS = 32
HALF_WIDTH = "_half_width"
# Where it is not said how often to simulate: how often, and the effort of all, some seconds. So
# often at first, and again until the half-width of the interval is such a share of the speed.
LEAST, FIRST, MOST, EFFORT = 3, 8, 30, 200_000.0
CLOSE, SPEED = 0.005, "samples_per_s"
SOME = 50  # configurations that tell how long many take

# Some replications of one configuration: its number, its values, replication numbers.
Piece: TypeAlias = tuple[int, Configuration, range]


@dataclass(frozen=True)
class Plan:
    """How configurations of `scenario` are simulated.

    Each `first` times, and up to `most` times where these call for it, or where few may tell too
    little; `stretched`: of some only a
    part, which stands for all. `causes`: what keeps training idle is measured, too.
    """

    scenario: Scenario
    first: int
    most: int
    stretched: bool
    seed: int
    confidence: float
    causes: bool

    def at_first(self, case: Scenario) -> int:
        """How often a configuration, `case`, is simulated before it is known whether that does."""
        return self.most if ends_in_step(case) else self.first


def planned(
    scenario: Scenario,
    rows: list[Configuration],
    replications: int | None,
    seed: int,
    confidence: float = 0.95,
    causes: bool = False,
) -> Plan:
    """How `sweep` simulates each configuration: so often, or as often as it is worth."""
    if replications is not None:
        return Plan(scenario, replications, replications, False, seed, confidence, causes)
    cases = [configured(scenario, row) for row in rows]
    parts = [shortened(case) for case in cases]
    times = min(max(int(EFFORT / sum(map(cost, parts))), LEAST), MOST)
    return Plan(scenario, min(times, FIRST), times, parts != cases, seed, confidence, causes)


def expected(plan: Plan, rows: Mapping[int, Configuration]) -> tuple[int, float]:
    """How many simulations are made at first, and the seconds that they take without compiled code.

    They differ by the configuration, in how much of it is simulated and how often; some tell of
    many.
    """
    some = list(rows.values())[:: max(len(rows) // SOME, 1)]
    runs, seconds = 0, 0.0
    for row in some:
        case = configured(plan.scenario, row)
        times = plan.at_first(case) if left_to_chance(case) else 1
        runs += times
        seconds += times * seconds_of(shortened(case) if plan.stretched else case)
    share = len(some) / len(rows) if rows else 1.0
    return round(runs / share), seconds / share


def finish(
    plan: Plan, rows: Mapping[int, Configuration], jobs: int
) -> Iterator[tuple[int, dict[int, Row]]]:
    """Simulate `rows`; after each task: simulations done or needless, and the rows made ready.

    A row is summed up when all its replications are there, in their order.
    """
    parts: dict[int, dict[int, Row]] = {number: {} for number in rows}
    cases = {number: configured(plan.scenario, row) for number, row in rows.items()}
    wanted, done = {number: range(plan.at_first(case)) for number, case in cases.items()}, 0
    while wanted:
        again = dict[int, range]()
        tasks = ((plan, some) for some in _tasks(plan, rows, wanted, jobs))
        for results in run_all(_simulate, tasks, jobs):
            ready = {}
            for number, begin, found in results:
                mine = parts[number]
                mine |= dict(enumerate(found, begin))
                done += len(found)
                if len(mine) < wanted[number].stop:
                    continue
                in_order = [mine[r] for r in sorted(mine)]
                if (needed := _needed(plan, in_order)) > len(mine):
                    again[number] = range(len(mine), needed)
                else:
                    ready[number] = _row(plan, cases[number], in_order)
                    done += plan.most - len(mine)
                    del parts[number]
            yield done, ready
        wanted = again


def _needed(plan: Plan, made: list[Row]) -> int:
    """How many replications tell the speed well enough, as the first ones have it."""
    if len(made) != plan.first or plan.first == plan.most:
        return len(made)
    speeds = np.array([row[SPEED] for row in made])
    return min(enough(interval(speeds, plan.confidence), CLOSE), plan.most)


def _row(plan: Plan, case: Scenario, made: list[Row]) -> Row:
    """The row of a configuration, `case`; simulated whole if no part of it stands for all."""
    besides = looked_into(case) if plan.causes else None
    if plan.stretched and impossible(case, columns(made)):
        made = simulations(case, plan.seed, range(len(made)), measured(case), besides)
    return _summed(plan, made, plan.at_first(case), besides.few if besides else 0)


def _simulate(plan: Plan, pieces: list[Piece]) -> list[tuple[int, int, list[Row]]]:
    """Of each piece: its configuration's number, its first replication, and the rows from there."""
    found = []
    for number, changes, numbers in pieces:
        case = configured(plan.scenario, changes)
        part, besides = shortened(case), looked_into(case) if plan.causes else None
        if plan.stretched or besides is None or part == case:
            what, some = (measured(case), part) if plan.stretched else (measure, case)
            rows = simulations(some, plan.seed, numbers, what, besides)
        else:  # what limits is told by parts of long runs, which take less than their accounts
            rows = simulations(case, plan.seed, numbers)
            first = range(numbers.start, min(numbers.stop, besides.few))
            told = simulations(part, plan.seed, first, besides.measured)
            rows[: len(told)] = [row | idle for row, idle in zip(rows, told, strict=False)]
        found.append((number, numbers.start, rows))
    return found


def _tasks(
    plan: Plan, rows: Mapping[int, Configuration], wanted: Mapping[int, range], jobs: int
) -> Iterator[list[Piece]]:
    """The replications `wanted` of rows, gathered into tasks worth their transport, in order."""
    if jobs == 1:  # nothing is sent anywhere, and replications are best made together
        yield from ([(number, rows[number], numbers)] for number, numbers in wanted.items())
        return
    batches = TASK_BATCHES_COMPILED if installed() else TASK_BATCHES
    some = shortened(plan.scenario) if plan.stretched else plan.scenario
    most = -(-sum(map(len, wanted.values())) // FEWEST_TASKS)
    size = max(1, min(batches // batches_to_simulate(some), most))
    task: list[Piece] = []
    room = size
    for number, numbers in wanted.items():
        first = numbers.start
        while first < numbers.stop:
            last = min(first + room, numbers.stop)
            task.append((number, rows[number], range(first, last)))
            room -= last - first
            first = last
            if room == 0:
                yield task
                task, room = [], size
    if task:
        yield task


def _summed(plan: Plan, made: list[Row], first: int, few: int) -> Row:
    """The means of all metrics, then half-widths of intervals; what limits, in the first `few`.

    Half-widths follow from the spread of the `first` runs, those of the first stage, or from that
    of all, if these are wider: some metrics differ only in later runs.
    """
    metrics = {n: values for n, values in columns(made).items() if not n.startswith(IDLE)}
    values, count = np.array(list(metrics.values())), len(made)
    found = intervals(values, plan.confidence)
    halves = np.array([each.half_width for each in found])
    if count > first:
        told = intervals(values[:, :first], plan.confidence)
        wide = np.array([each.half_width for each in told])
        halves = np.fmax(halves, wide * math.sqrt(first / count))
    row = {name: each.mean for name, each in zip(metrics, found, strict=True)}
    row |= {name + HALF_WIDTH: half for name, half in zip(metrics, halves.tolist(), strict=True)}
    idle = means(shares(IDLE, columns(made[:few]))) if few else {}
    return row | {"replications": count} | {IDLE + cause: share for cause, share in idle.items()}
