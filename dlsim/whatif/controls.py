"""Differences between scenarios, less what chance gave their runs: control variates.

What chance gives a run is told from what is drawn for it, and nothing on average (see
`dlsim.whatif.luck`). Regression over the replications tells how much of a difference it makes, and
the interval of what remains is narrower. S. S. Lavenberg and P. D. Welch, A perspective on the use
of control variables to increase the efficiency of Monte Carlo simulations, Management Science
27(3), 1981.

Runs depend on luck in a line that is nearly straight, but not quite, so that the interval is that
of the jackknife, which need not believe in lines (HC3: J. G. MacKinnon and H. White, Some
heteroskedasticity-consistent covariance matrix estimators with improved finite sample properties,
Journal of Econometrics 29(3), 1985). Whether it is the narrower one is not asked: who takes the
narrower of two intervals has one that holds the truth less often than it says (of twenty pairs in
`tests/benchmarks/coverage.py`, 92 % of the time).
"""

from __future__ import annotations

import math

import numpy as np

from dlsim.scenario.distributions import Floats
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.luck import luck, told
from dlsim.whatif.replicate import Replications
from dlsim.whatif.statistics import Interval, interval, t_quantile

FEWEST = 12  # replications from which luck is told: of fewer, intervals come out too wide
SHARE = 0.3  # of the replications: more coefficients are not told from so few
ALIKE = 1e-6  # relative; what differs by less is the same control


def paired(a: Replications, b: Replications, metric: str) -> Interval:
    """The interval for the mean of `b - a` in `metric`, replication by replication.

    Both must come from one experiment seed: they saw common random numbers, and what these do to
    both alike cancels. What they do to one of them is allowed for where it can be told, so that
    the mean is not quite that of the differences. Raises `WhatIfError` if they do not, or differ
    in number.
    """
    return _less_luck(a, b, b[metric] - a[metric])


def gained(a: Replications, b: Replications, metric: str = "distinct_per_s") -> Interval:
    """The interval for the mean of `b / a - 1` in `metric`: 0.25 is a quarter more.

    By default of distinct samples a second: who repeats samples is no faster.

    As `paired`; pairs without a ratio, of runs that return nothing, are left out.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = b[metric] / a[metric] - 1
    return _less_luck(a, b, np.where(np.isfinite(ratio), ratio, math.nan))


def _less_luck(a: Replications, b: Replications, values: Floats) -> Interval:
    """The interval for the mean of `values`, of what luck does not explain."""
    if a.seed != b.seed or len(a) != len(b):
        raise WhatIfError(
            f"paired: expected as many replications of one seed, got {len(a)} of seed {a.seed} "
            f"and {len(b)} of seed {b.seed}"
        )
    plain = interval(values, a.confidence)
    cases = (a,) if a.scenario == b.scenario else (a, b)
    if (
        len(values) < FEWEST
        or not plain.half_width > 0
        or np.isnan(values).any()
        or not all(told(case.part or case.scenario) for case in cases)
        or any(case.metrics.get("failed", values[:0]).any() for case in cases)
    ):
        return plain
    had = np.array([_luck(case) for case in cases])
    few = had[:, :, :1]  # only what makes runs longer, where there are too few runs for all
    found = (_less(values, np.column_stack([*some]), a.confidence) for some in (had, few))
    return next(filter(None, found), plain)


def _less(values: Floats, controls: Floats, confidence: float) -> Interval | None:
    """The interval for the mean of `values` by their regression on `controls`, a row for each.

    The controls have mean 0. None if there are too many to tell their coefficients, or one of those
    is told by a single run, without which nothing would be known of it.
    """
    scale = np.abs(controls).max(axis=0)
    design = np.column_stack([np.ones(len(values)), controls[:, scale > 0] / scale[scale > 0]])
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    new = sizes > ALIKE * sizes[0]
    rank, left = int(new.sum()), left[:, new]
    others = 1 - (left**2).sum(axis=1)  # the part in what is fitted to each that others have
    if rank > SHARE * len(values) or (others < ALIKE).any():
        return None
    mean = right[new, 0] / sizes[new] @ left.T  # the mean of what is left, as weights of `values`
    rest = (values - left @ (left.T @ values)) / others
    half = t_quantile(confidence, len(values) - rank + 1) * float(np.linalg.norm(mean * rest))
    return Interval(float(mean @ values), half, len(values), confidence)


def _luck(runs: Replications) -> Floats:
    """The luck of each run; of a part that stands for the whole, as far as it counts there."""
    return luck(runs.part or runs.scenario, tuple(runs.seeds), runs.scenario)
