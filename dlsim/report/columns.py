"""Many bars, many steps, few pixels: what to draw when not everything can be seen.

Time is cut into equal columns. Of intervals, each column says which share of it they cover; of a
step function, its least, mean and greatest value. So nothing is left out, and nothing overstated.
"""

from __future__ import annotations

import numpy as np

from dlsim.trace.levels import Levels
from dlsim.trace.trace import Floats


def shares(begins: Floats, ends: Floats, edges: Floats) -> Floats:
    """The share of each column between `edges` (seconds) that disjoint intervals cover.

    One value from 0 to 1 for each column.
    """
    order = np.argsort(begins, kind="stable")
    points = np.column_stack((begins[order], ends[order])).ravel()
    if not len(points):
        return np.zeros(len(edges) - 1)
    covered = np.zeros(len(points))  # time covered up to each point
    covered[1:] = np.cumsum(np.diff(points) * (np.arange(len(points) - 1) % 2 == 0))
    share: Floats = np.diff(np.interp(edges, points, covered)) / np.diff(edges)
    return share


def envelope(levels: Levels, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """The least, mean and greatest level in each column between `edges` (seconds)."""
    times = np.union1d(levels.times, edges[:-1])
    counts = levels.counts[np.searchsorted(levels.times, times, side="right") - 1]
    inside = (times >= edges[0]) & (times < edges[-1])
    times, counts = times[inside], counts[inside].astype(np.float64)
    begins = np.searchsorted(times, edges[:-1])
    areas = np.add.reduceat(counts * np.diff(times, append=edges[-1]), begins)
    least, most = np.minimum.reduceat(counts, begins), np.maximum.reduceat(counts, begins)
    return least, areas / np.diff(edges), most
