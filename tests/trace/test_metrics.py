from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine import simulate
from dlsim.scenario import Scenario
from dlsim.trace import Trace, metrics, stays, summarize
from dlsim.trace.levels import levels
from dlsim.trace.summary import percent
from dlsim.trace.trace import MOMENTS, RETURNED, SKIPPED
from tests.strategies import scenarios


def steady(**loader: Any) -> Trace:
    """Two workers, batches of 3 samples of 1 s, steps of 0.5 s: 8 batches in 13 s."""
    keywords = {"batch_size": 3, "num_workers": 2, "prefetch_factor": 2} | loader
    return simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(**keywords),
            dataset=dlsim.MapDataset(24, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        )
    )


def slow_first() -> Trace:
    """Four batches of one sample; the first takes 4 s, the others 1 s; steps of 0.5 s.

    Worker 0 fetches batch 0 from 0 to 4 and batch 2 to 5, worker 1 batches 1 and 3 to 1 and 2.
    They are returned at 4, 4.5, 5 and 5.5.
    """
    return simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(num_workers=2, prefetch_factor=2),
            dataset=dlsim.MapDataset(
                4,
                fetch=[dlsim.Stage("read", wait=dlsim.Recorded((4.0, 1.0, 1.0, 1.0)))],
                sample_bytes=dlsim.Constant(100.0),
            ),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        )
    )


def test_steady_summary() -> None:
    """Every metric of a steady run is what one computes by hand."""
    found = summarize(steady()).as_dict()
    unknown = ("buffer_bytes", "validation", "validation_stall")
    assert all(math.isnan(found.pop(name)) for name in unknown)
    assert found == pytest.approx(
        {
            "samples_per_s": 24 / 13,
            "distinct_per_s": 24 / 13,
            "batches_per_s": 8 / 13,
            "wait_mean": 9 / 8,  # 3 0 2 0 2 0 2 0
            "wait_p50": 1.0,
            "wait_p95": 2.65,
            "wait_p99": 2.93,
            "wait_first": 3.0,
            "stall": 9 / 13,
            "au": 4 / 13,
            "first_batch": 3.0,
            "epoch_time": 13.0,
            "elapsed": 13.0,
            "buffer_mean": 2 / 13,  # worker 1's four batches, 0.5 s each
            "buffer_max": 1.0,
            "credit_max": 4.0,
            "held": 0.0,
            "held_max": 0.0,
            "head_of_line": 0.0,
            "worker_utilisation": 12 / 13,
            "batches": 8.0,
            "samples": 24.0,
            "distinct": 24.0,
            "lost": 0.0,
        }
    )


def test_slow_batch_blocks_the_line() -> None:
    """Batches that arrive before a slow one are held, and the wait for it is head-of-line."""
    found = summarize(slow_first())
    assert (found.held, found.held_max) == (2, 2)
    assert found.head_of_line == 3.0
    assert found.buffer_mean == pytest.approx(7 / 6)
    assert found.buffer_bytes == 200.0


def test_buffer_and_credit_over_time() -> None:
    """Step functions change exactly when batches arrive and are returned."""
    trace = slow_first()
    buffer, credit = stays.buffer(trace), stays.credit(trace)
    assert buffer.times.tolist() == [0, 1, 2, 4.5, 5.5]
    assert buffer.counts.tolist() == [0, 1, 2, 1, 0]
    assert credit.times.tolist() == [0, 4, 4.5, 5, 5.5]
    assert credit.counts.tolist() == [4, 3, 2, 1, 0]
    assert (credit.mean, credit.max, credit.end) == (pytest.approx(19 / 6), 4, 6.0)


def test_worker_utilisation() -> None:
    """Each worker's share is the time it fetches, over the elapsed time."""
    assert metrics.worker_utilisation(slow_first()).tolist() == pytest.approx([5 / 6, 2 / 6])


def test_no_workers() -> None:
    """Without workers all loading is wait, nothing is buffered, and no worker is spoken of."""
    found = summarize(steady(num_workers=0, prefetch_factor=None))
    assert (found.stall, found.au) == (pytest.approx(24 / 28), pytest.approx(4 / 28))
    assert (found.buffer_max, found.credit_max, found.held, found.head_of_line) == (0, 0, 0, 0)
    assert math.isnan(found.worker_utilisation)


def test_out_of_order_holds_nothing() -> None:
    """With in_order=False no batch is held, and none waits at the head of the line."""
    trace = steady(in_order=False)
    assert (summarize(trace).held, summarize(trace).head_of_line) == (0, 0)


def test_epoch_times() -> None:
    """Each epoch has its own time."""
    scenario = slow_first().meta.scenario
    trace = simulate(dlsim.replace(scenario, {"epochs": 3}))
    assert metrics.epoch_times(trace).tolist() == [6.0, 6.0, 6.0]


def test_unreturned_batches_wait_until_the_epoch_ends() -> None:
    """What is ready when the loop is left fills the buffer until then, and no longer."""
    scenario = dlsim.replace(slow_first().meta.scenario, {"consumer.stop_after": 1, "epochs": 2})
    trace = simulate(scenario)
    # The loop is left at 4.5, and closing the workers waits for batch 2 until 5.
    buffer = stays.buffer(trace)
    assert buffer.times.tolist() == [0, 1, 2, 5, 6, 7]
    assert buffer.counts.tolist() == [0, 1, 2, 0, 1, 2]
    assert stays.credit(trace).counts.tolist() == [4, 3, 4, 3]


def test_skipped_batches_give_their_credit_back() -> None:
    """Batches sent to a worker whose iterator has ended hold no credit once it has said so."""
    trace = simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(num_workers=2, prefetch_factor=3),
            dataset=dlsim.IterableDataset(
                5,
                sharding=[1, 4],
                fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))],
            ),
        )
    )
    assert (trace.status == SKIPPED).any()
    credit = stays.credit(trace)
    assert credit.counts[np.searchsorted(credit.times, 1.0, side="right") - 1] < 6


def test_empty_trace() -> None:
    """A run of no batches has counts of 0, and nothing to say of rates and means."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset(0))
    found = summarize(simulate(scenario))
    assert (found.batches, found.samples, found.buffer_max, found.credit_max) == (0, 0, 0, 0)
    assert math.isnan(found.samples_per_s)
    assert math.isnan(found.wait_mean)
    assert "0 samples in 0 batches" in str(found)


def test_error_ends_the_trace() -> None:
    """Metrics of a run that an error ended go up to the error."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1, prefetch_factor=2),
        dataset=dlsim.MapDataset(4, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        failures=(dlsim.Failure("fetch", 2),),
    )
    found = summarize(simulate(scenario))
    assert (found.batches, found.elapsed, found.worker_utilisation) == (2, 3.0, 1.0)
    assert math.isnan(found.epoch_time)


@pytest.mark.parametrize("name", MOMENTS)
def test_unobserved_moment(name: str) -> None:
    """A moment nobody observed leaves the metrics that need it unknown, and the rest as it is."""
    whole = slow_first()
    unseen = np.full(len(whole), np.nan)
    found = summarize(dataclasses.replace(whole, **{name: unseen}))
    assert found.samples_per_s == summarize(whole).samples_per_s
    unknown = {
        "sent": {"credit_max"},
        "started": {"worker_utilisation"},
        "arrived": {"buffer_mean", "buffer_max", "buffer_bytes", "head_of_line"},
        "received": {"held", "held_max"},
        "requested": {"wait_mean", "wait_first"},
        "returned": {"wait_mean", "stall", "au", "first_batch"},
        "finished": {"stall", "au"},
    }.get(name, set())
    for metric in unknown:
        assert math.isnan(found.as_dict()[metric]), metric


def test_span_without_epoch_times() -> None:
    """Where epochs were not timed, the first and the last moment seen stand for them."""
    trace = slow_first()
    unseen = np.full(1, np.nan)
    epochs = dataclasses.replace(trace.epochs, started=unseen, ended=unseen)
    assert metrics.span(dataclasses.replace(trace, epochs=epochs)) == (0.0, 6.0)


def test_a_batch_that_is_replaced_counts_no_more() -> None:
    """A real run sends a batch a little before it returns one, and uses no more credit for that."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1, prefetch_factor=2),
        dataset=dlsim.MapDataset(10, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
    )
    trace = simulate(scenario)
    sent = np.where(trace.sent > 0, trace.sent - 0.001, trace.sent)
    assert stays.credit(dataclasses.replace(trace, sent=sent)).max == 2


def test_what_was_not_observed_is_not_told() -> None:
    """Of a run without arrivals the summary tells what was sent, and no dashes."""
    whole = slow_first()
    unseen = dataclasses.replace(whole, arrived=np.full(len(whole), np.nan))
    lines = str(summarize(unseen)).splitlines()
    assert "buffer        sent and not returned at most 4" in lines
    assert not any(" - " in line or line.startswith("memory") for line in lines)


def test_summary_is_a_short_table() -> None:
    """A summary prints as a few aligned lines, with units."""
    lines = str(summarize(slow_first())).splitlines()
    assert lines[0].startswith("throughput    0.667 samples/s, 0.667 batches/s")
    assert lines[-1] == "memory        at most 200 B in the buffer"
    assert max(map(len, lines)) <= 100


def test_rounding_is_not_told() -> None:
    """Shares that differ by rounding alone are told alike; rounding makes none more than 1."""
    assert percent(-1e-16) == "0.0 %"
    assert percent(0.0625) == percent(0.06250000000000001) == "6.2 %"
    thirds = metrics.utilisation(0.1 + 0.2, 0.3)
    assert 0.1 + 0.2 > 0.3
    assert thirds == 1.0
    assert math.isnan(metrics.utilisation(0.0, 0.0))


@settings(max_examples=60)
@given(scenarios(torch_only=False), st.integers(0, 99))
def test_bounds(scenario: Scenario, seed: int) -> None:
    """Shares lie between 0 and 1, credit never exceeds the window, and buffers hold credit."""
    trace = simulate(scenario, seed)
    found = summarize(trace)
    assert not found.stall < 0
    assert not found.stall + found.au > 1 + 1e-9
    assert not np.any(metrics.worker_utilisation(trace) > 1 + 1e-9)
    assert 0 <= found.buffer_max <= found.credit_max <= scenario.loader.window
    assert 0 <= found.held_max <= found.held
    assert not found.head_of_line > metrics.total(metrics.waits(trace)) + 1e-9


@settings(max_examples=60)
@given(scenarios(), st.integers(0, 99))
def test_littles_law(scenario: Scenario, seed: int) -> None:
    """The mean number of batches in the buffer is throughput times the mean time spent there."""
    whole = {"consumer.stop_after": None, "failures": [], "loader.timeout": 0}
    trace = simulate(dlsim.replace(scenario, {**whole, "loader.endless": False}), seed)
    if not metrics.elapsed(trace) or not len(trace.order):
        return
    back = trace.status == RETURNED
    spent = (trace.returned - trace.arrived)[back]
    expected = metrics.batches_per_second(trace) * float(spent.mean())
    assert stays.buffer(trace).mean == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(scenarios(), st.integers(0, 99))
def test_head_of_line_as_defined(scenario: Scenario, seed: int) -> None:
    """The fast formula agrees with looking at every pair of batches of an epoch."""
    trace = simulate(scenario, seed)
    rank = {batch: place for place, batch in enumerate(trace.order.tolist())}
    epoch = trace.as_one_epoch.epoch_of(np.arange(len(trace)))
    real = [b for b in range(len(trace)) if trace.status[b] not in (2, SKIPPED)]
    lost = 0.0
    for b in rank:
        later = [
            trace.arrived[k]
            for k in real
            if epoch[k] == epoch[b] and rank.get(k, len(trace)) > rank[b]
        ]
        arrival = min((t for t in later if t == t), default=math.inf)
        until = min(trace.arrived[b], trace.returned[b])
        lost += max(0.0, until - max(trace.requested[b], arrival))
    assert stays.head_of_line(trace) == pytest.approx(lost, abs=1e-9)


@settings(max_examples=60)
@given(scenarios(torch_only=False), st.sets(st.sampled_from(MOMENTS)), st.randoms())
def test_never_fails(scenario: Scenario, hidden: set[str], random: Any) -> None:
    """Whatever was not observed, all metrics can be had without a warning."""
    trace = simulate(scenario)
    columns = {name: getattr(trace, name).copy() for name in hidden}
    for column in columns.values():
        column[[random.random() < 0.5 for _ in column]] = np.nan
    found = summarize(dataclasses.replace(trace, **columns))
    assert all(isinstance(value, float) for value in found.as_dict().values())
    assert str(found)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12))
def test_levels_count_who_is_there(stays: list[tuple[int, int]]) -> None:
    """Halfway between any two moments, the level is the number of those who are there."""
    come = np.array([min(stay) for stay in stays], float)
    go = np.array([max(stay) for stay in stays], float)
    found = levels(come, go, 0.0, 20.0)
    assert found.times[0] == 0.0
    assert np.all(np.diff(found.times) > 0)
    for moment in np.arange(20) + 0.5:
        level = found.counts[np.searchsorted(found.times, moment) - 1]
        assert level == np.sum((come < moment) & (go > moment))
