"""Many runs in pictures: sweeps, where the time goes, what is worth its price.

Functions take `ax=None`, return the Axes they drew on, and show nothing, as those of
`dlsim.report.plots` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlsim.report.plots import FETCH, READY, STEP, WAIT, axes, plain
from dlsim.scenario import DlsimError
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.explain import Gain
from dlsim.whatif.rental import HOUR, Rental
from dlsim.whatif.sweep import HALF_WIDTH
from dlsim.whatif.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours and different markers: lines can be told apart without colours, too.
COLOURS = (READY, WAIT, STEP, "#CC79A7", "#E69F00", FETCH, "#000000")
MARKERS = "osD^vPX"
LABELS = {
    "samples_per_s": "throughput (samples/s)",
    "batches_per_s": "throughput (batches/s)",
    "stall": "stall (% of the time)",
    "au": "accelerator utilisation (%)",
    "worker_utilisation": "workers busy (% of the time)",
    "wait_mean": "mean wait (s)",
    "wait_p50": "median wait (s)",
    "wait_p95": "95th percentile of waits (s)",
    "wait_p99": "99th percentile of waits (s)",
    "epoch_time": "time of an epoch (s)",
    "memory": "memory of batches on their way (bytes)",
    "elapsed": "elapsed time (s)",
}
PERCENT = ("stall", "au", "worker_utilisation")
MOST_LINES = len(COLOURS)
# From blue (fetching and its parts) over green (step) to the colours of what is in the way.
CAUSES = {"step": STEP, "head of line": WAIT, "start-up": "#999999", "epoch edge": "#555555"}


def sweep_curve(
    table: Table,
    key: str,
    metric: str = "samples_per_s",
    by: str | None = None,
    ax: Axes | None = None,
    taken: int | None = None,
) -> Axes:
    """`metric` over the values of `key`, with intervals; a line for each value of the key `by`.

    A ring is around the row that is `taken`. Each line is thinner than the one before, and has
    another marker, so that lines that lie on each other are seen.
    Rows that differ in other keys lie above each other. Raises `DlsimError` for a column that
    the table does not have, or more lines than can be told apart.
    """
    _check(table, key, metric, *([by] if by else []))
    ax = axes(6, 3.8) if ax is None else ax
    groups = [None] if by is None else list(dict.fromkeys(table[by].tolist()))
    if len(groups) > MOST_LINES:
        raise DlsimError(f"{by}: {len(groups)} values make too many lines; heat_map shows them")
    x = _positions(table, key)
    scale = 100.0 if metric in PERCENT else 1.0
    halves = table.get(metric + HALF_WIDTH)  # of memory there is none: it is no mean
    for at, (group, colour, marker) in enumerate(zip(groups, COLOURS, MARKERS, strict=False)):
        behind = len(groups) - 1 - at
        rows = np.ones(len(x), bool) if by is None else table[by] == group
        order = np.flatnonzero(rows)[np.argsort(x[rows], kind="stable")]
        ax.errorbar(
            x[order],
            scale * table[metric][order],
            yerr=None if halves is None else scale * np.nan_to_num(halves[order]),
            color=colour,
            marker=marker,
            markersize=4 + 2 * behind,
            linewidth=1.2 + 1.6 * behind,
            capsize=2,
            label=None if by is None else plain(f"{_name(by)} = {group}"),
        )
    if taken is not None:
        ring(ax, x[taken], scale * table[metric][taken])
    _name_values(ax.xaxis, table, key)
    ax.set_xlabel(_name(key))
    ax.set_ylabel(_label(metric))
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    if by is not None or taken is not None:
        ax.legend(frameon=False, fontsize=8, markerscale=0.7)
    return ax


def ring(ax: Axes, x: float, y: float) -> None:
    """A ring around a point: what is to be taken."""
    ax.plot(
        x, y, "o", markersize=15, fillstyle="none", color=STEP, markeredgewidth=1.8, label="take"
    )


def heat_map(
    table: Table,
    x: str,
    y: str,
    metric: str = "samples_per_s",
    ax: Axes | None = None,
    taken: int | None = None,
) -> Axes:
    """`metric` over the values of the keys `x` and `y`, written into each cell.

    A frame is around the row that is `taken`.
    Rows that differ in other keys are averaged; a combination without a row is blank. Raises
    `DlsimError` for a column that the table does not have.
    """
    _check(table, x, y, metric)
    across, down = (np.unique(table[key], return_inverse=True) for key in (x, y))
    shape = (len(down[0]), len(across[0]))
    sums, counts = np.zeros(shape), np.zeros(shape)
    scale = 100.0 if metric in PERCENT else 1.0
    np.add.at(sums, (down[1], across[1]), scale * table[metric])
    np.add.at(counts, (down[1], across[1]), 1)
    with np.errstate(invalid="ignore"):
        values = sums / counts
    ax = axes(1.8 + 0.6 * shape[1], 1.4 + 0.45 * shape[0]) if ax is None else ax
    image = ax.imshow(values, cmap="cividis", aspect="auto", origin="lower")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            ax.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=colour)
    if taken is not None:
        from matplotlib.patches import Rectangle

        corner = across[1][taken] - 0.5, down[1][taken] - 0.5
        frame = Rectangle(corner, 1, 1, fill=False, edgecolor=WAIT, linewidth=2.5)
        ax.add_patch(frame)
    ax.set_xticks(range(shape[1]), [plain(str(v)) for v in across[0].tolist()])
    ax.set_yticks(range(shape[0]), [plain(str(v)) for v in down[0].tolist()])
    ax.set_xlabel(_name(x))
    ax.set_ylabel(_name(y))
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(_label(metric))
    return ax


def critical_path_bar(shares: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """Shares of the elapsed time by cause (see `dlsim.trace.critical_path`), greatest on top.

    Each bar is labelled with its share in percent.
    """
    ax = axes(6, 0.9 + 0.32 * max(len(shares), 1)) if ax is None else ax
    ranked = sorted(shares.items(), key=lambda entry: -entry[1])
    names = [name for name, _ in ranked]
    values = [100 * share for _, share in ranked]
    places = range(len(ranked))
    ax.barh(places, values, color=[CAUSES.get(name, FETCH) for name in names], height=0.7)
    for place, value in zip(places, values, strict=True):
        ax.text(value + 1, place, f"{value:.1f} %", va="center", fontsize=8)
    ax.set_yticks(places, [plain(name) for name in names])
    ax.set_ylim(len(ranked) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the elapsed time (%)")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def gains_bar(gains: Sequence[Gain], ax: Axes | None = None) -> Axes:
    """What each change gains in samples a second (%), with its interval, greatest on top.

    Dark bars are keyword arguments of the DataLoader; light ones are code, machines, or the step.
    """
    ax = axes(6, 1.1 + 0.32 * max(len(gains), 1)) if ax is None else ax
    from matplotlib.patches import Patch

    places = range(len(gains))
    means = np.array([100 * gain.gain.mean for gain in gains])
    halves = np.array([100 * np.nan_to_num(gain.gain.half_width) for gain in gains])
    colours = [READY if gain.change.loader else FETCH for gain in gains]
    ax.barh(places, means, xerr=halves, color=colours, height=0.7, capsize=2)
    room = 0.02 * max(np.ptp([*means, 0.0]), 1e-9)
    for place, mean, half in zip(places, means, halves, strict=True):
        ax.text(max(mean + half, 0) + room, place, f"{mean:+z.1f} %", va="center", fontsize=8)
    ax.set_yticks(places, [plain(gain.change.setting or gain.change.name) for gain in gains])
    ax.set_ylim(len(gains) - 0.5, -0.5)
    ax.margins(x=0.15)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set_xlabel("gain in samples a second (%)")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(
        handles=[Patch(color=READY, label="a setting"), Patch(color=FETCH, label="code, machine")],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=8,
        borderaxespad=0.1,
    )
    return ax


def pareto_front(
    front: Sequence[Candidate], chosen: Candidate | None = None, ax: Axes | None = None
) -> Axes:
    """Throughput over the number of workers of configurations that no other beats.

    Labels tell prefetch_factor; hollow marks are out of order; a ring is around `chosen`.
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(6, 3.8) if ax is None else ax
    for option in front:
        ax.plot(
            option.workers,
            option.samples_per_s,
            marker="o",
            markersize=6,
            color=READY,
            fillstyle="full" if option.in_order else "none",
        )
        if option.workers:
            ax.annotate(
                str(option.prefetch),
                (option.workers, option.samples_per_s),
                xytext=(8, 0) if option.in_order else (-8, 0),
                textcoords="offset points",
                ha="left" if option.in_order else "right",
                va="center",
                fontsize=8,
            )
        if chosen is not None and option.cost == chosen.cost:
            ax.plot(
                option.workers,
                option.samples_per_s,
                marker="o",
                markersize=13,
                color=WAIT,
                fillstyle="none",
                linestyle="none",
                label="advised",
            )
            ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.set_xlabel("num_workers (beside each mark: prefetch_factor; hollow: any order)")
    ax.set_ylabel(_label("samples_per_s"))
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_ylim(bottom=0)
    ax.margins(x=0.08)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    return ax


def rental_front(found: Rental, ax: Axes | None = None) -> Axes:
    """What an epoch costs on each machine over how long it takes, both to scale of decades.

    Filled marks: no other machine is both cheaper and faster; a ring is around the one to rent.
    """
    ax = axes(6, 3.8) if ax is None else ax
    front = found.front
    for offer in found.offers:
        hours, best = offer.epoch / HOUR, offer in front
        ax.plot(
            hours,
            offer.cost,
            marker="o",
            markersize=6,
            color=READY,
            fillstyle="full" if best else "none",
            linestyle="none",
        )
        if best:
            ax.annotate(
                offer.name,
                (hours, offer.cost),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    if found.best is not None:
        ring(ax, found.best.epoch / HOUR, found.best.cost)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.margins(x=0.3, y=0.2)
    ax.set_xlabel("an epoch takes, h")
    ax.set_ylabel(f"an epoch costs, {found.machines.currency}".rstrip(", "))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    return ax


def _check(table: Table, *names: str) -> None:
    for name in names:
        if name not in table:
            known = ", ".join(column for column in table if not column.endswith(HALF_WIDTH))
            raise DlsimError(f"{name}: no such column; known: {known}")


def _positions(table: Table, key: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Where the values of a key lie: numbers where they are, others side by side."""
    values = table[key]
    if values.dtype.kind in "if":
        return values.astype(np.float64)
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def _name_values(axis: object, table: Table, key: str) -> None:
    """Ticks at the values of a key, if there are few or they are no numbers."""
    values = np.unique(table[key])
    if values.dtype.kind == "f" or (values.dtype.kind == "i" and len(values) > 20):
        return
    where = values if values.dtype.kind == "i" else np.arange(len(values))
    axis.set_ticks(where, [plain(str(v)) for v in values.tolist()])  # type: ignore[attr-defined]


def _label(metric: str) -> str:
    return LABELS.get(metric, metric.replace("_", " "))


def _name(key: str) -> str:
    """A dotted key as people know it: torch's keyword arguments by their own names."""
    return key.removeprefix("loader.")
