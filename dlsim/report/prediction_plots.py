"""Predictions beside real runs, in pictures.

Functions take `ax=None`, return the Axes they drew on, and show nothing, as those of
`dlsim.report.plots` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlsim.report.style import axes, plain
from dlsim.report.sweep_plots import COLOURS, MARKERS
from dlsim.scenario.distributions import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 12  # of points
REAL, PREDICTED = "0.55", COLOURS[0]


def predicted_against_measured(
    predicted: Floats,
    low: Floats,
    high: Floats,
    measured: Sequence[Floats],
    groups: Sequence[str],
    names: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Predicted seconds over measured ones, a point each; on the line, they are equal.

    Upright bars are the intervals from `low` to `high`; level ones reach from the least to the
    greatest of the real runs, their point stands at the median. Colours and markers tell `groups`.
    `names` of points, if there are any, are listed below with numbers that stand beside these: of
    many points, of those whose interval has no real run in it, and of the one farthest off.
    """
    from matplotlib.ticker import LogLocator

    ax = axes(6, 5) if ax is None else ax
    middle = np.array([np.median(runs) for runs in measured])
    least = np.array([np.min(runs) for runs in measured])
    most = np.array([np.max(runs) for runs in measured])
    ends = float(min(low.min(), least.min())), float(max(high.max(), most.max()))
    ax.plot(ends, ends, color="0.3", linewidth=0.8, zorder=1)
    for number, group in enumerate(dict.fromkeys(groups)):
        mine = np.array([name == group for name in groups])
        ax.errorbar(
            middle[mine],
            predicted[mine],
            yerr=(predicted[mine] - low[mine], high[mine] - predicted[mine]),
            xerr=(middle[mine] - least[mine], most[mine] - middle[mine]),
            fmt=MARKERS[(number // len(COLOURS) + number) % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=4,
            elinewidth=0.8,
            label=group,
        )
    if ends[1] > 4 * ends[0] > 0:
        ax.set_xscale("log")
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    if names:
        listed = _named(predicted, low, high, measured)
        for number, point in enumerate(listed, 1):
            at, apart = (middle[point], predicted[point]), (5, -4)
            ax.annotate(str(number), at, apart, textcoords="offset points", va="top", fontsize=7)
        lines = [f"{number}  {names[point]}" for number, point in enumerate(listed, 1)]
        ax.text(
            0.99,
            0.01,
            plain("\n".join(lines)),
            fontsize=7,
            color="0.25",
            ha="right",
            va="bottom",
            multialignment="left",
            transform=ax.transAxes,
        )
    ax.set_xlabel("measured epoch (s)")
    ax.set_ylabel("predicted epoch (s)")
    if any(groups):
        ax.legend(fontsize=7, frameon=False, ncols=2)
    return ax


def _named(predicted: Floats, low: Floats, high: Floats, measured: Sequence[Floats]) -> list[int]:
    """The points whose names are written: all of a few; of more, those that are off."""
    if len(predicted) <= MOST_NAMES:
        return [*range(len(predicted))]
    middle = np.array([np.median(runs) for runs in measured])
    missed = [
        point
        for point, runs in enumerate(measured)
        if not bool(((low[point] <= runs) & (runs <= high[point])).any())
    ]
    off = np.argsort(-np.abs(np.log(predicted / middle)), kind="stable").tolist()
    return [point for point in off if point in missed or point == off[0]][:MOST_NAMES]


def timelines(
    simulated: Floats, real: Sequence[Floats], title: str = "", ax: Axes | None = None
) -> Axes:
    """Batches returned over time: simulated, over real runs; the moments are seconds."""
    ax = axes(6, 3) if ax is None else ax
    series: Mapping[str, Sequence[Floats]] = {"real": real, "predicted": [simulated]}
    for name, colour, width in (("real", REAL, 3.0), ("predicted", PREDICTED, 1.0)):
        for number, moments in enumerate(series[name]):
            counts = np.arange(1, len(moments) + 1)
            label = name if number == 0 else None
            ax.step(moments, counts, where="post", color=colour, linewidth=width, label=label)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("batches returned")
    ax.set_title(title, fontsize=8)
    ax.legend(fontsize=7, frameon=False)
    return ax
