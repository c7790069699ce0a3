"""`dlsim validate`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.conf import Positional, arg

from dlsim.cli.checking import Missed
from dlsim.cli.files import (
    check_drawable,
    check_folder,
    check_torch,
    check_writable,
    draw,
    saying,
)
from dlsim.cli.parsing import Count, File, Flag, Number, Text, UsageError
from dlsim.cli.progress import counting
from dlsim.cli.stepping import step_of
from dlsim.scenario import DlsimError
from dlsim.scenario.errors import lacking
from dlsim.scenario.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlsim.validation.fidelity.errors import Case, Replayed
    from dlsim.validation.fidelity.grid import Configuration


Target: TypeAlias = Annotated[Positional[Text], arg(metavar="[TARGET]")]


def validate(
    target: Target = None,
    *,
    out: Annotated[Path, arg(metavar="FOLDER", aliases=["-o"])] = Path("validation"),
    workers: Annotated[Text, arg(metavar="W,...")] = None,
    prefetch: Annotated[Text, arg(metavar="P,...")] = None,
    observed: Annotated[str, arg(metavar="W,...")] = "2,1,0",
    batches: int = 100,
    step: str = "0 s",
    rounds: Count = None,
    suite: Literal["development", "held-out", "ranks"] = "development",
    quick: Flag = False,
    minutes: Number = None,
    report_only: Flag = False,
    plot: File = None,
    verdict: File = None,
    check: Flag = False,
    jobs: int = -1,
) -> None:
    """Hold predictions against real runs: of your own loader, or of a suite of workloads.

    Example: dlsim validate train.py:make_loader --workers 0,2,4,8 --plot validation.png

    Observed runs are calibrated on; real runs with other settings are predicted from them, and
    then made, several times. Every run is kept in FOLDER: the same command goes on where it was
    interrupted. Leave the machine alone meanwhile. Needs torch.

    Args:
        target: A DataLoader, or a function that makes one, as module:name or file.py:name.
            Without it, a suite of workloads is run, under many settings.
        out: Keep the runs here.
        workers: Numbers of workers to try; by default a few that fit the machine.
        prefetch: Values of prefetch_factor to try; by default the loader's own.
        observed: Calibrate on runs with so many workers.
            Two numbers tell how much busy cores slow each other down.
        batches: Leave each run after so many batches (own loader).
        step: Sleep so long for each batch, in place of the training step (own loader).
            Or call with each batch what train.py:step names.
        rounds: Make each run so often; by default 3 times, once with --quick.
        suite: Twelve workloads on which the models of costs were developed, or eight unlike them,
            by which they are judged: these need the extra held-out. Or ranks: jobs of two
            processes, predicted from runs of one.
        quick: Of a suite, run only what takes about three minutes, not half an hour.
        minutes: Begin no more runs after so long.
        report_only: Make no runs; report on those that FOLDER has.
        plot: Draw predictions against real runs here.
        verdict: Write what came of it as JSON here: errors, bias, what was matched and assumed.
        check: End with status 1 where predictions are beyond 8 % and 1.5 times the spread of real
            runs, or their intervals hold fewer than nine of ten.
        jobs: Predict with so many processes; -1: one for each core.
    """
    check_torch("validate")
    check_drawable(plot)
    check_folder(out)
    check_writable(verdict)
    from dlsim.validation.fidelity import errors
    from dlsim.validation.fidelity.verdict import verdict as judge

    calibrated = numbers("--observed", observed, 0)
    if rounds is not None and rounds < 1:
        raise UsageError(f"validate: --rounds: expected an integer of at least 1, got {rounds}")
    if minutes is not None and not minutes >= 0:
        raise UsageError(f"validate: --minutes: expected a number of at least 0, got {minutes}")
    if not report_only:
        seconds = float("inf") if minutes is None else 60 * minutes
        if target is None:
            if workers or prefetch or step != "0 s":
                raise UsageError("validate: --workers, --prefetch and --step need a TARGET")
            run_suite(out, suite, quick, rounds, seconds)
        else:
            own = step if ":" in step else None
            pause = 0.0 if own else step_of("validate", step)[0]
            plan = plan_of(workers, prefetch, calibrated, pause, rounds or 3)
            run_own(out, target, plan, batches, seconds, own)
    cases = sorted(
        counted("predictions", errors.cases(out, observed=calibrated, jobs=jobs)),
        key=lambda case: errors.order(case.configuration),
    )
    if not cases:
        raise DlsimError(f"{out}: has no measured run that could be predicted")
    replays = list(counted("replays", errors.replays(out, jobs=jobs)))
    report(cases, replays)
    found = judge(errors.target_of(out), cases, replays)
    print(f"\n{found}")
    if verdict is not None:
        with replacing(verdict, DlsimError) as file:
            file.write_bytes(found.json())
    if plot is not None:
        draw(picture(cases, errors.target_of(out)), plot)
    if check and not found.passed:
        raise Missed


def run_suite(out: Path, name: str, quick: bool, rounds: int | None, seconds: float) -> None:
    """Run what `out` does not have yet of the suite."""
    from dlsim.validation.fidelity import suite

    if name == "held-out":
        check_held_out()
    count, usual = suite.QUICK if quick else suite.WHOLE
    plan = suite.plan_of(name, count, rounds or usual, all_observed=not quick)
    with kept(out), bar(len(plan)) as advance:
        suite.run_suite(out, name, plan, seconds=seconds, progress=advance)


def check_held_out() -> None:
    """Raise `DlsimError` where packages that the held-out suite works with are missing."""
    from dlsim.validation.fidelity.held_out import PACKAGES

    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise DlsimError(lacking("validate --suite held-out", " and ".join(missing), "held-out"))


def plan_of(
    workers: str | None, prefetch: str | None, observed: tuple[int, ...], step: float, rounds: int
) -> list[tuple[Configuration, int]]:
    """The runs of a user's own loader that the options ask for."""
    from dlsim.validation.fidelity import own_loader

    return own_loader.plan_of(
        own_loader.usual_workers() if workers is None else numbers("--workers", workers, 0),
        (None,) if prefetch is None else numbers("--prefetch", prefetch, 1),
        observed=observed,
        step=step,
        rounds=rounds,
    )


def run_own(
    out: Path,
    target: str,
    plan: Sequence[tuple[Configuration, int]],
    batches: int,
    seconds: float,
    step: str | None,
) -> None:
    """Run what `out` does not have yet of the plan for the user's own loader.

    With the user's own step, if one is named.
    """
    from dlsim.validation.fidelity import own_loader

    name = target if step is None else f"{target} with {step}"
    with kept(out), bar(len(plan)) as advance:
        own_loader.run_own(
            out,
            name,
            partial(own_loader.loaded, target, step),
            plan,
            batches=batches,
            seconds=seconds,
            progress=advance,
        )


def numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    """The integers in `1,2,4`; raises `UsageError` for anything else."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < least:
        wanted = f"integers of at least {least}, as 1,2,4"
        raise UsageError(f"validate: {option}: expected {wanted}, got {text!r}")
    return found


def kept(out: Path) -> contextlib.AbstractContextManager[None]:
    """Say, when interrupted inside, that nothing is lost."""
    return saying(f"the runs until now are kept in {out}; go on with the same command")


@contextlib.contextmanager
def bar(total: int) -> Iterator[Callable[[Configuration], object]]:
    """A function to call with each configuration before it is run; it says how many were."""
    with counting("running", "runs", total) as advance:
        yield lambda configuration: advance(1)


def counted(unit: str, things: Iterator[Any]) -> Iterator[Any]:
    """The same things; it is said how many there were."""
    with counting("simulating", unit) as advance:
        for thing in things:
            yield thing
            advance(1)


def report(cases: Sequence[Case], replays: Sequence[Replayed]) -> None:
    """Print what was predicted and measured, and what to make of it."""
    from dlsim.trace.summary import aligned
    from dlsim.validation.fidelity import tables

    print(aligned(tables.case_lines(cases)))
    for heading, lines in (
        ("predictions", tables.workload_lines(cases)),
        ("observed runs replayed", tables.replay_lines(replays)),
    ):
        print(f"\n{heading}\n{aligned(lines)}" if len(lines) > 1 else f"\n{heading}: none counts")
    print(f"\n{aligned(tables.aim_lines({'reached': tables.aims(cases, replays)}))}")
    print(f"\n{tables.legend(cases)}")


def picture(cases: Sequence[Case], title: str) -> Figure:
    """Predicted against measured, and the timelines of a typical and of the worst prediction."""
    import numpy as np
    from matplotlib.figure import Figure

    from dlsim.report.prediction_plots import predicted_against_measured, timelines
    from dlsim.report.style import TITLE_SIZE
    from dlsim.report.style import title as in_lines

    figure = Figure(figsize=(11, 6), layout="constrained")
    figure.suptitle(in_lines(title, figure.get_figwidth()), fontsize=TITLE_SIZE)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(6, 5))[0]
    epochs = [case.prediction.epoch for case in cases]
    predicted_against_measured(
        np.array([epoch.value for epoch in epochs]),
        np.array([epoch.low for epoch in epochs]),
        np.array([epoch.high for epoch in epochs]),
        [np.array([trial.epoch for trial in case.measured]) for case in cases],
        [case.configuration.workload for case in cases],
        [case.configuration.key for case in cases],
        left.subplots(),
    )
    by_error = sorted(cases, key=lambda case: abs(case.error))
    shown = {"typical": by_error[(len(cases) - 1) // 2], "worst": by_error[-1]}
    for ax, (word, case) in zip(right.subplots(2), shown.items(), strict=True):
        trace = case.prediction.trace
        timelines(
            trace.returned[trace.order],
            [trial.returned for trial in case.measured],
            f"{word}: {case.configuration.key}",
            ax,
        )
    return figure
