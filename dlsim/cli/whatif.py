"""The commands that answer questions by simulating many times: sweep, explain, advise."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from dlsim.cli.files import PATIENCE, check_drawable, scenario_from, value_of
from dlsim.cli.parsing import NO_CHANGES, Changes, UsageError
from dlsim.scenario import DlsimError, Scenario
from dlsim.scenario.units import parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dlsim.whatif import Between
    from dlsim.whatif.tables import Table

_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(\d+))?")
_BETWEEN = re.compile(r"(.+)\.\.(.+)")
NEAR = 0.01  # what is so near to the fastest is about as fast
_SHOWN = ("samples_per_s", "stall", "wait_p95", "epoch_time")

File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]


def sweep(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    vary: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUES")] = (),
    replications: int = 30,
    seed: int = 0,
    jobs: int = -1,
    out: Annotated[File, arg(aliases=["-o"])] = None,
    plot: File = None,
    metric: str = "samples_per_s",
    design: Literal["grid", "sobol", "lhs"] = "grid",
    samples: Count = None,
    changes: Changes = NO_CHANGES,
) -> None:
    """Simulate many configurations: how metrics depend on workers, prefetch factor, or any key.

    Example: dlsim sweep scenario.toml --vary loader.num_workers=1:16 --out sweep.csv

    An interrupted sweep with --out goes on where it was when it is started again.

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        vary: A key and its values: 1:16 (all from 1 to 16), 1,2,4, or low..high for a design.
        replications: How often each configuration is simulated.
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        out: Write the table here, as .parquet, .csv or .json.
        plot: Draw the metric here: a curve of one key, lines or a heat map of two.
        metric: What to draw.
        design: All combinations, or a sample spread evenly over them.
        samples: How many configurations a sample has.
    """
    from dlsim.whatif import sweep as swept

    chosen = scenario_from(scenario, changes)
    varied = dict(values_of(text, chosen) for text in vary)
    check_drawable(plot)
    with progress() as advance:
        table = swept(
            chosen,
            varied,
            replications,
            jobs=jobs,
            seed=seed,
            out=out,
            design=design,
            samples=samples,
            progress=advance,
        )
    if plot is not None:
        picture(sweep_picture(table, list(varied), metric), plot)
    print(sweep_text(table, list(varied)))


def explain(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    replications: Count = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say why a loader is as slow as it is, and what each single change would gain.

    Example: dlsim explain scenarios/imagenet_a100.toml

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        replications: How often each change is simulated; by default 3 to 30, by their length.
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        plot: Draw here where the time goes.
    """
    from dlsim.whatif import explain as explained

    check_drawable(plot)
    found = explained(scenario_from(scenario, changes), replications, seed, jobs=jobs)
    if plot is not None:
        from dlsim.report.whatif_plots import critical_path_bar

        shares = {cause: share.mean for cause, share in found.shares.items()}
        picture(critical_path_bar(shares), plot)
    print(found)


def advise(
    scenarios: Annotated[Positional[tuple[Path, ...]], arg(metavar="SCENARIO [SCENARIO ...]")],
    *,
    max_stall: Text = None,
    max_wait_p95: Text = None,
    min_au: Text = None,
    max_epoch: Text = None,
    max_workers: int = 16,
    max_memory: Text = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    changes: Changes = NO_CHANGES,
) -> None:
    """Find the cheapest loader that holds a target: keyword arguments to paste, and how sure.

    Example: dlsim advise scenarios/llm_tokens.toml --max-stall 5%

    Without a target, the cheapest that is within 1 % of the fastest. Of several scenarios, each
    of one machine with its machine.price_per_hour, it is said which to rent.

    Args:
        scenarios: Files that describe the dataset, the loader, and the training step.
        max_stall: The share of the time that training may wait: 0.01 or 1%.
        max_wait_p95: How long all but one batch in twenty may be waited for: "20 ms".
        min_au: The share of the time that the accelerator must be busy: 90%.
        max_epoch: How long an epoch may take: "2 h".
        max_workers: How many workers there may be.
        max_memory: How much memory batches on their way may take: "4 GiB".
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        plot: Draw here which configurations are worth their price.
    """
    from dlsim.whatif import advise as advised
    from dlsim.whatif import rent

    check_drawable(plot)
    if not scenarios:
        raise UsageError("advise: expected SCENARIO, got nothing")
    if plot is not None and len(scenarios) > 1:
        raise UsageError(f"advise: --plot: expected one scenario, got {len(scenarios)}")
    asked: dict[str, Any] = {
        "max_stall": share_of("max-stall", max_stall),
        "max_wait_p95": quantity_of("max-wait-p95", max_wait_p95, "duration"),
        "min_au": share_of("min-au", min_au),
        "max_epoch": quantity_of("max-epoch", max_epoch, "duration"),
        "workers": range(max_workers + 1),
        "max_memory": quantity_of("max-memory", max_memory, "size"),
        "seed": seed,
        "jobs": jobs,
    }
    chosen = {path.stem: scenario_from(path, changes) for path in scenarios}
    if len(scenarios) > 1:
        if len(chosen) < len(scenarios):
            raise UsageError("advise: expected scenarios with different names")
        print(rent(chosen, **asked))
        return
    found = advised(chosen[scenarios[0].stem], **asked)
    if plot is not None:
        from dlsim.report.whatif_plots import pareto_front

        picture(pareto_front(found.front, found.chosen), plot)
    print(found)


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
    return key, [value_of(value.strip(), scenario, key) for value in values.split(",")]


def share_of(name: str, text: str | None) -> float | None:
    """The share that "1%" or "0.01" states. Raises `UsageError` if it states none."""
    if text is None:
        return None
    number = text.strip().removesuffix("%")
    try:
        return float(number) / (100 if "%" in text else 1)
    except ValueError:
        raise UsageError(f"--{name}: expected a share such as 0.01 or 1%, got {text!r}") from None


def quantity_of(name: str, text: str | None, quantity: str) -> float | None:
    """The seconds or bytes that `text` states. Raises `UsageError` if it states none."""
    if text is None:
        return None
    try:
        return parse(text, quantity)
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], object] | None]:
    """A function to call with simulations done and to do; on a terminal, it shows time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" simulations", delay=PATIENCE, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            if bar.total is None:
                bar.reset(total)
                bar.initial = done  # what is known already took no time
            bar.n = done
            bar.refresh()

        yield advance


def sweep_text(table: Table, keys: list[str]) -> str:
    """What is fastest, and what is nearly so; then the main metrics with their half-widths."""
    from dlsim.report.text import table as aligned

    header = (*(key.removeprefix("loader.") for key in keys), *_SHOWN)
    rows = [
        (
            *(str(table[key][row]) for key in keys),
            *(_with_interval(table, metric, row) for metric in _SHOWN),
        )
        for row in range(len(table[keys[0]]))
    ]
    return "\n".join([*_fastest(table, keys), "", aligned([header, *rows])])


def _fastest(table: Table, keys: list[str]) -> Iterator[str]:
    """Two lines: the fastest row, and the first one that is about as fast."""
    speed = table["samples_per_s"]
    if not (speed > 0).any():
        yield "No configuration returns anything."
        return
    best = max(range(len(speed)), key=lambda row: (speed[row] > 0, speed[row]))
    near = next(row for row in range(len(speed)) if speed[row] >= (1 - NEAR) * speed[best])

    def told(row: int) -> str:
        values = ", ".join(f"{key.removeprefix('loader.')}={table[key][row]}" for key in keys)
        waiting = table["stall"][row]
        waits = "" if waiting != waiting else f"; training waits {100 * waiting:.1f} % of the time"
        return f"{values}: {_with_interval(table, 'samples_per_s', row)} samples/s{waits}."

    yield f"Fastest is {told(best)}"
    if near != best:
        yield f"The first that is within {100 * NEAR:.0f} % of it is {told(near)}"
    else:
        yield f"No row before it comes within {100 * NEAR:.0f} % of it."


def _with_interval(table: Mapping[str, Any], metric: str, row: int) -> str:
    mean, half = table[metric][row], table[f"{metric}_half_width"][row]
    if mean != mean:
        return "-"
    return f"{mean:.4g} ± {half:.2g}" if half == half else f"{mean:.4g}"


def sweep_picture(table: Table, keys: list[str], metric: str) -> Axes:
    """The metric over one key as a curve; over two as lines, or a heat map if there are many."""
    from dlsim.report.whatif_plots import MOST_LINES, heat_map, sweep_curve

    if len(keys) == 1:
        return sweep_curve(table, keys[0], metric)
    if len(keys) > 2:
        raise UsageError(f"sweep: --plot: expected one or two keys to vary, got {len(keys)}")
    lines = len(set(table[keys[1]].tolist()))
    if lines <= MOST_LINES:
        return sweep_curve(table, keys[0], metric, by=keys[1])
    return heat_map(table, keys[0], keys[1], metric)


def picture(ax: Axes, path: Path) -> None:
    """Write the picture. Raises `DlsimError` when it cannot be written."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise DlsimError(f"{path}: cannot be written: {error.strerror or error}") from None
