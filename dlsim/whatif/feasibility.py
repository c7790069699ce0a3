"""Does a configuration hold a target? Replicated until one can tell, and no further.

A sequential test in stages of doubling size. After each, a mean is called within its limit if
its one-sided confidence limit is, and beyond it if the other one is; in between, replications go
on. The risk of an error is divided among the stages, and that of calling a target held among the
configurations tried besides (Bonferroni), so that a target met by chance alone is not called met.
Configurations far from their limits are decided after a few replications; those that are close
get many. Feasibility checks of this kind: D. Batur and S.-H. Kim, Finding feasible systems in
the presence of constraints on multiple performance measures, ACM TOMACS 20(3), 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.scenario.units import duration
from dlsim.trace import Trace, summarize
from dlsim.trace.summary import percent
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import demand
from dlsim.whatif.parallel import Row
from dlsim.whatif.replicate import columns, more

FIRST = 5  # replications of the first stage
SURELY = 0.9  # a closed form must miss the target by this factor to rule a configuration out


@dataclass(frozen=True)
class Target:
    """`metric` (as in `Summary`) is to be `limit` at most; or at least, without `at_most`."""

    metric: str
    limit: float
    at_most: bool = True

    def excess(self, values: Floats) -> Floats:
        """How far each of `values` is beyond the limit; negative within it."""
        return values - self.limit if self.at_most else self.limit - values

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.at_most else '>='} {shown(self.metric, self.limit)}"


@dataclass(frozen=True)
class Verdict:
    """What is known of a configuration: whether it `holds` the targets, and from how many `runs`.

    `decided`: whether the test came to an end; one that did not does not hold. `probability`:
    that the means hold, in the sense of the t distribution; `held`: the runs that do. `means`:
    by metric. `miss`: by how much of its limit the worst mean is beyond it, 0 if none is.
    """

    holds: bool
    decided: bool
    probability: float
    runs: int
    held: int
    means: dict[str, float]
    miss: float

    def __str__(self) -> str:
        return ", ".join(f"{metric} {shown(metric, mean)}" for metric, mean in self.means.items())


RULED_OUT = Verdict(False, True, 0.0, 0, 0, {}, math.inf)


class Judge:
    """Judges configurations by `targets`, remembering what was simulated.

    `tries`: among how many configurations the risk of a wrong yes is divided.
    """

    def __init__(
        self,
        targets: tuple[Target, ...],
        confidence: float,
        maximum: int,
        tries: int,
        seed: int,
        jobs: int,
    ) -> None:
        self.targets, self.maximum, self.seed, self.jobs = targets, maximum, seed, jobs
        stages = 1 + max(0, math.ceil(math.log2(maximum / FIRST)))
        self.risk_no = (1 - confidence) / stages
        self.risk_yes = self.risk_no / max(tries, 1)
        self._rows: dict[Scenario, list[Row]] = {}

    def __call__(self, scenario: Scenario) -> Verdict:
        """The verdict on `scenario`; closed forms may rule it out unseen."""
        return RULED_OUT if self._ruled_out(scenario) else self.verdict(scenario)

    def verdict(self, scenario: Scenario) -> Verdict:
        """The verdict on `scenario` from simulations."""
        rows = self._rows.setdefault(scenario, [])
        wanted = FIRST
        while True:
            wanted = min(max(wanted, len(rows)), max(self.maximum, 2))
            if len(rows) < wanted:
                rows += more(scenario, self.seed, range(len(rows), wanted), self.jobs, summarized)
            found = self._judged(columns(rows))
            if found.decided or len(rows) >= self.maximum:
                return found
            wanted = 2 * len(rows)

    def samples_per_s(self, scenario: Scenario) -> float:
        """Mean samples a second of `scenario`, from as many replications as there are."""
        self.verdict(scenario)
        return float(np.mean([row["samples_per_s"] for row in self._rows[scenario]]))

    def seen(self, scenario: Scenario) -> bool:
        """Whether `scenario` was simulated."""
        return scenario in self._rows

    @property
    def simulated(self) -> int:
        """How many simulations were made."""
        return sum(map(len, self._rows.values()))

    def _judged(self, metrics: dict[str, Floats]) -> Verdict:
        excesses = {t.metric: t.excess(metrics[t.metric]) for t in self.targets}
        failed = bool(metrics["failed"].any())
        runs = len(metrics["failed"])
        yes = all(_beyond(-excess, self.risk_yes) for excess in excesses.values())
        no = any(_beyond(excess, self.risk_no, equal=False) for excess in excesses.values())
        held = np.all([excess <= 0 for excess in excesses.values()], axis=0)
        return Verdict(
            holds=yes and not failed,
            decided=yes or no or failed,
            probability=min(_probability(excess) for excess in excesses.values()),
            runs=runs,
            held=int(held.sum()),
            means={t.metric: float(metrics[t.metric].mean()) for t in self.targets},
            miss=max(
                max(0.0, float(excesses[t.metric].mean())) / (t.limit or 1.0) for t in self.targets
            ),
        )

    def _ruled_out(self, scenario: Scenario) -> bool:
        """Whether closed forms leave no hope; only where they say something of the target.

        An epoch of N batches lasts at least N periods, of which N steps are spent training and
        starting and stopping workers neither trains nor waits.
        """
        need, period = demand(scenario), bounds(scenario).period
        if scenario.consumer.run_ahead or need.threads or not need.batches or not period:
            return False
        costs = scenario.costs
        edges = costs.worker_start + costs.worker_stop + costs.index_put + costs.index_latency
        edge = scenario.loader.window * edges / (need.batches * period)
        trained = (need.step + need.copies) / period
        least = {
            "epoch_time": need.batches * period,
            "stall": 1 - trained - edge,
        }
        return any(
            t.limit < SURELY * least[t.metric] if t.at_most else trained < SURELY * t.limit
            for t in self.targets
            if t.metric in least or not t.at_most
        )


def summarized(trace: Trace) -> Row:
    """All metrics of a trace, and whether an error ended it."""
    return summarize(trace).as_dict() | {"failed": float(trace.meta.problem is not None)}


def shown(metric: str, value: float) -> str:
    """A metric's value as people write it."""
    return percent(value) if metric in ("stall", "au") else duration(value)


def _beyond(values: Floats, risk: float, *, equal: bool = True) -> bool:
    """Whether the mean of `values` is surely above 0 (`equal`: or 0 itself)."""
    from scipy.special import stdtrit

    count, mean = len(values), float(values.mean())
    if not math.isfinite(mean):
        return False
    if np.ptp(values) == 0:  # nothing is random
        return float(values[0]) >= 0 if equal else float(values[0]) > 0
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean > float(stdtrit(count - 1, 1 - risk)) * error


def _probability(excess: Floats) -> float:
    """How likely the true mean is at most 0, given these values."""
    from scipy.special import stdtr

    count, mean = len(excess), float(excess.mean())
    if not math.isfinite(mean):
        return 0.0
    if np.ptp(excess) == 0:
        return float(mean <= 0)
    error = float(np.std(excess, ddof=1)) / math.sqrt(count)
    return float(stdtr(count - 1, -mean / error))
