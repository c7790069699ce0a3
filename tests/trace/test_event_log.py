from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import given, settings

import dlsim
from dlsim.engine import simulate
from dlsim.scenario import Scenario
from dlsim.trace import Trace, events, narrate
from dlsim.trace.trace import MOMENTS
from tests.strategies import scenarios


def run(samples: bool = True, **changes: Any) -> Trace:
    """One worker, two batches of two samples of 1 s each, steps of 0.25 s."""
    return simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(batch_size=2, num_workers=1, prefetch_factor=1),
            dataset=dlsim.MapDataset(4, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.25)),
            **changes,
        ),
        samples=samples,
    )


def test_log() -> None:
    """The log has every moment, by time, then batch, then place in the batch's life."""
    log = events(run())
    found = [(e["time"], e["batch"], e["worker"], MOMENTS[e["kind"]]) for e in log]
    assert found == [
        (0.0, 0, 0, "sent"),
        (0.0, 0, 0, "started"),
        (0.0, 0, 0, "requested"),
        (2.0, 0, 0, "fetched"),
        (2.0, 0, 0, "arrived"),
        (2.0, 0, 0, "received"),
        (2.0, 0, 0, "returned"),
        (2.0, 1, 0, "sent"),
        (2.0, 1, 0, "started"),
        (2.25, 0, 0, "finished"),
        (2.25, 1, 0, "requested"),
        (4.0, 1, 0, "fetched"),
        (4.0, 1, 0, "arrived"),
        (4.0, 1, 0, "received"),
        (4.0, 1, 0, "returned"),
        (4.25, 1, 0, "finished"),
    ]


@settings(max_examples=60)
@given(scenarios(torch_only=False))
def test_log_is_complete_and_in_order(scenario: Scenario) -> None:
    """For any run, each moment that happened is there once, in the order of the tie rule."""
    trace = simulate(scenario)
    log = events(trace)
    keys = list(zip(log["time"], log["batch"], log["kind"], strict=True))
    assert keys == sorted(keys)
    for kind, name in enumerate(MOMENTS):
        mine = log[log["kind"] == kind]
        happened = np.flatnonzero(~np.isnan(getattr(trace, name)))
        assert sorted(mine["batch"]) == happened.tolist()
        np.testing.assert_array_equal(mine["time"], getattr(trace, name)[mine["batch"]])


def test_narration() -> None:
    """The narration tells the whole story in words, samples included."""
    assert list(narrate(run()))[:19] == [
        "  0.000 s  epoch 0 begins",
        "  0.000 s  batch 0 is sent to worker 0",
        "  0.000 s  worker 0 begins batch 0",
        "  0.000 s  worker 0 begins row 0 of batch 0",
        "  0.000 s  next() is called, for batch 0",
        "  1.000 s  worker 0 begins row 1 of batch 0",
        "  2.000 s  worker 0 fetched batch 0 (rows 0 1)",
        "  2.000 s  batch 0 arrives from worker 0",
        "  2.000 s  batch 0 is received",
        "  2.000 s  next() returns batch 0, after 2 s",
        "  2.000 s  batch 1 is sent to worker 0",
        "  2.000 s  worker 0 begins batch 1",
        "  2.000 s  worker 0 begins row 2 of batch 1",
        "  2.250 s  the step on batch 0 ends",
        "  2.250 s  next() is called, for batch 1",
        "  3.000 s  worker 0 begins row 3 of batch 1",
        "  4.000 s  worker 0 fetched batch 1 (rows 2 3)",
        "  4.000 s  batch 1 arrives from worker 0",
        "  4.000 s  batch 1 is received",
    ]
    assert list(narrate(run()))[-1] == "  4.250 s  epoch 0 ends"


def test_narration_without_samples() -> None:
    """Where samples were not kept, a batch is said to have so many rows."""
    lines = list(narrate(run(samples=False)))
    assert "  2.000 s  worker 0 fetched batch 0 (2 rows)" in lines
    assert not any("begins row" in line for line in lines)


def test_narration_of_an_error() -> None:
    """An error that ended the loop is the last line."""
    lines = list(narrate(run(failures=(dlsim.Failure("fetch", 1),))))
    assert lines[-1] == "  2.000 s  the loop ended: fetch raised an exception for sample 1"
    assert "  2.000 s  the exception of batch 0 arrives from worker 0" in lines


def test_narration_of_an_ended_iterator() -> None:
    """A worker that has nothing more says so."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1), dataset=dlsim.IterableDataset(1, sharding="split")
    )
    lines = list(narrate(simulate(scenario)))
    assert "  0.000 s  worker 0 has nothing more: no batch 1" in lines
    assert "  0.000 s  the main process hears that worker 0 has nothing more" in lines


def test_epochs_are_told_in_order() -> None:
    """At one moment, the end of an epoch comes before the begin of the next, even of empty ones."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(), dataset=dlsim.MapDataset(0), epochs=2)
    assert list(narrate(simulate(scenario))) == [
        "  0.000 s  epoch 0 begins",
        "  0.000 s  epoch 0 ends",
        "  0.000 s  epoch 1 begins",
        "  0.000 s  epoch 1 ends",
    ]


def test_finer_times_have_six_decimals() -> None:
    """Times below a millisecond are not rounded away."""
    trace = run(samples=False)
    fine = {name: getattr(trace, name) / 8000 for name in MOMENTS}
    lines = list(narrate(dataclasses.replace(trace, **fine)))
    assert "  0.000281 s  the step on batch 0 ends" in lines


def test_unseen_moments_are_left_out() -> None:
    """A moment that was not observed is in neither log nor narration."""
    trace = run()
    partial = dataclasses.replace(trace, arrived=np.full(len(trace), np.nan))
    assert MOMENTS.index("arrived") not in events(partial)["kind"]
    assert not any("arrives" in line for line in narrate(partial))


def test_the_window_is_told_before_what_comes_of_it() -> None:
    """Where sending takes no time, all of the window is sent before a worker begins, or next()."""
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=2, prefetch_factor=2),
        dataset=dlsim.MapDataset(8, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        epochs=2,
    )
    lines = [line[9:].strip() for line in narrate(dlsim.simulate(scenario))]
    for epoch in (0, 1):
        begin = lines.index(f"epoch {epoch} begins")
        assert all("is sent to" in line for line in lines[begin + 1 : begin + 5])
        assert "is sent to" not in lines[begin + 5]
