"""Intervals for means, and the end of a warm-up.

Student's t interval for the mean of independent values: `mean ± t * s / sqrt(n)` (Law, Simulation
Modeling and Analysis, 5th ed., §4.5). MSER-5, where to cut off a warm-up: K. P. White, M. J. Cobb
and S. C. Spratt, A comparison of five steady-state truncation heuristics for simulation, Winter
Simulation Conference 2000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlsim.scenario.distributions import Floats
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.student import quantile

GROUP = 5  # MSER-5 looks at the means of five values
LEAST_GROUPS = 10  # of fewer, MSER-5 says nothing
ROUNDING = 1e-9  # relative; smaller differences are rounding, not variation


@dataclass(frozen=True)
class Interval:
    """A confidence interval for a mean: `mean - half_width` to `mean + half_width`.

    `count` values went into it. Of one value or none, `half_width` is NaN: nothing is known.
    """

    mean: float
    half_width: float
    count: int
    confidence: float = 0.95

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half_width

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Ratio(Interval):
    """An interval for a ratio less one, as wide above as below on the scale of logarithms.

    So it never holds -1: nothing is slower than standing still.
    """

    @property
    def low(self) -> float:
        """The lower end."""
        return (1 + self.mean) * math.exp(-self._wide) - 1

    @property
    def high(self) -> float:
        """The upper end."""
        return (1 + self.mean) * math.exp(self._wide) - 1

    @property
    def _wide(self) -> float:
        return math.asinh(self.half_width / (1 + self.mean))


def check_confidence(confidence: float) -> None:
    """Raise `WhatIfError` unless `confidence` lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise WhatIfError(f"confidence: expected a number between 0 and 1, got {confidence!r}")


def interval(values: Floats, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent `values`; NaN among them are left out."""
    check_confidence(confidence)
    (found,) = intervals(values[np.newaxis], confidence)
    return found


def intervals(values: Floats, confidence: float) -> list[Interval]:
    """The `interval` of each row of `values`, sooner than one by one.

    Rows with NaN in the same places are done at once.
    """
    known = ~np.isnan(values)
    alike: dict[bytes, list[int]] = {}
    for row, places in enumerate(known):
        alike.setdefault(places.tobytes(), []).append(row)
    found: dict[int, Interval] = {}
    for rows in alike.values():
        some = values[np.ix_(rows, known[rows[0]])]
        means, halves = _means(some, confidence)
        for row, mean, half in zip(rows, means.tolist(), halves.tolist(), strict=True):
            found[row] = Interval(mean, half, some.shape[1], confidence)
    return [found[row] for row in range(len(values))]


def _means(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The mean of each row, without NaN, and the half-width of its interval."""
    rows, count = values.shape
    unknown = np.full(rows, np.nan)
    if count < 2:
        return values[:, 0] if count else unknown, unknown
    with np.errstate(over="ignore"):  # rates of next to no time: the interval is endless
        means = values.mean(axis=1)
        halves = t_quantile(confidence, count) * (np.std(values, axis=1, ddof=1) / count**0.5)
    equal = np.ptp(values, axis=1) <= ROUNDING * np.abs(values[:, 0])  # all else is rounding
    means[equal], halves[equal] = values[equal, 0], 0.0
    return means, halves


def t_quantile(confidence: float, count: int) -> float:
    """How many standard errors make a two-sided interval of `count` values."""
    return quantile((1 + confidence) / 2, count - 1)


def mser5(values: Floats) -> int | None:
    """How many of the first `values` MSER-5 deletes as warm-up; None where the run is too short.

    Of the means of groups of five, the first `d` are deleted that minimise the squared standard
    error of the rest, `sum((y - mean)**2) / (n - d)**2`. The last five groups are never looked at
    alone, and a minimum in the second half means that the warm-up did not end.
    """
    groups = len(values) // GROUP
    (cut,) = cut_offs([values[: groups * GROUP].reshape(groups, GROUP).mean(axis=1)])
    return None if cut is None else cut * GROUP


def cut_offs(means: Sequence[Floats]) -> list[int | None]:
    """How many MSER deletes of the means of groups in each of these arrays.

    None where there are too few, or where the warm-up does not end. Arrays that are equally long
    are looked at together.
    """
    alike: dict[int, list[int]] = {}
    for number, each in enumerate(means):
        alike.setdefault(len(each), []).append(number)
    found: list[int | None] = [None] * len(means)
    for groups, numbers in alike.items():
        if groups >= LEAST_GROUPS:
            for number, cut in zip(
                numbers, _least_error(np.array([means[i] for i in numbers])), strict=True
            ):
                found[number] = cut if cut <= groups / 2 else None
    return found


def _least_error(means: Floats) -> list[int]:
    """For each row, how many of its first values are deleted to make the error least."""
    groups = means.shape[1]
    scale = np.abs(means).max(axis=1, keepdims=True)
    centred = means - means.mean(axis=1, keepdims=True)
    rest = np.arange(groups, 0, -1)
    tail = np.cumsum(centred[:, ::-1], axis=1)[:, ::-1]
    squares = np.cumsum(centred[:, ::-1] ** 2, axis=1)[:, ::-1] - tail**2 / rest
    squares[squares < groups * (ROUNDING * scale) ** 2] = 0.0
    cuts: list[int] = np.argmin((squares / rest**2)[:, : groups - GROUP + 1], axis=1).tolist()
    return cuts
