"""All metrics of a trace at a glance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from string import Formatter

from dlsim.scenario.units import duration, size
from dlsim.scenario.units import number as number
from dlsim.trace import metrics, stays
from dlsim.trace.columns import parts
from dlsim.trace.job import JobTrace
from dlsim.trace.quantiles import quantiles
from dlsim.trace.tally import JobTally, Tally, wait_quantiles
from dlsim.trace.trace import Trace
from dlsim.trace.work import work

NAN = metrics.NAN


def give_or_take(mean: float, half_width: float) -> str:
    """A mean and the half-width of its interval, if it has one: `"882.5 ± 0.41"`."""
    if mean != mean:
        return "-"
    shown = f"{mean:,.0f}" if mean >= 1e4 else f"{mean:.4g}"
    half = f"{half_width:,.0f}" if half_width >= 100 else f"{half_width:.2g}"
    return f"{shown} ± {half}" if half_width == half_width else shown


def percent(share: float) -> str:
    """`share` of 1 in percent: `"42.0 %"`; shares that differ by rounding alone are told alike."""
    return "-" if share != share else f"{round(100 * share, 9):z.1f} %"


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _metric(show: Callable[[float], str]) -> float:
    """A metric, with how it is shown to people."""
    return field(metadata={"show": show})  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The metrics of one trace; times in seconds, shares of 1, NaN where there is nothing to say.

    `batches`, `samples`: returned to the user; `distinct`: samples, each once in an epoch; `lost`:
    samples that never came in epochs that ran to their end (`dlsim.trace.work`). `wait_*`: mean and
    percentiles of `waits`, and the first one. `stall`, `au`: shares of time the accelerator is
    idle and busy. `validation`: the share of time in validation, which is neither, and
    `validation_stall`: the share of that for which the accelerator is idle; NaN where there is
    none. `first_batch`: time to the first batch. `epoch_time`: mean time of an epoch. `buffer_*`,
    `credit_max`: batches ready, and sent but not returned. `held`: batches received before they
    were wanted; `held_max`: the most at a time. `head_of_line`: time waited while a
    later batch was ready. `worker_utilisation`: mean over the workers. `buffer_bytes`: the most
    in the buffer. Formulas: `dlsim.trace.metrics` and `stays`.
    """

    samples_per_s: float = _metric(number)
    distinct_per_s: float = _metric(number)
    batches_per_s: float = _metric(number)
    wait_mean: float = _metric(duration)
    wait_p50: float = _metric(duration)
    wait_p95: float = _metric(duration)
    wait_p99: float = _metric(duration)
    wait_first: float = _metric(duration)
    stall: float = _metric(percent)
    au: float = _metric(percent)
    validation: float = _metric(percent)
    validation_stall: float = _metric(percent)
    first_batch: float = _metric(duration)
    epoch_time: float = _metric(duration)
    elapsed: float = _metric(duration)
    buffer_mean: float = _metric(number)
    buffer_max: float = _metric(number)
    buffer_bytes: float = _metric(size)
    credit_max: float = _metric(number)
    held: float = _metric(number)
    held_max: float = _metric(number)
    head_of_line: float = _metric(duration)
    worker_utilisation: float = _metric(percent)
    batches: float = _metric(number)
    samples: float = _metric(number)
    distinct: float = _metric(number)
    lost: float = _metric(number)

    def as_dict(self) -> dict[str, float]:
        """Metric by name, in the order of the fields: one row of a table of runs."""
        return dict(vars(self))

    def shown(self) -> dict[str, str]:
        """Metric by name as people write it, with its unit."""
        return {
            name: entry.metadata["show"](getattr(self, name))
            for name, entry in self.__dataclass_fields__.items()
        }

    def __str__(self) -> str:
        """A table of a few lines; what was not observed is left out."""
        lines = ((label, self._told(text)) for label, text in _LINES)
        return "\n".join(f"{label:<13} {told}" for label, told in lines if told)

    def _told(self, text: str) -> str:
        """The parts of `text`, divided by semicolons, in which anything is known."""
        shown = self.shown()
        parts = []
        for part in text.split("; "):
            names = [name for _, name, _, _ in Formatter().parse(part) if name]
            if not all(math.isnan(getattr(self, name)) for name in names):
                parts.append(part.format(**shown))
        return "; ".join(parts)


_LINES = (
    (
        "throughput",
        "{samples_per_s} samples/s, {batches_per_s} batches/s"
        " ({samples} samples in {batches} batches)",
    ),
    ("time", "{elapsed}; an epoch {epoch_time}, the first batch after {first_batch}"),
    (
        "wait",
        "mean {wait_mean}, p50 {wait_p50}, p95 {wait_p95}, p99 {wait_p99}, first {wait_first}",
    ),
    ("training", "busy {au} of the time, idle {stall}"),
    ("validation", "takes {validation} of the time, idle {validation_stall} of that"),
    ("workers", "busy {worker_utilisation} of the time"),
    (
        "buffer",
        "{buffer_mean} batches ready on average, at most {buffer_max};"
        " sent and not returned at most {credit_max}",
    ),
    (
        "out of order",
        "{held} batches early, at most {held_max} at a time;"
        " {head_of_line} waited while a later one was ready",
    ),
    ("memory", "at most {buffer_bytes} in the buffer"),
)


def summarize(trace: Trace | Tally | JobTrace | JobTally) -> Summary:
    """All metrics of `trace`; works for every trace, also one that an error ended.

    Those of a job are of all ranks taken together; see `summarize_job`.
    """
    if isinstance(trace, JobTrace | JobTally):
        from dlsim.trace.job_summary import summarize_job

        return summarize_job(trace)
    if isinstance(trace, Tally):
        return _of_tally(trace)
    own = trace.of_loader
    there = (stays.ready(own), stays.under_way(own), stays.early(own))
    buffer, credit, held = (stays.extent(own, stay) for stay in there)
    utilisation, done, waits = metrics.accelerator_utilisation(trace), work(trace), _waits(trace)
    distinct = metrics.samples(trace) if done is None else done.distinct
    sent, arrived, received = (
        metrics.observed(own, moment) for moment in (own.sent, own.arrived, own.received)
    )
    return Summary(
        samples_per_s=metrics.samples_per_second(trace),
        distinct_per_s=metrics.ratio(distinct, metrics.elapsed(trace)),
        batches_per_s=metrics.batches_per_second(trace),
        **waits,
        stall=metrics.stall(trace),
        au=utilisation,
        validation=metrics.validation(trace),
        validation_stall=metrics.validation_stall(trace),
        first_batch=metrics.first_batch(trace),
        epoch_time=metrics.mean(metrics.epoch_times(trace)),
        elapsed=metrics.elapsed(trace),
        buffer_mean=buffer.mean if arrived else NAN,
        buffer_max=buffer.most if arrived else NAN,
        buffer_bytes=stays.buffer_bytes(own) if arrived else NAN,
        credit_max=credit.most if sent else NAN,
        held=float(stays.held_count(own)) if received else NAN,
        held_max=held.most if received else NAN,
        head_of_line=stays.head_of_line(own) if arrived else NAN,
        worker_utilisation=metrics.mean(metrics.worker_utilisation(trace)),
        batches=float(len(trace.order)),
        samples=metrics.samples(trace),
        distinct=distinct,
        lost=NAN if done is None else done.lost,
    )


def _waits(trace: Trace) -> dict[str, float]:
    """What a summary has of the waits."""
    times = metrics.waits(trace)
    first = float(times[0]) if len(times) else NAN
    mean = metrics.mean_of(times[part] for part in parts(0, len(times)))
    names = ("wait_first", "wait_mean", "wait_p50", "wait_p95", "wait_p99")
    return dict(zip(names, (first, mean, *quantiles(times, (0.50, 0.95, 0.99))), strict=True))


def _of_tally(tally: Tally) -> Summary:
    """The same of a run that was not kept."""
    busy = metrics.utilisation(tally.step, tally.elapsed)
    p50, p95, p99 = wait_quantiles(tally, (0.50, 0.95, 0.99))
    time, batches = tally.elapsed, tally.batches
    return Summary(
        samples_per_s=metrics.ratio(tally.samples, time) if tally.samples or not batches else NAN,
        distinct_per_s=metrics.ratio(tally.distinct, time) if tally.samples or not batches else NAN,
        batches_per_s=metrics.ratio(batches, time),
        wait_mean=metrics.ratio(tally.wait, batches),
        wait_p50=p50,
        wait_p95=p95,
        wait_p99=p99,
        wait_first=tally.wait_first,
        stall=1 - busy,
        au=busy,
        validation=NAN,
        validation_stall=NAN,
        first_batch=tally.first_batch,
        epoch_time=float(tally.epoch_times.mean()),
        elapsed=time,
        buffer_mean=metrics.ratio(tally.buffer, time),
        buffer_max=float(tally.buffer_max),
        buffer_bytes=tally.buffer_bytes,
        credit_max=float(tally.credit_max),
        held=float(tally.held),
        held_max=float(tally.held_max),
        head_of_line=tally.head_of_line,
        worker_utilisation=metrics.mean(tally.busy / time) if time > 0 else NAN,
        batches=float(batches),
        samples=float(tally.samples) if tally.samples or not batches else NAN,
        distinct=tally.distinct if tally.samples or not batches else NAN,
        lost=tally.lost,
    )
