"""An observed run once more: its durations as they were, simulated."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from dlsim.engine.facts import MAIN
from dlsim.scenario import (
    Consumer,
    Cost,
    Costs,
    IterableDataset,
    Machine,
    Recorded,
    Scenario,
    Stage,
)
from dlsim.scenario.distributions import Floats
from dlsim.trace.observation import Observation
from dlsim.validation.calibrating.accounts import CalibrateError, checked

MOMENT = 1e-9  # seconds


def replay(seen: Observation) -> Scenario:
    """The scenario in which everything takes as long as in the observed run `seen`, of one epoch.

    A batch is fetched here when it is also pickled. Every sample takes the time that passed,
    computing, blocked or waiting for a core, and the last of each batch also what else passed in
    its worker, from when it had both the index list and time for it. Receiving a batch takes what
    it took; what else passes in `next()` but waiting is added to the steps. The index of a sample
    is its place in the order of fetching. Nothing is shared: who had to wait for what is in the
    times already. So a simulation differs from the run by what the rules of scheduling and of
    delivery leave out, and by nothing else.

    Raises `CalibrateError` for runs that tell too little, and for those of several epochs.
    """
    seen, scenario = checked(seen)
    if len(seen.epochs.first) != 1:
        raise CalibrateError(f"run: expected one of one epoch, got {len(seen.epochs.first)}")
    dataset, loader = scenario.dataset, scenario.loader
    receiving, steps = main_process(seen)
    changes: dict[str, Any] = {
        "fetch": (Stage("fetch", wait=fetching(seen)),),
        "collate": None,
        # What differs from batch to batch, only bytes can say: one is a second of receiving.
        "sample_bytes": at_last_samples(seen, receiving),
        "tensors": 0,
        "path": "shm",
    }
    if isinstance(dataset, IterableDataset):
        assert seen.samples is not None
        workers = np.maximum(seen.samples.worker, 0)
        counts = np.bincount(workers, minlength=max(loader.num_workers, 1))
        changes |= {"sharding": tuple(counts.tolist()), "shards": None}
    else:
        lists = index_lists(seen)
        changes["length"] = sum(map(len, lists))
        loader = msgspec.structs.replace(
            loader, batch_sampler=lists, batch_size=1, shuffle=False, sampler=None, drop_last=False
        )
    return msgspec.structs.replace(
        scenario,
        loader=loader,
        dataset=msgspec.structs.replace(dataset, **changes),
        consumer=Consumer(steps, scenario.consumer.stop_after),
        machine=Machine(),
        costs=delivery(seen),
    )


def index_lists(seen: Observation) -> tuple[tuple[int, ...], ...]:
    """Consecutive numbers for the samples of each batch that was sent."""
    ends = np.cumsum(sizes(seen))
    return tuple(
        tuple(range(end - size, end)) for end, size in zip(ends.tolist(), sizes(seen), strict=True)
    )


def sizes(seen: Observation) -> list[int]:
    """How many samples each batch has, at least as many as were seen of it."""
    assert seen.samples is not None
    fetched = np.bincount(seen.samples.batch, minlength=len(seen))
    found: list[int] = np.maximum(fetched, seen.size).tolist()
    return found


def services(seen: Observation) -> Floats:
    """Seconds of each batch in its worker, from when that had the batch's index list and time.

    Without workers, all of the `next()` that returns it, and of making the iterator. NaN for what
    was not fetched.
    """
    assert seen.meta.scenario is not None
    if not seen.meta.scenario.loader.num_workers:
        taken: Floats = seen.returned - seen.requested
        taken[seen.order[:1]] += seen.requested[seen.order[:1]] - seen.epochs.started[0]
        return taken
    done, begun = sendable(seen), seen.sent.copy()
    # What is sent before anything is asked for, is sent at once here.
    primed = begun <= seen.requested[seen.order[0]]
    begun[primed] = seen.sent[0]
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(done))
        begun[mine[1:]] = np.maximum(begun[mine[1:]], done[mine[:-1]])
    took: Floats = done - begun
    return took


def sendable(seen: Observation) -> Floats:
    """When each batch could be received, had the main process not been busy; NaN if not fetched.

    When it was pickled; but who finds others writing waits, and need not be the next one to write.
    Batches that are received later could be so no sooner.
    """
    done: Floats = np.fmax(seen.fetched, seen.serialised)
    known = by_receipt(seen, done)
    apart = MOMENT * np.arange(len(known))  # at one moment, workers would go by their numbers
    done[known] = np.maximum.accumulate(done[known] - apart) + apart
    return done


def by_receipt(seen: Observation, done: Floats) -> Any:
    """The batches received, in that order; those of one moment as they were `done`."""
    known = np.flatnonzero(~np.isnan(seen.received + done))
    return known[np.lexsort((done[known], seen.received[known]))]


def fetching(seen: Observation) -> Recorded:
    """What each sample, or call for a batch, took, by its new index.

    What was not seen, as the loop was left before, takes what others took on average.
    """
    rows = seen.samples
    assert rows is not None
    assert seen.meta.scenario is not None
    dataset: Any = seen.meta.scenario.dataset
    service = services(seen)
    if getattr(dataset, "batched", False):
        known = np.flatnonzero(~np.isnan(service))
        return recorded(len(seen), known, service[known])
    taken = rows.fetched - rows.started
    last = np.flatnonzero(np.diff(rows.batch, append=-1))
    together = np.bincount(rows.batch, taken, len(seen))
    service = np.where(np.isnan(service), together, service)
    # What was fetched while the batch before was still pickled has had less than all of its time.
    taken *= np.minimum(1.0, service / np.maximum(together, 1e-12))[rows.batch]
    taken[last] += np.maximum(service - together, 0.0)[rows.batch[last]]
    at, count = places(seen)
    return recorded(count, at, taken)


def places(seen: Observation) -> tuple[Any, int]:
    """The new index of each sample seen, and how many samples there are."""
    rows = seen.samples
    assert rows is not None
    assert seen.meta.scenario is not None
    if isinstance(seen.meta.scenario.dataset, IterableDataset):
        # Those of each worker follow one another, as its iterator yields them.
        return np.argsort(np.argsort(rows.worker, kind="stable")), len(rows.batch)
    of_batches = np.array(sizes(seen))
    starts = np.cumsum(of_batches) - of_batches
    within = np.arange(len(rows.batch)) - np.searchsorted(rows.batch, rows.batch)
    return starts[rows.batch] + within, int(of_batches.sum())


def at_last_samples(seen: Observation, seconds: Floats) -> Recorded:
    """What each batch has, as what its last sample has: all others have none."""
    assert seen.samples is not None
    batches, (at, count) = seen.samples.batch, places(seen)
    last = np.flatnonzero(np.diff(batches, append=-1))
    of_samples = np.zeros(count)
    of_samples[at[last]] = seconds[batches[last]]
    return values(of_samples)


def main_process(seen: Observation) -> tuple[Floats, Recorded]:
    """Seconds of receiving each batch, and from each return until the next batch is asked for.

    Where a thread pins batches, that is `by_thread`. Else receiving begins when the batch is
    pickled, asked for, and the one before received; it lasts until the next index list is sent.
    Where a call receives nothing, that long it is asked for later. What passes after the sending,
    follows upon the return: part of the step, too.
    """
    order = seen.order
    requested, returned = seen.requested[order], seen.returned[order]
    asked = np.append(requested[1:], seen.finished[order[-1:]])
    receiving = np.zeros(len(seen))
    if np.all(seen.worker[order] == MAIN):
        steps = asked - returned  # next() was fetching all the time
        return receiving, recorded(len(seen), order, np.maximum(steps, 0.0))
    if not np.isnan(seen.pinned[order]).any():
        return by_thread(seen, asked)
    done = sendable(seen)
    known = by_receipt(seen, done)
    received = seen.received[known]
    call = np.minimum(np.searchsorted(returned, received), len(order) - 1)
    begun = np.maximum(done[known], requested[call])
    begun[1:] = np.maximum(begun[1:], received[:-1])
    receiving[known] = np.maximum(received - begun, 0.0)
    ready, latest = requested.copy(), np.full(len(order), MAIN)
    np.maximum.at(ready, call, received)
    ready = np.minimum(ready, returned)
    latest[call] = known  # the one received last
    turned = turns(seen, ready)
    some = latest != MAIN
    receiving[latest[some]] += (turned - ready)[some]
    later = np.append(np.where(some, 0.0, turned - ready)[1:], 0.0)
    return receiving, recorded(len(seen), order, np.maximum(asked + later - turned, 0.0))


def by_thread(seen: Observation, asked: Floats) -> tuple[Floats, Recorded]:
    """The same where a thread receives and pins: from when it could until the batch is pinned.

    What passes in `next()` from when it has its batch until it sends the next index list, is part
    of the step before, if the batch was there, else of its own step.
    """
    order = seen.order
    requested, pinned = seen.requested[order], seen.pinned[order]
    done = sendable(seen)
    in_turn = order[np.argsort(pinned, kind="stable")]
    begun = done[in_turn]
    begun[1:] = np.maximum(begun[1:], seen.pinned[in_turn[:-1]])
    receiving = np.zeros(len(seen))
    receiving[in_turn] = np.maximum(seen.pinned[in_turn] - begun, 0.0)
    ready = np.minimum(np.maximum(requested, pinned), seen.returned[order])
    turned = turns(seen, ready)
    there = pinned <= requested
    later = np.append(np.where(there, turned - ready, 0.0)[1:], 0.0)
    steps = asked + later - np.where(there, turned, ready)
    return receiving, recorded(len(seen), order, np.maximum(steps, 0.0))


def turns(seen: Observation, ready: Floats) -> Floats:
    """When each call, which had its batch at `ready`, sent an index list, or else returned."""
    returned = seen.returned[seen.order]
    sends = np.sort(seen.sent[~np.isnan(seen.sent)])
    sent = sends[np.maximum(np.searchsorted(sends, returned, side="right") - 1, 0)]
    turned: Floats = np.where(sent >= ready, sent, returned)
    return turned


def delivery(seen: Observation) -> Costs:
    """What starting and stopping took, and that a byte takes a second to receive."""
    assert seen.meta.scenario is not None
    workers, epochs = seen.meta.scenario.loader.num_workers, seen.epochs
    if not workers:
        return Costs()
    last = np.fmax(np.nanmax(seen.finished), np.nanmax(seen.fetched))
    return Costs(
        worker_start=max(float(seen.sent[0] - epochs.started[0]) / workers, 0.0),
        worker_stop=max(float(np.nan_to_num(epochs.ended[0] - last)), 0.0),
        receive=Cost(byte=1.0),
    )


def recorded(count: int, at: Any, seconds: Floats) -> Recorded:
    """`count` values, of which those at `at` were seen; the others are their mean."""
    known = np.nan_to_num(seconds)
    all_of_them = np.full(count, float(known.mean()) if len(known) else 0.0)
    all_of_them[at] = known
    return values(all_of_them)


def values(seconds: Floats) -> Recorded:
    """A record of these; of none, a zero."""
    return Recorded(tuple(seconds.tolist()) or (0.0,))
