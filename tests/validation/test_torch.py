"""The simulation against torch's own DataLoader code, run under a virtual clock."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference
from tests.strategies import scenarios, validated

virtual = pytest.importorskip("dlsim.validation.virtual.loader", reason="needs torch")
ENGINES = ["simpy", "compiled"] if find_spec("llvmlite") else ["simpy"]


@settings(max_examples=1000)
@given(scenarios(), st.integers(0, 2**32))
def test_equals_torch(scenario: Scenario, seed: int) -> None:
    """Every moment of every batch and sample is the same in both engines and in torch."""
    theirs = virtual.run_virtual(scenario, seed, samples=True)
    for engine in ENGINES:
        ours = dlsim.simulate(scenario, seed, engine=engine, samples=True)
        assert difference(ours, theirs) is None


@settings(max_examples=50)
@given(validated(scenarios()), st.integers(0, 2**32))
def test_validation_beside_training_equals_torch(scenario: Scenario, seed: int) -> None:
    """Two DataLoaders under one clock, that of validation perhaps before training, too.

    More of them: `python -m tests.benchmarks.equality --validation`.
    """
    theirs = virtual.run_virtual(scenario, seed, samples=True)
    ours = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
    assert theirs.validation is not None
    assert difference(ours, theirs) is None


@settings(max_examples=200)
@given(scenarios(), st.integers(0, 2**32))
def test_endless_sampler_equals_torch(scenario: Scenario, seed: int) -> None:
    """A sampler that begins anew by itself has every moment as in torch, in both engines."""
    assume(isinstance(scenario.dataset, dlsim.MapDataset))
    assume(scenario.loader.batches(scenario.dataset.length) > 0)
    assume(scenario.consumer.on_error == "stop" or not scenario.failures)
    endless = dlsim.replace(
        scenario, {"loader.endless": True, "consumer.loop": "plain", "epochs": 3}
    )
    theirs = virtual.run_virtual(endless, seed, samples=True)
    for engine in ENGINES:
        ours = dlsim.simulate(endless, seed, engine=engine, samples=True)
        assert difference(ours, theirs) is None


def test_endless_sampler_keeps_workers_busy_over_the_edge() -> None:
    """Epochs of 3 batches on 8 workers: only the first batch of all is waited for, not of each."""
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=8, persistent_workers=True),
        dataset=dlsim.MapDataset(3, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.6))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.2)),
        epochs=10,
    )
    endless = dlsim.replace(scenario, {"loader.endless": True})
    for engine in ENGINES:
        stalls = [
            dlsim.summarize(dlsim.simulate(s, engine=engine)).stall for s in (scenario, endless)
        ]
        assert stalls == [pytest.approx(1.6 / 2.2), pytest.approx(1.6 / 7.6)]


def test_endless_sampler_needs_batches() -> None:
    """A sampler that would begin anew for ever without a batch is refused, and an iterable's."""
    with pytest.raises(dlsim.ScenarioError, match="endless: needs a sampler that has at least one"):
        Scenario(loader=dlsim.Loader(endless=True), dataset=dlsim.MapDataset(0))
    with pytest.raises(dlsim.ScenarioError, match="endless: expected nothing: an iterable-style"):
        Scenario(loader=dlsim.Loader(endless=True), dataset=dlsim.IterableDataset(8))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("in_order", [True, False])
def test_worker_that_failed_to_start_recovers(stop_after: int, bad: int, in_order: bool) -> None:
    """A persistent worker whose init failure was never looked at fetches in the next epoch."""
    scenario = Scenario(
        loader=dlsim.Loader(
            batch_size=2, num_workers=3, persistent_workers=True, in_order=in_order
        ),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(0.3, 1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Exponential(0.2), stop_after=stop_after),
        failures=[dlsim.Failure("worker_init_fn", bad)],
        epochs=3,
    )
    theirs = virtual.run_virtual(scenario, 5, samples=True)
    for engine in ENGINES:
        ours = dlsim.simulate(scenario, 5, engine=engine, samples=True)
        assert difference(ours, theirs) is None


def test_the_turn_may_come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread runs at a time, also where the next is done before the last has gone to wait."""
    given = virtual.Clock._pass_turn

    def slowly(clock: Any) -> Any:
        next_one = given(clock)
        if next_one is not clock.main:
            time.sleep(0.001)  # the main thread is held up just before it waits
        return next_one

    monkeypatch.setattr(virtual.Clock, "_pass_turn", slowly)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(20, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
    )
    ours = dlsim.simulate(scenario, engine="simpy", samples=True)
    assert difference(ours, virtual.run_virtual(scenario, samples=True)) is None
