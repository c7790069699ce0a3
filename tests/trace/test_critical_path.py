from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.scenario import Machine, Storage
from dlsim.scenario.machine import Cost
from dlsim.trace import Trace, metrics
from dlsim.trace.critical_path import causes, critical_path, shares
from tests.strategies import scenarios
from tests.whatif.test_bounds import anywhere


def run(
    read: Any = dlsim.Constant(1.0),  # noqa: B008 (a frozen value)
    step: float = 0.5,
    length: int = 24,
    loader: dict[str, Any] | None = None,
    consumer: dict[str, Any] | None = None,
    dataset: Any = None,
    **changes: Any,
) -> Trace:
    """By default two workers, batches of 3 samples of 1 s, steps of 0.5 s."""
    return dlsim.simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(**{"batch_size": 3, "num_workers": 2} | (loader or {})),
            dataset=dataset or dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=read)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(step), **(consumer or {})),
            **changes,
        )
    )


def whole(trace: Trace) -> None:
    """Pieces follow each other without gaps, from begin to end, and shares add up to 1."""
    path = critical_path(trace)
    begin, end = metrics.span(trace)
    edges = [begin, *(piece.end for piece in path)]
    assert [piece.begin for piece in path] == edges[:-1]
    assert edges[-1] == pytest.approx(end, abs=0) or end == begin
    assert all(piece.begin < piece.end for piece in path)
    if end > begin:
        found = shares(trace)
        assert abs(sum(found.values()) - 1) < 1e-9
        assert abs(sum(causes(trace).values()) - (end - begin)) <= 1e-9 * (end - begin)


@settings(max_examples=100)
@given(scenarios(torch_only=False))
def test_shares_sum_to_one(scenario: dlsim.Scenario) -> None:
    """On every scenario the critical path has no gaps, and its shares add up to 1 within 1e-9."""
    whole(dlsim.simulate(scenario))


@settings(max_examples=60)
@given(anywhere())
def test_shares_sum_to_one_on_every_machine(scenario: dlsim.Scenario) -> None:
    """The same holds on machines where everything is shared and costs something."""
    whole(dlsim.simulate(scenario))


def test_step_bound() -> None:
    """Where the step limits, the path is one step after the other, but for the first batch."""
    assert causes(run(step=2.0)) == pytest.approx({"step": 16.0, "first batch": 3.0})


def test_worker_bound() -> None:
    """Where the workers limit, the path runs along one worker's fetches to the last step."""
    path = [(piece.cause, piece.begin, piece.end, piece.batch) for piece in critical_path(run())]
    assert path == [
        ("first batch", 0.0, 3.0, 0),
        ("fetch", 3.0, 6.0, 2),
        ("fetch", 6.0, 9.0, 4),
        ("fetch", 9.0, 12.0, 6),
        ("step", 12.0, 12.5, 6),
        ("step", 12.5, 13.0, 7),
    ]


def test_without_workers() -> None:
    """Without workers, fetching and stepping take turns from the start."""
    found = causes(run(loader={"num_workers": 0}))
    assert found == pytest.approx({"fetch: read": 24.0, "step": 4.0})


def test_head_of_line() -> None:
    """The time for which a slow batch keeps back others, and a worker from its work.

    Batch 2 takes 10 s and the others 1 s. Batch 3 is ready at 2 s, when batch 2 is waited for, and
    its worker has done all that it was sent when batch 5 is ready, at 3 s.
    """
    trace = run(dlsim.Recorded([1.0, 1.0, 10.0, *[1.0] * 5]), 0.5, 8, {"batch_size": 1})
    found = causes(trace)
    assert found["head of line"] == pytest.approx(8.0)
    free = run(
        dlsim.Recorded([1.0, 1.0, 10.0, *[1.0] * 5]),
        0.5,
        8,
        {"batch_size": 1, "in_order": False},
    )
    assert "head of line" not in causes(free)


def test_window() -> None:
    """Where the window limits, index lists on their way lie on the path."""
    found = causes(
        run(
            step=0.0,
            length=30,
            loader={"num_workers": 1, "prefetch_factor": 1},
            costs=dlsim.Costs(index_latency=0.5),
        )
    )
    stop = {"joining": 0.5}  # the message that tells the worker to stop takes as long
    assert found == pytest.approx({"first batch": 3.0, "fetch: read": 27.0, "send": 5.0} | stop)


def test_epoch_edges() -> None:
    """The pipeline is filled again in later epochs; without workers there is none."""
    found = causes(run(step=2.0, epochs=3))
    assert found == pytest.approx({"step": 48.0, "first batch": 9.0})
    assert set(causes(run(loader={"num_workers": 0}, epochs=3))) == {"fetch: read", "step"}


def test_error() -> None:
    """The time from the last step to the exception is put down to it."""
    trace = run(failures=[dlsim.Failure("fetch", 14)])
    assert (np.nanmax(trace.finished), trace.end) == (7.0, 9.0)
    assert causes(trace)["error"] == pytest.approx(2.0)


def test_stages_and_collate() -> None:
    """Fetching is divided among the stages and collating by their mean times."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2),
        dataset=dlsim.MapDataset(
            8,
            fetch=[
                dlsim.Stage("read", wait=dlsim.Constant(1.0)),
                dlsim.Stage("decode", cpu=dlsim.Constant(3.0)),
            ],
            collate=dlsim.Constant(2.0),
        ),
    )
    expected = {"fetch: decode": 0.6, "fetch: read": 0.2, "collate": 0.2}
    assert shares(dlsim.simulate(scenario)) == pytest.approx(expected)


def test_waiting_for_cores_and_storage() -> None:
    """What fetches take beyond what they ask for, on a machine that is shared, is waiting."""
    stage = dlsim.Stage("read", cpu=dlsim.Constant(1.0))
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=4),
        dataset=dlsim.MapDataset(400, fetch=[stage]),
        machine=Machine(cores=2),
    )
    found = shares(dlsim.simulate(scenario))
    assert found["core"] == pytest.approx(0.5, abs=0.02)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=4),
        dataset=dlsim.MapDataset(400, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(1.0))]),
        machine=Machine(storage=Storage(bandwidth=1.0)),
    )
    assert shares(dlsim.simulate(scenario))["storage"] == pytest.approx(1.0, abs=0.02)


def test_transport_and_receive() -> None:
    """Serialising, receiving and pinning lie on the path where there is nothing beside them."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=1, prefetch_factor=1, pin_memory=True),
        dataset=dlsim.MapDataset(11, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        costs=dlsim.Costs(
            serialise=Cost(message=0.2),
            receive=Cost(message=0.3),
            pin=Cost(message=0.1),
            index_put=0.05,
            take=0.01,
        ),
    )
    found = causes(dlsim.simulate(scenario))
    assert found["transport"] == pytest.approx(10 * 0.2)
    assert found["take"] == pytest.approx(10 * 0.01)
    assert found["receive"] == pytest.approx(10 * 0.3)
    assert found["pin"] == pytest.approx(10 * 0.1)
    assert found["send"] == pytest.approx(11 * 0.05)


def test_running_ahead() -> None:
    """Where the host runs ahead of an accelerator that limits, the path is made of its steps."""
    found = causes(run(step=2.0, consumer={"run_ahead": 2}))
    assert found == pytest.approx({"step": 16.0, "first batch": 3.0})


@pytest.mark.parametrize("sharding", [None, "split"])
def test_a_loop_one_batch_ahead_waits_for_the_next_batch(sharding: str | None) -> None:
    """What accelerate's loop waits for is what the next batch hangs on, not handing over this one.

    As much of it has the same causes as without the loop, but for the first batch and the last.
    """
    slow = dlsim.Lognormal(1.0, 2.0)
    dataset: Any = dlsim.MapDataset(600, fetch=[dlsim.Stage("read", wait=slow)])
    if sharding is not None:
        dataset = dlsim.IterableDataset(600, sharding, dataset.fetch)  # type: ignore[arg-type]
    loops = ("plain", "accelerate") if sharding is None else ("plain", "accelerate", "lightning")
    traces = [run(step=1.2, dataset=dataset, consumer={"loop": loop}) for loop in loops]
    plain, *ahead = map(causes, traces)
    for each, trace in zip(ahead, traces[1:], strict=True):
        whole(trace)
        assert not {"receive", "waiting"} & each.keys()
        for cause in ("head of line", "fetch: read"):
            assert each[cause] == pytest.approx(plain[cause], rel=0.1)


def test_a_loop_one_batch_ahead_ends_by_joining() -> None:
    """Before the last step accelerate's workers end, which is no handing over of its batch."""
    trace = run(consumer={"loop": "accelerate"}, costs=dlsim.Costs(worker_stop=2.0))
    last = critical_path(trace)[-2:]
    assert [piece.cause for piece in last] == ["joining", "step"]
    assert last[0].end - last[0].begin == pytest.approx(2.0)


@settings(max_examples=100)
@given(scenarios())
def test_loops_one_batch_ahead_are_walked_through(scenario: dlsim.Scenario) -> None:
    """Every moment of a run with accelerate's loop has a cause."""
    changes = {"consumer.loop": "accelerate", "consumer.on_error": "stop", "loader.endless": False}
    whole(dlsim.simulate(dlsim.replace(scenario, changes)))
