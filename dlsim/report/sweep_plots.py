"""Many configurations in pictures: sweeps, and what is worth its price.

Functions take `ax=None`, return the Axes they drew on, and show nothing, as those of
`dlsim.report.plots` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlsim.report.metric_axes import NAMES, axis_of
from dlsim.report.style import FETCH, READY, STEP, WAIT, axes, plain
from dlsim.scenario import DlsimError
from dlsim.scenario.units import UNITS, parse
from dlsim.trace.summary import number
from dlsim.trace.trace import Floats
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.rental import HOUR, Rental
from dlsim.whatif.rows import HALF_WIDTH
from dlsim.whatif.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours and different markers: lines can be told apart without colours, too.
COLOURS = (READY, WAIT, STEP, "#CC79A7", "#E69F00", FETCH, "#000000")
MARKERS = "osD^vPX"
MOST_LINES = len(COLOURS)


def sweep_picture(table: Table, keys: list[str], metric: str, taken: int | None) -> Axes:
    """The metric over one key as a curve; over two as lines, or a heat map if there are many.

    With a ring around the row that is `taken`.
    """
    if len(keys) == 1:
        return sweep_curve(table, keys[0], metric, taken=taken)
    lines = len(set(table[keys[1]].tolist()))
    if lines <= MOST_LINES:
        return sweep_curve(table, keys[0], metric, by=keys[1], taken=taken)
    return heat_map(table, keys[0], keys[1], metric, taken=taken)


def sweep_curve(
    table: Table,
    key: str,
    metric: str = "samples_per_s",
    by: str | None = None,
    ax: Axes | None = None,
    taken: int | None = None,
    word: str = "take",
) -> Axes:
    """`metric` over the values of `key`, with intervals; a line for each value of the key `by`.

    A ring is around the row that is `taken`, and `word` says what that is, with its value. Each
    line is thinner than the one before, and has another marker, so that lines that lie on each
    other are seen. Rows that differ in other keys lie above each other. Raises `DlsimError` for a
    column that the table does not have, or more lines than can be told apart.
    """
    _check(table, key, metric, *([by] if by else []))
    ax = axes(6, 3.8) if ax is None else ax
    groups = [None] if by is None else list(dict.fromkeys(table[by].tolist()))
    if len(groups) > MOST_LINES:
        raise DlsimError(f"{by}: {len(groups)} values make too many lines; heat_map shows them")
    x, names = _places(table[key])
    scale, said = axis_of(metric, table[metric])
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
        value = scale * table[metric][taken]
        ring(ax, x[taken], value, f"{word}: {number(value)}")
    if names:
        ax.set_xticks([*names], [plain(name) for name in names.values()])
    ax.set_xlabel(_name(key))
    ax.set_ylabel(said)
    ax.set_ylim(bottom=0)
    _as_tables(ax)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    if by is not None or taken is not None:
        ax.legend(frameon=False, fontsize=8, markerscale=0.7)
    return ax


def _as_tables(ax: Axes) -> None:
    """Write the numbers of the axis of a metric as tables have them: 14,000."""
    ax.yaxis.set_major_formatter(lambda value, place: number(value))


def ring(ax: Axes, x: float, y: float, label: str = "take") -> None:
    """A ring around a point: what is to be taken, or what is now."""
    ax.plot(
        x,
        y,
        "o",
        markersize=15,
        fillstyle="none",
        color=STEP,
        markeredgewidth=1.8,
        clip_on=False,
        label=label,
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
    across, down = (_ranked(table[key]) for key in (x, y))
    shape = (len(down[0]), len(across[0]))
    sums, counts = np.zeros(shape), np.zeros(shape)
    scale, said = axis_of(metric, table[metric])
    np.add.at(sums, (down[1], across[1]), scale * table[metric])
    np.add.at(counts, (down[1], across[1]), 1)
    with np.errstate(invalid="ignore"):
        values = sums / counts
    ax = axes(max(1.8 + 0.6 * shape[1], 4.5), 1.4 + 0.45 * shape[0]) if ax is None else ax
    image = ax.imshow(values, cmap="cividis", aspect="auto", origin="lower")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            ax.text(column, row, number(value), ha="center", va="center", fontsize=7, color=colour)
    if taken is not None:
        from matplotlib.patches import Rectangle

        corner = across[1][taken] - 0.5, down[1][taken] - 0.5
        frame = Rectangle(
            corner, 1, 1, fill=False, edgecolor=WAIT, linewidth=2.5, clip_on=False, zorder=3
        )
        ax.add_patch(frame)
    ax.set_xticks(range(shape[1]), [plain(name) for name in across[0]])
    ax.set_yticks(range(shape[0]), [plain(name) for name in down[0]])
    ax.set_xlabel(_name(x) + (" (framed: take)" if taken is not None else ""))
    ax.set_ylabel(_name(y))
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(said)
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
    ax.set_ylabel(NAMES["samples_per_s"])
    _as_tables(ax)
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


def _places(values: NDArray[Any]) -> tuple[Floats, dict[float, str]]:
    """Where values lie: numbers where they are, others side by side; and names for ticks.

    No names where there are many numbers, or broken ones, which matplotlib writes well.
    """
    if values.dtype.kind in "if":
        few = values.dtype.kind == "i" and len(np.unique(values)) <= 20
        found = {float(value): str(value) for value in np.unique(values)} if few else {}
        return values.astype(np.float64), found
    names, ranks = _ranked(values)
    return ranks.astype(np.float64), {float(rank): name for rank, name in enumerate(names)}


def _ranked(values: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """The names of different values, from the least to the greatest, and the rank of each value.

    Numbers with units go by what they state ("200 MB/s" before "1 GB/s"), with "none", which is
    no limit, behind; what is no number goes by the alphabet.
    """
    different, where = np.unique(values, return_inverse=True)
    if values.dtype.kind != "U":
        return [str(value) for value in different.tolist()], where
    names = different.tolist()
    order = sorted(range(len(names)), key=_magnitudes(names).__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return [names[each] for each in order], rank[where]


def _magnitudes(names: list[str]) -> list[float]:
    """What names state, if all state the same quantity; else their places."""
    for quantity in UNITS:
        try:
            return [np.inf if name == "none" else parse(name, quantity) for name in names]
        except ValueError:
            continue
    return [float(place) for place in range(len(names))]


def _name(key: str) -> str:
    """A dotted key as people know it: torch's keyword arguments by their own names."""
    return key.removeprefix("loader.")
