from __future__ import annotations

import time

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.scenario import Constant, Exponential, Stage
from dlsim.trace import Trace
from dlsim.trace.observation import ADDED, BATCH_COLUMNS, Observation
from dlsim.validation import observe, replay
from dlsim.validation.calibrating.accounts import CalibrateError

NO_STEP = Constant(0.0)


def watched(trace: Trace, **seen: np.ndarray) -> Observation:
    """What would have been observed of a simulated run on the ideal machine: all is blocked.

    And what else was `seen`.
    """
    nothing, no_sample = np.zeros(len(trace)), np.zeros(len(trace.samples.index))
    columns = {name: getattr(trace, name) for name in Trace.__dataclass_fields__}
    columns |= dict.fromkeys(BATCH_COLUMNS, nothing)
    columns |= dict.fromkeys(ADDED, np.full(len(trace), np.nan))  # no accelerator
    columns |= dict.fromkeys(("collating", "serialising", "serialised"), trace.fetched)
    columns |= {"rebuilding": trace.received}
    return Observation(**columns | seen, sample_cpu=no_sample, sample_queued=no_sample)


def simulated(dataset, step=NO_STEP, **settings: object) -> Trace:
    """A run with three workers."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=3, **settings),
        dataset=dataset,
        consumer=dlsim.Consumer(step=step),
    )
    return dlsim.simulate(scenario, seed=3, samples=True)


FETCH = (Stage("read", wait=Exponential(0.01)),)


@pytest.mark.parametrize(
    "trace",
    [
        simulated(dlsim.MapDataset(50, FETCH)),
        simulated(dlsim.MapDataset(50, FETCH), Exponential(0.02), shuffle=True),
        simulated(dlsim.MapDataset(50, FETCH), drop_last=True, in_order=False),
        simulated(dlsim.MapDataset(50, FETCH, batched=True), Exponential(0.01)),
        simulated(dlsim.IterableDataset(50, "split", FETCH), Exponential(0.01)),
        simulated(dlsim.IterableDataset(50, (21, 11, 6), FETCH), prefetch_factor=1),
    ],
    ids=["plain", "shuffled", "out of order", "batched", "split", "shards"],
)
def test_a_run_is_repeated_moment_by_moment(trace):
    """Where nothing but fetching and steps costs anything, the replay is the run."""
    again = dlsim.simulate(replay(watched(trace)))
    assert np.array_equal(again.order, trace.order)
    assert np.array_equal(again.worker, trace.worker)
    for moment in ("sent", "started", "fetched", "requested", "returned"):
        known = trace.order
        assert getattr(again, moment)[known] == pytest.approx(getattr(trace, moment)[known])
    assert again.end == pytest.approx(trace.end)


class Rows(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.002)
        return index


@pytest.mark.parametrize("num_workers", [0, 2])
def test_durations_are_those_seen(num_workers):
    """Each batch of a real run takes its worker as long as it did, and so does the whole."""
    seen = observe(DataLoader(Rows(), 3, num_workers=num_workers, shuffle=True))
    again = replay(seen)
    assert again.loader.batch_sampler == tuple((i, i + 1, i + 2) for i in range(0, 24, 3))
    took = np.array(again.dataset.fetch[0].wait.values).reshape(8, 3).sum(axis=1)
    if num_workers:
        sent = np.where(seen.sent <= seen.requested[0], seen.sent[0], seen.sent)
        done, received = seen.serialised.copy(), np.argsort(seen.received)
        done[received] = np.maximum.accumulate(done[received])  # received as they could be
        begun = np.maximum(sent, np.append([-1, -1], done[:-2]))
        assert took == pytest.approx(done - begun, abs=1e-6)
    else:
        begun = np.append(seen.epochs.started[0], seen.requested[1:])  # the first with iter()
        assert took == pytest.approx(seen.returned - begun)
    trace = dlsim.simulate(again)
    assert np.array_equal(trace.order, seen.order)
    ends = seen.returned[seen.order] - seen.epochs.started[0]
    assert trace.returned[trace.order] == pytest.approx(ends, rel=0.5, abs=0.05)


def test_a_run_left_early_has_costs_for_what_was_not_seen():
    """Batches that were sent and never fetched take what others took on average."""
    seen = observe(DataLoader(Rows(), 2, num_workers=2), batches=6)
    again = replay(seen)
    assert len(again.loader.batch_sampler) == len(seen)
    assert len(again.dataset.fetch[0].wait.values) == 2 * len(seen)
    assert len(dlsim.simulate(again).order) == 6


def test_several_epochs_are_refused():
    """A replay is of one epoch, which is said in one line."""
    seen = observe(DataLoader(Rows(), 3), epochs=2)
    with pytest.raises(CalibrateError, match="run: expected one of one epoch, got 2"):
        replay(seen)
