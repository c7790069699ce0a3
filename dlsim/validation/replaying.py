"""An observed run once more: its costs as they were, simulated."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import Consumer, Costs, IterableDataset, Recorded, Scenario, Stage
from dlsim.scenario.distributions import Floats
from dlsim.trace.observation import Observation
from dlsim.validation.accounts import Accounts, CalibrateError, accounts
from dlsim.validation.calibrating import calibrate, relieved, shared


def replay(seen: Observation, *, transport: Costs | None = None) -> Scenario:
    """The scenario in which all happens as in the observed run `seen`, of one epoch.

    What each sample was blocked and computed, what collating each batch and each step took, are
    recorded as they were seen (less what busy cores added, which a simulation finds out again);
    the index of a sample is its place in the order of fetching. The other costs are those that
    `calibrate` finds. So a simulation differs from the run by what the model of the machine
    leaves out, and by nothing else.

    Raises `CalibrateError` for runs that tell too little, and for those of several epochs.
    """
    found = accounts(seen)
    if len(seen.epochs.first) != 1:
        raise CalibrateError(f"run: expected one of one epoch, got {len(seen.epochs.first)}")
    scenario = calibrate(seen, transport=transport)
    found = relieved(found, scenario.machine.contention)
    collate = np.maximum(found.collate - shared(found, scenario.costs), 0.0)
    changes: dict[str, Any] = {
        "fetch": (stage(seen, found),),
        "collate": recorded(len(seen), found.numbers, collate),
    }
    loader = scenario.loader
    if isinstance(scenario.dataset, IterableDataset):
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
    return msgspec.structs.replace(
        scenario,
        loader=loader,
        dataset=msgspec.structs.replace(scenario.dataset, **changes),
        consumer=consumer(seen, found, scenario.consumer),
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


def stage(seen: Observation, found: Accounts) -> Stage:
    """What each sample, or call for a batch, was blocked and computed, by its new index.

    What was not seen, as the loop was left before, takes what others took on average.
    """
    dataset: Any = found.scenario.dataset
    if isinstance(dataset, IterableDataset):
        # Those of each worker follow one another, as its iterator yields them.
        assert seen.samples is not None
        order = np.argsort(seen.samples.worker, kind="stable")
        return Stage("fetch", wait=values(found.wait[order]), cpu=values(found.cpu[order]))
    if dataset.batched:
        count, at = len(seen), found.batch
    else:
        of_batches = np.array(sizes(seen))
        starts = np.cumsum(of_batches) - of_batches
        within = np.arange(len(found.batch)) - np.searchsorted(found.batch, found.batch)
        count, at = int(of_batches.sum()), starts[found.batch] + within
    return Stage("fetch", wait=recorded(count, at, found.wait), cpu=recorded(count, at, found.cpu))


def consumer(seen: Observation, found: Accounts, calibrated: Consumer) -> Consumer:
    """The steps as they were, on the device that calibration finds them on."""
    order = seen.order
    took = found.step_cpu if calibrated.device == "cpu" else found.step_cpu + found.step_wait
    if len(order):
        last = seen.finished[order[-1:]] - seen.returned[order[-1:]]
        took = np.append(took, np.minimum(last, took.max(initial=float(last[0]))))
    steps = recorded(len(seen), order[: len(took)], took)
    return msgspec.structs.replace(calibrated, step=steps)


def recorded(count: int, at: Any, seconds: Floats) -> Recorded:
    """`count` values, of which those at `at` were seen; the others are their mean."""
    known = np.nan_to_num(seconds)
    all_of_them = np.full(count, float(known.mean()) if len(known) else 0.0)
    all_of_them[at] = known
    return values(all_of_them)


def values(seconds: Floats) -> Recorded:
    """A record of these; of none, a zero."""
    return Recorded(tuple(seconds.tolist()) or (0.0,))
