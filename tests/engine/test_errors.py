"""Errors that the training loop catches and goes on from, as torch 2.13 was seen to."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

import dlsim
from dlsim import Consumer, Failure, IterableDataset, Loader, MapDataset, Scenario, Stage
from dlsim.scenario import ScenarioError

ENGINES = ["simpy", "compiled"] if find_spec("llvmlite") else ["simpy"]
SECOND = [Stage("read", wait=dlsim.Constant(1.0))]


def caught(trace: dlsim.Trace) -> list[tuple[str, int, float]]:
    """Kind, batch and moment of each error that was caught."""
    return [(error.kind, error.batch, error.time) for error in trace.meta.caught]


@pytest.mark.parametrize("engine", ENGINES)
def test_map_style_goes_on(engine: str) -> None:
    """After the batch of a sample that fails, all others come as if nothing had been."""
    scenario = Scenario(
        loader=Loader(batch_size=2, num_workers=2),
        dataset=MapDataset(10, fetch=SECOND),
        consumer=Consumer(on_error="continue"),
        failures=[Failure("fetch", 5)],
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.order.tolist() == [0, 1, 3, 4]
    assert trace.returned[trace.order].tolist() == [2.0, 2.0, 4.0, 6.0]
    assert caught(trace) == [("fetch", 2, 4.0)]
    assert trace.meta.problem is None


@pytest.mark.parametrize("engine", ENGINES)
def test_iterable_worker_that_raises_is_over(engine: str) -> None:
    """Of an iterable-style dataset the worker that raised yields nothing more; the others do."""
    scenario = Scenario(
        loader=Loader(batch_size=2, num_workers=2),
        dataset=IterableDataset(16, sharding="split", fetch=SECOND),
        consumer=Consumer(on_error="continue"),
        failures=[Failure("fetch", 2)],
    )
    trace = dlsim.simulate(scenario, engine=engine, samples=True)
    assert trace.samples is not None
    of_first = trace.samples.index[trace.samples.worker == 0]
    assert of_first.tolist() == [0, 1, 2]
    assert trace.size[trace.order].sum() == 2 + 8
    assert [batch for _, batch, _ in caught(trace)] == [2]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pin_memory", [False, True])
def test_timeouts_lose_nothing(engine: str, pin_memory: bool) -> None:
    """Each timeout counts anew, and the batch comes when it is there."""
    scenario = Scenario(
        loader=Loader(num_workers=1, timeout=1.0, pin_memory=pin_memory),
        dataset=MapDataset(3, fetch=[Stage("read", wait=dlsim.Recorded([3.5, 0.5, 0.5]))]),
        consumer=Consumer(on_error="continue"),
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert caught(trace) == [("timeout", -1, 1.0), ("timeout", -1, 2.0), ("timeout", -1, 3.0)]
    assert trace.returned.tolist() == [3.5, 4.0, 4.5]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_timeout_that_a_batch_just_misses(engine: str) -> None:
    """With workers that take a moment to begin, a sample of three timeouts comes after three."""
    scenario = Scenario(
        loader=Loader(num_workers=1, timeout=1.0),
        dataset=MapDataset(2, fetch=[Stage("read", wait=dlsim.Recorded([3.0, 1.0]))]),
        consumer=Consumer(on_error="continue"),
        costs=dlsim.Costs(worker_ready=0.01),
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert [error.time for error in trace.meta.caught] == [1.0, 2.0, 3.0]
    assert trace.returned.tolist() == pytest.approx([3.01, 4.01])


@pytest.mark.parametrize("engine", ENGINES)
def test_without_workers_the_next_call_goes_on(engine: str) -> None:
    """Without workers the sampler has moved on; an iterator that raised has ended."""
    scenario = Scenario(
        loader=Loader(),
        dataset=MapDataset(4, fetch=SECOND),
        consumer=Consumer(on_error="continue"),
        failures=[Failure("fetch", 1)],
    )
    assert dlsim.simulate(scenario, engine=engine).order.tolist() == [0, 2, 3]
    iterable = dlsim.replace(scenario, {"dataset": IterableDataset(4, fetch=SECOND)})
    assert dlsim.simulate(iterable, engine=engine).order.tolist() == [0]


@pytest.mark.parametrize("engine", ENGINES)
def test_caught_errors_do_not_limit_what_is_sent(engine: str) -> None:
    """A loop that stops after a number of batches has as many more sent as errors were caught."""
    scenario = Scenario(
        loader=Loader(num_workers=4, prefetch_factor=1, in_order=False),
        dataset=MapDataset(21, fetch=SECOND),
        consumer=Consumer(stop_after=1, on_error="continue"),
        failures=[Failure("worker_init_fn", 3)],
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.worker.tolist() == [0, 1, 2, *[3] * 18]
    assert len(trace.meta.caught) == 18


@pytest.mark.parametrize("engine", ENGINES)
def test_pinning_without_an_accelerator_does_nothing(engine: str) -> None:
    """On a machine without accelerator, pin_memory changes no moment, whatever pinning costs."""
    scenario = Scenario(
        loader=Loader(num_workers=2),
        dataset=MapDataset(20, fetch=SECOND, sample_bytes=dlsim.Constant(1e6)),
        consumer=Consumer(step=dlsim.Constant(0.25), device="cpu"),
        costs=dlsim.Costs(pin=dlsim.Cost(message=1.0), receive=dlsim.Cost(message=0.125)),
    )
    pinning = dlsim.replace(scenario, {"loader.pin_memory": True})
    assert not pinning.pins
    one, other = (dlsim.simulate(s, engine=engine) for s in (scenario, pinning))
    assert one.finished.tolist() == other.finished.tolist()
    assert dlsim.memory(other).pinned.max == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loader.timeout": 1e-9}, "loader.timeout: expected at least 0.001 s"),
        ({"dataset": IterableDataset(9)}, "consumer.on_error: expected stop"),
        ({"loader.endless": True}, "consumer.on_error: expected stop"),
        ({"dataset.length": 0, "loader.shuffle": True, "failures": []}, "loader.shuffle: expected"),
        ({"loader.batch_sampler": [[0], []]}, "batch_sampler: expected lists of at least one"),
        (
            {"consumer.on_error": "retry"},
            "consumer.on_error: expected continue or stop, got 'retry'",
        ),
    ],
)
def test_refused(changes: dict[str, object], says: str) -> None:
    """What torch refuses, and what would never end, is refused when the scenario is made."""
    scenario = Scenario(
        loader=Loader(num_workers=1),
        dataset=MapDataset(9),
        consumer=Consumer(on_error="continue"),
        failures=[Failure("worker_init_fn", 0)],
    )
    with pytest.raises(ScenarioError, match=re.escape(says)):
        dlsim.replace(scenario, changes)
