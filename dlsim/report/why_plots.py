"""Why a loader is as slow as it is, and how two compare, in pictures.

Functions that draw one picture take `ax=None`, return the Axes they drew on, and show nothing, as
those of `dlsim.report.plots` do; those that put several together return a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from dlsim.report.plots import waited_longer
from dlsim.report.style import (
    CREDIT,
    FETCH,
    READY,
    STEP,
    TITLE_SIZE,
    WAIT,
    axes,
    legend,
    plain,
    row_label,
    title,
)
from dlsim.trace import JobTrace, Trace, metrics
from dlsim.trace.account import Account, account
from dlsim.trace.causes import STEP as BUSY
from dlsim.trace.causes import ranked
from dlsim.trace.job import ranks_of
from dlsim.trace.job_metrics import job_account
from dlsim.trace.telling import SHOWN
from dlsim.trace.trace import Floats
from dlsim.whatif.explanation import Explanation, Gain
from dlsim.whatif.limits import means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the accounts of two runs: what most is idle for has the first colour.
IDLE = (WAIT, CREDIT, "#CC79A7", FETCH, "#F0E442", READY, "#999999")
REST = "other causes"


def account_bars(
    idle: Mapping[str, float], path: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """For each cause two bars: the share of the time that training is idle for it, and on the path.

    On top, how long it is busy, and how long its steps are on the critical path. `idle`, `path`:
    shares of the elapsed time (`dlsim.trace.account`, `dlsim.trace.critical_path`).
    """
    found = {cause: max(idle.get(cause, 0.0), path.get(cause, 0.0)) for cause in {**idle, **path}}
    causes = [cause for cause, most in found.items() if cause != BUSY and most >= SHOWN]
    causes.sort(key=lambda cause: (-idle.get(cause, 0.0), -path.get(cause, 0.0)))
    rows = [("busy: step", 1 - sum(idle.values()), path.get(BUSY, 0.0), STEP)]
    rows += [(cause, idle.get(cause, 0.0), path.get(cause, 0.0), WAIT) for cause in causes]
    ax = axes(6, 1.2 + 0.42 * len(rows)) if ax is None else ax
    for place, (_, share, hung_on, colour) in enumerate(rows):
        for value, offset, paint in ((share, -0.2, colour), (hung_on, 0.2, READY)):
            ax.barh(place + offset, 100 * value, color=paint, height=0.38)
            if value >= SHOWN:
                text = f"{100 * value:.1f} %"
                ax.text(100 * value + 1, place + offset, text, va="center", fontsize=8)
    _name_rows(ax, [name for name, *_ in rows])
    ax.set_xlim(0, 112)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("share of the elapsed time (%)")
    legend(ax, [("busy", STEP), ("idle", WAIT), ("on the critical path", READY)])
    return ax


def gains_bar(gains: Sequence[Gain], ax: Axes | None = None) -> Axes:
    """What each change gains in samples a second (%), with its interval, greatest on top.

    Dark bars are keyword arguments of the DataLoader; light ones are code, machines, or the step.
    """
    ax = axes(6, 1.1 + 0.32 * max(len(gains), 1)) if ax is None else ax
    places = range(len(gains))
    values = np.array([100 * gain.gain.mean for gain in gains])
    halves = np.array([100 * np.nan_to_num(gain.gain.half_width) for gain in gains])
    colours = [READY if gain.change.loader else FETCH for gain in gains]
    ax.barh(places, values, xerr=halves, color=colours, height=0.7, capsize=2)
    room = 0.02 * max(np.ptp([*values, 0.0]), 1e-9)
    for place, mean, half in zip(places, values, halves, strict=True):
        ax.text(max(mean + half, 0) + room, place, f"{mean:+z.1f} %", va="center", fontsize=8)
    _name_rows(ax, [gain.change.setting or gain.change.name for gain in gains])
    ax.margins(x=0.15)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set_xlabel("gain in samples a second (%)")
    legend(ax, [("a setting", READY), ("code, machine", FETCH)])
    return ax


def explain_picture(found: Explanation, trace: Trace | None, name: str) -> Figure:
    """One figure of an explanation: where the time goes, what changes gain, how long waits are.

    `trace`: a run of the scenario, whose waits are drawn; none are without.
    """
    from matplotlib.figure import Figure

    tried = [*found.gains, *([found.pair] if found.pair else []), found.headspace]
    idle, path = means(found.idle), means(found.shares)
    rows = len({cause for cause in {**idle, **path} if max(idle.get(cause, 0), path.get(cause, 0))})
    high, low = 1.4 + 0.4 * rows, 1.4 + 0.3 * len(tried)
    figure = Figure(figsize=(10, high + low), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[high, low])[:, 0]
    if trace is None:
        account_bars(idle, path, above.subplots())
    else:
        left, right = above.subplots(1, 2, width_ratios=[3, 2])
        account_bars(idle, path, left)
        waited_longer({"": metrics.waits(trace)}, right)
    gains_bar(tried, below.subplots())
    if name:
        figure.suptitle(title(name), fontsize=TITLE_SIZE)
    return figure


@dataclass(frozen=True)
class Side:
    """One of two runs that are compared: its account, and its waits in seconds.

    `made`: how many samples it made; batches, where the samples of a run are not known.
    """

    name: str
    account: Account
    waits: Floats
    made: float

    @property
    def shares(self) -> dict[str, float]:
        """Seconds that each sample took: busy, then idle by cause."""
        seconds = {BUSY: self.account.busy, **self.account.idle}
        return {cause: value / max(self.made, 1.0) for cause, value in seconds.items()}


def side(name: str, run: Trace | JobTrace, *, batches: bool) -> Side:
    """A run, or a job with all of its ranks taken together, as one side of a comparison.

    With `batches`, by batches in place of samples.
    """
    traces = ranks_of(run)
    waits = np.concatenate([metrics.waits(trace) for trace in traces])
    count = len(waits) if batches else sum(metrics.samples(trace) for trace in traces)
    found = job_account(run) if isinstance(run, JobTrace) else account(run)
    return Side(name, found, waits, float(count))


def comparison_picture(
    a: Trace | JobTrace, b: Trace | JobTrace, names: tuple[str, str], said: str
) -> Figure:
    """One figure of two runs: what each sample took, busy and idle by cause; how long waits are.

    `names`: what A and B are, as a title; `said`: the answer in words, below.
    """
    from matplotlib.figure import Figure

    known = all(metrics.samples(trace) > 0 for trace in [*ranks_of(a), *ranks_of(b)])
    sides = [side(letter, run, batches=not known) for letter, run in zip("AB", (a, b), strict=True)]
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below, words = figure.subplots(3, height_ratios=[2.0, 2.6, 0.4])
    side_bars(sides, "sample" if known else "batch", above)
    waited_longer({each.name: each.waits for each in sides}, below)
    words.axis("off")
    words.text(0, 1, plain(fill(said, 130)), fontsize=9, va="top", transform=words.transAxes)
    both = "\n".join(title(f"{side}: {name}") for side, name in zip("AB", names, strict=True))
    figure.suptitle(both, fontsize=TITLE_SIZE, x=0.01, ha="left")
    return figure


def side_bars(sides: Sequence[Side], unit: str, ax: Axes | None = None) -> Axes:
    """A bar for each side: the time that a sample takes, busy and idle by cause (milliseconds)."""
    ax = axes(10, 2.0) if ax is None else ax
    total: dict[str, float] = {}
    for each in sides:
        for cause, seconds in each.account.idle.items():
            total[cause] = total.get(cause, 0.0) + seconds / max(each.made, 1.0)
    most = [cause for cause in ranked(total) if total[cause] > 0][: len(IDLE) - 1]
    colours = {BUSY: STEP, **dict(zip(most, IDLE, strict=False)), REST: IDLE[-1]}
    entries = ["busy" if cause == BUSY else f"idle: {cause}" for cause in colours]
    shown = dict.fromkeys(colours, 0.0)
    for place, each in enumerate(sides):
        parts = dict.fromkeys(colours, 0.0)
        for cause, seconds in each.shares.items():
            parts[cause if cause in colours else REST] += np.nan_to_num(1e3 * seconds)
        begin = 0.0
        for cause, length in parts.items():
            ax.barh(place, length, left=begin, color=colours[cause], height=0.6, edgecolor="white")
            shown[cause] = max(shown[cause], length)
            begin += length
        ax.text(1.005 * begin, place, f" {begin:.3g} ms", va="center", fontsize=9)
    _name_rows(ax, [each.name for each in sides])
    ax.margins(x=0.1)
    ax.set_xlabel(f"time for each {unit} (ms)")
    pairs = zip(entries, colours.items(), strict=True)
    legend(ax, [(name, colour) for name, (cause, colour) in pairs if shown[cause] > 0])
    return ax


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name rows of bars, the first one on top; long names take two lines."""
    ax.set_yticks(range(len(names)), [row_label(name) for name in names])
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)
