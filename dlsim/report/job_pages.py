"""Reports of jobs as HTML pages: of a scenario, and of a job that was watched or simulated."""

from __future__ import annotations

from collections.abc import Sequence

from dlsim.report.html import WIDTH, code, figure, listed, page, paragraphs, table
from dlsim.report.job_plots import ranks_gantt
from dlsim.report.job_text import fitting, job_setup, job_verdict, rank_rows, which_ranks
from dlsim.report.pages import LABEL, cut, gains, repeated, trust, why, workers
from dlsim.report.style import axes
from dlsim.report.text import ended_early, setup
from dlsim.trace import JobTrace, job_overflow, lateness, summarize
from dlsim.whatif import Explanation


def job_page(
    found: Explanation, job: JobTrace, *, name: str, repeat: Sequence[str], jobs: int = 1
) -> str:
    """A page on a job's scenario: what limits it, what would help, who waits for whom.

    `found`: why it is as fast as it is; `job`: one run of it, simulated. `name`: of the scenario,
    if it has none itself; `repeat`: the commands that make the page.
    """
    scenario, runs = found.scenario, found.runs
    sections = [
        ("Why, and what single changes would gain", why(found) + gains(found)),
        (
            "How many workers in each rank?",
            workers(scenario, len(runs), runs.seed, jobs),
        ),
        ("One run: its ranks", of_ranks(job)),
        ("Will it fit?", paragraphs([fitting(job, job_overflow(job))])),
        ("Configuration", code(cut(scenario))),
        ("How far to trust it", trust(scenario, found)),
        ("How to repeat it", repeated(job, repeat)),
    ]
    first, second, *_ = str(found).splitlines()
    about = f"{job_setup(scenario)}; each: {setup(scenario)}"
    return page(scenario.name or name, about, [first, second], sections)


def watched_page(job: JobTrace, *, name: str, repeat: Sequence[str]) -> str:
    """A page on one run of a job, usually a real one that was watched."""
    scenario, meta = job.meta.scenario, job.meta
    answer = [job_verdict(job, lateness(job))]
    if meta.problem is not None:
        answer.insert(0, ended_early(meta.problem))
    sections = [("Its ranks", of_ranks(job))]
    about, title = f"{len(job)} ranks, engine {meta.engine}", name
    if scenario is not None:
        about, title = f"{job_setup(scenario)}; each: {setup(scenario)}", scenario.name or name
        sections.append(("Will it fit?", paragraphs([fitting(job, job_overflow(job))])))
        sections.append(("Configuration", code(cut(scenario))))
    if meta.engine == "observed":
        notes = [
            f"rank {rank}, {key}: {text}"
            for rank, trace in enumerate(job.ranks)
            for key, text in trace.meta.notes.items()
            if key not in ("machine", "rank")
        ]
        said = "These are times of a real run, as they were. What the watching and others cost:"
        sections.append(("How far to trust it", paragraphs([said]) + listed(notes)))
    sections.append(("How to repeat it", repeated(job, repeat)))
    return page(title, about, answer, sections)


def of_ranks(job: JobTrace) -> str:
    """Who did what when, who was waited for, and all metrics."""
    late = lateness(job)
    caption = "What each rank did when: waiting for a batch, training, waiting at the barrier."
    picture = figure(ranks_gantt(job, axes(WIDTH, min(1.2 + 0.3 * len(job), 6))), caption)
    heading, *rows = rank_rows(job, late)
    lines = str(summarize(job)).splitlines()
    metrics = [(line[:LABEL].strip(), line[LABEL:].strip()) for line in lines]
    said = [job_verdict(job, late), which_ranks(job)]
    return paragraphs(said) + picture + table(rows, heading) + table(metrics, text=True)
