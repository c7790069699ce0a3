"""What starting workers and moving batches cost, from accounts of observed runs and a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import Cost, Costs, Start
from dlsim.validation.calibrating.accounts import Accounts, by_start_method, together
from dlsim.validation.calibrating.fitting import fit
from dlsim.validation.calibrating.lock import mean_share

# About, in a pin-memory thread beside an H100; what was observed decides (docs/device.md).
PINNING = Cost(message=60e-6, tensor=20e-6, byte=0.3e-9)
NOTICEABLE = 1e-3  # of a start; less is the system's, and in the latency
ONCE = (("begin",), ("begin_wait", "begin_cpu"))  # what others may spare a process, together
COLD = 1.25  # times as long as in another run, and it was not spared


def costs_of(
    runs: Sequence[Accounts], transport: Costs, all_runs: Sequence[Accounts] = ()
) -> Costs:
    """What was observed of each cost; what was not, from the probe.

    `all_runs`, by default `runs`, tell of first samples, of what workers are blocked for before
    them, and how far they are held up.
    """
    all_runs = all_runs or runs
    alike, *others = by_start_method(runs)

    def mean(name: str, otherwise: float, of: Sequence[Accounts] = runs) -> float:
        # what the clocks' steps make of next to nothing may be less than nothing
        values = together(of, name)
        return max(float(values.mean()), 0.0) if len(values) else otherwise

    waited = mean("begin", 0.0, all_runs)
    latency, jitter = together(runs, "latency"), together(runs, "jitter")
    take = mean("take", transport.take)
    known = float(np.quantile(latency, 0.25)) if len(latency) else transport.index_latency
    tensors, size = runs[0].tensors, runs[0].bytes

    def adapted(name: str) -> Cost:
        unit: Cost = getattr(transport, name)
        return growing(matched(unit, mean(name, unit.of(tensors, size)), tensors, size), runs[0])

    collated = [run.collate.mean() for run in runs if run.scenario.loader.num_workers]
    share = transport.share if runs[0].path == "shm" else Cost()
    if collated and share.of(tensors, size) > min(collated):
        share = share.times(float(min(collated)) / share.of(tensors, size))
    worker_start, first_start = starting(alike)
    return Costs(
        worker_start=transport.worker_start if worker_start is None else worker_start,
        first_start=first_start,
        worker_ready=mean("ready", transport.worker_ready, alike),
        worker_wait=waited if waited >= NOTICEABLE else 0.0,
        first_sample=mean("begin_wait", 0.0, all_runs),
        first_cpu=mean("begin_cpu", 0.0, all_runs),
        first_serialise=mean("begin_serialise", 0.0),
        first_next=mean("begin_next", 0.0),
        first_receive=mean("begin_receive", 0.0),
        worker_stop=mean("stop", transport.worker_stop),
        index_put=mean("put", transport.index_put),
        first_put=mean("begin_put", 0.0),
        index_latency=max(known - take, 0.0),
        take=take,
        share=growing(share, runs[0]),
        serialise=adapted("serialise"),
        hand_over=adapted("hand_over"),
        lock=mean_share(together(all_runs, "lock")),
        receive=adapted("receive"),
        reading=share_of(mean("reading", 0.0), mean("receive", 0.0)),
        jitter=fit(jitter).distribution if len(jitter) else transport.jitter,
        pin=pinning(runs),
        copy_byte=float(np.nan_to_num(np.mean([run.copy for run in runs]) / max(size, 1.0))),
        starts=tuple(
            Start(
                method=group[0].scenario.loader.start_method,
                worker_start=mean("start", transport.worker_start, group),
                worker_ready=mean("ready", transport.worker_ready, group),
            )
            for group in others
        ),
    )


def share_of(part: float, whole: float) -> float:
    """What share of the `whole` a `part` of it is; none of nothing."""
    return min(part / whole, 1.0) if whole > 0 else 0.0


def without_cold(runs: Sequence[Accounts]) -> list[Accounts]:
    """The runs, and of how workers begin only what a later run will find.

    Who opens a file, or imports something, that nobody has read since the machine was started, or
    that is compiled then, takes longer, and leaves it read and compiled for others.
    """
    found = list(runs)
    for names in ONCE:
        of_runs = [[getattr(run, name) for name in names] for run in runs]
        took = [sum(part.mean() for part in parts if len(part)) for parts in of_runs]
        known = [seconds for seconds, parts in zip(took, of_runs, strict=True) if len(parts[0])]
        most = COLD * min(known, default=0.0) + NOTICEABLE
        for place, seconds in enumerate(took):
            if seconds > most:
                nothing: dict[str, Any] = dict.fromkeys(names, np.empty(0))
                found[place] = replace(found[place], **nothing)
    return found


def starting(runs: Sequence[Accounts]) -> tuple[float | None, float]:
    """Seconds to start a worker, and those that the first one takes longer; None: none was seen.

    Runs of different numbers of workers tell the two apart.
    """
    workers = np.concatenate(
        [np.full(len(run.start), float(run.scenario.loader.num_workers)) for run in runs]
    )
    each = together(runs, "start")
    if not len(each):
        return None, 0.0
    apart, whole = workers - workers.mean(), workers * each
    slope = float(apart @ whole / (apart @ apart)) if apart.any() else 0.0
    rest = float(whole.mean() - slope * workers.mean())
    return (slope, rest) if slope > 0 and rest > 0 else (float(each.mean()), 0.0)


def shared(run: Accounts, costs: Costs) -> float:
    """Seconds of collating a batch that go into putting it into shared memory."""
    return costs.share.of(run.tensors, run.bytes) if run.scenario.loader.num_workers else 0.0


def growing(cost: Cost, run: Accounts) -> Cost:
    """The `cost` with that of tensors which come with samples as one of bytes, which do, too.

    So it grows with the batch; of a batch as large as those of the run, it is the same.
    """
    if not run.listed or not run.bytes:
        return cost
    others = 1 - run.listed / run.tensors
    byte = cost.byte + cost.tensor * run.listed / run.bytes
    return Cost(message=cost.message, tensor=others * cost.tensor, byte=byte)


def pinning(runs: Sequence[Accounts]) -> Cost:
    """What copying a batch into pinned memory takes, once there is enough of it.

    The typical batch tells: the first ones are given new memory, which later ones use again.
    """
    pins = together(runs, "pin")
    if not len(pins):
        return Cost()
    found = matched(PINNING, float(np.median(pins)), runs[0].tensors, runs[0].bytes)
    return growing(found, runs[0])


def matched(unit: Cost, seconds: float, tensors: float, size: float) -> Cost:
    """The cost `unit`, changed so that a batch of these contents takes `seconds`.

    What a large batch takes longer than the probe's grows with its bytes.
    """
    expected = unit.of(tensors, size)
    if seconds > expected and size > 65536:
        return msgspec.structs.replace(unit, byte=unit.byte + (seconds - expected) / size)
    return unit.times(seconds / expected) if expected > 0 else Cost(message=seconds)
