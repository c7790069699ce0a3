"""From observed values to a distribution, the choice justified by a goodness of fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Constant, Empirical, Gamma, Lognormal
from dlsim.scenario.distributions import Distribution, Floats

STEADY = 0.01  # a coefficient of variation below which values are as good as constant
ENOUGH = 200  # of so many values, the values themselves are the best distribution
MOST = 5000  # more values say nothing new
CRITICAL = 1.36  # Kolmogorov-Smirnov at 5 %: reject above CRITICAL / sqrt(n)


@dataclass(frozen=True)
class Fit:
    """A distribution chosen for `count` values; `ks`: its distance to them (Kolmogorov-Smirnov).

    `rejected`: what was tried and not taken, with its distance.
    """

    distribution: Distribution
    count: int
    ks: float
    rejected: dict[str, float]

    def __str__(self) -> str:
        kind = type(self.distribution).__name__.lower()
        tried = ", ".join(f"{name} {ks:.3f}" for name, ks in self.rejected.items())
        others = f"; not {tried}" if tried else ""
        return f"{kind} of {self.count} values (KS {self.ks:.3f}{others})"


def fit(values: Floats) -> Fit:
    """The simplest distribution that the values do not contradict.

    Constant, if they hardly vary; of few values, gamma or lognormal, if the distance of the
    better one is what chance would make it; else the values themselves, to be resampled.
    """
    count, mean = len(values), float(values.mean()) if len(values) else 0.0
    if mean <= 0 or float(values.std()) < STEADY * mean:
        return Fit(Constant(mean), count, 0.0, {})
    cv = float(values.std(ddof=1)) / mean if count > 1 else 0.0
    tried: dict[str, float] = {}
    if cv > 0:
        tried = {name: distance(values, name, mean, cv) for name in ("gamma", "lognormal")}
        best = min(tried, key=lambda name: tried[name])
        if count < ENOUGH and tried[best] < CRITICAL / count**0.5:
            kind = Gamma if best == "gamma" else Lognormal
            ks = tried.pop(best)
            return Fit(kind(mean, cv), count, ks, tried)
    kept = values
    if count > MOST:
        kept = np.sort(values)[np.linspace(0, count - 1, MOST).astype(int)]
    return Fit(Empirical(tuple(kept.tolist())), count, 0.0, tried)


def distance(values: Floats, name: str, mean: float, cv: float) -> float:
    """The Kolmogorov-Smirnov distance of the values from a gamma or lognormal distribution."""
    from scipy import stats

    if name == "gamma":
        law = stats.gamma(1 / cv**2, scale=mean * cv**2)
    else:
        variance = np.log1p(cv**2)
        law = stats.lognorm(np.sqrt(variance), scale=mean * np.exp(-variance / 2))
    return float(stats.kstest(values, law.cdf).statistic)
