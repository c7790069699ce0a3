"""Will it fit: what batches on their way take, in the workers, in /dev/shm, pinned, in all.

A batch has `size * mean sample_bytes` bytes. It takes memory in its worker from `started`; from
`fetched` on it is in /dev/shm (`path="shm"`, where torch's default collate puts it at once) or
in ordinary memory (`path="pipe"`); a pin-memory thread copies it into pinned memory when it is
`received`. The loop variable of `for batch in loader` keeps it until the next batch is returned,
in the next epoch, too: so both are there at that moment, and what goes then goes after what came.
What is sent at a moment cannot have come yet when others go at that moment.

What batches of validation take is there besides: all of it together is what has to fit.

In /dev/shm each batch is a file for each of its tensors. Whoever has one open holds a descriptor:
its worker until it is received, the main process until it lets go of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlsim.scenario import Cost, IterableDataset, Scenario
from dlsim.trace.columns import ALL, distinct_values, new_column, parts
from dlsim.trace.levels import Levels, Peak, levels
from dlsim.trace.metrics import epoch_ends, span
from dlsim.trace.stays import Stay, given_back, horizons
from dlsim.trace.trace import DISCARDED, FAILED, RETURNED, Floats, Trace, TraceError

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


def memory(trace: Trace) -> Memory:
    """The bytes of all batches over time; the most at a time counts what is there for a moment.

    Raises `TraceError` for a trace without a scenario, which would say how big a sample is.
    """
    claimed = [(each, _claims(each, scenario_of(each))) for each in _both(trace)]
    size = np.concatenate([_bytes(each)(ALL) for each, _ in claimed])

    def over_time(stays: Sequence[tuple[Floats, Floats]]) -> Levels:
        come, go = (np.concatenate(moments) for moments in zip(*stays, strict=True))
        return levels(come, go, *span(trace), size)

    workers = over_time([(each.started, each.fetched) for each, _ in claimed])
    shm, pinned, total = (
        replace(
            over_time([claims[i].stay(ALL) for _, claims in claimed]),
            peak=use.needed - claimed[0][1][i].own,
        )
        for i, use in enumerate(_all_uses(claimed))
    )
    return Memory(workers=workers, shm=shm, pinned=pinned, total=total)


def uses(trace: Trace) -> list[Use]:
    """What a run takes of /dev/shm, of memory, and of file descriptors, at most.

    Of memory it is what batches take, and processes besides them, as far as that is stated.

    Raises `TraceError` for a trace without a scenario.
    """
    shm, _, whole = _all_uses([(each, _claims(each, scenario_of(each))) for each in _both(trace)])
    most = max(_opened_files(trace), key=lambda use: use.needed, default=None)
    return [shm, whole] if most is None else [shm, whole, most]


def _both(trace: Trace) -> list[Trace]:
    """The trace of the loader, and that of validation, where there is any."""
    own = trace.of_loader
    return [own] if trace.validation is None else [own, trace.validation]


def _opened_files(trace: Trace) -> list[Use]:
    """The descriptors of each process: the main one has those of training and validation."""
    own = own_descriptors(scenario_of(trace))
    shared = [one for one in _both(trace) if scenario_of(one).through_shm]
    each = [(one, _opened(one, scenario_of(one), own)) for one in shared]
    mains = _all_uses([(one, claims[:1]) for one, claims in each]) if each else []
    return [*mains, *(use for one, claims in each for use in _uses(one, claims[1:]))]


def crossing(scenario: Scenario) -> bool:
    """Whether batches only cross /dev/shm, being pinned, in a time that nobody has stated."""
    costs = scenario.charged
    return scenario.pins and scenario.through_shm and costs.receive == costs.pin == Cost()


def own_descriptors(scenario: Scenario) -> int:
    """How many descriptors a process of the loader has open besides those of batches, about."""
    own = scenario.validation
    workers = scenario.loader.num_workers + (0 if own is None else own.loader.num_workers)
    return OWN_DESCRIPTORS + FOR_EACH_WORKER * workers


@dataclass(frozen=True)
class _Claim:
    """What batches take of a resource: from when to when, and how much each.

    `most`: of how many at a time, at most. Where nothing takes time, several are returned at one
    moment, whose order is not known here. `each`: of one of every worker that has any, at least.
    `own`: what is taken besides.
    """

    resource: str
    stay: Stay
    weight: Callable[[slice], Floats]
    most: int
    limit: float | None
    own: float = 0
    each: bool = False


def _uses(trace: Trace, claims: list[_Claim]) -> list[Use]:
    """What comes of each of the `claims`."""
    peaks = [Peak(None if c.limit is None else c.limit - c.own) for c in claims]
    largest, workers = np.zeros(len(claims)), set[int]()
    for part, later in zip(parts(0, len(trace)), horizons(trace), strict=True):
        numbers, worker = np.arange(part.start, part.stop), trace.worker[part]
        workers.update(
            distinct_values(worker[(worker >= 0) & ~np.isnan(trace.fetched[part])]).tolist()
        )
        weights = [claim.weight(part) for claim in claims]
        largest = np.maximum(largest, [weight.max() for weight in weights])
        for claim, peak, weight in zip(claims, peaks, weights, strict=True):
            peak.add(numbers, *claim.stay(part), trace.sent[part], weight, later)
    found = []
    for claim, peak, each in zip(claims, peaks, largest.tolist(), strict=True):
        needed = min(peak.highest, claim.most * each)
        if claim.each:
            needed = max(needed, len(workers) * each)
        found.append(
            Use(
                resource=claim.resource,
                needed=claim.own + needed,
                limit=claim.limit,
                batch=peak.over,
            )
        )
    return found


def _all_uses(claimed: list[tuple[Trace, list[_Claim]]]) -> list[Use]:
    """What comes of the claims of training, and of those of validation beside them."""
    (trace, claims), *others = claimed
    if not others:
        return _uses(trace, claims)
    found = []
    for i, claim in enumerate(claims):
        peak, most, each = Peak(None if claim.limit is None else claim.limit - claim.own), 0.0, 0.0
        rows = []
        for one, theirs in claimed:
            numbers = np.arange(len(one)) if one is trace else np.full(len(one), -1)
            weight = theirs[i].weight(ALL)
            rows.append((numbers, *theirs[i].stay(ALL), one.sent, weight))
            most += theirs[i].most * float(weight.max(initial=0.0))
            workers = distinct_values(one.worker[(one.worker >= 0) & ~np.isnan(one.fetched)])
            each += len(workers) * float(weight.max(initial=0.0)) if theirs[i].each else 0.0
        numbers, come, go, sent, weight = map(np.concatenate, zip(*rows, strict=True))
        peak.add(numbers, come, go, sent, weight, np.inf)
        needed = claim.own + max(min(peak.highest, most), each)
        found.append(
            Use(resource=claim.resource, needed=needed, limit=claim.limit, batch=peak.over)
        )
    return found


def _bytes(trace: Trace) -> Callable[[slice], Floats]:
    """Bytes of each batch of a part.

    What is under way when a run ends early has the size it was asked for, which of a stream may be
    more than there is.
    """
    dataset = scenario_of(trace).dataset
    each = dataset.sample_bytes.mean
    most = dataset.length if isinstance(dataset, IterableDataset) else np.inf
    return lambda part: np.rint(np.minimum(trace.size[part], most) * each)


def _claims(trace: Trace, scenario: Scenario) -> list[_Claim]:
    """What is claimed of /dev/shm, as pinned memory, and in all."""
    machine, released, size = scenario.machine, _released(trace), _bytes(trace)
    window, crosses = _most_under_way(trace, scenario), crossing(scenario)

    def shm(part: slice) -> tuple[Floats, Floats]:
        shared = (trace.worker[part] >= 0) & scenario.through_shm
        copied, gone = pinned(part)
        come = np.where(shared, trace.fetched[part], np.nan)
        return come, np.where(np.isnan(copied), gone, copied)

    def pinned(part: slice) -> tuple[Floats, Floats]:
        received = trace.received[part]
        return received if scenario.pins else np.full(len(received), np.nan), released[part]

    def whole(part: slice) -> tuple[Floats, Floats]:
        return trace.started[part], released[part]

    kept = 0 if scenario.pins else 1
    return [
        # where it is not stated how soon a batch leaves, it has when the worker makes another one
        _Claim(SHM, shm, size, window + kept, machine.shm, each=crosses),
        _Claim("pinned", pinned, size, window + 1, None),
        _Claim(MEMORY, whole, size, window + 1, machine.memory, scenario.own_memory),
    ]


def _opened(trace: Trace, scenario: Scenario, own: float) -> list[_Claim]:
    """The file descriptors that main and each of the workers have open, besides their `own`.

    A pin-memory thread has those of one batch open.
    """
    loader, released, limit = scenario.loader, _released(trace), scenario.machine.descriptors
    tensors = float(scenario.dataset.tensors)

    def main(part: slice) -> tuple[Floats, Floats]:
        here = np.where(np.isnan(trace.fetched[part]), np.nan, trace.received[part])
        return here, here if scenario.pins else released[part]

    def worker(number: int) -> Stay:
        def mine(part: slice) -> tuple[Floats, Floats]:
            received = trace.received[part]
            come = np.where(trace.worker[part] == number, trace.fetched[part], np.nan)
            return come, np.where(np.isnan(received), epoch_ends(trace, part), received)

        return mine

    def weight(part: slice) -> Floats:
        return np.full(len(trace.size[part]), tensors)

    equal = loader.in_order and loader.dispatch in ("turns", "dealt")
    each = loader.window // loader.num_workers if equal else loader.window
    stays: list[tuple[Stay, int]] = [
        (main, 1 if scenario.pins else _most_under_way(trace, scenario) + 1)
    ]
    stays += [(worker(number), each) for number in range(loader.num_workers)]
    return [_Claim(DESCRIPTORS, stay, weight, most, limit, own) for stay, most in stays]


def _most_under_way(trace: Trace, scenario: Scenario) -> int:
    """How many batches can be sent and not returned: all, where what arrives sends for more.

    What the loop takes ahead is beyond the window.
    """
    if scenario.loader.refill == "arrival":
        return len(trace)
    sets = 2 if scenario.rebinds else 1  # of workers at a time, where an epoch begins
    return sets * max(scenario.loader.window, 1) + scenario.taken_ahead


def _released(trace: Trace) -> Floats:
    """For each batch, when the main process lets go of it."""
    gone, order, whole = new_column(len(trace)), trace.order, trace.as_one_epoch
    for part in parts(0, len(trace)):
        kept = np.isin(trace.status[part], (RETURNED, DISCARDED, FAILED))
        gone[part] = np.where(kept, given_back(trace, part), epoch_ends(whole, part))
    for part in parts(0, len(order)):
        following = trace.returned[order[part.start + 1 : part.stop + 1]]
        mine = order[part]
        gone[mine[: len(following)]] = following
        gone[mine[len(following) :]] = span(trace)[1]
    return gone


def scenario_of(trace: Trace) -> Scenario:
    """The scenario of a trace; raises `TraceError` if it has none."""
    if trace.meta.scenario is None:
        raise TraceError("memory: expected a trace with a scenario, got one that has none")
    return trace.meta.scenario
