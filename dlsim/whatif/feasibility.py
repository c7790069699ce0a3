"""Does a configuration hold a target? Replicated until one can tell, and no further.

A sequential test in stages of doubling size. After each, a mean is called within its limit if
its one-sided confidence limit is, and beyond it if the other one is; in between, replications go
on. The risk of an error is divided among the stages, and that of calling a target held among the
configurations tried besides (Bonferroni), so that a target met by chance alone is not called met.
Configurations far from their limits are decided after a few replications; those that are close
get many, until the mean is known to `CLOSE` and still on neither side: too close is not held.
Feasibility checks of this kind: D. Batur and S.-H. Kim, Finding feasible systems in
the presence of constraints on multiple performance measures, ACM TOMACS 20(3), 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlsim.engine.effort import LOOKING, SECONDS, deciding, ranks, seconds_of
from dlsim.engine.facts import left_to_chance
from dlsim.engine.ranks import fair_share
from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.metrics import known, mean
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import Demand, demand
from dlsim.whatif.endings import ended_by
from dlsim.whatif.extent import cost, impossible, measured, shortened
from dlsim.whatif.parallel import Row, replication_seed
from dlsim.whatif.replicate import columns, more
from dlsim.whatif.student import below, quantile
from dlsim.whatif.targets import NEARLY, SHARES, Target

FIRST = 3  # replications of the first stage
MOST = 1000  # replications of one configuration
TOTAL = 40_000.0  # the effort of all runs of a configuration
COSTLY = 40_000.0  # the effort of a simulation that is not made without need
CALL = LOOKING / SECONDS  # the effort of looking at a run of one rank
CLOSE = 0.005  # of the time (a share), or of the limit (anything else), makes no difference
NEAR = 0.05  # of its limit; what misses by less may yet hold
SURELY = 0.9  # a closed form must miss the target by this factor to rule a configuration out


@dataclass(frozen=True)
class Verdict:
    """What is known of a configuration: whether it `holds` the targets, and from how many `runs`.

    `decided`: whether the test came to an end; one that did not does not hold. `probability`:
    that the means hold, all of them, in the sense of the t distribution; `held`: the runs that do.
    `means`: by metric. `miss`: by how much of its limit the worst mean is beyond it, 0 if none is.
    `failed`: whether an error ends any run; then nothing holds.
    """

    holds: bool
    decided: bool
    probability: float
    runs: int
    held: int
    means: dict[str, float]
    miss: float
    failed: bool = False


RULED_OUT = Verdict(False, True, 0.0, 0, 0, {}, math.inf)


class Judge:
    """Judges configurations by `targets`, remembering what was simulated.

    `tries`: among how many configurations the risk of a wrong yes is divided. `maximum`: how
    often one is replicated at most; None: up to 1,000 times, less often if runs are long.
    """

    def __init__(
        self,
        targets: tuple[Target, ...],
        confidence: float,
        maximum: int | None,
        tries: int,
        seed: int,
        jobs: int,
    ) -> None:
        self.targets, self.maximum, self.seed, self.jobs = targets, maximum, seed, jobs
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

        `most`: how many there are at most, if that is fewer than usual.
        """
        most = min(most, self.most(scenario))
        wanted = FIRST
        while True:
            rows = self._simulated(scenario, min(wanted, most))
            found = self._judged(columns(rows), targets or self.targets)
            if found.decided or len(rows) >= most:
                return found
            wanted = 2 * len(rows)

    def most(self, scenario: Scenario) -> int:
        """How often `scenario` is simulated at most; where nothing is random, one run tells."""
        usual = min(max(int(TOTAL / self.price(scenario)), 4 * FIRST), MOST)
        most = max(self.maximum or usual, 2)
        return most if left_to_chance(scenario) else min(most, FIRST)

    def price(self, scenario: Scenario) -> float:
        """The effort of simulating `scenario` once, and of looking at the run."""
        return cost(shortened(scenario)) + CALL * ranks(scenario)

    def samples_per_s(self, scenario: Scenario, wanted: int = FIRST) -> Floats:
        """Distinct samples a second of `scenario` in each of its replications, so many at least."""
        return columns(self._simulated(scenario, wanted))["distinct_per_s"]

    def faster(self, scenario: Scenario, other: Scenario) -> bool:
        """Whether `scenario` surely makes more samples a second than `other`, and not just so."""
        runs = FIRST
        while True:
            speed, least = (self.samples_per_s(each, runs)[:runs] for each in (scenario, other))
            more = speed - least
            if surely_above(more, self.risk_no, equal=False):
                return True
            near = CLOSE * mean(least)
            if surely_above(near - more, self.risk_no) or 2 * runs > self.most(scenario):
                return False
            runs *= 2

    def mean(self, scenario: Scenario, metric: str) -> float:
        """The mean of a metric over the replications of `scenario` that were made."""
        return mean(columns(self._simulated(scenario, FIRST))[metric])

    def ended_by(self, scenario: Scenario) -> str:
        """What ends the first of its replications that an error ends; "" if none does."""
        failed = columns(self._simulated(scenario, FIRST))["failed"] > 0
        if not failed.any():
            return ""
        seed = replication_seed(self.seed, int(failed.argmax()))
        return ended_by(self._part(scenario), seed)

    def costly(self, scenario: Scenario) -> bool:
        """Whether each simulation of `scenario` takes seconds."""
        return cost(shortened(scenario)) > COSTLY

    def seen(self, scenario: Scenario) -> bool:
        """Whether `scenario` was simulated."""
        return scenario in self._rows

    @property
    def simulated(self) -> int:
        """How many simulations were made."""
        return sum(map(len, self._rows.values()))

    def _simulated(self, scenario: Scenario, wanted: int) -> list[Row]:
        """All rows of `scenario`, so many at least."""
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
        self._seconds += seconds_of(part) * len(numbers)
        with deciding(self._seconds, part, jobs=self.jobs):
            return more(part, self.seed, numbers, self.jobs, measured(whole))

    def _excesses(self, target: Target, values: Floats) -> list[Floats]:
        """How far the value of each replication is beyond each limit; negative within it."""
        if not target.rivals:
            return [target.excess(values)]
        runs = len(values)
        rivals = (columns(self._simulated(each, runs)) for each in target.rivals)
        return [NEARLY * each[target.metric][:runs] - values for each in rivals]

    def _judged(self, metrics: dict[str, Floats], targets: tuple[Target, ...]) -> Verdict:
        excesses = [(t, each) for t in targets for each in self._excesses(t, metrics[t.metric])]
        failed = bool(metrics["failed"].any())
        runs = len(metrics["failed"])
        within = [surely_above(-excess, self.risk_yes) for _, excess in excesses]
        no = any(surely_above(excess, self.risk_no, equal=False) for _, excess in excesses)
        close = all(
            yes or _close(excess, self.risk_yes, 1.0 if t.metric in SHARES else t.limit)
            for yes, (t, excess) in zip(within, excesses, strict=True)
        )
        doubt = sum(t.doubt for t in targets) + sum(1 - likely(excess) for _, excess in excesses)
        held = np.all([excess <= 0 for _, excess in excesses], axis=0)
        return Verdict(
            holds=all(within) and not failed,
            decided=no or close or failed,
            probability=max(1 - doubt, 0.0),
            runs=runs,
            held=int(held.sum()),
            means={t.metric: mean(metrics[t.metric]) for t in targets},
            miss=max(_missed(excess, t.limit) for t, excess in excesses),
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


def _close(excess: Floats, risk: float, scale: float) -> bool:
    """Whether the mean of `excess` is surely within `CLOSE` of 0, in units of `scale`."""
    near = CLOSE * scale
    return surely_above(near - excess, risk) and surely_above(near + excess, risk)


def _missed(excess: Floats, limit: float) -> float:
    """By what share the mean is beyond the limit: 0 within it, without end where none is known."""
    beyond = mean(excess) / (limit or 1.0)
    return math.inf if math.isnan(beyond) else max(0.0, beyond)


def surely_above(values: Floats, risk: float, *, equal: bool = True) -> bool:
    """Whether the mean of the known `values` is surely above 0 (`equal`: or 0 itself)."""
    values = known(values)
    count, middle = len(values), mean(values)
    if count < 2 or not math.isfinite(middle):
        return False
    if np.ptp(values) == 0:  # nothing is random
        return float(values[0]) >= 0 if equal else float(values[0]) > 0
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return middle > quantile(1 - risk, count - 1) * error


def likely(excess: Floats) -> float:
    """How likely the true mean is at most 0, given these values, as far as they are known."""
    excess = known(excess)
    count, middle = len(excess), mean(excess)
    if count < 2 or not math.isfinite(middle):
        return 0.0
    if np.ptp(excess) == 0:
        return float(middle <= 0)
    error = float(np.std(excess, ddof=1)) / math.sqrt(count)
    return below(-middle / error, count - 1)
