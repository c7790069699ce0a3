from __future__ import annotations

from array import array
from unittest import mock

import numpy as np
from hypothesis import given, settings

import dlsim
from dlsim.engine.processes.record import Recorder
from dlsim.scenario import Scenario
from dlsim.show.order import (
    ARRIVED,
    EPOCH_BEGINS,
    EPOCH_ENDS,
    FETCHED,
    FINISHED,
    RECEIVED,
    REQUESTED,
    RETURNED,
    SAMPLE,
    SENT,
    STARTED,
    happenings,
    turns,
)
from dlsim.trace import MOMENTS, Trace
from tests.strategies import ideal

WATCHED = ("sent", "arrived", "received", "returned")


def in_the_order_of_the_processes(scenario: Scenario) -> tuple[Trace, list[tuple[str, int]]]:
    """The trace of the SimPy processes, and in which order they wrote its moments down."""
    written: list[tuple[str, int]] = []

    class Watched(array):
        name = ""

        def append(self, value: float) -> None:
            if self.name == "sent":
                written.append((self.name, len(self)))
            super().append(value)

        def __setitem__(self, index: int, value: float) -> None:
            written.append((self.name, index))
            super().__setitem__(index, value)

    class Watching(Recorder):
        def __init__(self, *, samples: bool) -> None:
            super().__init__(samples=samples)
            for name in WATCHED:
                column = Watched("d")
                column.name = name
                setattr(self, name, column)
            self._later = [getattr(self, name) for name in MOMENTS[1:]]

    with mock.patch("dlsim.engine.processes.record.Recorder", Watching):
        trace = dlsim.simulate(scenario, 0, engine="simpy", samples=True)
    return trace, written


def all_of(trace: Trace) -> list:
    """All events of a trace, in order."""
    return list(happenings(trace, turns(trace), -np.inf, np.inf))


def timely(scenario: Scenario) -> Scenario:
    """The scenario, without errors and pinning, if batches take some time; in order if iterable.

    Else answers may be sent for, made, and received before others, all at one moment.
    """
    changes: dict[str, object] = {
        "dataset.collate": 1 / 64,
        "failures": [],
        "loader.pin_memory": False,
        "loader.dispatch": "turns",
        "loader.refill": "return",
        "loader.slots": None,
    }
    if isinstance(scenario.dataset, dlsim.IterableDataset):
        changes["loader.in_order"] = True
    return dlsim.replace(scenario, changes)


def with_one_iterator(scenario: Scenario) -> Scenario:
    """The scenario, with at most one worker whose iterator ends."""
    if not isinstance(scenario.dataset, dlsim.IterableDataset):
        return scenario
    changes = {
        "loader.num_workers": min(scenario.loader.num_workers, 1),
        "dataset.sharding": "none",
    }
    return dlsim.replace(scenario, changes)


@settings(deadline=None, max_examples=100)
@given(ideal.map(timely).map(with_one_iterator))
def test_the_order_is_that_of_the_processes(scenario: Scenario) -> None:
    """What happens at one moment is put in the order in which the SimPy processes did it."""
    trace, written = in_the_order_of_the_processes(scenario)
    kinds = {SENT: "sent", ARRIVED: "arrived", RECEIVED: "received", RETURNED: "returned"}
    ours = [(kinds[each.kind], each.batch) for each in all_of(trace) if each.kind in kinds]
    assert ours == [each for each in written if not np.isnan(getattr(trace, each[0])[each[1]])]


@settings(deadline=None, max_examples=60)
@given(ideal.map(timely).map(with_one_iterator))
def test_causes_come_before_effects(scenario: Scenario) -> None:
    """Everything is in the film once; what a batch goes through, and why it is sent, in order."""
    trace = dlsim.simulate(scenario, 0, samples=True)
    events = all_of(trace)
    assert [each.time for each in events] == sorted(each.time for each in events)
    moments = sum(int((~np.isnan(getattr(trace, name))).sum()) for name in MOMENTS)
    epochs = [*trace.epochs.started, *trace.epochs.ended]
    samples = int((~np.isnan(trace.samples.started)).sum())
    others = int((~np.isnan(epochs)).sum()) + len(trace.meta.caught)
    assert len(events) == moments + samples + others
    at = {(each.kind, each.batch): place for place, each in enumerate(events)}
    assert len(at) >= moments
    for life in ((SENT, STARTED, ARRIVED, RECEIVED, RETURNED, FINISHED), (REQUESTED, RETURNED)):
        for batch in range(len(trace)):
            places = [at[kind, batch] for kind in life if (kind, batch) in at]
            assert places == sorted(places)
    calls = [at[kind, batch] for batch in trace.order for kind in (REQUESTED, RETURNED)]
    assert calls == sorted(calls)
    for batch, trigger in enumerate(turns(trace).trigger.tolist()):
        if trigger >= 0 and (RETURNED, trigger) in at:
            assert at[REQUESTED, trigger] < at[SENT, batch] < at[RETURNED, trigger]
    kinds = [each.kind for each in events]
    assert kinds[0] == EPOCH_BEGINS
    assert trace.meta.problem or EPOCH_ENDS in kinds
    assert SAMPLE in kinds or not len(trace.samples.batch)


@settings(deadline=None, max_examples=150)
@given(ideal)
def test_what_happens_to_a_batch_is_in_order(scenario: Scenario) -> None:
    """Where everything happens at one moment, too, a batch is sent, started, ... in that order."""
    trace = dlsim.simulate(scenario, 0, samples=True)
    events = all_of(trace)
    assert [each.time for each in events] == sorted(each.time for each in events)
    at = {(each.kind, each.batch): place for place, each in enumerate(events)}
    life = (SENT, STARTED, FETCHED, ARRIVED, RECEIVED, RETURNED, FINISHED)
    for line in (life, (REQUESTED, RETURNED)):
        for batch in range(len(trace)):
            places = [at[kind, batch] for kind in line if (kind, batch) in at]
            assert places == sorted(places)
