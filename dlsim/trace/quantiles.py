"""Quantiles of a column of any length, exactly, and in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dlsim.trace.columns import PART, parts
from dlsim.trace.trace import Floats

DIGITS = 16  # bits of a number that are looked at together: four times, for all of them
SIGN = np.uint64(1 << 63)


def quantiles(values: Floats, shares: Sequence[float]) -> list[float]:
    """The values that so many of all known ones do not exceed, interpolated as NumPy does it.

    NaN if none is known.
    """
    count = sum(int((~np.isnan(values[part])).sum()) for part in parts(0, len(values)))
    if not count:
        return [math.nan] * len(shares)
    if len(values) <= PART:
        ordered = np.sort(values)[:count]  # NaN comes last
        return [quantile_of(ordered, share) for share in shares]
    return [_interpolated(partial(_ranked, values), count, share) for share in shares]


def quantile_of(ordered: Floats, share: float) -> float:
    """The value that so many of the `ordered` ones, of which there are some, do not exceed.

    That of `numpy.quantile`, which loads masked arrays for it.
    """
    return _interpolated(lambda rank: float(ordered[rank]), len(ordered), share)


def _interpolated(ranked: Callable[[int], float], count: int, share: float) -> float:
    """A quantile of so many values, each of which is known by its rank."""
    at = share * (count - 1)
    part = at - int(at)
    low = ranked(int(at))
    high = ranked(int(at) + 1) if part > 0 else low
    nearer_to_high = part >= 0.5  # as NumPy rounds
    return high - (high - low) * (1 - part) if nearer_to_high else low + (high - low) * part


def _ranked(values: Floats, rank: int) -> float:
    """The value that so many are before in ascending order; found digit by digit."""
    prefix = 0
    for shift in range(64 - DIGITS, -1, -DIGITS):
        counts = np.zeros(1 << DIGITS, np.int64)
        for part in parts(0, len(values)):
            keys = _ascending(values[part])
            if prefix or shift < 64 - DIGITS:
                keys = keys[keys >> np.uint64(shift + DIGITS) == prefix]
            digits = (keys >> np.uint64(shift)) & np.uint64((1 << DIGITS) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
        upto = np.cumsum(counts)
        digit = int(np.searchsorted(upto, rank, "right"))
        rank -= int(upto[digit] - counts[digit])
        prefix = prefix << DIGITS | digit
    bits = np.array([prefix], np.uint64)
    return float(np.where(bits & SIGN, bits ^ SIGN, ~bits).view(np.float64)[0])


def _ascending(values: Floats) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Integers in the order of the values, which are the bits of these, as far as they go up.

    NaN, which has no place in the order, comes last.
    """
    bits = np.where(np.isnan(values), np.inf, values).view(np.uint64)
    return np.where(bits & SIGN, ~bits, bits | SIGN)
