"""`dlsim report`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from dlsim.cli.files import check_writable, run_from, scenario_from, simulated, simulated_job
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
        scenario: A scenario (.toml), or what run, observe or diagnose wrote (.npz, .csv).
            Or a profile of torch.profiler (.json, .json.gz), or a folder of those of all ranks, or
            the Chrome trace of a job.
        html: Write one page here that holds everything, to be read, sent or printed.
        seed: What all random times follow from.
        jobs: How many processes simulate; -1 for one on each core.
    """
    from dlsim.report import run_text
    from dlsim.report.job_text import job_text
    from dlsim.scenario.files import replacing
    from dlsim.trace import JobTrace, Trace
    from dlsim.whatif.explain import explain

    check_writable(html)
    loaded = run_from(scenario)
    if loaded is not None and changes:
        raise UsageError(f"report: {scenario} is a run, and has no {next(iter(changes))} to change")
    repeat = [command(scenario, html, seed, changes)]
    run: Trace | JobTrace
    if loaded is not None:
        run = loaded
        text = job_text(run) if isinstance(run, JobTrace) else run_text(run)
    else:
        chosen = scenario_from(scenario, changes, profile=True)
        with working():
            found = explain(chosen, None, seed, jobs=jobs)
            text = str(found)
        if chosen.is_job and chosen.job.rank is None:
            run = simulated_job(chosen, seed, "auto", samples=False)
            text = f"{text}\n\n{job_text(run)}"
        else:
            run = simulated(chosen, seed, "auto", samples=False)
            text = f"{text}\n\n{run_text(run)}"
    if html is not None:
        with working("simulating and drawing the page"):
            about: dict[str, Any] = {"name": scenario.stem, "repeat": repeat}
            if isinstance(run, JobTrace):
                from dlsim.report.job_pages import job_page, watched_page

                if loaded is not None:
                    page = watched_page(run, **about)
                else:
                    page = job_page(found, run, **about, jobs=jobs)
            else:
                from dlsim.report.pages import run_page, scenario_page

                if loaded is not None:
                    page = run_page(run, **about)
                else:
                    page = scenario_page(found, run, **about, jobs=jobs)
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
