"""What is wanted of a configuration: the most or least that a metric may be, and its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.scenario.units import duration
from dlsim.trace.summary import number, percent
from dlsim.trace.work import DISTINCT

V = TypeVar("V", float, Floats)

NEARLY = 0.99  # of the best, where that is the target
SMALL = 0.01  # shares below it are told to two digits
DUST = 1e-9  # shares below it come of rounding
SHARES = ("stall", "au")
RESULTS = {
    "stall": "training is idle {} of the time",
    "wait_p95": "19 of 20 batches are waited for {}",
    "au": "the accelerator is busy {} of the time",
    "epoch_time": "an epoch takes {}",
    "samples_per_s": "training gets {}",
    "distinct_per_s": "training gets {}",
}
UNITS = {"samples_per_s": "samples/s", "distinct_per_s": DISTINCT}


@dataclass(frozen=True)
class Target:
    """`metric` (as in `Summary`) is to be `limit` at most; or at least, without `at_most`.

    `words`: what the limit is, if not just the number. `rivals`: at least `NEARLY` of what each of
    these scenarios reaches is wanted, replication by replication; `limit` is the mean of that of
    the first. `doubt`: how likely another one reaches more than any of them.
    """

    metric: str
    limit: float
    at_most: bool = True
    words: str = ""
    rivals: tuple[Scenario, ...] = ()
    doubt: float = 0.0

    def excess(self, values: V) -> V:
        """How far each of `values` is beyond the limit; negative within it."""
        return values - self.limit if self.at_most else self.limit - values

    def result(self, value: float) -> str:
        """What a run that has this value does, in words."""
        return RESULTS[self.metric].format(shown(self.metric, value))

    def told(self, value: float) -> str:
        """The result beside what is wanted."""
        return f"{self.result(value)} (wanted: {self._limit})"

    @property
    def _limit(self) -> str:
        least = f"at {'most' if self.at_most else 'least'} {shown(self.metric, self.limit)}"
        return self.words or least

    def __str__(self) -> str:
        """What is wanted, in words."""
        return RESULTS[self.metric].format(self._limit)


def shown(metric: str, value: float) -> str:
    """A metric's value as people write it."""
    if metric in UNITS:
        return f"{number(value)} {UNITS[metric]}"
    if metric not in SHARES:
        return duration(value)
    return percent(value) if value >= SMALL or value < DUST else f"{100 * value:.2g} %"
