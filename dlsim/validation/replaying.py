"""An observed run once more: its durations as they were, simulated."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from dlsim.engine.messages import MAIN
from dlsim.scenario import (
    Constant,
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
from dlsim.validation.accounts import CalibrateError, checked

QUICK = 0.1  # the quantile of what receiving takes that counts as quick


def replay(seen: Observation) -> Scenario:
    """The scenario in which everything takes as long as in the observed run `seen`, of one epoch.

    Every sample takes the time that passed, computing, blocked or waiting for a core, and the last
    of each batch also what else passed in its worker, from when it had both the index list and
    time for it. Pickling takes what it took on average, and receiving what it took at the quickest;
    what it took longer is added to the steps. The index of a sample is its place in the order of
    fetching. Nothing is shared: who had to wait for what is in the times already. So a simulation
    differs from the run by what the rules of scheduling and of delivery leave out, and by nothing
    else.

    Raises `CalibrateError` for runs that tell too little, and for those of several epochs.
    """
    seen, scenario = checked(seen)
    if len(seen.epochs.first) != 1:
        raise CalibrateError(f"run: expected one of one epoch, got {len(seen.epochs.first)}")
    dataset, loader = scenario.dataset, scenario.loader
    changes: dict[str, Any] = {
        "fetch": (Stage("fetch", wait=fetching(seen)),),
        "collate": None,
        "sample_bytes": Constant(0.0),
    }
    if isinstance(dataset, IterableDataset):
        assert seen.samples is not None
        workers = np.maximum(seen.samples.worker, 0)
        counts = np.bincount(workers, minlength=max(loader.num_workers, 1))
        changes["sharding"] = tuple(counts.tolist())
    else:
        lists = index_lists(seen)
        changes["length"] = sum(map(len, lists))
        loader = msgspec.structs.replace(
            loader, batch_sampler=lists, batch_size=1, shuffle=False, sampler=None, drop_last=False
        )
    receiving, steps = main_process(seen)
    return msgspec.structs.replace(
        scenario,
        loader=loader,
        dataset=msgspec.structs.replace(dataset, **changes),
        consumer=Consumer(steps, scenario.consumer.stop_after),
        machine=Machine(),
        costs=delivery(seen, receiving),
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

    Without workers, all of the `next()` that returns it. NaN for what was not fetched.
    """
    assert seen.meta.scenario is not None
    if not seen.meta.scenario.loader.num_workers:
        taken: Floats = seen.returned - seen.requested
        return taken
    begun = seen.sent.copy()
    for worker in range(int(seen.worker.max(initial=-1)) + 1):
        mine = np.flatnonzero((seen.worker == worker) & ~np.isnan(seen.fetched))
        begun[mine[1:]] = np.maximum(begun[mine[1:]], seen.fetched[mine[:-1]])
    took: Floats = seen.fetched - begun
    return took


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
    besides = (
        service[rows.batch[last]] - np.bincount(rows.batch, taken, len(seen))[rows.batch[last]]
    )
    taken[last] += np.maximum(np.nan_to_num(besides), -taken[last])
    if isinstance(dataset, IterableDataset):
        # Those of each worker follow one another, as its iterator yields them.
        return values(taken[np.argsort(rows.worker, kind="stable")])
    of_batches = np.array(sizes(seen))
    starts = np.cumsum(of_batches) - of_batches
    within = np.arange(len(rows.batch)) - np.searchsorted(rows.batch, rows.batch)
    return recorded(int(of_batches.sum()), starts[rows.batch] + within, taken)


def main_process(seen: Observation) -> tuple[float, Recorded]:
    """Seconds of receiving a message, and from each return until the next batch is asked for.

    Messages are received in the calls of `next()` in which they were; each takes what the quickest
    took. What a call took longer, but for waiting, follows upon its return, as part of the step.
    """
    order = seen.order
    asked = np.append(seen.requested[order[1:]], seen.finished[order[-1:]])
    steps = np.maximum(asked - seen.returned[order], 0.0)
    if np.all(seen.worker[order] == MAIN):
        return 0.0, recorded(len(seen), order, steps)  # next() was fetching all the time
    messages, busy = calls(seen)
    receiving = busy[messages > 0] / messages[messages > 0]
    quick = float(np.quantile(receiving, QUICK)) if len(receiving) else 0.0
    return quick, recorded(len(seen), order, steps + np.maximum(busy - messages * quick, 0.0))


def calls(seen: Observation) -> tuple[Floats, Floats]:
    """For each `next()` that returned: messages received in it, and seconds it was not waiting.

    It waits from when it has nothing more to do until a message is pickled.
    """
    order = seen.order
    known = np.flatnonzero(~np.isnan(seen.rebuilding + seen.serialised))
    known = known[np.argsort(seen.rebuilding[known])]
    requested = seen.requested[order]
    call = np.maximum(np.searchsorted(requested, seen.rebuilding[known]) - 1, 0)
    idle = np.maximum(requested[call], np.append(-np.inf, seen.received[known[:-1]]))
    until = np.minimum(seen.serialised[known], seen.rebuilding[known])
    waited = np.bincount(call, np.maximum(until - idle, 0.0), len(order))
    busy = np.maximum(seen.returned[order] - requested - waited, 0.0)
    return np.bincount(call, minlength=len(order)).astype(float), busy


def delivery(seen: Observation, receiving: float) -> Costs:
    """What starting and stopping took, and, on average, pickling, beside everything else."""
    assert seen.meta.scenario is not None
    workers, epochs = seen.meta.scenario.loader.num_workers, seen.epochs
    if not workers:
        return Costs()
    lags = (seen.serialised - seen.fetched)[seen.order]
    last = np.fmax(np.nanmax(seen.finished), np.nanmax(seen.fetched))
    return Costs(
        worker_start=max(float(seen.sent[0] - epochs.started[0]) / workers, 0.0),
        worker_stop=max(float(np.nan_to_num(epochs.ended[0] - last)), 0.0),
        serialise=Cost(message=max(float(np.nanmean(lags)), 0.0)),
        receive=Cost(message=receiving),
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
