"""Why it is as slow as it is, and what each single change would gain: what is simulated for that.

A change is simulated a few times, and more often only where these runs do not tell what it gains.
So most of an answer rests on the same runs, however fast the engine is that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dlsim.engine import simulate
from dlsim.engine.effort import cost, deciding, seconds_of
from dlsim.engine.facts import left_to_chance
from dlsim.scenario import Scenario
from dlsim.trace.metrics import mean
from dlsim.trace.rhythm import Rhythm, rhythm
from dlsim.whatif.bounds import bounds
from dlsim.whatif.changes import Change, changes, without_workers
from dlsim.whatif.controls import gained
from dlsim.whatif.explanation import WORTH, Explanation, Gain
from dlsim.whatif.extent import replicated, shortened
from dlsim.whatif.fastest import limit
from dlsim.whatif.limits import shares
from dlsim.whatif.otherwise import perfect_loader
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.replicate import Replications
from dlsim.whatif.stretching import IDLE, SHARE

# Replications of a change: the first, and those in all where these do not tell what it gains, as
# far as effort allows; some seconds, whatever the scenario.
FIRST, MOST, EFFORT = 8, 30, 12_000.0
FEW, LEAST = 3, 5  # the same of long runs
GLANCE = 2  # replications that tell which pair of changes is worth a closer look
MACHINES = ("twice the cores", "storage twice as fast")


def explain(
    scenario: Scenario,
    replications: int | None = None,
    seed: int = 0,
    *,
    keep_order: bool = False,
    jobs: int = 1,
) -> Explanation:
    """Where the time of `scenario` goes, and what each single change would gain.

    Every replication is accounted for (`dlsim.trace.account`), and its critical path divided among
    its causes; every change that makes sense is simulated under the same random numbers, so that
    its gain is a paired difference. With `keep_order`, none is tried that gives up the order of
    batches. `replications`: by default 8, and up to 30 where these do not tell what a change gains;
    fewer of long runs, at least 3; of very long ones only a part is simulated (see
    `dlsim.whatif.extent`). `jobs`: see `replicate`.
    """
    check_jobs(jobs)
    check_counts(replications=LEAST if replications is None else replications)
    stages = _stages(scenario) if replications is None else [replications]

    def allowed(change: Change) -> bool:
        return not keep_order or change.scenario.loader.in_order == scenario.loader.in_order

    tried = [change for change in changes(scenario) if allowed(change)]
    runs = stages[-1] if left_to_chance(scenario) else 1
    runs *= len(tried) + 2
    with deciding(seconds_of(shortened(scenario)) * runs, scenario, jobs=jobs, runs=runs):
        trials = _Trials(scenario, stages, seed, jobs)
        gains = [trials.gain(change) for change in tried]
        headspace = trials.gain(Change("a perfect loader", perfect_loader(scenario)))
        if not headspace.gain.mean < WORTH:
            alone = filter(trials.may_gain, without_workers(scenario))
            gains += [found for found in map(trials.gain, alone) if found.sure]
        gains.sort(key=lambda found: -np.nan_to_num(found.gain.mean, nan=-np.inf))
        pair = None
        if headspace.sure and not any(each.sure and not programmed(each.change) for each in gains):
            pair = trials.best_of([pair for pair in _pairs(scenario) if allowed(pair)])
        regularly = _rhythm(scenario, seed)
    return Explanation(
        scenario=scenario,
        idle=shares(IDLE, trials.now.metrics),
        shares=shares(SHARE, trials.now.metrics),
        gains=gains,
        pair=pair,
        headspace=headspace,
        runs=trials.now,
        limits=bounds(scenario),
        rhythm=regularly,
    )


class _Trials:
    """Runs of `scenario` as it is, `now`, and of changes to it, all under one seed.

    `stages`: of how many there are first, and of how many where these do not tell.
    """

    def __init__(self, scenario: Scenario, stages: Sequence[int], seed: int, jobs: int) -> None:
        self.scenario, self.stages, self.seed, self.jobs = scenario, stages, seed, jobs
        self.now = replicated(scenario, stages[0], seed, jobs=jobs, shares=True)

    def gain(self, change: Change) -> Gain:
        """What a change gains."""
        changed = None
        for times in self.stages:
            if len(self.now) < times:
                self.now = self._more(self.scenario, times, self.now, shares=True)
            changed = self._more(change.scenario, times, changed)
            ours = gained(self.now.first(times), changed)
            found = Gain(change, ours, mean(changed["distinct_per_s"]))
            if found.clear:
                break
        return found

    def may_gain(self, change: Change) -> bool:
        """Whether closed forms leave it open that a change gains something."""
        return limit(change.scenario) > mean(self.now["distinct_per_s"])

    def best_of(self, tried: Sequence[Change]) -> Gain | None:
        """What the best of some changes gains, at a glance, if it surely does."""
        speeds = [self._speed(change.scenario) for change in tried]
        if not speeds:
            return None
        found = self.gain(tried[int(np.argmax(speeds))])
        return found if found.sure else None

    def _speed(self, scenario: Scenario) -> float:
        """About how many samples a second `scenario` makes."""
        runs = replicated(scenario, GLANCE, self.seed)
        return float(np.nan_to_num(mean(runs["distinct_per_s"])))

    def _more(
        self, case: Scenario, times: int, before: Replications | None, *, shares: bool = False
    ) -> Replications:
        """So many runs of `case`, of which those `before` are there."""
        return replicated(case, times, self.seed, jobs=self.jobs, shares=shares, before=before)


def _stages(scenario: Scenario) -> list[int]:
    """How often a change to `scenario` is simulated first, and where these runs do not tell."""
    fitting = int(EFFORT / cost(shortened(scenario)))
    if fitting < LEAST:
        return [FEW, LEAST]
    return sorted({min(fitting, FIRST), min(fitting, MOST)})


def _rhythm(scenario: Scenario, seed: int) -> Rhythm | None:
    """The rhythm of the waits of one run, where all of it is simulated: not of a job."""
    if (scenario.is_job and scenario.job.rank is None) or shortened(scenario) != scenario:
        return None
    return rhythm(simulate(scenario, seed))


def _pairs(scenario: Scenario) -> Iterator[Change]:
    """Two changes at once, of settings or of the machine, that are of different kinds."""
    first = [change for change in changes(scenario) if not programmed(change)]
    names = [change.name for change in first]
    for change in first:
        for other in changes(change.scenario):
            later = other.name in names[names.index(change.name) + 1 :]
            if later and not programmed(other) and not _undone(change, other):
                settings = ", ".join(filter(None, (change.setting, other.setting)))
                yield Change(
                    f"{_named(change)} and {_named(other)}",
                    other.scenario,
                    settings if change.loader and other.loader else "",
                )


def _undone(change: Change, other: Change) -> bool:
    """Whether the second change is of the same keyword arguments as the first one."""
    keys = [{text.partition("=")[0] for text in c.setting.split(", ")} for c in (change, other)]
    return change.loader and other.loader and bool(keys[0] & keys[1])


def _named(change: Change) -> str:
    return f"{change.name} ({change.setting})" if change.setting else change.name


def programmed(change: Change) -> bool:
    """Whether a change takes another program, rather than a setting or another machine."""
    return not change.loader and change.name not in MACHINES
