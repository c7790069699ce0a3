"""`dlsim report`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_writable, scenario_from, simulated, simulated_job
from dlsim.cli.parsing import NO_CHANGES, Changes, File, UsageError
from dlsim.cli.progress import working
from dlsim.scenario import DlsimError


def report(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    html: File = None,
    seed: int = 0,
    jobs: int = 1,
    changes: Changes = NO_CHANGES,
) -> None:
    """Tell all about a scenario or a run: the answer, the reason, pictures, how far to trust it.

    Example: dlsim report scenarios/imagenet_a100.toml --html report.html

    Args:
        scenario: A scenario (.toml), or a trace that run, observe or diagnose wrote (.npz).
            Or a profile of torch.profiler (.json, .json.gz).
        html: Write one page here that holds everything, to be read, sent or printed.
        seed: What all random times follow from.
        jobs: How many processes simulate; -1 for one on each core.
    """
    from dlsim.report import run_text
    from dlsim.scenario.files import replacing
    from dlsim.whatif.explain import explain

    check_writable(html)
    if scenario.suffix == ".npz" and changes:
        raise UsageError(f"report: {scenario} is a run, and has no {next(iter(changes))} to change")
    repeat = [command(scenario, html, seed, changes)]
    if scenario.suffix == ".npz":
        trace = dlsim.load_trace(scenario)
        text = run_text(trace)
    else:
        chosen = scenario_from(scenario, changes, profile=True)
        if chosen.is_job and html is not None:
            raise DlsimError("report: expected one rank for --html (dlsim run --plot draws a job)")
        with working():
            found = explain(chosen, None, seed, jobs=jobs)
            text = str(found)
        if chosen.is_job:
            from dlsim.report.job_text import job_text

            print(f"{text}\n\n{job_text(simulated_job(chosen, seed, 'auto', samples=False))}")
            return
        trace = simulated(chosen, seed, "auto", samples=False)
        text = f"{text}\n\n{run_text(trace)}"
    if html is not None:
        from dlsim.report.pages import run_page, scenario_page

        with working("simulating and drawing the page"):
            if scenario.suffix == ".npz":
                page = run_page(trace, name=scenario.stem, repeat=repeat)
            else:
                page = scenario_page(found, trace, name=scenario.stem, repeat=repeat, jobs=jobs)
        with replacing(html, DlsimError) as unfinished:
            unfinished.write_text(page, encoding="utf-8")
    print(text)


def command(scenario: Path, html: Path | None, seed: int, changes: Mapping[str, Any]) -> str:
    """The command line that asks for this report."""
    words = ["dlsim", "report", str(scenario)]
    for key, text in changes.items():
        words += [f"--{key.replace('_', '-')}", text]
    words += ["--seed", str(seed)] if seed else []
    words += ["--html", str(html)] if html is not None else []
    return shlex.join(words)
