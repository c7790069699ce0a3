"""`dlsim sweep`."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, UseAppendAction, arg

from dlsim.cli.checking import held
from dlsim.cli.files import check_drawable, saying, scenario_from
from dlsim.cli.parsing import (
    NO_CHANGES,
    Changes,
    Count,
    File,
    Flag,
    OutFile,
    Text,
    UsageError,
)
from dlsim.cli.progress import working
from dlsim.cli.whatif import picture, share_of
from dlsim.scenario import Scenario
from dlsim.scenario.files import value_of
from dlsim.scenario.units import parse

if TYPE_CHECKING:
    from dlsim.whatif import Between
    from dlsim.whatif.tables import Table

_RANGE = re.compile(r"(-?\d{1,18}):(-?\d{1,18})(?::(\d{1,18}))?")
_BETWEEN = re.compile(r"(.+)\.\.(.+)")
USUAL_METRIC = "samples_per_s"
STEP = "consumer.step"


def sweep(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    vary: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUES")] = (),
    replications: Count = None,
    seed: int = 0,
    jobs: int = -1,
    out: OutFile = None,
    plot: File = None,
    metric: str = USUAL_METRIC,
    design: Literal["grid", "sobol", "lhs"] = "grid",
    samples: Count = None,
    max_stall: Text = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Simulate many configurations: how metrics depend on workers, prefetch factor, or any key.

    Example: dlsim sweep scenario.toml --vary loader.num_workers=1:16 --out sweep.csv

    An interrupted sweep with --out goes on where it was when it is started again.

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        vary: A key and its values: 1:16 (all from 1 to 16), 1,2,4, or low..high for a design.
        replications: How often each configuration is simulated, to its end.
            By default until samples a second are known to 0.5 %, 3 to 30 times, and of long epochs
            a part, so that it takes some seconds.
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        out: Write the table here, as .parquet, .csv or .json.
        plot: Draw the metric here: a curve of one key, lines or a heat map of two.
        metric: What to draw.
        design: All combinations, or a sample spread evenly over them.
        samples: How many configurations a sample has.
        max_stall: The share of the time that training may be idle: 0.05 or 5%.
        check: End with status 1 where no configuration holds the target, or none fits.
    """
    from dlsim.engine.facts import left_to_chance
    from dlsim.report.sweep_text import sweep_text
    from dlsim.whatif import Between, configurations
    from dlsim.whatif import sweep as swept
    from dlsim.whatif.designs import configured
    from dlsim.whatif.extent import part_of, shortened
    from dlsim.whatif.growing import told_of_step
    from dlsim.whatif.leaving import left_early
    from dlsim.whatif.limits import idle_in
    from dlsim.whatif.rows import planned
    from dlsim.whatif.taking import best_row

    most = share_of("max-stall", max_stall)
    chosen = scenario_from(scenario, changes)
    varied: dict[str, Iterable[Any] | Between] = {}
    if not vary:
        raise UsageError("sweep: --vary: expected KEY=VALUES such as loader.num_workers=1:16")
    for text in vary:
        key, values = values_of(text, chosen)
        if design == "grid" and isinstance(values, Between):
            raise UsageError(
                f"sweep: --vary: {key}: expected values such as 1,2,4 or 1:4 (all from 1 to 4) "
                f"for a grid, got {values}; a range needs --design sobol or lhs"
            )
        if key in varied:
            raise UsageError(f"sweep: --vary: expected each key once, got {key} twice")
        varied[key] = values
    check_drawable(plot)
    check_metric(metric, plot)
    if plot is not None and len(varied) > 2:
        raise UsageError(f"sweep: --plot: expected one or two keys to vary, got {len(varied)}")
    rows = configurations(chosen, varied, design, samples, seed)
    stretched = planned(chosen, rows, replications, seed).stretched
    with going_on(out), working():
        table = swept(
            chosen,
            varied,
            replications,
            jobs=jobs,
            seed=seed,
            out=out,
            design=design,
            samples=samples,
            causes=True,
        )
    cases = [configured(chosen, row) for row in rows]
    if plot is not None:
        from dlsim.report.sweep_plots import sweep_picture

        taken = best_row(table, cases)
        picture(sweep_picture(table, list(varied), metric, taken), plot, chosen.name)
    if "loader.batch_size" in varied and not any(key.startswith(STEP) for key in varied):
        print(told_of_step(chosen))
    idle = [idle_in(table, row) for row in range(len(cases))]
    print(sweep_text(table, list(varied), cases, idle))
    some = part_of(shortened(chosen), chosen) if stretched else ""
    if not any(map(left_to_chance, cases)):
        print(f"\nNothing is random: one simulation of each{some}")
    else:
        print(f"\n{_made(table)} of each{some}")
    alike = not any(key.startswith(("job.", "loader.batch", "dataset.")) for key in varied)
    if alike and (part_of_epoch := left_early(chosen, math.nan)):
        print(part_of_epoch)
    checked(table, list(varied), cases, most, check)


def _made(table: Table) -> str:
    """In words, how many simulations were made of each configuration."""
    fewest, most = int(table["replications"].min()), int(table["replications"].max())
    between = f"{fewest} to " if fewest < most else ""
    return f"{between}{most} simulation{'s' * (most != 1)}"


def checked(
    table: Table, keys: list[str], cases: list[Scenario], most: float | None, check: bool
) -> None:
    """Say which configuration holds a target, the cheapest that fits; of more ranks, the most.

    With `check`, raise `Missed` where none does, or none fits, or none returns anything.
    """
    from dlsim.report.sweep_text import named
    from dlsim.whatif.taking import cheapest, outgrowing

    stalls = np.where(outgrowing(cases), math.inf, table["stall"])
    holding = np.zeros(len(cases), bool) if most is None else stalls <= most
    held_by = cheapest(np.flatnonzero(holding).tolist(), cases)
    sized = not {"job.ranks", "job.nodes"}.isdisjoint(keys)
    if held_by is not None and sized:
        held_by = max(np.flatnonzero(holding).tolist(), key=lambda row: cases[row].job.world)
    if held_by is None and np.isfinite(stalls).any():
        held_by = int(np.nanargmin(stalls))
    if held_by is None:
        held(check, fits=False, stall=math.nan, max_stall=most)
        return
    returns = bool(table["distinct_per_s"][held_by] > 0)
    who = named(table, keys, held_by)
    who += f", {cases[held_by].job.world:,} accelerators" if sized else ""
    held(check, fits=returns, stall=float(stalls[held_by]), max_stall=most, who=who)


def going_on(out: Path | None) -> contextlib.AbstractContextManager[None]:
    """When Ctrl-C is pressed, say where what is finished is kept."""
    if out is None:
        return contextlib.nullcontext()
    return saying(f"{out}.journal keeps what is finished: sweep again to go on")


def values_of(text: str, scenario: Scenario) -> tuple[str, Iterable[Any] | Between]:
    """The key and the values that `KEY=VALUES` stands for. Raises `UsageError` if for none."""
    from dlsim.whatif import Between

    key, equals, values = text.partition("=")
    key = key.strip().replace("-", "_")
    if not equals or not key or not values.strip():
        raise UsageError(f"sweep: --vary: expected KEY=VALUES such as 1:16 or 1,2,4, got {text!r}")
    whole = _RANGE.fullmatch(values.strip())
    if whole:
        first, last, step = int(whole[1]), int(whole[2]), int(whole[3] or 1)
        if step == 0:
            raise UsageError(f"sweep: --vary: {key}: expected steps of at least 1, got 0")
        return key, range(first, last + 1, step)
    between = _BETWEEN.fullmatch(values.strip())
    if between:
        with contextlib.suppress(ValueError):
            return key, Between(parse(between[1], "duration"), parse(between[2], "duration"))
    if re.fullmatch(r"\d+\s*-\s*\d+", values.strip()):
        low, high = (part.strip() for part in values.split("-"))
        raise UsageError(
            f"sweep: --vary: {key}: expected {low}:{high} for all from {low} to {high}, or "
            f"values such as 1,2,4, got {values.strip()!r}"
        )
    return key, [value_of(value.strip(), scenario, key) for value in values.split(",")]


def check_metric(metric: str, plot: Path | None) -> None:
    """Raise `UsageError` for a metric that there is not, or that is drawn nowhere."""
    from dlsim.trace import Summary
    from dlsim.whatif.parallel import STEADY

    if metric not in (known := [*Summary.__dataclass_fields__, *STEADY, "failed", "memory"]):
        raise UsageError(f"sweep: --metric: expected one of {', '.join(known)}, got {metric!r}")
    if metric != USUAL_METRIC and plot is None:
        raise UsageError(f"sweep: --metric: {metric} is to be drawn; expected --plot, too")
