"""Student's t distribution, as far as intervals need it.

SciPy has it, too, but takes longer to be loaded than most questions take to be answered.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import count

TINY = 1e-300  # in place of a zero by which something is divided
EXACT = 2.0**-52


def below(t: float, freedom: float) -> float:
    """The probability of a value of at most `t`, with so many degrees of freedom."""
    beyond = _beyond(abs(t), freedom)
    return 1 - beyond if t > 0 else beyond


@lru_cache(maxsize=1024)
def quantile(probability: float, freedom: float) -> float:
    """The value that one is below with this probability."""
    if probability < 0.5:
        return -quantile(1 - probability, freedom)
    wanted, found = 1 - probability, 0.0
    if not wanted:
        return math.inf
    # Newton's method: the probability of more falls ever slower, so it comes from below.
    while (missing := _beyond(found, freedom) - wanted) > EXACT * wanted:
        nearer = found + missing / _density(found, freedom)
        if not nearer > found:
            break
        found = nearer
    return found


def _density(t: float, freedom: float) -> float:
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    power = math.log1p(t * t / freedom) * (freedom + 1) / 2
    return math.exp(scale - power) / math.sqrt(freedom * math.pi)


def _beyond(t: float, freedom: float) -> float:
    """The probability of a value above `t`, which is not negative."""
    whole = freedom + t * t
    if whole == math.inf:
        return 0.0
    return _incomplete(freedom / whole, t * t / whole, freedom / 2) / 2


def _incomplete(x: float, rest: float, a: float) -> float:
    """The regularised incomplete beta function with 1/2 as the other parameter; `rest` is 1 - x."""
    if not rest:
        return 1.0
    if not x:
        return 0.0
    b = 0.5
    scale = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    if x < (a + 1) / (a + b + 2):
        return scale * _fraction(x, a, b) / a
    return 1 - scale * _fraction(rest, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of it (Abramowitz and Stegun, 26.5.8), by Lentz's method."""
    above, below = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or TINY)
    found = below
    for m in count(1):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            below = 1 / ((1 + term * below) or TINY)
            above = (1 + term / above) or TINY
            found *= below * above
        if abs(below * above - 1) < EXACT:
            return found
    raise AssertionError
