"""Which settings give the most samples a second, and which others might.

Candidates are looked at that may be faster than all before them, by their closed-form bounds: first
a few with as many workers as powers of two, as one of those is fast most likely, then the others.
Then all that were looked at are replicated, under common random numbers, in stages of doubling
size: after each, those leave that are surely not faster than the best by `SAME`, as their runs
tell, or, where they are long, how little chance can do to them. What is still there in the end are
rivals: who is to be nearly as fast as any must be so beside each.
Selection of the best: S.-H. Kim and B. L. Nelson, A fully sequential procedure for
indifference-zone selection in simulation, ACM TOMACS 11(3), 2001.

Jobs whose ranks share a machine take long to simulate. Which of their settings are worth it is
told from one rank alone on its share of the machine, which takes a thousandth of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlsim.engine.ranks import fair_share
from dlsim.scenario import MapDataset, Recorded, Scenario
from dlsim.trace.metrics import mean
from dlsim.trace.work import DISTINCT, in_an_epoch, unit
from dlsim.whatif.bounds import SURE, bounds
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.demand import Demand, demand, variance_of_runs, variation
from dlsim.whatif.feasibility import FIRST, NEAR, Judge
from dlsim.whatif.sequential import likely, surely_above
from dlsim.whatif.targets import NEARLY, Target

SAME = 0.0025  # relative; who is faster by no more is not faster
MOST = 100  # replications of a candidate
GLANCE = 1  # replications that tell who is far from the fastest
HALF = 0.5  # of what is left of the budget, for those that cannot be told apart
DEFAULT = 2  # torch's prefetch_factor
DOUBT = 0.02  # by how much a rank alone may be off


@dataclass(frozen=True)
class Fastest:
    """The `best` candidate, and the `rivals` that may be faster; `doubt`: that another is."""

    best: Candidate
    rivals: list[Candidate]
    doubt: float


def fastest(options: list[Candidate], judge: Judge, most: int = MOST) -> Fastest:
    """Which of `options` is the fastest, as far as `judge` can tell from `most` runs of each."""
    # one run has its own bounds; where these cannot be told, as many as are near those of means
    runs = GLANCE if all(judge.is_told(option.scenario) for option in options) else FIRST
    looked = _looked_at(options, judge, runs)
    risk, doubt = judge.risk_yes / 2, 0.0
    while True:
        speeds = {o.cost: judge.samples_per_s(o.scenario, runs)[:runs] for o in looked}
        best = max(looked, key=lambda o: mean(speeds[o.cost]))
        least = (1 + SAME) * speeds[best.cost]
        chance = mean(least) * SURE * judge.deviation(best.scenario) / math.sqrt(runs)
        rivals = []
        for option in looked:
            slower = least - speeds[option.cost]
            far = mean(slower) > 2 * chance  # each of the two is off by so much at most
            if option is best or not (far or surely_above(slower, risk)):
                rivals.append(option)
            elif not far:  # which is out of the question
                doubt += 1 - likely(-slower)
        rest = [option for option in rivals if option is not best]
        more = max(2 * runs, FIRST)
        stage = (more - runs) * sum(judge.takes(option.scenario) for option in rivals)
        enough = more > min(most, judge.most(best.scenario)) or stage > HALF * judge.budget.left
        if not rest or enough:
            return Fastest(best, rest, doubt)
        looked, runs = rivals, more


def nearly_as_fast(options: list[Candidate], judge: Judge, most: int = MOST) -> Target:
    """The target of coming within 1 % of the most that any of `options` gives."""
    found = fastest(options, judge, most)
    rivals = (found.best.scenario, *(rival.scenario for rival in found.rivals))
    speed = mean(judge.samples_per_s(found.best.scenario))
    words = f"{100 * NEARLY:.0f} % of the most that any settings give"
    repeats = unit(*(in_an_epoch(option.scenario) for option in options)) == DISTINCT
    return Target(
        "distinct_per_s" if repeats else "samples_per_s",
        NEARLY * speed,
        at_most=False,
        words=words,
        rivals=rivals,
        doubt=found.doubt,
    )


def slow(option: Candidate, judge: Judge) -> bool:
    """Whether a rank alone clearly misses what is wanted, where simulating all would take long."""
    if not judge.costly(option.scenario):
        return False
    wanted = [t.limit for t in judge.targets if t.rivals]
    if wanted:
        return _alone(option, judge) < (1 - DOUBT) * max(wanted)
    alone = judge(fair_share(option.scenario))
    return alone.decided and not alone.holds and alone.miss >= NEAR


def _looked_at(options: list[Candidate], judge: Judge, runs: int) -> list[Candidate]:
    """Those that may be the fastest, by their bounds and what was simulated of others."""
    limits = {o.cost: limit(judge.as_drawn(o.scenario, runs)) for o in options}
    largest = {o.kind: o for o in options}  # the last is the largest
    costly = any(judge.costly(option.scenario) for option in options)
    # of those in order on a machine that shares nothing a larger window delays nothing
    some = [o for o in options if not o.ordered or o == largest[o.kind]]
    first = set(map(id, _coarse(some)))
    found, most = list[Candidate](), 0.0
    for option in sorted(some, key=lambda o: (id(o) not in first, -limits[o.cost])):
        if found and (limits[option.cost] <= (1 + SAME) * most or judge.budget.overdrawn):
            continue
        found.append(option)
        speed = _alone(option, judge) if costly else _speed(option.scenario, judge, runs)
        most = max(most, speed)
    if not costly:
        return found
    enough = (1 - SAME) * most
    hopeful = (option for option in options if limits[option.cost] >= enough)
    return [next(option for option in hopeful if _alone(option, judge) >= enough)]


def _coarse(options: list[Candidate]) -> list[Candidate]:
    """A few among which one is fast, most likely: as many workers as powers of two, in order."""
    some = [o for o in options if o.in_order and not o.switches and not o.workers & (o.workers - 1)]
    near: dict[tuple[int, int], Candidate] = {}
    for option in sorted(some, key=lambda o: abs(o.prefetch - DEFAULT)):
        near.setdefault((option.workers, option.size), option)
    return list(near.values())


def _speed(scenario: Scenario, judge: Judge, runs: int = FIRST) -> float:
    return mean(judge.samples_per_s(scenario, runs)[:runs])


def _alone(option: Candidate, judge: Judge) -> float:
    """Samples a second of all ranks, as told from one of them alone on its share."""
    job = option.scenario.job
    world = job.world if option.scenario.is_job else 1
    return world * _speed(fair_share(option.scenario), judge)


def limit(scenario: Scenario) -> float:
    """Samples a second that no mean of runs exceeds; infinite where that is not known.

    All steps come after the first batch is there, and are as many periods as there are batches.
    """
    varies, batches = variation(scenario), demand(fair_share(scenario)).batches
    if scenario.job.differs or not np.isfinite(varies) or not batches:
        return math.inf
    found, need = bounds(scenario), demand(fair_share(scenario))
    runs, edges = batches * scenario.epochs, _edges(scenario)
    least = runs * found.period
    if not scenario.consumer.run_ahead:
        step = need.step + need.copies
        fetched = runs * max(found.periods.get(name, 0.0) for name in ("workers", "storage"))
        least = max(
            least, runs * step + edges * _first(scenario, need, varies), fetched + edges * step
        )
    if not least:  # only what no closed form counts takes time
        return math.inf
    # the mean of a quotient is greater than the quotient of the means
    fastest = found.samples_per_batch * found.ranks * runs / least
    return float(fastest * (1 + variance_of_runs(fair_share(scenario))))


def _edges(scenario: Scenario) -> int:
    """How many epochs begin with nothing on its way, and end with a step after all is fetched."""
    apart = scenario.consumer.loop == "plain" and not scenario.loader.endless
    return scenario.epochs if apart else 1


def _first(scenario: Scenario, need: Demand, varies: float) -> float:
    """Seconds until a batch is there, at least, on average.

    In any order the first may be the shortest of all that workers begin with: no more below the
    mean than (n - 1) / sqrt(2 n - 1) deviations (H. A. David, Order Statistics, 1981, section 4.2).
    """
    loader, dataset = scenario.loader, scenario.dataset
    times = (time for stage in dataset.fetch for time in (stage.wait, stage.cpu, stage.read_bytes))
    if loader.batch_sampler is not None or any(isinstance(time, Recorded) for time in times):
        return 0.0  # of unequal batches, the first may be a short one
    if loader.in_order or loader.num_workers < 2:
        return need.fetches
    batched = isinstance(dataset, MapDataset) and dataset.batched
    calls = 1.0 if batched else max(need.samples / need.batches, 1.0)
    deviation = varies * need.fetches / math.sqrt(calls)
    if dataset.collate is not None:
        deviation += varies * dataset.collate.mean
    workers = loader.num_workers
    return max(need.fetches - deviation * (workers - 1) / math.sqrt(2 * workers - 1), 0.0)
