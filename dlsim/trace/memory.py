"""Will it fit: what batches on their way take, in the workers, in /dev/shm, pinned, in all.

A batch has `size * mean sample_bytes` bytes. It takes memory in its worker from `started`; from
`fetched` on it is in /dev/shm (`path="shm"`, where torch's default collate puts it at once) or
in ordinary memory (`path="pipe"`); a pin-memory thread copies it into pinned memory when it is
`received`. The loop variable of `for batch in loader` keeps it until the next batch is returned,
in the next epoch, too: so both are there at that moment, and what goes then goes after what came.
What is sent at a moment cannot have come yet when others go at that moment.

In /dev/shm each batch is a file for each of its tensors. Whoever has one open holds a descriptor:
its worker until it is received, the main process until it lets go of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dlsim.scenario import Cost, Scenario
from dlsim.trace.levels import Levels, levels
from dlsim.trace.metrics import epoch_ends, given_back, span
from dlsim.trace.trace import DISCARDED, FAILED, RETURNED, Floats, Integers, Trace, TraceError

SHM, MEMORY, DESCRIPTORS = "/dev/shm", "memory", "file descriptors"

# Counted with torch 2.13 on Linux: what a process of a loader has open besides batches.
OWN_DESCRIPTORS, FOR_EACH_WORKER = 9, 4


@dataclass(frozen=True, eq=False)
class Memory:
    """Bytes over time: in the workers, in /dev/shm, pinned, and all together."""

    workers: Levels
    shm: Levels
    pinned: Levels
    total: Levels


@dataclass(frozen=True, kw_only=True)
class Use:
    """The most that is taken of a resource at a time, and what there is of it.

    `resource`: /dev/shm or memory, in bytes; or file descriptors, those of the process that has
    most of them open. `limit`: None where it is not stated. `batch`: the first that outgrows it,
    -1 if none does.
    """

    resource: str
    needed: float
    limit: float | None
    batch: int = -1

    @property
    def outgrown(self) -> bool:
        """Whether more is needed than there is."""
        return self.limit is not None and self.needed > self.limit


@dataclass(frozen=True)
class Overflow:
    """What does not fit: `resource` needs `needed` and has `limit`, first for `batch`.

    `largest_window` is the largest credit window (num_workers * prefetch_factor) for which it
    would, however slow the training step: 0 if none would.
    """

    resource: str
    batch: int
    needed: float
    limit: float
    largest_window: int


def memory(trace: Trace) -> Memory:
    """The bytes of all batches over time; the most at a time counts what is there for a moment.

    Raises `TraceError` for a trace without a scenario, which would say how big a sample is.
    """
    scenario = _scenario(trace)
    size = np.rint(trace.size * scenario.dataset.sample_bytes.mean)
    workers = levels(trace.started, trace.fetched, *span(trace), size)
    shm, pinned, total = (_levels(trace, place, size) for place in ("shm", "pinned", "total"))
    if crossing(scenario):
        shm = replace(shm, peak=max(shm.max, _at_once(trace, scenario) * size.max(initial=0.0)))
    return Memory(workers=workers, shm=shm, pinned=pinned, total=total)


def uses(trace: Trace) -> list[Use]:
    """What the batches of a run take of /dev/shm, of memory, and of file descriptors, at most.

    Raises `TraceError` for a trace without a scenario.
    """
    scenario = _scenario(trace)
    machine, used = scenario.machine, memory(trace)
    size = np.rint(trace.size * scenario.dataset.sample_bytes.mean)
    stays = _stays(trace)
    found = [
        Use(
            resource=resource,
            needed=float(level.max),
            limit=limit,
            batch=_first_over(trace, *stays[place], size, limit),
        )
        for resource, limit, level, place in (
            (SHM, machine.shm, used.shm, "shm"),
            (MEMORY, machine.memory, used.total, "total"),
        )
    ]
    if scenario.through_shm:
        found.append(_descriptors(trace, scenario))
    return found


def overflow(trace: Trace) -> Overflow | None:
    """What outgrows the machine (`machine.shm`, `memory`, `descriptors`), and at which batch.

    None if nothing does.
    """
    scenario = _scenario(trace)
    for use in uses(trace):
        if use.limit is not None and use.outgrown:
            batch = int(trace.size.max(initial=0))
            most = largest_window(scenario, use.resource, use.limit, batch)
            return Overflow(use.resource, max(use.batch, 0), use.needed, use.limit, most)
    return None


def largest_window(scenario: Scenario, resource: str, limit: float, samples: float) -> int:
    """The largest credit window whose batches, of so many samples, fit into `limit`.

    As many batches as the window has can be fetched and not returned, and the training loop
    keeps one more; not in /dev/shm, if they are pinned. Where iterators are rebound, there are
    two windows at a time.
    """
    each = samples * scenario.dataset.sample_bytes.mean
    kept = 1
    if resource == DESCRIPTORS:
        each = float(scenario.dataset.tensors)
        limit -= own_descriptors(scenario)
    elif resource == SHM and scenario.pins:
        kept = 0
    sets = 2 if scenario.rebinds and scenario.epochs > 1 else 1  # of workers at a time
    return max(0, int(limit // each) - kept) // sets if each else 0


def crossing(scenario: Scenario) -> bool:
    """Whether batches only cross /dev/shm, being pinned, in a time that nobody has stated."""
    costs = scenario.charged
    return scenario.pins and scenario.through_shm and costs.receive == costs.pin == Cost()


def own_descriptors(scenario: Scenario) -> int:
    """How many descriptors a process of the loader has open besides those of batches, about."""
    return OWN_DESCRIPTORS + FOR_EACH_WORKER * scenario.loader.num_workers


def _at_once(trace: Trace, scenario: Scenario) -> int:
    """How many batches are in /dev/shm at a time where it is not stated how soon they leave it.

    One of each worker that has any: it has left when the worker has made another one.
    """
    return len(np.unique(trace.worker[~np.isnan(trace.fetched) & (trace.worker >= 0)]))


def _stays(trace: Trace) -> dict[str, tuple[Floats, Floats]]:
    """When each batch comes to each place, and when it goes; NaN for one that never comes."""
    scenario = _scenario(trace)
    released = _released(trace)
    nowhere = np.full(len(trace), np.nan)
    copied = trace.received if scenario.pins else nowhere
    shared = (trace.worker >= 0) & scenario.through_shm
    return {
        "shm": (
            np.where(shared, trace.fetched, np.nan),
            np.where(np.isnan(copied), released, copied),
        ),
        "pinned": (copied, released),
        "total": (trace.started, released),
    }


def _descriptors(trace: Trace, scenario: Scenario) -> Use:
    """The descriptors of the process that has most of them open: main, or one of the workers."""
    own, limit = own_descriptors(scenario), scenario.machine.descriptors
    tensors = np.full(len(trace), float(scenario.dataset.tensors))
    room = None if limit is None else limit - own
    found = [
        Use(
            resource=DESCRIPTORS,
            needed=own + _peak(trace, come, go, tensors, most),
            limit=limit,
            batch=_first_over(trace, come, go, tensors, room),
        )
        for come, go, most in _open(trace, scenario)
    ]
    return max(found, key=lambda use: use.needed)


def _open(trace: Trace, scenario: Scenario) -> Iterator[tuple[Floats, Floats, int]]:
    """From when to when each batch has files open, for main and each of the workers.

    And of how many batches at most: a pin-memory thread has those of one open.
    """
    loader = scenario.loader
    released, batch = _released(trace), ~np.isnan(trace.fetched)
    sets = 2 if scenario.rebinds else 1  # of workers, where an epoch begins
    here = np.where(batch, trace.received, np.nan)
    yield (here, here, 1) if scenario.pins else (here, released, sets * loader.window + 1)
    sent = np.where(np.isnan(trace.received), epoch_ends(trace), trace.received)
    each = loader.window // loader.num_workers if loader.in_order else loader.window
    for worker in range(loader.num_workers):
        yield np.where(trace.worker == worker, trace.fetched, np.nan), sent, each


def _released(trace: Trace) -> Floats:
    """For each batch, when the main process lets go of it."""
    gone = given_back(trace)
    order = trace.order
    if len(order):
        gone[order[:-1]] = trace.returned[order[1:]]
        gone[order[-1]] = span(trace)[1]
    kept = np.isin(trace.status, (RETURNED, DISCARDED, FAILED))
    return np.where(kept, gone, epoch_ends(trace.as_one_epoch))


def _events(trace: Trace, come: Floats, go: Floats, weight: Floats) -> tuple[Integers, Floats]:
    """The batches that come and go, in order, and how much there is after each has.

    At one moment those come first that were sent before, then others go, then those come that were
    sent at this moment.
    """
    there = np.flatnonzero(~np.isnan(come))
    come, sent, weight = come[there], trace.sent[there], weight[there]
    go = np.fmax(np.where(np.isnan(go[there]), np.inf, go[there]), come)
    late = sent >= come
    phases = np.concatenate((np.where(late, 2, 0), np.where(late & (go == come), 3, 1)))
    times, changes = np.concatenate((come, go)), np.concatenate((weight, -weight))
    order = np.lexsort((phases, times))
    return np.concatenate((there, there))[order], np.cumsum(changes[order])


def _peak(trace: Trace, come: Floats, go: Floats, weight: Floats, most: int) -> float:
    """The most at a time, never more than `most` batches.

    Where nothing takes time, several are returned at one moment, whose order is not known here.
    """
    bound = most * weight.max(initial=0.0)
    return float(min(_events(trace, come, go, weight)[1].max(initial=0.0), bound))


def _first_over(trace: Trace, come: Floats, go: Floats, weight: Floats, limit: float | None) -> int:
    """The batch with which more is there than `limit`, or -1."""
    if limit is None:
        return -1
    batches, counts = _events(trace, come, go, weight)
    over = np.flatnonzero(counts > limit)
    return int(batches[over[0]]) if len(over) else -1


def _levels(trace: Trace, place: str, weight: Floats) -> Levels:
    scenario, (come, go) = _scenario(trace), _stays(trace)[place]
    kept = 0 if place == "shm" and scenario.pins else 1
    most = (2 if scenario.rebinds else 1) * max(scenario.loader.window, 1) + kept
    peak = _peak(trace, come, go, weight, most)
    return replace(levels(come, go, *span(trace), weight), peak=peak)


def _scenario(trace: Trace) -> Scenario:
    if trace.meta.scenario is None:
        raise TraceError("memory: expected a trace with a scenario, got one that has none")
    return trace.meta.scenario
