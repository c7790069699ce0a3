"""Which settings give the most samples a second, and which others might.

Candidates are looked at in the order of their closed-form bounds, as long as one may still be
faster. Then all that were looked at are replicated, under common random numbers, in stages of
doubling size: after each, those leave that are surely not faster than the best by `SAME`. What is
still there in the end are rivals: who is to be nearly as fast as any must be so beside each.
Selection of the best: S.-H. Kim and B. L. Nelson, A fully sequential procedure for
indifference-zone selection in simulation, ACM TOMACS 11(3), 2001.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Scenario
from dlsim.trace.work import DISTINCT, in_an_epoch, unit
from dlsim.whatif.bounds import bounds
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.demand import demand, variation
from dlsim.whatif.feasibility import FIRST, NEARLY, Judge, Target, likely, surely_above

SAME = 0.0025  # relative; who is faster by no more is not faster
MOST = 100  # replications of a candidate


@dataclass(frozen=True)
class Fastest:
    """The `best` candidate, and the `rivals` that may be faster; `doubt`: that another is."""

    best: Candidate
    rivals: list[Candidate]
    doubt: float


def fastest(options: list[Candidate], judge: Judge) -> Fastest:
    """Which of `options` is the fastest, as far as `judge` can tell."""
    looked = _looked_at(options, judge)
    risk = judge.risk_yes / 2
    runs, doubt = FIRST, 0.0
    while True:
        speeds = {o.cost: judge.samples_per_s(o.scenario, runs)[:runs] for o in looked}
        best = max(looked, key=lambda o: float(speeds[o.cost].mean()))
        least = (1 + SAME) * speeds[best.cost]
        rivals = []
        for option in looked:
            slower = least - speeds[option.cost]
            if option is best or not surely_above(slower, risk):
                rivals.append(option)
            else:
                doubt += 1 - likely(-slower)
        rest = [option for option in rivals if option is not best]
        if not rest or 2 * runs > min(MOST, judge.most(best.scenario)):
            return Fastest(best, rest, doubt)
        looked, runs = rivals, 2 * runs


def nearly_as_fast(options: list[Candidate], judge: Judge) -> Target:
    """The target of coming within 1 % of the most that any of `options` gives."""
    found = fastest(options, judge)
    rivals = (found.best.scenario, *(rival.scenario for rival in found.rivals))
    most = float(judge.samples_per_s(found.best.scenario).mean())
    words = f"{100 * NEARLY:.0f} % of the most that any settings give"
    repeats = unit(*(in_an_epoch(option.scenario) for option in options)) == DISTINCT
    return Target(
        "distinct_per_s" if repeats else "samples_per_s",
        NEARLY * most,
        at_most=False,
        words=words,
        rivals=rivals,
        doubt=found.doubt,
    )


def _looked_at(options: list[Candidate], judge: Judge) -> list[Candidate]:
    """Those that may be the fastest, by their bounds and what was simulated of others."""
    limits = {option.cost: _limit(option.scenario) for option in options}
    largest = {(o.workers, o.in_order, o.switches): o for o in options}  # the last is the largest
    found, most = list[Candidate](), 0.0
    for option in sorted(options, key=lambda o: (-limits[o.cost], -o.workers, -o.prefetch)):
        if found and limits[option.cost] <= (1 + SAME) * most:
            break
        if option.ordered and option != largest[option.workers, True, option.switches]:
            continue  # a larger window delays nothing
        found.append(option)
        most = max(most, float(judge.samples_per_s(option.scenario).mean()))
    return found


def _limit(scenario: Scenario) -> float:
    """Samples a second that no mean of runs exceeds; infinite where that is not known."""
    varies, batches = variation(scenario), demand(scenario).batches
    if scenario.is_job or not np.isfinite(varies) or not batches:
        return math.inf
    # the mean of a quotient is greater than the quotient of the means
    return bounds(scenario).samples_per_s * (1 + varies**2 / batches)
