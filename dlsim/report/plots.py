"""A run in pictures: who did what when, and how full the buffer was.

Functions take `ax=None`, return the Axes they drew on, and show nothing; without `ax` they make a
figure of their own (`ax.figure.savefig(...)`). Matplotlib is loaded when one is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dlsim.report.columns import envelope, shares
from dlsim.report.style import (
    BARRIER,
    CREDIT,
    FETCH,
    READY,
    STEP,
    TITLE_SIZE,
    WAIT,
    axes,
    legend,
    plain,
    title,
)
from dlsim.report.text import ended_early, setup, verdict
from dlsim.trace import Trace, metrics, stays, summarize
from dlsim.trace.levels import Levels
from dlsim.trace.trace import Floats, Integers, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW = "0.85"  # a pale band that lines are seen on
LINES = ((READY, "-", 3.0), (WAIT, "--", 1.5))  # of two curves that may lie on each other

COLUMNS = 400  # into how many columns time is cut where there is too much to see
MOST_BARS = 150  # of one kind on a lane; a lane of more is drawn as shares of columns
MOST_LABELS = 400  # batches; of more, no numbers are written
MOST_STEPS = 1500
LABEL_SIZE = 7  # points
ON_BAR = "#10222d"  # of letters on bars
FILL = 0.8  # height of a bar on a lane of height 1


def gantt(trace: Trace, ax: Axes | None = None) -> Axes:
    """Who did what when: the main process waiting and training, each worker fetching.

    One lane each, time in seconds. Bars carry batch numbers where there is room. Where a lane
    has too many bars to be seen, each column of it is filled to the share of its time that was
    spent, and the axis says so.
    """
    lanes = metrics.worker_count(trace) + 1
    ax = axes(10, _height(lanes)) if ax is None else ax
    begin, end = _range(trace)
    ax.set_xlim(begin, end)
    ax.set_ylim(lanes - 0.4, -0.6)
    dense = False
    for lane, kinds in enumerate(spent(trace, lanes)):
        crowded = max(len(numbers) for _, numbers, _, _ in kinds) > MOST_BARS
        dense |= crowded
        filled = np.zeros(COLUMNS)  # from the foot up
        for colour, numbers, begins, ends in kinds:
            if crowded:
                filled = _columns(ax, lane, colour, begins, ends, filled)
            else:
                _bars(ax, lane, colour, begins, ends)
                if colour not in (WAIT, BARRIER) and len(trace) <= MOST_LABELS:
                    _labels(ax, lane, numbers, begins, ends)
    _name_lanes(ax, lanes)
    _mark_epochs(ax, trace)
    ax.set_xlabel("time (s)")
    entries = [("wait", WAIT), ("step", STEP)] + [("fetch", FETCH)] * (lanes > 1)
    entries += [("barrier", BARRIER)] * (trace.stepped is not None)
    legend(ax, entries, "height: share of the time" if dense else "")
    return ax


def occupancy(trace: Trace, ax: Axes | None = None) -> Axes:
    """How full it was: batches ready and not yet returned, and credit in use, over time.

    The credit window is a pale band, behind what is sent. Where there are too many steps to be
    seen, lines are means and bands reach from the least to the greatest in each column of the
    picture.
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(10, 2.5) if ax is None else ax
    begin, end = _range(trace)
    ax.set_xlim(begin, end)
    most, entries = 1, list[tuple[str, str]]()
    for name, colour, came, level in (
        ("sent, not returned", CREDIT, trace.sent, stays.credit),
        ("ready", READY, trace.arrived, stays.buffer),
    ):
        if metrics.observed(trace, came):
            found = level(trace)
            _steps(ax, found, begin, end, colour)
            most = max(most, found.max)
            entries.insert(0, (name, colour))
    scenario = trace.meta.scenario
    window = scenario.loader.window if scenario is not None else 0
    if window:
        ax.axhline(window, color=WINDOW, linewidth=6, zorder=0.5)
        entries.append(("credit window", WINDOW))
    ax.set_ylim(0, 1.06 * max(most, window))
    ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_ylabel("batches")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("time (s)")
    _mark_epochs(ax, trace)
    legend(ax, entries)
    return ax


def wait_distribution(trace: Trace, ax: Axes | None = None) -> Axes:
    """How long training waits: for each time, the share of batches waited for longer (%).

    Dashed lines are at the median and the 95th percentile.
    """
    return waited_longer({"": metrics.waits(trace)}, ax)


def waited_longer(waits: Mapping[str, Floats], ax: Axes | None = None) -> Axes:
    """`wait_distribution` of some waits (seconds); or of those of two runs, by their names."""
    ax = axes(6, 2.8) if ax is None else ax
    known = {name: np.sort(metrics.known(values)) for name, values in waits.items()}
    longest = max((float(times[-1]) for times in known.values() if len(times)), default=0.0)
    scale, unit = (1e3, "ms") if longest < 1 else (1.0, "s")
    alone = len(known) == 1
    for (name, times), (colour, dashes, width) in zip(known.items(), LINES, strict=False):
        longer = 100 * np.arange(len(times) - 1, -1, -1) / max(len(times), 1)
        above = [100.0, *longer.tolist()] if len(times) else [0.0]
        ax.step(
            [0.0, *(scale * times)],
            above,
            where="post",
            color=WAIT if alone else colour,
            linestyle="-" if alone else dashes,
            linewidth=1.5 if alone else width,
            label=name,
        )
        if alone and len(times):
            _mark_quantiles(ax, scale * times)
    if not alone:
        ax.legend(frameon=False, fontsize=9, loc="upper right")
    ax.set_xlim(-0.02 * scale * longest, 1.05 * scale * longest or 1.0)
    ax.set_ylim(0, 102)
    ax.set_xlabel(f"wait ({unit})")
    ax.set_ylabel("batches waited for longer (%)", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    return ax


def _mark_quantiles(ax: Axes, times: Floats) -> None:
    """Lines at the median and the 95th percentile, named above; with one name if they are close."""
    at = {name: float(np.percentile(times, q)) for name, q in (("median", 50), ("95 %", 95))}
    for where in at.values():
        ax.axvline(where, color="0.4", linewidth=0.8, linestyle="--")
    if at["95 %"] - at["median"] < 0.1 * times[-1]:
        at = {"median, 95 %": at["median"]}
    for name, where in at.items():
        ax.text(where, 102, name, ha="center", fontsize=8, color="0.3", rotation=30, va="bottom")


def run_picture(trace: Trace) -> Figure:
    """One figure of a run: `gantt` above `occupancy`, with a title and the summary in words."""
    from matplotlib.figure import Figure

    lanes = metrics.worker_count(trace) + 1
    height = _height(lanes)
    figure = Figure(figsize=(10, height + 4.8), layout="constrained")
    above, below, words = figure.subplots(3, height_ratios=[height, 2.2, 1.9])
    gantt(trace, above)
    above.set_xlabel("")  # the axis below says it
    occupancy(trace, below)
    scenario = trace.meta.scenario
    if scenario is not None:
        whole = f"{scenario.name}: {setup(scenario)}" if scenario.name else setup(scenario)
        figure.suptitle(title(whole), fontsize=TITLE_SIZE)
    in_words(words, str(summarize(trace)), verdict(trace), trace.meta.problem)
    return figure


def in_words(ax: Axes, summary: str, said: str, problem: Problem | None) -> None:
    """Write on `ax`, not draw: the error that ended a run, if one did; its summary; the verdict."""
    ax.axis("off")
    text = f"{summary}\n\n{fill(said, 120)}"
    if problem is not None:
        text = f"{fill(ended_early(problem), 120)}\n\n{text}"
    ax.text(0, 1, plain(text), family="monospace", fontsize=8, va="top", transform=ax.transAxes)


def _height(lanes: int) -> float:
    """Inches for so many lanes."""
    return 1 + min(0.3 * max(lanes, 3), 8)


def _range(trace: Trace) -> tuple[float, float]:
    """The span of the trace, never empty."""
    begin, end = metrics.span(trace)
    return begin, end if end > begin else begin + 1.0


# Batch numbers, begins and ends of what is drawn in one colour on one lane.
Spent: TypeAlias = tuple[str, Integers, Floats, Floats]


def spent(trace: Trace, lanes: int) -> list[list[Spent]]:
    """What fills each lane: the main process waits and trains, workers fetch.

    The main process of a rank waits for the other ranks, too, at the barrier after its step.
    """
    order = trace.order
    returned, finished = trace.returned[order], trace.finished[order]
    stepped = finished if trace.stepped is None else trace.stepped[order]
    begins, ends = metrics.fetches(trace)
    main = [
        _visible(WAIT, order, trace.requested[order], returned),
        _visible(STEP, order, returned, stepped),
    ]
    if trace.stepped is not None:
        main.append(_visible(BARRIER, order, stepped, finished))
    found = [main]
    for worker in range(lanes - 1):
        mine = np.flatnonzero(trace.worker == worker)
        found.append([_visible(FETCH, mine, begins[mine], ends[mine])])
    return found


def _visible(colour: str, numbers: Integers, begins: Floats, ends: Floats) -> Spent:
    some = ends > begins  # not so for NaN
    return colour, numbers[some], begins[some], ends[some]


def _bars(ax: Axes, lane: int, colour: str, begins: Floats, ends: Floats) -> None:
    """A bar for each interval."""
    ax.broken_barh(
        list(zip(begins, ends - begins, strict=True)),
        (lane - FILL / 2, FILL),
        facecolors=colour,
        edgecolors="white",
        linewidth=0.5,
    )


def _labels(ax: Axes, lane: int, numbers: Integers, begins: Floats, ends: Floats) -> None:
    """Batch numbers in the middle of their bars, where there is room."""
    box, points = ax.get_window_extent(), 72 / ax.figure.dpi
    if box.height * points / abs(np.subtract(*ax.get_ylim())) < LABEL_SIZE:
        return
    shown = np.clip([begins, ends], *ax.get_xlim())
    room = (shown[1] - shown[0]) * box.width * points / np.ptp(ax.get_xlim())
    for number, middle, width in zip(numbers, shown.mean(axis=0), room, strict=True):
        if width > (len(str(number)) + 0.8) * LABEL_SIZE * 0.6:
            ax.text(
                middle,
                lane,
                str(number),
                ha="center",
                va="center",
                fontsize=LABEL_SIZE,
                color=ON_BAR,
            )


def _columns(
    ax: Axes, lane: int, colour: str, begins: Floats, ends: Floats, filled: Floats
) -> Floats:
    """Columns as high as the share of time spent, on what is `filled`; waits hang from above.

    Returns what is filled then: shares of the lane.
    """
    edges = np.linspace(*ax.get_xlim(), COLUMNS + 1)
    share = shares(begins, ends, edges)
    if colour == WAIT:
        base = np.full(COLUMNS, lane - FILL / 2)
        top = base + FILL * share
    else:
        base, filled = lane + FILL * (0.5 - filled), filled + share
        top = lane + FILL * (0.5 - filled)
    below, above = np.append(base, base[-1]), np.append(top, top[-1])
    ax.fill_between(edges, above, below, step="post", color=colour, linewidth=0)
    return filled


def _name_lanes(ax: Axes, lanes: int) -> None:
    every = max(1, -(-(lanes - 1) // 16))
    shown = range(0, lanes - 1, every)
    ax.set_yticks([0, *(worker + 1 for worker in shown)])
    ax.set_yticklabels(["main process", *(f"worker {worker}" for worker in shown)])
    ax.tick_params(axis="y", length=0, labelsize=9 if lanes <= 32 else 7)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _mark_epochs(ax: Axes, trace: Trace) -> None:
    if 1 < len(trace.epochs.started) <= 50:
        for start in trace.epochs.started[1:]:
            ax.axvline(start, color="0.4", linewidth=0.8, linestyle=":")


def _steps(ax: Axes, levels: Levels, begin: float, end: float, colour: str) -> None:
    """A step function; the envelope of one with too many steps."""
    if len(levels.times) <= MOST_STEPS:
        times, counts = np.append(levels.times, end), np.append(levels.counts, levels.counts[-1])
        ax.step(times, counts, where="post", color=colour, linewidth=1.2)
        return
    edges = np.linspace(begin, end, COLUMNS + 1)
    least, mean, most = envelope(levels, edges)
    middle = (edges[1:] + edges[:-1]) / 2
    ax.fill_between(middle, least, most, color=colour, alpha=0.25, linewidth=0)
    ax.plot(middle, mean, color=colour, linewidth=1.2)
