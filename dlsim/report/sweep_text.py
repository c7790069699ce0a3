"""A sweep in words: which configuration to take, and a table of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dlsim.scenario import Scenario
from dlsim.scenario.units import size
from dlsim.trace.summary import aligned, give_or_take, number
from dlsim.trace.telling import limit, sentence
from dlsim.trace.work import DISTINCT, in_an_epoch, told, unit
from dlsim.whatif.bounds import alike
from dlsim.whatif.endings import ended_by
from dlsim.whatif.space import space
from dlsim.whatif.tables import Table
from dlsim.whatif.taking import NEAR, best_row, outgrowing

# By metric: the head of its column, and what it is multiplied with.
_SHOWN = {
    "samples_per_s": ("samples/s", 1),
    "stall": ("idle, %", 100),
    "wait_p95": ("wait p95, s", 1),
    "epoch_time": ("epoch, s", 1),
}


def sweep_text(
    table: Table, keys: list[str], cases: list[Scenario], idle: list[dict[str, float]]
) -> str:
    """What to take, and whether it fits; then the main metrics with their half-widths.

    `cases`: the scenario of each row. `idle`: the share of the time by cause, of each row.
    """
    done = [in_an_epoch(case) for case in cases]
    columns = _SHOWN if unit(*done) != DISTINCT else {"distinct_per_s": (DISTINCT, 1), **_SHOWN}
    lost = ["never come"] if any(each.lost for each in done) else []
    too_much = outgrowing(cases)
    shown = {metric: head for metric, head in columns.items() if (table[metric] >= 0).any()}
    memory = [] if np.isnan(table["memory"]).all() else ["memory"]
    heads = [head for head, _ in shown.values()]
    failed = np.nan_to_num(table["failed"]) > 0
    ends = ["ended by"] if failed.any() else []
    header = (
        *(key.removeprefix("loader.") for key in keys),
        *heads,
        "limited by",
        *lost,
        *memory,
        *ends,
    )
    rows = [
        (
            *(str(table[key][row]) for key in keys),
            *(_with_interval(table, metric, row, times) for metric, (_, times) in shown.items()),
            limit(idle[row], table["stall"][row]) or "-",
            *(f"{number(done[row].lost)} of {number(done[row].there)}" for _ in lost),
            *(size(table["memory"][row]) + (" !" if too_much[row] else "") for _ in memory),
            *(ended_by(cases[row]) or "an error" if failed[row] else "" for _ in ends),
        )
        for row in range(len(table[keys[0]]))
    ]
    said = filter(None, _best(table, keys, cases, idle))
    return "\n".join([*said, "", aligned([header, *rows])])


def named(table: Table, keys: list[str], row: int) -> str:
    """The settings of a row, as keyword arguments."""
    return ", ".join(f"{key.removeprefix('loader.')}={table[key][row]}" for key in keys)


def _best(
    table: Table, keys: list[str], cases: list[Scenario], idle: list[dict[str, float]]
) -> Iterator[str]:
    """The row to take, in words; how idle training is with it, and for what; whether it fits."""
    too_much, done = outgrowing(cases), [in_an_epoch(case) for case in cases]
    what = unit(*done)
    speed = np.where(too_much, 0.0, np.nan_to_num(table["distinct_per_s"]))
    if not (table["distinct_per_s"] > 0).any():
        why = ended_by(cases[0]) if table["failed"][0] > 0 else ""
        yield f"No configuration returns anything{': ' * bool(why)}{why}."
        yield told(cases[0], done[0])
        return
    if not speed.any():
        yield "No configuration fits."
        yield str(min(map(space, cases), key=lambda each: each.needed / each.limit))
        return
    fastest, best = int(speed.argmax()), best_row(table, cases)
    assert best is not None

    def made(row: Any) -> str:
        return f"{_with_interval(table, 'distinct_per_s', row)} {what}"

    left = int(too_much.sum())
    why = f"the fastest{' that fits' if left else ''}"
    if best != fastest:
        near_to = (
            f"within {100 * NEAR:.0f} % of {why}, {named(table, keys, fastest)} ({made(fastest)})"
        )
        why = f"the cheapest that is {near_to}"
    yield f"Take {named(table, keys, best)}: {made(best)}; it is {why}."
    yield f"{sentence(idle[best], table['stall'][best])}."
    if not table["failed"][best] > 0:
        yield alike(cases[best], float(table["elapsed"][best] / table["batches"][best]))
    if said := told(cases[best], done[best]):
        yield said
    out = f" {left} of these {len(speed)} configurations do not (!)." if left else ""
    yield f"{space(cases[best])}{out}"


def _with_interval(table: Mapping[str, Any], metric: str, row: int, times: float = 1) -> str:
    return give_or_take(times * table[metric][row], times * table[f"{metric}_half_width"][row])
