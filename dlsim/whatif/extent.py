"""How much of a run need be simulated: what goes on in the same way is stretched, not simulated.

A long epoch is left early, and its second half stands for all that would follow: in the `clock` of
the whole run that half goes by as often as it would have to. Waits, steps and pieces of the
critical path are then measured by that clock. What leaving the loop early takes does not count:
it is the simulation that leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from msgspec import structs

from dlsim.engine.effort import counts, effort
from dlsim.scenario import IterableDataset, Recorded, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace import Trace, metrics
from dlsim.trace.account import account
from dlsim.trace.critical_path import causes
from dlsim.whatif.parallel import Measure, Row, Run, meeting

SHARE, IDLE = "share of ", "idle for "
LEAST, WINDOWS = 100, 5  # batches, and credit windows, that are simulated of any epoch
WORTH = 0.75  # an epoch is left early only if that saves a quarter of it
REPEATS = 50  # how often the second half counts at most, for a percentile

Clock: TypeAlias = Callable[[Floats], Floats]


def shortened(scenario: Scenario, most: float) -> Scenario:
    """`scenario`, each epoch left so early that a simulation takes an `effort` of about `most`.

    Not where one part of the run is unlike another: where errors or records are, where data is
    shared out unevenly or kept in a page cache; nor where the next epoch goes on with what is left.
    """
    batches, _, _ = counts(scenario)
    whole = effort(scenario)
    if whole <= most or not _alike(scenario):
        return scenario
    left = max(int(batches * most / whole), LEAST, WINDOWS * scenario.loader.window)
    if left > WORTH * batches:
        return scenario
    consumer = structs.replace(scenario.consumer, stop_after=left)
    return structs.replace(scenario, consumer=consumer)


def part_of(part: Scenario, whole: Scenario) -> str:
    """In words, which part of `whole` was simulated: nothing if all of it was."""
    if part == whole:
        return ""
    return f" of the first {counts(part)[0]:,.0f} of {counts(whole)[0]:,.0f} batches"


def measured(whole: Scenario, *, shares: bool = False) -> Measure:
    """What measures, of a trace of `whole` shortened, the whole run.

    In each row the main figures of `dlsim.trace.Summary`; `failed`; `basis`, the batches that they
    rest on; and, with `shares`, the share of each cause on the critical path, and that of the
    elapsed time for which it keeps the accelerator idle.
    """
    return partial(_measured, whole=whole, shares=shares)


def _measured(run: Run, *, whole: Scenario, shares: bool) -> Row:
    if isinstance(run, Trace):
        return _measured_rank(run, whole, shares=shares)
    rows = [_measured_rank(trace, whole, shares=shares) for trace in run.ranks]
    names = {name: None for row in rows for name in row}
    found = {name: float(np.mean([row.get(name, 0.0) for row in rows])) for name in names}
    elapsed = max(row["elapsed"] for row in rows)
    for name in ("samples", "batches"):
        total = sum(row[f"{name}_per_s"] * row["elapsed"] for row in rows)
        found[f"{name}_per_s"] = metrics.ratio(total, elapsed)
    found |= {
        "batches": sum(row["batches"] for row in rows),
        "elapsed": elapsed,
        "au": min(row["au"] * row["elapsed"] for row in rows) / elapsed if elapsed else metrics.NAN,
        "failed": max(row["failed"] for row in rows),
    }
    return found | meeting(run)


def _measured_rank(trace: Trace, whole: Scenario, *, shares: bool) -> Row:
    clock, weights = stretched(trace, int(counts(whole)[0]))
    order = trace.order
    begin, end = clock(np.array(metrics.span(trace)))
    elapsed = float(end - begin)
    waited = clock(trace.returned[order]) - clock(trace.requested[order])
    began, ended = (clock(moments) for moments in metrics.busy(trace))
    busy = metrics.ratio(metrics.total(ended - began), elapsed)
    epochs = clock(trace.epochs.ended) - clock(trace.epochs.started)
    samples = metrics.samples(trace) + float(((weights - 1) * trace.size[order]).sum())
    waits = np.repeat(metrics.waits(trace), np.minimum(weights, REPEATS).round().astype(int))
    row = {
        "samples_per_s": metrics.ratio(samples, elapsed),
        "batches_per_s": metrics.ratio(float(weights.sum()), elapsed),
        "batches": float(weights.sum()),
        "elapsed": elapsed,
        "wait_mean": metrics.ratio(metrics.total(waited), float(weights.sum())),
        "epoch_time": metrics.mean(epochs),
        "wait_p95": float(np.percentile(waits, 95)) if len(waits) else metrics.NAN,
        "stall": 1 - busy,
        "au": busy,
        "failed": float(trace.meta.problem is not None),
        "basis": float(len(order) if weights.max(initial=1.0) == 1.0 else (weights > 1).sum()),
    }
    if shares:
        found = causes(trace, clock)
        whole_path = sum(found.values())
        row |= {SHARE + cause: seconds / whole_path for cause, seconds in found.items()}
        row |= {IDLE + cause: share for cause, share in account(trace, clock).shares.items()}
    return row


def stretched(trace: Trace, batches: int) -> tuple[Clock, Floats]:
    """The clock of the whole run, and how many batches each batch returned stands for.

    `batches`: of a whole epoch. A trace that an error ended is the whole run.
    """
    order, epochs = trace.order, trace.epochs
    weights = np.ones(len(order))
    if trace.meta.problem is not None:
        return lambda moments: moments, weights
    scenario = trace.meta.scenario
    left = scenario is not None and scenario.consumer.stop_after is not None
    numbers = np.arange(len(trace))
    knots, values = [-np.inf], [0.0]  # moments, and how much later they are in the whole run
    for epoch, ended in enumerate(epochs.ended):
        mine = np.flatnonzero(trace.epoch_of(order) == epoch)
        if not len(mine):
            continue
        half = mine[len(mine) // 2]
        times = (batches - len(mine)) / max(mine[-1] - half, 1)
        last = float(np.fmax.reduce(trace.finished[order[mine]]))
        if times > 0:
            weights[half + 1 : mine[-1] + 1] += times
            begin, end = trace.returned[order[half]], trace.returned[order[mine[-1]]]
            knots += [begin, end]
            values += [values[-1], values[-1] + times * (end - begin)]
        if left and last < ended:
            knots += [last, ended]
            values += [values[-1], values[-1] - (ended - last)]
        if left and epoch + 1 < len(epochs.started):
            # persistent workers finish what they were sent before the next epoch is served
            begin = epochs.started[epoch + 1]
            served = float(np.fmax.reduce(trace.fetched[trace.epoch_of(numbers) == epoch]))
            if served > begin:
                knots += [begin, served]
                values += [values[-1], values[-1] - (served - begin)]
    at, later = np.array(knots[1:]), np.array(values[1:])
    if not len(at):
        return lambda moments: moments, weights
    return lambda moments: moments + np.interp(moments, at, later, left=0.0), weights


def _alike(scenario: Scenario) -> bool:
    """Whether one part of an epoch is like any other."""
    dataset, loader = scenario.dataset, scenario.loader
    uneven = isinstance(dataset, IterableDataset) and not isinstance(dataset.sharding, str)
    times = [scenario.consumer.step, dataset.collate]
    times += [time for s in dataset.fetch for time in (s.wait, s.cpu, s.read_bytes)]
    recorded = any(isinstance(time, Recorded) for time in times)
    cached = scenario.machine.storage.cache > 0 and scenario.epochs > 1
    uneven = uneven or (scenario.is_job and not scenario.job.even_batches)
    listed = loader.batch_sampler is not None or scenario.failures
    return not (uneven or recorded or cached or listed or loader.endless)
