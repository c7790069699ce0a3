"""How much of a run need be simulated: all of it, or so much that the rest is told from it.

What takes some tenths of a second is simulated whole. Of what takes longer, cycles are left out of
the middle, where one is like the next: of many epochs some after the first and before the last, and
of a long epoch whole rounds of the workers. So start-up, the filling of the pipeline, the last
round and the end are simulated as they are. In the `clock` of the whole run, the cycles that were
simulated in the middle go by as often as it would have them; all figures are measured by it.

Rounds are cut as a whole, as batches come in bursts where workers are in step; and not before those
who get out of step have done so. Where batches take long, few rounds have to do: intervals are the
wider. How long an epoch is cut to depends on the scenario alone, so that a setting has one answer,
whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from msgspec import structs

from dlsim.engine.compiled import installed
from dlsim.engine.effort import SECONDS, counts, effort, fast_effort, seconds_of
from dlsim.engine.facts import only_processes
from dlsim.scenario import IterableDataset, MapDataset, Recorded, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace import Trace, metrics
from dlsim.trace.account import Account, account
from dlsim.trace.job_metrics import job_account
from dlsim.trace.job_summary import span, utilised
from dlsim.trace.quantiles import quantile_of
from dlsim.trace.work import work
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import cv, variation
from dlsim.whatif.parallel import Measure, Row, Run, meeting
from dlsim.whatif.replicate import Replications, replicate
from dlsim.whatif.statistics import interval

SHARE, IDLE = "share of ", "idle for "
RUN = 10_000.0  # the cost of what is simulated whole, in any case: about half a second
LEAST, ROUNDS, WINDOWS = 500, 60, 12  # batches, rounds and windows that are simulated of an epoch
FEW_ROUNDS, FEW_WINDOWS = 10, 5  # the same where that many take longer than `RUN`
EPOCHS = 3  # of which the second stands for all but the first and the last
WORTH = 0.75  # an epoch is cut only if that saves a quarter of it
WARM = 0.4  # of an epoch that is cut: what comes before the cycles that are repeated
REPEATS = 50  # how often a batch counts at most, for a percentile
PERIODIC = 1e-9  # relative; rounds that differ by less are alike
NEAR = 0.9  # of the greatest least period: who takes as much may be what limits
SETTLED = 0.8  # confidence in which the pace of cycles still changes, and no part stands for all
SETTLED_SOON = 0.95  # the same of few batches: intervals are as wide as what that may miss

Clock: TypeAlias = Callable[[Floats], Floats]


def cost(scenario: Scenario, *, fast: bool | None = None) -> float:
    """About what a simulation of `scenario` and its account take, in units of `effort`.

    `fast`: with compiled code; by default, where it is there, for what it has.
    """
    shares = scenario.is_job and not scenario.ideal
    if not (installed() if fast is None else fast) or shares or only_processes(scenario):
        return effort(scenario)
    return fast_effort(scenario)


def takes(scenario: Scenario, *, fast: bool | None = None) -> float:
    """The same as it is: less than its cost, where that is of a dearer case."""
    return min(cost(scenario, fast=fast), seconds_of(scenario) / SECONDS)


def shortened(scenario: Scenario, most: float = RUN, *, fast: bool | None = None) -> Scenario:
    """`scenario` less cycles in its middle, so that simulating it takes about `most` at most.

    Not where one part of the run is unlike another: where errors or records are, where data is
    shared out unevenly or kept in a page cache, or where no number of samples tells what comes.
    """
    whole = cost(scenario, fast=fast)
    if whole <= most or not _alike(scenario):
        return scenario
    epochs = scenario.epochs
    if epochs > EPOCHS:
        epochs = min(max(int(epochs * most / whole), EPOCHS), epochs)
    found = structs.replace(scenario, epochs=epochs)
    affordable = int(counts(found)[0] * RUN / takes(found, fast=fast))
    left_out = _left_out(found, most, cost(found, fast=fast), affordable)
    found = _without(found, left_out) if left_out else found
    return found if cost(found, fast=fast) <= WORTH * whole else scenario


def _left_out(scenario: Scenario, most: float, whole: float, affordable: int) -> int:
    """How many batches are left out of each epoch: whole rounds of the workers."""
    batches, round_ = int(counts(scenario)[0]), _round(scenario)
    kept = max(int(batches * most / whole), _least(scenario, affordable))
    return 0 if kept >= WORTH * batches else (batches - kept) // round_ * round_


def _least(scenario: Scenario, affordable: int) -> int:
    """How many batches of an epoch are simulated in any case: the usual, if that is `affordable`.

    Some rounds always are, and those in which workers get out of step.
    """
    round_, window = _round(scenario), scenario.loader.window
    apart = int(_in_step(scenario) / WARM * round_)
    usual = max(LEAST, ROUNDS * round_, WINDOWS * window)
    if usual <= affordable:
        return max(usual, apart)
    few = max(affordable, FEW_ROUNDS * round_, FEW_WINDOWS * window)
    return max(few, apart)


def _without(scenario: Scenario, batches: int) -> Scenario:
    """`scenario` with so many batches fewer in each epoch, a multiple of its workers."""
    dataset, loader, consumer = scenario.dataset, scenario.loader, scenario.consumer
    samples = batches * (loader.batch_size or 1)
    if isinstance(dataset, IterableDataset) and dataset.sharding == "none":
        samples //= max(loader.num_workers, 1)  # each worker yields all of them
    if loader.sampler is not None:
        sampler = loader.sampler[: len(loader.sampler) - samples]
        scenario = structs.replace(scenario, loader=structs.replace(loader, sampler=sampler))
    else:
        shorter = structs.replace(dataset, length=dataset.length - samples)
        scenario = structs.replace(scenario, dataset=shorter)
    if consumer.stop_after is None:
        return scenario
    sooner = max(consumer.stop_after - batches, 1)
    return structs.replace(scenario, consumer=structs.replace(consumer, stop_after=sooner))


def part_of(part: Scenario, whole: Scenario) -> str:
    """In words, which part of `whole` was simulated: nothing if all of it was."""
    if part == whole:
        return ""
    batches, of = (counts(each)[0] for each in (part, whole))
    words = f" of {batches:,.0f} of {of:,.0f} batches" if batches < of else ""
    if part.epochs < whole.epochs:
        words += f"{' in' if words else ' of'} {part.epochs} of {whole.epochs} epochs"
    return words


def replicated(
    whole: Scenario,
    replications: int,
    seed: int,
    *,
    jobs: int = 1,
    shares: bool = False,
    most: float = RUN,
    fast: bool | None = None,
    before: Replications | None = None,
) -> Replications:
    """`replications` of `whole`, as far as need be simulated: the figures of the whole run.

    What is told from a part, and is better than can be, is simulated whole. `most`, `fast`: see
    `shortened`. `before`: the first of them, which are not simulated again.
    """
    part, measure = shortened(whole, most, fast=fast), measured(whole, shares=shares)
    rows = list[Row]()
    if before is not None:
        part, rows = before.part or whole, before.rows
    found = replicate(part, replications, seed, jobs=jobs, measured=measure, before=rows)
    if part != whole and impossible(whole, found.metrics):
        return replicate(whole, replications, seed, jobs=jobs, measured=measure)
    return Replications(
        whole, seed, found.metrics, found.confidence, None if part == whole else part
    )


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
    round_ = _round(part)
    last = batches - 1 - max(part.loader.window, 1)
    warm = max(int(WARM * batches), 2 * part.loader.window)
    return last - max(last - warm, 0) // round_ * round_, last


def _drift(returned: Floats, part: Scenario) -> float:
    """How much slower the second half of some rounds is; or by how much any two differ."""
    rounds = np.diff(returned[:: _round(part)])
    mean, half = float(rounds.mean()), len(rounds) // 2
    if mean <= 0 or not half:
        return 0.0
    if variation(part) == 0:
        exact = np.finfo(float).eps * abs(float(returned[-1]))  # of sums of floats
        return max(float(np.ptp(rounds)) - 8 * exact, 0.0) / mean
    return (float(rounds[-half:].mean()) - float(rounds[:half].mean())) / mean


def _in_step(scenario: Scenario) -> float:
    """Rounds for which workers that begin together stay in step, where they are what limits.

    What batches take of chance adds up: after n rounds workers are sqrt(n) deviations apart. While
    that is less than half a round, batches come in bursts, and the pace is not yet what it will be.
    """
    loader, dataset, limits = scenario.loader, scenario.dataset, bounds(scenario).periods
    if loader.num_workers < 2 or limits["workers"] < NEAR * max(limits.values()):
        return 0.0
    batched = isinstance(dataset, MapDataset) and dataset.batched
    calls = 1 if batched else loader.batch_size or 1
    times = [time for stage in dataset.fetch for time in (stage.wait, stage.cpu) if time]
    parts = [(calls, time) for time in times]
    parts += [(1, dataset.collate)] if dataset.collate is not None else []
    mean = sum(count * time.mean for count, time in parts)
    variance = sum(count * (cv(time) * time.mean) ** 2 for count, time in parts)
    return (mean / 2) ** 2 / variance if variance else 0.0


def _round(scenario: Scenario) -> int:
    """The batches of a round, in which each worker has one."""
    return max(scenario.loader.num_workers, 1)


def _alike(scenario: Scenario) -> bool:
    """Whether one part of an epoch is like any other, and one epoch like the next."""
    dataset, loader = scenario.dataset, scenario.loader
    uneven = isinstance(dataset, IterableDataset) and dataset.uneven
    times = [scenario.consumer.step, dataset.collate, scenario.jitter]
    times += [time for s in dataset.fetch for time in (s.wait, s.cpu, s.read_bytes)]
    recorded = any(isinstance(time, Recorded) for time in times)
    cached = scenario.machine.storage.cache > 0 and scenario.epochs > 1
    listed = loader.batch_sampler is not None or scenario.failures or loader.timeout > 0
    endless = loader.endless and scenario.epochs > 1
    wild = not np.isfinite(variation(scenario))
    apart = scenario.is_job or scenario.validation is not None
    return not (uneven or recorded or cached or listed or endless or wild or apart)
