"""Times of cases that are run alternately, and how they are shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

Timings = dict[str, list[float]]


def alternate(repeats: int, **cases: Callable[[], object]) -> Timings:
    """Seconds that each case took in each round; the first round does not count."""
    timings: Timings = {name: [] for name in cases}
    for round_number in range(repeats + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            if round_number:
                timings[name].append(time.perf_counter() - began)
    return timings


def spread(values: list[float], unit: str = "") -> str:
    """The median and the extremes, to three digits."""
    return f"{median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def ratio(timings: Timings, one: str, other: str) -> list[float]:
    """One case's time over the other's, round by round."""
    return [a / b for a, b in zip(timings[one], timings[other], strict=True)]
