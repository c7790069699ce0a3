"""A job in words: how fast, who kept the others waiting and why, and what the barrier costs."""

from __future__ import annotations

import math

import numpy as np

from dlsim.report.text import ended_early, setup
from dlsim.scenario import Scenario
from dlsim.scenario.units import duration, size
from dlsim.trace import JobTrace, account, metrics, summarize
from dlsim.trace.causes import WORDS
from dlsim.trace.job_memory import job_overflow
from dlsim.trace.job_metrics import (
    Lateness,
    causes_of,
    job_account,
    lateness,
    main_cause,
    usual_causes,
)
from dlsim.trace.job_summary import span
from dlsim.trace.memory import DESCRIPTORS
from dlsim.trace.overflow import Overflow
from dlsim.trace.summary import aligned, number, percent
from dlsim.trace.telling import beside, sentence
from dlsim.whatif.space import space

MOST_ROWS = 8  # ranks in the table: of more, those that were waited for the longest
NEGLIGIBLE = 0.01  # a share of the time that is not worth a sentence


def job_text(job: JobTrace) -> str:
    """Text on a job: an error if one ended it, verdict, configuration, summary, its ranks."""
    late = lateness(job)
    parts = [job_verdict(job, late), _configuration(job), str(summarize(job)), ranks(job, late)]
    over = job_overflow(job)
    if over is not None:
        parts.insert(0, fitting(job, over))
    elif said := fitting(job, over):
        parts[0] += f"\n{said}"
    if job.meta.problem is not None:
        parts.insert(0, ended_early(job.meta.problem))
    return "\n\n".join(parts)


def job_verdict(job: JobTrace, late: Lateness) -> str:
    """Where the ranks' time goes, whom they waited for and why, and what that costs."""
    begin, end = span(job)
    elapsed, found = end - begin, job_account(job)
    said = [f"{sentence(found.shares, found.stall)}."]
    said += filter(None, [beside(found.apart, summarize(job).validation_stall), dispatched(job)])
    if not late.meetings:
        return " ".join(said)
    lost = float(late.kept.sum()) / (len(job) * elapsed) if elapsed else 0.0
    if lost >= NEGLIGIBLE:
        worst = late.worst
        why = main_cause(causes_of(job, worst), usual_causes(job, worst))
        what = WORDS.get(why, why)
        share = late.kept[worst] / late.kept.sum()
        others = 1 / len(job)
        said.append(
            f"Rank {worst} is waited for the longest ({percent(share)} of that; it came last"
            f" {late.last[worst]:.0f} of {late.meetings} times), for {what}."
            if share > 1.5 * others
            else f"No rank is to blame: each comes last about as often; mostly for {what}."
        )
    if not math.isnan(late.amplification):  # between meetings some time passes
        said.append(
            f"Barrier amplification {late.amplification:.3g}: the slowest takes so many times as"
            " long from one meeting to the next as a rank does on average."
        )
    return " ".join(said)


def dispatched(job: JobTrace) -> str:
    """What it costs that rank 0 reads for all, a sentence or two; "" where it does not."""
    first, *others = job.ranks
    if first.reading is None:
        return ""
    found, said = account(first), f"Rank 0 reads for all {len(job)} ranks"
    cause = found.cause
    if cause:
        said += f", and waits most for {WORDS.get(cause, cause)} ({percent(found.groups[cause])}"
        said += " of the time)"
    said += "."
    behind = [trace.reading for trace in others if trace.reading is not None]
    unused = sum(int((~np.isnan(each.fetched)).sum()) for each in behind)
    if unused:
        said += f" The workers of the others fetch {unused:,} batches that nobody takes."
    return said


def fitting(job: JobTrace, over: Overflow | None) -> str:
    """Whether what the ranks have on their way fits, by `job_overflow`; "" if no scenario tells."""
    if over is not None:
        return does_not_fit(over)
    return "" if job.meta.scenario is None else str(space(job.meta.scenario))


def does_not_fit(over: Overflow) -> str:
    """That what the ranks of a node have on their way does not fit, and what would."""
    most = over.largest_window
    cure = (
        f"a window of at most {most} in each rank would fit, however slow the step"
        if most
        else "no window would fit"
    )
    if over.resource == DESCRIPTORS:
        return (
            f"It does not fit: a process has up to {over.needed:,.0f} files open, and may have "
            f"{over.limit:,.0f}, from batch {over.batch} on; {cure}."
        )
    return (
        f"It does not fit: all ranks of a node together need {size(over.needed)} of "
        f"{over.resource}, which has {size(over.limit)}, from batch {over.batch} on; {cure}."
    )


def _configuration(job: JobTrace) -> str:
    scenario, meta = job.meta.scenario, job.meta
    ran = f"engine {meta.engine}" + (f", seed {meta.seed}" if meta.seed is not None else "")
    if scenario is None:
        return f"{len(job)} ranks ({ran})"
    title = f"{scenario.name} ({ran})" if scenario.name else f"One run ({ran})"
    return f"{title}\n{job_setup(scenario)}; each: {setup(scenario)}"


def job_setup(scenario: Scenario) -> str:
    """The job's settings in a few words."""
    job = scenario.job
    words = [f"{job.ranks} {'rank' if job.ranks == 1 else 'ranks'}"]
    words[0] += " on a node"
    if job.nodes > 1:
        words = [f"{job.nodes} nodes of {job.ranks} {'rank' if job.ranks == 1 else 'ranks'}"]
    if scenario.machine.cores is not None:
        words.append(f"{scenario.machine.cores:g} cores a node")
    if isinstance(job.sync, int):
        words.append("a barrier every step" if job.sync == 1 else f"every {job.sync} steps")
    else:
        words.append({"epoch": "a barrier between epochs", "never": "no barrier"}[job.sync])
    return ", ".join(words)


def ranks(job: JobTrace, late: Lateness) -> str:
    """A table of the ranks; of many, those that were waited for the longest."""
    table, which = aligned(rank_rows(job, late)), which_ranks(job)
    return f"{table}\n{which}" if which else table


def which_ranks(job: JobTrace) -> str:
    """Which ranks the table of them has; empty if all."""
    if len(job) <= MOST_ROWS:
        return ""
    return f"of {len(job)} ranks, those that the others waited for the longest"


def rank_rows(job: JobTrace, late: Lateness) -> list[tuple[str, ...]]:
    """A heading, and a row for each rank; of many, for those that were waited for the longest."""
    begin, end = span(job)
    elapsed = end - begin
    shown = np.argsort(-late.kept, kind="stable")[:MOST_ROWS] if len(job) > MOST_ROWS else None
    rows: list[tuple[str, ...]] = [
        ("rank", "samples/s", "waiting", "training", "barrier", "last", "kept others")
    ]
    for rank in sorted(shown.tolist()) if shown is not None else range(len(job)):
        trace = job.ranks[rank]
        rows.append(
            (
                str(rank),
                number(metrics.ratio(metrics.samples(trace), elapsed)),
                percent(metrics.ratio(metrics.total(metrics.waits(trace)), elapsed)),
                percent(metrics.ratio(metrics.total(metrics.steps(trace)), elapsed)),
                percent(metrics.ratio(metrics.total(metrics.barrier_waits(trace)), elapsed)),
                f"{late.last[rank]:.0f}",
                duration(float(late.kept[rank])),
            )
        )
    return rows
