"""What all ranks of a job saw, as one job: on one clock, with how they waited for each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import IterableDataset, Job, Scenario
from dlsim.trace.job import JobTrace
from dlsim.trace.observation import Observation, later
from dlsim.trace.trace import Floats, Trace, TraceError

FEWEST = 4  # meetings by which it is known that ranks meet


def join(seen: Sequence[Trace]) -> JobTrace:
    """The job whose ranks were watched, `seen` in any order; times count from the first beginning.

    Ranks of one machine have one clock; those of others are set by when ranks went on together.
    Where the steps themselves make ranks meet, and not dlsim, they are taken to meet after each
    n-th, n as small as can be: nobody left such a step before everyone had entered it. How long a
    rank waited then is by how much longer it was blocked in the step than the one that was blocked
    the least; of an epoch's last step that is not known, and 0. So what steps are blocked for
    themselves must be alike on all ranks; what they compute need not be.

    Raises `TraceError` for traces that do not belong together, or are not of ranks.
    """
    ranks = in_order(seen)
    about = [json.loads(one.meta.notes["rank"]) for one in ranks]
    if about[0]["meets"]:
        every: int | str = 1
    else:
        every = meeting(ranks, about)
        if isinstance(every, int):
            ranks = list(map(waiting, ranks, waited(ranks, every)))
    ranks = on_one_clock(ranks, about, meets=isinstance(every, int))
    ranks = without_others(ranks, about)
    scenario = of_all([one.meta.scenario for one in ranks], every)
    found = []
    for rank, one in enumerate(ranks):
        mine = scenario
        if scenario is not None and scenario.job.world > 1:
            mine = msgspec.structs.replace(scenario, job=scenario.job.seen_by(rank))
        found.append(replace(one, meta=msgspec.structs.replace(one.meta, scenario=mine)))
    problems = [one.meta.problem for one in found if one.meta.problem is not None]
    problem = min(problems, key=lambda problem: problem.time, default=None)
    meta = msgspec.structs.replace(
        found[0].meta, scenario=scenario, problem=problem, notes={"ranks": f"{len(found)} watched"}
    )
    return JobTrace(ranks=tuple(found), meta=meta)


def in_order(seen: Sequence[Trace]) -> list[Observation]:
    """The traces by rank. Raises `TraceError` unless they are of all ranks of one job."""
    known: dict[int, Observation] = {}
    worlds = set()
    for one in seen:
        note = one.meta.notes.get("rank")
        if not isinstance(one, Observation) or note is None:
            raise TraceError("job: expected traces of ranks that were watched, got another trace")
        about = json.loads(note)
        worlds.add((about["world"], about["ranks"], about["meets"]))
        if about["rank"] in known:
            raise TraceError(f"job: expected each rank once, got rank {about['rank']} twice")
        known[about["rank"]] = one
    if len(worlds) != 1:
        sizes = sorted(world for world, _, _ in worlds)
        raise TraceError(f"job: expected ranks of one job, got those of jobs of {sizes} ranks")
    world = worlds.pop()[0]
    if missing := sorted({*range(world)} - known.keys()):
        raise TraceError(f"job: expected {world} ranks, got no trace of rank {missing[0]}")
    return [known[rank] for rank in range(world)]


def meeting(ranks: Sequence[Observation], about: Sequence[dict[str, Any]]) -> int | str:
    """After how many steps of an epoch ranks meet, or "never"; by clocks that are the same."""
    if len({one["clock"] for one in about}) > 1 or len(ranks) == 1:
        return 1  # they could not be told apart
    zeros = [one["began"] for one in about]
    steps = min(len(one.order) for one in ranks)
    entered = np.array(
        [r.entered[r.order[:steps]] + zero for r, zero in zip(ranks, zeros, strict=True)]
    )
    left = np.array(
        [r.finished[r.order[:steps]] + zero for r, zero in zip(ranks, zeros, strict=True)]
    )
    apart = left.min(axis=0) < entered.max(axis=0)  # somebody had left before somebody came
    first = ranks[0].epochs.first[ranks[0].epoch_of(ranks[0].order[:steps])]
    place = np.arange(steps) - first
    for every in range(1, steps // FEWEST + 1):
        if not apart[place % every == every - 1].any():
            return every
    return "never"


def waited(ranks: Sequence[Observation], every: int) -> list[Floats]:
    """Seconds that each rank waited in each of its steps, by batch number."""
    steps = min(len(one.order) for one in ranks)
    blocked = np.array([blocked_in_steps(one)[:steps] for one in ranks])
    longer = np.nan_to_num(blocked - blocked.min(axis=0))
    found = []
    for one, mine in zip(ranks, longer, strict=True):
        order = one.order[:steps]
        place = np.arange(steps) - one.epochs.first[one.epoch_of(order)]
        waits = np.zeros(len(one))
        waits[order] = np.where(place % every == every - 1, mine, 0.0)
        found.append(waits)
    return found


def blocked_in_steps(seen: Observation) -> Floats:
    """Seconds of each step, in order, in which the host neither computed nor waited for a core.

    Of a step on an accelerator, all that it took. NaN where it was not seen.
    """
    order, then = seen.order, np.roll(seen.order, -1)
    wall = seen.requested[then] - seen.returned[order]
    computed = seen.thread_requested[then] - seen.thread_returned[order]
    queued = seen.queued_requested[then] - seen.queued_returned[order]
    host = np.maximum(wall - computed - queued, 0.0)
    host[seen.epoch_of(order) != seen.epoch_of(then)] = np.nan
    host[-1:] = np.nan
    device = (seen.device_ended - seen.device_began)[order]
    found: Floats = np.where(np.isnan(device), host, device)
    return found


def waiting(seen: Observation, waits: Floats) -> Observation:
    """The trace, with so many seconds of each step spent on waiting for others at its end."""
    began = np.fmax(seen.entered, seen.device_began)
    longest = np.maximum(np.nan_to_num(seen.finished - began), 0.0)
    return replace(seen, stepped=seen.finished - np.minimum(waits, longest))


def on_one_clock(
    ranks: Sequence[Observation], about: Sequence[dict[str, Any]], *, meets: bool
) -> list[Observation]:
    """The traces with times that count from when the first rank began."""
    zeros = [one["began"] for one in about]
    for rank, one in enumerate(about):
        if one["clock"] == about[0]["clock"]:
            continue
        steps = min(len(ranks[rank].order), len(ranks[0].order))
        if not meets or not steps:
            raise TraceError(f"job: expected ranks that meet, as the clock of rank {rank} differs")
        here, there = (r.finished[r.order[:steps]] for r in (ranks[0], ranks[rank]))
        zeros[rank] = zeros[0] + float(np.median(here - there))
    first = min(zeros)
    return [later(one, zero - first) for one, zero in zip(ranks, zeros, strict=True)]


def without_others(
    ranks: Sequence[Observation], about: Sequence[dict[str, Any]]
) -> list[Observation]:
    """The traces, in which other ranks on the same machine do not count as foreign."""
    facts = [json.loads(one.meta.notes["machine"]) for one in ranks]
    used = [one.get("ours", 0.0) for one in facts]
    found = []
    for rank, (seen, machine) in enumerate(zip(ranks, facts, strict=True)):
        theirs = sum(
            cores
            for other, cores in enumerate(used)
            if other != rank and about[other]["clock"] == about[rank]["clock"]
        )
        if "foreign" in machine:
            machine["foreign"] = max(machine["foreign"] - theirs, 0.0)
        notes = seen.meta.notes | {"machine": json.dumps(machine)}
        found.append(replace(seen, meta=msgspec.structs.replace(seen.meta, notes=notes)))
    return found


def of_all(scenarios: Sequence[Scenario | None], every: int | str) -> Scenario | None:
    """The job that all ranks' settings make together; None where one of them is not known.

    Indices that ranks drew for themselves are dealt in turn from one list; what the workers of an
    iterable-style dataset yielded is what each has.
    """
    known = [scenario for scenario in scenarios if scenario is not None]
    first = known[0] if len(known) == len(scenarios) else None
    if first is None or first.job.world == 1:
        return first
    job: Job = msgspec.structs.replace(first.job, rank=None, sync=every)
    loader, dataset = first.loader, first.dataset
    if isinstance(dataset, IterableDataset):
        counts = tuple(n for one in known for n in _sharding(one))
        dataset = msgspec.structs.replace(dataset, sharding=counts, length=sum(counts))
        job = msgspec.structs.replace(job, deal="distributed")
    for key in ("sampler", "batch_sampler"):
        lists: list[Any] = [getattr(one.loader, key) for one in known]
        if lists[0] is None:
            continue
        if len({len(each) for each in lists}) > 1:
            return None
        if any(each != lists[0] for each in lists):
            together = tuple(entry for row in zip(*lists, strict=True) for entry in row)
            loader = msgspec.structs.replace(loader, **{key: together})
            deal = "distributed" if key == "sampler" else "batches"
            job = msgspec.structs.replace(job, deal=deal)
    return msgspec.structs.replace(first, loader=loader, dataset=dataset, job=job)


def _sharding(scenario: Scenario) -> tuple[int, ...]:
    """How many samples each worker of a rank yielded."""
    found: Any = scenario.dataset
    counts: tuple[int, ...] = found.sharding
    return counts
