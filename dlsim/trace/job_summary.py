"""All metrics of a job at a glance: those of its ranks taken together, and what they waited for."""

from __future__ import annotations

import numpy as np

from dlsim.trace import metrics
from dlsim.trace.account import account
from dlsim.trace.job import JobTrace
from dlsim.trace.job_metrics import Lateness
from dlsim.trace.summary import Summary, summarize

SUMS = ("batches", "samples", "distinct", "lost", "held")
GREATEST = ("first_batch", "buffer_max", "buffer_bytes", "credit_max", "held_max")


def summarize_job(job: JobTrace) -> Summary:
    """The metrics of all ranks together.

    Throughput, batches and samples of all; waits of all batches; `stall` and `au` as shares of the
    job's elapsed time, `au` that of the rank where it is least, as MLPerf Storage counts it; the
    latest first batch, the fullest buffer; of the rest, means over the ranks.
    """
    rows = [summarize(trace).as_dict() for trace in job.ranks]
    begin, end = span(job)
    elapsed = end - begin
    found = {name: metrics.mean(np.array([row[name] for row in rows])) for name in rows[0]}
    found |= {name: float(np.sum([row[name] for row in rows])) for name in SUMS}
    found |= {name: float(np.max([row[name] for row in rows])) for name in GREATEST}
    waits = metrics.known(np.concatenate([metrics.waits(trace) for trace in job.ranks]))
    quantiles = np.percentile(waits, [50, 95, 99]) if len(waits) else [metrics.NAN] * 3
    found |= dict(zip(("wait_p50", "wait_p95", "wait_p99"), map(float, quantiles), strict=True))
    busy = [account(trace).busy for trace in job.ranks]
    found |= {
        "samples_per_s": metrics.ratio(found["samples"], elapsed),
        "distinct_per_s": metrics.ratio(found["distinct"], elapsed),
        "batches_per_s": metrics.ratio(found["batches"], elapsed),
        "wait_mean": metrics.mean(waits),
        "stall": 1 - metrics.utilisation(sum(busy), len(job) * elapsed),
        "au": metrics.utilisation(min(busy), elapsed),
        "elapsed": elapsed,
    }
    return Summary(**found)


def job_samples_per_second(job: JobTrace) -> float:
    """Samples of all ranks, over the job's elapsed time."""
    begin, end = span(job)
    return metrics.ratio(sum(map(metrics.samples, job.ranks)), end - begin)


def span(job: JobTrace) -> tuple[float, float]:
    """When the first rank begins, and the last one ends."""
    spans = [metrics.span(trace) for trace in job.ranks]
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def at_barrier(job: JobTrace, late: Lateness) -> float:
    """The share of the ranks' time that they wait for others, or exchange what they met for."""
    begin, end = span(job)
    spent = sum(metrics.total(metrics.barrier_waits(trace)) for trace in job.ranks)
    return metrics.ratio(spent, len(late.waited) * (end - begin))
