"""All metrics of a job at a glance: those of its ranks taken together, and what they waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlsim.trace import metrics
from dlsim.trace.job import JobTrace
from dlsim.trace.quantiles import quantiles
from dlsim.trace.summary import Summary, summarize
from dlsim.trace.tally import JobTally, wait_quantiles

SUMS = ("batches", "samples", "distinct", "lost", "held")
WAITS, SHARES = ("wait_mean", "wait_p50", "wait_p95", "wait_p99"), (0.50, 0.95, 0.99)
GREATEST = ("first_batch", "buffer_max", "buffer_bytes", "credit_max", "held_max")


def summarize_job(job: JobTrace | JobTally) -> Summary:
    """The metrics of all ranks together.

    Throughput, batches and samples of all; waits of all batches; `stall` and `au` as shares of the
    job's elapsed time, `au` that of the rank where it is least, as MLPerf Storage counts it; the
    latest first batch, the fullest buffer; of the rest, means over the ranks.
    """
    rows = [summarize(rank).as_dict() for rank in job.ranks]
    begin, end = span(job)
    elapsed = end - begin
    found = {name: metrics.mean(np.array([row[name] for row in rows])) for name in rows[0]}
    found |= {name: float(np.sum([row[name] for row in rows])) for name in SUMS}
    found |= {name: float(np.max([row[name] for row in rows])) for name in GREATEST}
    found |= dict(zip(WAITS, _waits(job), strict=True))
    found |= utilised(rows, elapsed)
    found |= {
        "samples_per_s": metrics.ratio(found["samples"], elapsed),
        "distinct_per_s": metrics.ratio(found["distinct"], elapsed),
        "batches_per_s": metrics.ratio(found["batches"], elapsed),
        "elapsed": elapsed,
    }
    return Summary(**found)


def utilised(rows: Sequence[Mapping[str, float]], elapsed: float) -> dict[str, float]:
    """`stall` and `au` of a job that takes so many seconds, from those of its ranks.

    `rows`: of each rank its `au`, `validation` and `elapsed`; in one without data no time passes.
    """
    busy = [row["au"] * row["elapsed"] if row["elapsed"] else 0.0 for row in rows]
    apart = sum(float(np.nan_to_num(row["validation"])) * row["elapsed"] for row in rows)
    return {
        "stall": 1 - metrics.utilisation(sum(busy) + apart, len(rows) * elapsed),
        "au": metrics.utilisation(min(busy), elapsed),
    }


def _waits(job: JobTrace | JobTally) -> list[float]:
    """The mean wait of all batches, and quantiles."""
    if isinstance(job, JobTally):
        mean = metrics.ratio(sum(tally.wait for tally in job.ranks), job.batches)
        return [mean, *wait_quantiles(job, SHARES)]
    waits = metrics.known(np.concatenate([metrics.waits(trace) for trace in job.ranks]))
    return [metrics.mean(waits), *quantiles(waits, SHARES)]


def job_samples_per_second(job: JobTrace) -> float:
    """Samples of all ranks, over the job's elapsed time."""
    begin, end = span(job)
    return metrics.ratio(sum(map(metrics.samples, job.ranks)), end - begin)


def span(job: JobTrace | JobTally) -> tuple[float, float]:
    """When the first rank begins, and the last one ends."""
    if isinstance(job, JobTally):
        return job.begin, job.end
    spans = [metrics.span(trace) for trace in job.ranks]
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def at_barrier(job: JobTrace | JobTally) -> float:
    """The share of the ranks' time that they wait for others, or exchange what they met for."""
    begin, end = span(job)
    if isinstance(job, JobTally):
        spent = job.at_barrier
    else:
        spent = sum(metrics.total(metrics.barrier_waits(trace)) for trace in job.ranks)
    return metrics.ratio(spent, len(job.ranks) * (end - begin))
