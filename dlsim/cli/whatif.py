"""The commands that answer questions by simulating many times: explain, advise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from dlsim.cli.checking import Missed, held
from dlsim.cli.files import check_drawable, draw, scenario_from, simulated
from dlsim.cli.parsing import NO_CHANGES, Changes, Count, File, Flag, Text, UsageError
from dlsim.cli.progress import working
from dlsim.scenario.units import parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def explain(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    replications: Count = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    max_stall: Text = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say why a loader is as slow as it is, and what each single change would gain.

    Example: dlsim explain scenarios/imagenet_a100.toml

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
            Or a profile of torch.profiler (.json, .json.gz), from which they are read off.
        replications: How often each change is simulated; by default 3 to 30, until that tells.
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        plot: Draw here where the time goes, how long waits are, and what changes gain.
        max_stall: The share of the time that training may be idle: 0.05 or 5%.
        check: End with status 1 where a target is missed, or batches do not fit.
    """
    from dlsim.whatif import explain as explained
    from dlsim.whatif.space import space

    most = share_of("max-stall", max_stall)
    check_drawable(plot)
    chosen = scenario_from(scenario, changes, profile=True)
    with working():
        found = explained(chosen, replications, seed, keep_order=keeps_order(changes), jobs=jobs)
        answer = str(found)
    if plot is not None:
        from dlsim.report.why_plots import explain_picture
        from dlsim.whatif.extent import shortened

        alone = not chosen.is_job or chosen.job.rank is not None
        trace = simulated(shortened(chosen), seed, "auto", samples=False) if alone else None
        draw(explain_picture(found, trace, chosen.name), plot)
    print(answer)
    held(check, fits=space(chosen).fits, stall=found.stall, max_stall=most)


def advise(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    max_stall: Text = None,
    max_wait_p95: Text = None,
    min_au: Text = None,
    max_epoch: Text = None,
    max_workers: Count = None,
    batch_sizes: Text = None,
    max_memory: Text = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Find the cheapest loader that holds a target: keyword arguments to paste, and how sure.

    Example: dlsim advise scenarios/llm_tokens.toml --max-stall 5%

    Without a target, the cheapest that is within 1 % of the fastest.

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        max_stall: The share of the time that training may be idle: 0.01 or 1%.
        max_wait_p95: How long all but one batch in twenty may be waited for: "20 ms".
        min_au: The share of the time that the accelerator must be busy: 90%.
        max_epoch: How long an epoch may take: "2 h".
        max_workers: How many workers there may be; by default 16, and more where these are too few.
        batch_sizes: Batch sizes to choose from, too: 32,64,128.
        max_memory: How much memory batches on their way may take: "4 GiB".
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        plot: Draw here which configurations are worth their price.
        check: End with status 1 where no settings hold the target.
    """
    from dlsim.whatif import advise as advised

    check_drawable(plot)
    if max_workers is not None and max_workers < 0:
        raise UsageError(f"--max-workers: expected an integer of at least 0, got {max_workers}")
    asked: dict[str, Any] = {
        "max_stall": share_of("max-stall", max_stall),
        "max_wait_p95": quantity_of("max-wait-p95", max_wait_p95, "duration"),
        "min_au": share_of("min-au", min_au),
        "max_epoch": quantity_of("max-epoch", max_epoch, "duration"),
        "workers": None if max_workers is None else range(max_workers + 1),
        "batch_sizes": sizes_of(batch_sizes),
        "max_memory": quantity_of("max-memory", max_memory, "size"),
        "keep_order": keeps_order(changes),
        "seed": seed,
        "jobs": jobs,
    }
    chosen = scenario_from(scenario, changes)
    with working():
        found = advised(chosen, **asked)
        answer = str(found)
    if plot is not None:
        from dlsim.report.sweep_plots import pareto_front

        picture(pareto_front(found.front, found.chosen), plot, chosen.name)
    print(answer)
    if check and found.chosen is None:
        raise Missed


def sizes_of(text: str | None) -> tuple[int, ...]:
    """The batch sizes that `text` lists. Raises `UsageError` if it lists none."""
    try:
        return tuple(int(size) for size in text.split(",")) if text is not None else ()
    except ValueError:
        raise UsageError(f"--batch-sizes: expected integers such as 32,64, got {text!r}") from None


def keeps_order(changes: Mapping[str, str]) -> bool:
    """Whether the options ask for batches in order, in so many words."""
    return changes.get("loader.in_order", "").strip().lower() == "true"


def share_of(name: str, text: str | None) -> float | None:
    """The share that "1%" or "0.01" states. Raises `UsageError` if it states none."""
    if text is None:
        return None
    try:
        share = parse(text, "share")
    except ValueError:
        share = float("nan")
    if not 0 <= share <= 1:
        raise UsageError(f"--{name}: expected a share such as 0.01 or 1%, got {text!r}")
    return share


def quantity_of(name: str, text: str | None, quantity: str) -> float | None:
    """The seconds or bytes that `text` states. Raises `UsageError` if it states none."""
    if text is None:
        return None
    try:
        return parse(text, quantity)
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None


def picture(ax: Axes, path: Path, name: str) -> None:
    """Write the picture, under a title. Raises `DlsimError` when it cannot be written."""
    from dlsim.report.style import TITLE_SIZE, title

    figure = ax.get_figure(root=True)
    assert figure is not None
    inches = figure.get_figwidth() * ax.get_position().width
    ax.set_title(title(name, inches), loc="left", fontsize=TITLE_SIZE)
    draw(figure, path)
