"""How a part of a run stands for the whole: as long, and by figures measured in its clock.

In the `clock` of the whole run, the cycles that were simulated in the middle of a part (see
`dlsim.whatif.extent`) go by as often as it would have them; all figures are measured by it. What
cannot be a whole run's, or would change were more of it simulated, is `impossible`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from dlsim.engine.effort import counts
from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace import Trace, metrics
from dlsim.trace.account import Account, account
from dlsim.trace.job_metrics import job_account
from dlsim.trace.job_summary import span, utilised
from dlsim.trace.quantiles import quantile_of
from dlsim.trace.work import work
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import variation
from dlsim.whatif.parallel import Measure, Row, Run, meeting
from dlsim.whatif.statistics import interval

SHARE, IDLE = "share of ", "idle for "
LEAST = 500  # batches of an epoch that are simulated, where they may: fewer are few
WARM = 0.4  # of an epoch that is cut: what comes before the cycles that are repeated
REPEATS = 50  # how often a batch counts at most, for a percentile
PERIODIC = 1e-9  # relative; rounds that differ by less are alike
SETTLED = 0.8  # confidence in which the pace of cycles still changes, and no part stands for all
SETTLED_SOON = 0.95  # the same of few batches: intervals are as wide as what that may miss

Clock: TypeAlias = Callable[[Floats], Floats]


def measured(whole: Scenario, *, shares: bool = False) -> Measure:
    """What measures, of a trace of `whole` shortened, the whole run.

    In each row the main figures of `dlsim.trace.Summary`; `failed`; `basis`, the batches that they
    rest on; `drift`, by how much cycles that are repeated become slower, as a share; and, with
    `shares`, the share of each cause on the critical path, and that of the elapsed time for which
    it keeps the accelerator idle.
    """
    return partial(_measured, whole=whole, shares=shares)


def _measured(run: Run, *, whole: Scenario, shares: bool) -> Row:
    if isinstance(run, Trace):
        return _measured_rank(run, whole, shares=shares)
    rows = [_measured_rank(trace, whole) for trace in run.ranks]
    found = {name: metrics.mean(np.array([row[name] for row in rows])) for name in rows[0]}
    begin, end = span(run)
    elapsed = end - begin
    for name in ("samples", "distinct", "batches"):
        each = (row[f"{name}_per_s"] * row["elapsed"] for row in rows if row["elapsed"])
        found[f"{name}_per_s"] = metrics.ratio(sum(each), elapsed)
    found |= utilised(rows, elapsed) | {
        "batches": sum(row["batches"] for row in rows),
        "basis": sum(row["basis"] for row in rows),
        "elapsed": elapsed,
        "failed": max(row["failed"] for row in rows),
    }
    return found | meeting(run) | (_shares(job_account(run)) if shares else {})


def _shares(spent: Account) -> Row:
    """The share of each cause on the critical path, and of the time that training idles for it."""
    return {SHARE + cause: share for cause, share in spent.hung.items()} | _idle(spent)


def _idle(spent: Account) -> Row:
    return {IDLE + cause: share for cause, share in spent.shares.items()}


def _measured_rank(trace: Trace, whole: Scenario, *, shares: bool = False) -> Row:
    found = stretched(trace, whole)
    clock, weights, order = found.clock, found.weights, trace.order
    begin, end = clock(np.array(metrics.span(trace)))
    elapsed = float(end - begin)
    waited = clock(trace.returned[order]) - clock(trace.requested[order])
    began, ended = (clock(moments) for moments in metrics.busy(trace))
    busy = metrics.utilisation(metrics.total(ended - began), elapsed)
    epochs = clock(trace.epochs.ended) - clock(trace.epochs.started)
    samples = metrics.samples(trace) + float(((weights - 1) * trace.size[order]).sum())
    waits = np.repeat(metrics.waits(trace), np.minimum(weights, REPEATS).round().astype(int))
    done = work(trace)
    row = {
        "samples_per_s": metrics.ratio(samples, elapsed),
        "distinct_per_s": metrics.ratio(samples * done.share if done else samples, elapsed),
        "batches_per_s": metrics.ratio(float(weights.sum()), elapsed),
        "batches": float(weights.sum()),
        "elapsed": elapsed,
        "wait_mean": metrics.ratio(metrics.total(waited), float(weights.sum())),
        "epoch_time": metrics.ratio(metrics.total(epochs), float(found.epochs)),
        "wait_p95": quantile_of(np.sort(waits), 0.95) if len(waits) else metrics.NAN,
        "stall": metrics.stall(trace) if trace.validation is not None else 1 - busy,
        "au": busy,
        "validation": metrics.validation(trace),
        "validation_stall": metrics.validation_stall(trace),
        "failed": float(trace.meta.problem is not None),
        "basis": float((weights > 0).sum()),
        "drift": found.drift,
    }
    return row | _shares(account(trace, clock)) if shares else row


def causes(run: Run, whole: Scenario) -> Row:
    """What `measured` has of each cause of idleness: of `whole`, of which `run` is, or a part."""
    if isinstance(run, Trace):
        return _idle(account(run, stretched(run, whole).clock))
    return _idle(job_account(run))


@dataclass(frozen=True)
class Stretched:
    """How a part stands for the whole: its `clock`, and for how many batches each stands.

    `weights`: of each batch returned, in order. `epochs`: of the whole run, as far as it came.
    `drift`: how much slower, as a share, the second half of what is repeated is than the first;
    where nothing is random, by how much any two rounds differ.
    """

    clock: Clock
    weights: Floats
    epochs: int
    drift: float = 0.0


def stretched(trace: Trace, whole: Scenario) -> Stretched:
    """How `trace`, of `whole` or of a part of it, stands for the whole run.

    A trace that an error ended is the whole run.
    """
    order, epochs, part = trace.order, trace.epochs, trace.meta.scenario
    weights = np.ones(len(order))
    if part is None or part == whole or whole.is_job or trace.meta.problem is not None:
        ended = int((~np.isnan(epochs.ended)).sum())
        return Stretched(lambda moments: moments, weights, ended)
    number = int(counts(whole)[0])
    repeats = _repeats(part, whole)
    knots, slopes, drifts = list[float](), list[float](), [0.0]
    for epoch, started in enumerate(epochs.started):
        mine = np.flatnonzero(trace.epoch_of(order) == epoch)
        weights[mine] = repeats[epoch]
        knots.append(float(started))
        slopes.append(repeats[epoch])
        first, last = _cycles(part, len(mine))
        if number > len(mine) and last > first:
            times = 1 + (number - len(mine)) / (last - first)
            weights[mine[first + 1 : last + 1]] *= times
            returned = trace.returned[order[mine]]
            drifts.append(_drift(returned[first : last + 1], part))
            knots += [float(returned[first]), float(returned[last])]
            slopes += [times * repeats[epoch], repeats[epoch]]
    return Stretched(_clock(knots, slopes), weights, whole.epochs, float(np.sum(drifts)))


def _clock(knots: list[float], slopes: list[float]) -> Clock:
    """Moments of the whole run: between each two knots, time goes by so many times as long."""
    at, factors = np.array(knots), np.array(slopes)
    passed = np.append(0.0, np.cumsum(np.diff(at) * factors[:-1]))

    def clock(moments: Floats) -> Floats:
        place = np.searchsorted(at, moments, side="right").clip(min=1) - 1
        found: Floats = at[0] + passed[place] + (moments - at[place]) * factors[place]
        return found

    return clock


def repeats(part: Scenario, whole: Scenario) -> Floats:
    """How often each batch of `part` counts in `whole`: a row for each batch, a column an epoch."""
    kept, number = int(counts(part)[0]), int(counts(whole)[0])
    found = np.ones((kept, part.epochs)) * _repeats(part, whole)
    first, last = _cycles(part, kept)
    if number > kept and last > first:
        found[first + 1 : last + 1] *= 1 + (number - kept) / (last - first)
    return found


def _repeats(part: Scenario, whole: Scenario) -> Floats:
    """How often each epoch of `part` counts: those in the middle for all that are left out."""
    found = np.ones(part.epochs)
    if part.epochs < whole.epochs:
        found[1:-1] = (whole.epochs - 2) / (part.epochs - 2)
    return found


def _cycles(part: Scenario, batches: int) -> tuple[int, int]:
    """The places in an epoch, in order of return, from after which cycles are repeated, and to.

    The last is returned before the last batch is sent.
    """
    round_ = in_round(part)
    last = batches - 1 - max(part.loader.window, 1)
    warm = max(int(WARM * batches), 2 * part.loader.window)
    return last - max(last - warm, 0) // round_ * round_, last


def _drift(returned: Floats, part: Scenario) -> float:
    """How much slower the second half of some rounds is; or by how much any two differ."""
    rounds = np.diff(returned[:: in_round(part)])
    mean, half = float(rounds.mean()), len(rounds) // 2
    if mean <= 0 or not half:
        return 0.0
    if variation(part) == 0:
        exact = np.finfo(float).eps * abs(float(returned[-1]))  # of sums of floats
        return max(float(np.ptp(rounds)) - 8 * exact, 0.0) / mean
    return (float(rounds[-half:].mean()) - float(rounds[:half].mean())) / mean


def impossible(whole: Scenario, found: dict[str, Floats]) -> bool:
    """Whether figures that were told from a part of `whole` are not those of any run.

    The mean is better than a closed-form bound; or the pace of what is repeated still changes: by
    more than chance does it, or at all where there is no chance.
    """
    if "basis" not in found or (found["basis"] == found["batches"]).all():
        return False
    best, drift = bounds(whole).samples_per_s, found["drift"]
    if variation(whole) == 0:
        drifts = np.abs(drift).max() > PERIODIC
    else:
        few = found["basis"].min() < LEAST
        spread = interval(drift, SETTLED_SOON if few else SETTLED)
        drifts = len(drift) > 1 and abs(spread.mean) > spread.half_width + PERIODIC
    return bool(drifts or found["samples_per_s"].mean() > best * (1 + PERIODIC))


def in_round(scenario: Scenario) -> int:
    """The batches of a round, in which each worker has one."""
    return max(scenario.loader.num_workers, 1)
