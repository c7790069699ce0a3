"""Times of cases that are run alternately, and how they are shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

Timings = dict[str, list[float]]


def alternate(repeats: int, *, at_least: float = 0.0, **cases: Callable[[], object]) -> Timings:
    """Seconds that each case took in each round; the first round does not count.

    In a round, each is repeated until `at_least` so many seconds have passed: what it takes is the
    mean. Once only, a short one after a long one finds nothing in the processor's caches.
    """
    timings: Timings = {name: [] for name in cases}
    for round_number in range(repeats + 1):
        for name, case in cases.items():
            times, began = 0, time.perf_counter()
            while times == 0 or time.perf_counter() - began < at_least:
                case()
                times += 1
            if round_number:
                timings[name].append((time.perf_counter() - began) / times)
    return timings


def spread(values: list[float], unit: str = "") -> str:
    """The median and the extremes, to three digits."""
    middle, low, high = map(three_digits, (median(values), min(values), max(values)))
    return f"{middle}{unit} ({low} to {high})"


def three_digits(value: float) -> str:
    """`"1,440"`, `"0.297"`."""
    return f"{float(f'{value:.3g}'):,g}"


def ratio(timings: Timings, one: str, other: str) -> list[float]:
    """One case's time over the other's, round by round."""
    return [a / b for a, b in zip(timings[one], timings[other], strict=True)]


@contextmanager
def one_core() -> Iterator[None]:
    """All that runs meanwhile shares one core (Linux only)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
