"""Is a mean within its limit? A sequential test, which ends as soon as one can tell.

After each stage a mean is called within its limit if its one-sided confidence limit is, and beyond
it if the other one is; in between, replications go on, until the mean is known to `CLOSE` and still
on neither side: too close is not held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.metrics import known, mean
from dlsim.whatif.student import below, quantile
from dlsim.whatif.targets import SHARES, Target

CLOSE = 0.005  # of the time (a share), or of the limit (anything else), makes no difference


@dataclass(frozen=True)
class Verdict:
    """What is known of a configuration: whether it `holds` the targets, and from how many `runs`.

    `decided`: whether the test came to an end; one that did not does not hold. `missed`: whether
    it ended as a target is surely missed. `probability`: that the means hold, all of them, in the
    sense of the t distribution; `held`: the runs that do. `means`: by metric. `miss`: by how much
    of its limit the worst mean is beyond it, 0 if none is. `failed`: whether an error ends any
    run; then nothing holds.
    """

    holds: bool
    decided: bool
    probability: float
    runs: int
    held: int
    means: dict[str, float]
    miss: float
    missed: bool = False
    failed: bool = False


RULED_OUT = Verdict(False, True, 0.0, 0, 0, {}, math.inf, missed=True)


@dataclass
class Limit:
    """The limit that a target sets, or one of its rivals; and how far the test of it is.

    `excess`: how far the value of each replication is beyond it; negative within it. `within`,
    `beyond`, `close`: whether the mean surely is that; the last, where it is not within.
    """

    target: Target
    rival: Scenario | None
    excess: Floats = field(default_factory=lambda: np.zeros(0))
    within: bool = False
    beyond: bool = False
    close: bool = False

    @property
    def missed(self) -> float:
        """By what share the mean is beyond it: 0 within it, without end where none is known."""
        beyond = mean(self.excess) / (self.target.limit or 1.0)
        return math.inf if math.isnan(beyond) else max(0.0, beyond)

    def test(self, excess: Floats, risk_yes: float, risk_no: float) -> None:
        """Look at what was simulated by now."""
        near = CLOSE * (1.0 if self.target.metric in SHARES else self.target.limit)
        self.excess = excess
        self.within = surely_above(-excess, risk_yes)
        self.beyond = surely_above(excess, risk_no, equal=False)
        self.close = not self.within and (
            surely_above(near - excess, risk_yes) and surely_above(near + excess, risk_yes)
        )


def surely_above(values: Floats, risk: float, *, equal: bool = True) -> bool:
    """Whether the mean of the known `values` is surely above 0 (`equal`: or 0 itself)."""
    values = known(values)
    count, middle = len(values), mean(values)
    if count < 2 or not math.isfinite(middle):
        return False
    if np.ptp(values) == 0:  # nothing is random
        return float(values[0]) >= 0 if equal else float(values[0]) > 0
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return bool(middle > quantile(1 - risk, count - 1) * error)


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
