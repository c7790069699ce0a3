"""Does a configuration hold a target? Replicated until one can tell, and no further.

A sequential test (`dlsim.whatif.sequential`) in stages of doubling size. The risk of an error is
divided among the stages, and that of calling a target held among the configurations tried besides
(Bonferroni), so that a target met by chance alone is not called met. Configurations far from their
limits are decided after a few replications; those that are close get many.

Each limit has a test of its own: of two rivals that one is to be held against, that which is surely
no better is not simulated again for the other. All simulations of an answer together have an end
(`Budget`), but for the first ones of each configuration, and these have one of their own:
who is undecided then stays so, which is said.
Feasibility checks of this kind: D. Batur and S.-H. Kim, Finding feasible systems in
the presence of constraints on multiple performance measures, ACM TOMACS 20(3), 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dlsim.engine.effort import LOOKING, SECONDS, cost, deciding, ranks, seconds_of, takes
from dlsim.engine.facts import left_to_chance
from dlsim.engine.ranks import fair_share
from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.metrics import mean
from dlsim.whatif.as_drawn import as_drawn, is_told
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import Demand, demand, variance_of_runs
from dlsim.whatif.endings import ended_by
from dlsim.whatif.extent import shortened
from dlsim.whatif.parallel import Row, replication_seed
from dlsim.whatif.replicate import columns, more
from dlsim.whatif.sequential import CLOSE, RULED_OUT, Limit, Verdict, likely, surely_above
from dlsim.whatif.stretching import impossible, measured
from dlsim.whatif.targets import NEARLY, Target

FIRST = 3  # replications of the first stage
MOST = 1000  # replications of one configuration
TOTAL = 40_000.0  # the effort of all runs of a configuration
ALL = 200_000.0  # that of all runs of an answer: some ten seconds
FIRSTS = 200_000.0  # that of first runs when these are made
COSTLY = 40_000.0  # the effort of a simulation that is not made without need
CALL = LOOKING / SECONDS  # the effort of looking at a run of one rank
NEAR = 0.05  # of its limit; what misses by less may yet hold
SURELY = 0.9  # a closed form must miss the target by this factor to rule a configuration out


@dataclass
class Budget:
    """The effort that is `left` for the simulations of an answer."""

    left: float = field(default_factory=lambda: ALL)

    @property
    def spent(self) -> bool:
        """Whether nothing is left: the search ends."""
        return self.left <= 0

    @property
    def overdrawn(self) -> bool:
        """Whether first runs have taken all they may: nothing is simulated any more."""
        return self.left <= -FIRSTS


class Judge:
    """Judges configurations by `targets`, remembering what was simulated.

    `tries`: among how many configurations the risk of a wrong yes is divided. `maximum`: how
    often one is replicated at most; None: up to 1,000 times, less often if runs are long. When
    `budget` is spent, nothing is simulated any more but the first runs of what is asked for, and
    when it is overdrawn, nothing.
    """

    def __init__(
        self,
        targets: tuple[Target, ...],
        confidence: float,
        maximum: int | None,
        tries: int,
        seed: int,
        jobs: int,
        budget: Budget | None = None,
    ) -> None:
        self.targets, self.maximum, self.seed, self.jobs = targets, maximum, seed, jobs
        self.budget = Budget() if budget is None else budget
        stages = 1 + max(0, math.ceil(math.log2((maximum or MOST) / FIRST)))
        self.risk_no = (1 - confidence) / stages
        self.tries = tries
        self._rows: dict[Scenario, list[Row]] = {}
        self._seconds = 0.0  # of all simulations, without compiled code
        self._whole = set[Scenario]()  # what no part stands for

    @property
    def risk_yes(self) -> float:
        """The risk of one wrong yes."""
        return self.risk_no / max(self.tries, 1)

    def __call__(self, scenario: Scenario) -> Verdict:
        """The verdict on `scenario`; closed forms may rule it out unseen."""
        return RULED_OUT if self._ruled_out(scenario) else self.verdict(scenario)

    def verdict(
        self, scenario: Scenario, targets: tuple[Target, ...] = (), most: int = MOST
    ) -> Verdict:
        """The verdict on `scenario` from simulations, by other `targets` if there are any.

        `most`: how many there are at most, if that is fewer than usual. Limits that are decided
        are left at that, and their rivals not simulated again.
        """
        targets = targets or self.targets
        limits = [Limit(t, rival) for t in targets for rival in t.rivals or (None,)]
        most = min(most, self.most(scenario))
        wanted, still = min(FIRST, most), limits
        while True:
            for limit in still:
                limit.test(self._excess(limit, scenario, wanted), self.risk_yes, self.risk_no)
            still = [limit for limit in still if not (limit.within or limit.close)]
            runs = min((len(limit.excess) for limit in still), default=most)
            found = self._verdict(scenario, targets, limits)
            if found.decided or runs >= most or self.budget.spent:
                return found
            wanted = min(2 * runs, most)

    def most(self, scenario: Scenario) -> int:
        """How often `scenario` is simulated at most; where nothing is random, one run tells."""
        usual = min(max(int(TOTAL / self.price(scenario)), 4 * FIRST), MOST)
        most = max(self.maximum or usual, 2)
        return most if left_to_chance(scenario) else min(most, FIRST)

    def price(self, scenario: Scenario) -> float:
        """The effort of simulating `scenario` once, and of looking at the run."""
        return cost(shortened(scenario)) + CALL * ranks(scenario)

    def takes(self, scenario: Scenario) -> float:
        """What simulating `scenario` once takes of the budget."""
        return _takes(self._part(scenario))

    def samples_per_s(self, scenario: Scenario, wanted: int = FIRST) -> Floats:
        """Distinct samples a second of `scenario` in each of its replications.

        So many at least, or as many as the budget allows.
        """
        return self._values(scenario, "distinct_per_s", wanted)

    def deviation(self, scenario: Scenario) -> float:
        """The standard deviation of runs of `scenario` over their mean, at most."""
        return math.sqrt(variance_of_runs(fair_share(self._part(scenario))))

    def is_told(self, scenario: Scenario) -> bool:
        """Whether `as_drawn` can tell what is drawn for runs of `scenario`."""
        return is_told(self._part(scenario))

    def as_drawn(self, scenario: Scenario, runs: int) -> Scenario:
        """`scenario` with the means of what is drawn for its first `runs`, if that can be told."""
        seeds = tuple(replication_seed(self.seed, number) for number in range(runs))
        return as_drawn(scenario, self._part(scenario), seeds)

    def faster(self, scenario: Scenario, other: Scenario) -> bool:
        """Whether `scenario` surely makes more samples a second than `other`, and not just so."""
        wanted = FIRST
        while True:
            speed, least = (self.samples_per_s(each, wanted) for each in (scenario, other))
            runs = min(len(speed), len(least), wanted)
            more, near = speed[:runs] - least[:runs], CLOSE * mean(least[:runs])
            if surely_above(more, self.risk_no, equal=False):
                return True
            enough = 2 * wanted > self.most(scenario) or self.budget.spent
            if surely_above(near - more, self.risk_no) or enough:
                return False
            wanted *= 2

    def mean(self, scenario: Scenario, metric: str) -> float:
        """The mean of a metric over the replications of `scenario` that were made."""
        return mean(self._values(scenario, metric, FIRST))

    def ended_by(self, scenario: Scenario) -> str:
        """What ends the first of its replications that an error ends; "" if none does."""
        failed = self._values(scenario, "failed", 0) > 0
        if not failed.any():
            return ""
        seed = replication_seed(self.seed, int(failed.argmax()))
        return ended_by(self._part(scenario), seed)

    def costly(self, scenario: Scenario) -> bool:
        """Whether each simulation of `scenario` takes seconds; of a job, at its dearest.

        Of a job, one rank alone tells nearly as much.
        """
        price = cost if scenario.is_job else _takes
        return price(shortened(scenario)) > COSTLY

    def seen(self, scenario: Scenario) -> bool:
        """Whether `scenario` was simulated."""
        return bool(self._rows.get(scenario))

    @property
    def simulated(self) -> int:
        """How many simulations were made."""
        return sum(map(len, self._rows.values()))

    def _values(self, scenario: Scenario, metric: str, wanted: int) -> Floats:
        """A metric in all replications of `scenario`, so many at least."""
        rows = self._simulated(scenario, wanted)
        return np.array([row.get(metric, math.nan) for row in rows])

    def _simulated(self, scenario: Scenario, wanted: int) -> list[Row]:
        """All rows of `scenario`: so many at least, or the first where the budget is spent."""
        if self.budget.spent:
            wanted = min(wanted, 0 if self.budget.overdrawn else FIRST)
        rows = self._rows.setdefault(scenario, [])
        if len(rows) < wanted:
            rows += self._more(self._part(scenario), range(len(rows), wanted), scenario)
            if impossible(scenario, columns(rows)):
                self._whole.add(scenario)
                rows[:] = self._more(scenario, range(wanted), scenario)
        return rows

    def _part(self, scenario: Scenario) -> Scenario:
        """What is simulated of `scenario`."""
        return scenario if scenario in self._whole else shortened(scenario)

    def _more(self, part: Scenario, numbers: range, whole: Scenario) -> list[Row]:
        """The rows `numbers` of `part`, which stands for `whole`.

        How much there will be to judge is not known before; that there was much, is.
        """
        self.budget.left -= _takes(part) * (len(numbers) if left_to_chance(part) else 1)
        self._seconds += seconds_of(part) * len(numbers)
        with deciding(self._seconds, part, jobs=self.jobs):
            return more(part, self.seed, numbers, self.jobs, measured(whole))

    def _excess(self, limit: Limit, scenario: Scenario, wanted: int) -> Floats:
        """How far each replication is beyond a limit: so many at least, where the budget allows."""
        values = self._values(scenario, limit.target.metric, wanted)
        if limit.rival is None:
            return limit.target.excess(values)
        theirs = self._values(limit.rival, limit.target.metric, wanted)
        runs = min(len(values), len(theirs))
        return NEARLY * theirs[:runs] - values[:runs]

    def _verdict(
        self, scenario: Scenario, targets: tuple[Target, ...], limits: list[Limit]
    ) -> Verdict:
        """What the tests of all `limits` say by now."""
        runs = max(len(limit.excess) for limit in limits)
        beyond = np.zeros(runs, bool)
        for limit in limits:
            beyond[: len(limit.excess)] |= ~(limit.excess <= 0)
        failed = bool(self._values(scenario, "failed", 0).any())
        holds, missed = all(each.within for each in limits), any(each.beyond for each in limits)
        doubt = sum(t.doubt for t in targets) + sum(1 - likely(each.excess) for each in limits)
        return Verdict(
            holds=holds and not failed,
            decided=holds or missed or failed or any(each.close for each in limits),
            probability=max(1 - doubt, 0.0),
            runs=runs,
            held=int(runs - beyond.sum()),
            means={t.metric: mean(self._values(scenario, t.metric, 0)) for t in targets},
            miss=max(each.missed for each in limits),
            missed=missed,
            failed=failed,
        )

    def _ruled_out(self, scenario: Scenario) -> bool:
        """Whether closed forms leave no hope; only where they say something of the target.

        An epoch of N batches lasts at least N periods, of which N steps are spent training and
        starting and stopping workers neither trains nor waits. The first batch is waited for.
        """
        if scenario.validation is not None:  # time in it makes the share of any other less
            return False
        need, best = demand(fair_share(scenario)), bounds(scenario)
        period, speed = best.period, best.samples_per_s
        if scenario.consumer.run_ahead or need.threads or not need.batches or not period:
            return False
        costs = scenario.charged
        edges = costs.worker_start + costs.worker_stop + costs.index_put + costs.index_latency
        edge = scenario.loader.window * edges / (need.batches * period)
        trained = (need.step + need.copies) / period
        least = {
            "epoch_time": need.batches * period,
            "stall": max(1 - trained - edge, _first_wait(need, edge * period)),
        }
        most = {"au": trained, "samples_per_s": speed, "distinct_per_s": speed}
        return any(
            t.limit < SURELY * least.get(t.metric, 0.0)
            if t.at_most
            else most[t.metric] < SURELY * t.limit
            for t in self.targets
        )


def _first_wait(need: Demand, edge: float) -> float:
    """The share of an epoch for which the first batch is waited for, where the step limits.

    `edge`: seconds a batch for starting and stopping.
    """
    return need.fetches / (need.fetches + need.batches * (need.step + need.copies + edge) or 1.0)


def _takes(part: Scenario) -> float:
    """The effort of simulating `part`, and of looking at the run."""
    return takes(part) + CALL * ranks(part)
