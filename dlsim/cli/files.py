"""What commands read and write."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlsim
from dlsim.cli.progress import counting, working
from dlsim.scenario import DlsimError, Scenario, ScenarioError
from dlsim.scenario.errors import lacking
from dlsim.scenario.files import changed, replacing
from dlsim.scenario.shipped import shipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlsim.engine.simulation import Engine
    from dlsim.trace import JobTrace, Trace


def scenario_from(
    path: Path, changes: Mapping[str, str], *, profile: bool = False, num_workers: int | None = None
) -> Scenario:
    """The scenario in the file at `path`, with the values at dotted keys changed.

    With `profile`, the file may be one of torch.profiler's, of a loop with `num_workers`: what was
    made of it is printed. Raises `ScenarioError` for a file or a change that does not make a
    scenario.
    """
    name, path = path, located(path)
    told = None
    if is_profile(path):
        if not profile:
            raise ScenarioError(
                f"{path}: expected a scenario (.toml), got a profile: dlsim diagnose, calibrate, "
                "explain, report and compare take one"
            )
        from dlsim.trace import read_profiler
        from dlsim.validation import fit_profile

        fitted = fit_profile(read_profiler(path), num_workers=num_workers)
        scenario, told = fitted.scenario, fitted.told
    else:
        scenario = dlsim.load(path)
    try:
        scenario = changed(scenario, changes)
    except ScenarioError as error:
        raise ScenarioError(f"{name} with options: {error}") from None
    if told is not None:
        print(f"{told(scenario)}\n")
    return scenario


def located(path: Path) -> Path:
    """Where a scenario is: the file at `path`, or one that comes with dlsim, by its name.

    Raises `ScenarioError`, with what may be meant, where there is none.
    """
    if path.exists():
        return path
    there = shipped()
    if path.name == str(path) and path.name in there:
        return there[path.name]
    if path.suffix not in ("", ".toml"):
        return path
    if path.with_suffix(".toml").exists():
        raise ScenarioError(f"{path}: no such file; did you mean {path.with_suffix('.toml')}?")
    near = get_close_matches(path.stem, there, 1)
    hint = f"; {near[0]} comes with dlsim: give that name alone" if near else ""
    raise ScenarioError(f"{path}: cannot be read: No such file or directory{hint}")


def trace_from(path: Path, seed: int, changes: Mapping[str, str]) -> Trace:
    """The trace in the file at `path`, or of the scenario in it, simulated."""
    from dlsim.trace import load_trace, read_profiler

    path = located(path)
    if path.suffix == ".toml":
        return simulated(scenario_from(path, changes), seed, "auto", samples=True)
    return read_profiler(path) if is_profile(path) else load_trace(path)


def run_from(path: Path) -> Trace | JobTrace | None:
    """The run in a file, or in a folder of profiles; None for a scenario, and for one profile."""
    from dlsim.trace import load_run, read_job_chrome, read_profiles
    from dlsim.trace.chrome_format import of_job

    if path.is_dir():
        return read_profiles(path)
    if path.suffix in (".npz", ".csv"):
        return load_run(path)
    return read_job_chrome(path) if is_profile(path) and of_job(path) else None


def is_profile(path: Path) -> bool:
    """Whether the name is one of a profile of torch.profiler, or of another Chrome trace."""
    from dlsim.trace.chrome_format import SUFFIXES

    return path.name.endswith(SUFFIXES)


def simulated(scenario: Scenario, seed: int, engine: Engine, *, samples: bool) -> Trace:
    """The trace of the scenario; what takes its time says how far it is."""
    with working():
        return dlsim.simulate(scenario, seed, engine=engine, samples=samples)


def simulated_job(scenario: Scenario, seed: int, engine: Engine, *, samples: bool) -> JobTrace:
    """The traces of all ranks of the scenario, likewise."""
    with working():
        return dlsim.simulate_job(scenario, seed, engine=engine, samples=samples)


@contextlib.contextmanager
def watching(target: str) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of batches since it was last called; it tells of them.

    And an error where the loader `target` makes no batch for long, or fails.
    """
    from dlsim.validation.observing.target import tended

    with tended(target) as again, counting("watching", "batches") as advance:

        def more(batches: int) -> None:
            again()
            advance(batches)

        yield more


@contextlib.contextmanager
def kept(out: Path | None) -> Iterator[None]:
    """When Ctrl-C is pressed while a loader is watched, write what was seen to `out`."""
    try:
        yield
    except KeyboardInterrupt as stop:
        seen = getattr(stop, "seen", None)
        if seen is not None and out is not None:
            dlsim.save(seen, out)
            batches = len(seen.order)
            print(f"dlsim: {out} holds the {batches} batches seen until then", file=sys.stderr)
        raise


@contextlib.contextmanager
def saying(text: str) -> Iterator[None]:
    """Say so when Ctrl-C is pressed inside."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"dlsim: {text}", file=sys.stderr)
        raise


def check_torch(command: str) -> None:
    """Raise `DlsimError` where torch is not installed, without which `command` cannot be."""
    if find_spec("torch") is None:
        raise DlsimError(lacking(command, "torch", "validate"))


def check_writable(*paths: Path | None) -> None:
    """Raise `DlsimError` where a file cannot be, before time is spent on what belongs in it."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise DlsimError(f"{path}: cannot be written: it is a directory")
        if not path.parent.is_dir():
            raise DlsimError(f"{path}: cannot be written: there is no directory {path.parent}")
        if not os.access(path.parent if path.is_file() or not path.exists() else path, os.W_OK):
            raise DlsimError(f"{path}: cannot be written: no permission to write there")


def check_folder(path: Path) -> None:
    """Raise `DlsimError` where a folder cannot be, because a file is there or on the way."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise DlsimError(f"{path}: cannot be written: {there} is a file")
    if not os.access(there, os.W_OK):
        raise DlsimError(f"{path}: cannot be written: no permission to write to {there}")


def check_trace(path: Path | None) -> None:
    """Raise `DlsimError` where a trace cannot be, or has another name: a table is no trace."""
    if path is not None and path.suffix != ".npz":
        raise DlsimError(f"{path}: expected a name ending in .npz")
    check_writable(path)


def is_written(scenario: Path) -> str:
    """That a scenario was written to a file, and how to go on."""
    return f"{scenario} is written. What it says: dlsim run {scenario}"


def check_drawable(path: Path | None) -> None:
    """Raise `DlsimError` where a picture cannot be, or is of a kind that cannot be drawn."""
    if path is None:
        return
    check_writable(path)
    from matplotlib.backend_bases import FigureCanvasBase

    # those left out need TeX, or are pixels without a size
    kinds = FigureCanvasBase.get_supported_filetypes().keys() - {"pgf", "raw", "rgba"}
    if path.suffix[1:].lower() not in kinds:
        raise DlsimError(f"{path}: expected a name ending in one of .{', .'.join(sorted(kinds))}")


def check_traceable(path: Path | None) -> None:
    """Raise `DlsimError` where a Chrome trace cannot be, or has another name."""
    if path is not None:
        from dlsim.trace.chrome_format import check_name

        check_name(path)
        check_writable(path)


def report_run(
    run: Trace | JobTrace,
    out: Path | None,
    csv: Path | None,
    plot: Path | None,
    chrome: Path | None = None,
    profiles: Path | None = None,
) -> None:
    """Write what is asked for, and print what to make of the run, or of the job.

    `profiles`: a folder, for a job alone.
    """
    from dlsim import report
    from dlsim import trace as written
    from dlsim.report.job_plots import job_picture
    from dlsim.report.job_text import job_text

    writers: tuple[Callable[[Any, Path], object], ...]
    picture: Callable[[Any], Figure]
    text: Callable[[Any], str]
    given: Any = run
    if isinstance(run, written.JobTrace):
        writers = (written.save_job, written.write_job_csv, written.write_job_chrome)
        picture, text = job_picture, job_text
    else:
        writers = (written.save, written.write_csv, written.write_chrome)
        picture, text = report.run_picture, report.run_text
    paths = (out, csv, chrome, profiles)
    for path, write in zip(paths, (*writers, written.write_profiles), strict=True):
        if path is not None:
            write(given, path)
    if plot is not None:
        draw(picture(given), plot)
    with working("telling what happened"):
        told = text(given)
    print(told)


def draw(figure: Figure, path: Path) -> None:
    """Write a picture; it appears whole or not at all. Raises `DlsimError` when it cannot be."""
    with working("drawing"), replacing(path, DlsimError) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:].lower(), dpi=150)
