"""Every second has one cause: `dlsim.account`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.scenario import Cost, Costs, Machine, Scenario
from dlsim.trace import account, metrics, summarize
from dlsim.trace.telling import sentence
from tests.strategies import on_machines, scenarios
from tests.whatif.cases import CASES
from tests.whatif.test_bounds import anywhere


def run(
    fetch: Any = 1.0,
    step: float = 0.5,
    length: int = 24,
    loader: dict[str, Any] | None = None,
    consumer: dict[str, Any] | None = None,
    **changes: Any,
) -> dlsim.Trace:
    """By default two workers, batches of one sample of 1 s, steps of 0.5 s."""
    fetch = dlsim.Constant(fetch) if isinstance(fetch, float) else fetch
    return dlsim.simulate(
        Scenario(
            loader=dlsim.Loader(**{"batch_size": 1, "num_workers": 2} | (loader or {})),
            dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=fetch)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(step), **(consumer or {})),
            **changes,
        )
    )


def adds_up(trace: dlsim.Trace) -> None:
    """Busy and idle seconds are the elapsed time, and the stall is what the metrics say."""
    found, elapsed = account(trace), metrics.elapsed(trace)
    assert found.busy + sum(found.idle.values()) == pytest.approx(elapsed, rel=1e-9, abs=1e-12)
    assert found.elapsed == pytest.approx(elapsed, rel=1e-9, abs=1e-12)
    assert all(seconds > 0 for seconds in found.idle.values())
    if elapsed > 0:
        assert found.stall == pytest.approx(metrics.stall(trace), abs=1e-9)
        assert found.stall == pytest.approx(summarize(trace).stall, abs=1e-9)
        assert sum(found.shares.values()) == pytest.approx(found.stall, abs=1e-9)


@settings(max_examples=100)
@given(scenarios(torch_only=False))
def test_adds_up(scenario: Scenario) -> None:
    """On every scenario, busy and idle seconds add up to the elapsed time within 1e-9."""
    adds_up(dlsim.simulate(scenario))


@settings(max_examples=60)
@given(on_machines())
def test_adds_up_on_machines(scenario: Scenario) -> None:
    """The same holds where cores, storage and transport are shared and cost something."""
    adds_up(dlsim.simulate(scenario))


@settings(max_examples=30)
@given(anywhere())
def test_adds_up_anywhere(scenario: Scenario) -> None:
    """The same holds on the machines for which there are bounds."""
    adds_up(dlsim.simulate(scenario))


def test_worker_bound() -> None:
    """With 2 workers and 24 batches of 1 s, 12 rounds of fetching hide all steps but two."""
    found = account(run())
    assert (found.elapsed, found.busy) == (13.0, 12.0)
    assert found.idle == pytest.approx({"first batch": 1.0})
    found = account(run(step=0.25))
    assert found.busy == 6.0
    assert found.idle == pytest.approx({"fetch: read": 5.5, "first batch": 1.0})
    assert found.cause == "fetch"


def test_start_up() -> None:
    """Workers that are started anew for each epoch are start-up, in later epochs too."""
    trace = run(0.01, 0.1, 10, {"num_workers": 4}, epochs=5, costs=Costs(worker_start=1.0))
    assert account(trace).idle == pytest.approx({"start-up: workers": 20.0, "first batch": 0.05})
    assert metrics.stall(trace) == pytest.approx(20.05 / 25.05)
    trace = run(step=0.1, length=4, costs=Costs(worker_ready=3.0), loader={"batch_size": 2})
    assert account(trace).idle["start-up: ready"] == pytest.approx(3.0)


def test_handshake_and_draining() -> None:
    """Persistent workers finish what was sent before they answer that the next epoch begins."""
    loader = {"persistent_workers": True, "num_workers": 1}
    trace = run(1.0, 0.0, 8, loader, {"stop_after": 1}, epochs=2, costs=Costs(index_latency=0.25))
    assert account(trace).idle["draining"] == pytest.approx(1.0 + 1.0)  # two were sent ahead
    whole = run(1.0, 0.0, 8, loader, epochs=2, costs=Costs(index_latency=0.25))
    assert account(whole).idle["start-up: handshake"] == pytest.approx(0.25)


def test_joining() -> None:
    """Workers that take long to stop are waited for at the end of an epoch."""
    found = account(run(costs=Costs(worker_stop=2.0))).idle
    assert found["joining"] == pytest.approx(2.0)


def test_empty_pipeline() -> None:
    """The first batch of every epoch is fetched while nothing else is ready."""
    loader = {"num_workers": 8, "persistent_workers": True}
    found = account(run(1.6, 0.2, 3, loader, epochs=10))
    assert found.idle == pytest.approx({"first batch": 16.0})
    assert found.stall == pytest.approx(16 / 22)


def test_endless_sampler_fills_once() -> None:
    """Of a sampler that never ends, only the first epoch begins with an empty pipeline."""
    found = account(run(0.2, 0.2, 4, {"endless": True}, epochs=10))
    assert found.idle == pytest.approx({"first batch": 0.2})


def test_last_round() -> None:
    """25 batches on 16 workers take two rounds, in the second of which 7 workers have nothing."""
    found = account(run(10.0, 0.0, 25, {"num_workers": 16}))
    assert found.idle == pytest.approx({"last round": 10.0, "first batch": 10.0})
    assert found.cause == "last round"
    assert "last round" not in account(run(10.0, 0.0, 32, {"num_workers": 16})).idle


def test_used_up_shards() -> None:
    """Of uneven shards, the longest goes on alone when the others are used up."""
    found = account(dlsim.simulate(CASES["uneven shards"]))
    assert found.cause == "shards"
    assert found.shares["shards"] > 0.6


def test_sending_indices() -> None:
    """Where putting an index list takes longer than all else, sending is what limits."""
    found = account(run(0.01, 0.1, 100, costs=Costs(index_put=2.85)))
    assert found.cause == "send"
    assert found.idle["send"] == pytest.approx(285.0)


def test_receiving_and_a_host_that_runs_ahead() -> None:
    """Receiving inside `next()` keeps the accelerator idle, unless the host runs ahead of it."""
    costs = Costs(receive=Cost(message=0.03))
    found = account(run(0.01, 0.1, 100, costs=costs))
    assert found.idle["receive"] == pytest.approx(99 * 0.03)
    ahead = run(0.01, 0.1, 100, costs=costs, consumer={"run_ahead": 2})
    assert account(ahead).idle == pytest.approx({"first batch": 0.04})
    assert metrics.stall(ahead) == pytest.approx(0.04 / 10.04)
    assert metrics.total(metrics.waits(ahead)) > 2.9


def test_copying() -> None:
    """Copying to the accelerator is no computing; on a stream of its own it is hidden."""
    dataset = dlsim.MapDataset(
        20,
        fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.001))],
        sample_bytes=dlsim.Constant(1e7),
    )
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2, pin_memory=True),
        dataset=dataset,
        consumer=dlsim.Consumer(step=dlsim.Constant(0.1), run_ahead=2),
        costs=Costs(copy_byte=5e-9),
    )
    found = account(dlsim.simulate(scenario))
    assert found.idle["copy"] == pytest.approx(20 * 0.05)
    assert found.busy == pytest.approx(2.0)
    hidden = dlsim.replace(scenario, {"consumer.overlap_copy": True})
    assert account(dlsim.simulate(hidden)).idle["copy"] == pytest.approx(0.05)


def test_contention() -> None:
    """What computing takes longer because other cores are busy is contention, not want of cores."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=4),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("decode", cpu=dlsim.Constant(1.0))]),
        machine=Machine(cores=4, contention=0.5),
    )
    shares = account(dlsim.simulate(scenario)).shares
    assert shares["contention"] == pytest.approx(0.9 / 3, abs=0.03)
    assert "core" not in shares


def test_waiting_for_a_feeder_is_waiting_for_the_lock() -> None:
    """What samples take longer as their worker pickles is the lock's, not for want of cores."""
    decode = dlsim.Stage("decode", cpu=dlsim.Constant(0.01))
    read = dlsim.Stage("read", wait=dlsim.Constant(0.01))
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=1),
        dataset=dlsim.MapDataset(40, fetch=[decode, read]),
        costs=Costs(serialise=dlsim.Cost(message=0.01)),
        machine=Machine(switch_interval=0.005),
    )
    shares = account(dlsim.simulate(scenario)).shares
    assert shares["lock"] > 0.15
    assert "core" not in shares


def test_timeout() -> None:
    """The time after the last step, up to a timeout, is put down to it."""
    found = account(run(5.0, 0.1, 4, {"timeout": 2.0}))
    assert found.idle == pytest.approx({"timeout": 2.0})


def test_clock() -> None:
    """With a clock, seconds are those between the moments that it makes of the trace's."""
    trace = run(step=0.25)
    twice = account(trace, lambda moments: np.asarray(2 * moments))
    assert twice.busy == pytest.approx(2 * account(trace).busy)
    assert twice.shares == pytest.approx(account(trace).shares)


def test_the_stage_that_takes_most_is_named() -> None:
    """Of several stages, the one that takes most; one that is only called fetch says no more."""
    idle = {"fetch: decode": 0.1, "fetch: read": 0.3, "first batch": 0.1}
    said = "Training is idle 50.0 % of the time: 40.0 % for fetching samples"
    assert sentence(idle, 0.5) == f"{said}, most of it read"
    assert sentence({"fetch: collate": 0.1, "fetch: fetch": 0.3}, 0.5) == said
