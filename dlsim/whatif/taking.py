"""Which row of a sweep to take: the cheapest of those that are about as fast as any that fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import Scenario
from dlsim.whatif.space import space
from dlsim.whatif.tables import Table

NEAR = 0.01  # what is so near to the fastest is about as fast


def best_row(table: Table, cases: list[Scenario]) -> int | None:
    """The cheapest row that is about as fast as any that fits; None if none fits, or returns."""
    speed = np.where(outgrowing(cases), 0.0, np.nan_to_num(table["distinct_per_s"]))
    if not speed.any():
        return None
    return cheapest(np.flatnonzero(speed >= (1 - NEAR) * speed.max()).tolist(), cases)


def cheapest(rows: list[int], cases: list[Scenario]) -> int | None:
    """Of some rows, the one with the fewest workers, and the least memory; None if there are none.

    `cases`: the scenario of each row of the table.
    """

    def price(row: int) -> tuple[int, float, int]:
        return cases[row].loader.num_workers, space(cases[row]).needed, row

    return min(rows, key=price, default=None)


def outgrowing(cases: list[Scenario]) -> NDArray[np.bool_]:
    """By row, whether batches outgrow the machine."""
    return np.array([space(case).fits is False for case in cases])
