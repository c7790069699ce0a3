"""A job in pictures: what each rank does when, and for how long it waits at the barrier.

Every rank is a line of the picture, of which each column has the mixture of colours of what the
rank did then; of more ranks than there are lines, each line is several, the mixture of theirs. So
eight and a thousand ranks are drawn alike, and nothing is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlsim.report.columns import shares
from dlsim.report.job_text import job_setup, job_verdict
from dlsim.report.plots import COLUMNS, in_words
from dlsim.report.style import BARRIER, STEP, TITLE_SIZE, WAIT, axes, legend, title
from dlsim.report.text import setup
from dlsim.trace import JobTrace, summarize
from dlsim.trace.job_metrics import lateness
from dlsim.trace.job_summary import span
from dlsim.trace.trace import Floats, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 256  # of more ranks, several are a line
MOST_NAMES = 16
LINE = 0.28  # inches, of few ranks


def ranks_gantt(job: JobTrace, ax: Axes | None = None) -> Axes:
    """What each rank does when: waiting for a batch, training, waiting at the barrier.

    A line each, time in seconds; white is neither, as at the start of epochs.
    """
    from matplotlib.colors import to_rgb

    ax = axes(10, _height(job)) if ax is None else ax
    begin, end = span(job)
    end = end if end > begin else begin + 1.0
    edges = np.linspace(begin, end, COLUMNS + 1)
    colours = np.array([to_rgb(colour) for colour in (WAIT, STEP, BARRIER)])
    spent = np.array([_spent(trace, edges) for trace in job.ranks])  # rank, what, column
    lines = np.array_split(np.arange(len(job)), min(len(job), MOST_LINES))
    mixed = np.array([spent[some].mean(axis=0) for some in lines])
    picture = 1 - np.einsum("lwc,wr->lcr", mixed, 1 - colours)
    ax.imshow(
        np.clip(picture, 0, 1),
        aspect="auto",
        interpolation="nearest",
        extent=(begin, end, len(job) - 0.5, -0.5),
    )
    names = np.unique(np.linspace(0, len(job) - 1, min(len(job), MOST_NAMES)).round().astype(int))
    ax.set_yticks(names, [f"rank {rank}" for rank in names])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time (s)")
    ax.spines[["top", "right"]].set_visible(False)
    legend(ax, [("wait", WAIT), ("step", STEP), ("barrier", BARRIER)])
    return ax


def job_picture(job: JobTrace) -> Figure:
    """One figure of a job: its ranks, and below them the summary in words."""
    from matplotlib.figure import Figure

    height = _height(job)
    figure = Figure(figsize=(10, height + 2.6), layout="constrained")
    above, words = figure.subplots(2, height_ratios=[height, 2.2])
    ranks_gantt(job, above)
    scenario = job.meta.scenario
    if scenario is not None:
        each = f"{job_setup(scenario)}; each: {setup(scenario)}"
        whole = f"{scenario.name}: {each}" if scenario.name else each
        figure.suptitle(title(whole), fontsize=TITLE_SIZE)
    in_words(words, str(summarize(job)), job_verdict(job, lateness(job)), job.meta.problem)
    return figure


def _height(job: JobTrace) -> float:
    """Inches for the lines of all ranks."""
    return 1 + min(max(LINE * len(job), 1.2), 6)


def _spent(trace: Trace, edges: Floats) -> Floats:
    """The share of each column that a rank waits for batches, trains, and waits at the barrier."""
    order = trace.order
    requested, returned, finished = (
        moments[order] for moments in (trace.requested, trace.returned, trace.finished)
    )
    stepped = finished if trace.stepped is None else trace.stepped[order]
    before = np.fmax.accumulate(np.append(-np.inf, finished[:-1]))[: len(finished)]
    begun = np.maximum(returned, before)
    # a host that runs ahead waits while the accelerator computes: only what it lacks is a wait
    waits = shares(np.maximum(requested, np.minimum(before, returned)), returned, edges)
    known = ~np.isnan(finished)
    steps = shares(begun[known], stepped[known], edges)
    return np.array([waits, steps, shares(stepped[known], finished[known], edges)])
