"""Metrics of runs whose batches nobody keeps, against those of whole traces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine import outcome, outcomes, simulate
from dlsim.engine.facts import may_end_early, stopped_by_others, uncovered
from dlsim.engine.kept import kept
from dlsim.scenario import Scenario
from dlsim.trace import JobTrace, Trace
from dlsim.trace.tally import JobTally, Tally, middle
from dlsim.whatif import measure
from tests.strategies import ideal, in_order, jobs, on_machines

pytest.importorskip("llvmlite", reason="only the compiled engine makes tallies")
from dlsim.engine.compiled import simulation
from dlsim.engine.compiled.counting import goes_on
from dlsim.engine.compiled.in_order import InOrder, tallies
from dlsim.engine.compiled.job import tally_ranks
from dlsim.engine.in_order import suits

QUANTILES = ("wait_p50", "wait_p95", "wait_p99")


def long(batches: int, **changes: object) -> Scenario:
    """In order, with waits now and then, in two stages."""
    stages = [dlsim.Stage("read", wait=dlsim.Gamma(1.0, 0.8), cpu=dlsim.Lognormal(0.1, 2.0))]
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=5, prefetch_factor=3),
        dataset=dlsim.MapDataset(2 * batches, fetch=stages, sample_bytes=dlsim.Constant(1000)),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.4, 0.3)),
    )
    return dlsim.replace(scenario, changes)


def assert_same(scenario: Scenario, seed: int, *, but: tuple[str, ...] = ()) -> dict[str, float]:
    """The metrics of the tally, which are those of the trace to twelve digits."""
    inside = tallies(scenario, [seed], lambda batches: None) if suits(scenario) else None
    tally = next(inside) if inside else outcome(scenario, seed)
    assert isinstance(tally, Tally)
    found, expected = measure(tally), measure(simulate(scenario, seed, engine="compiled"))
    assert found.keys() == expected.keys()
    for name in found.keys() - {*but}:
        assert found[name] == pytest.approx(expected[name], rel=1e-12, abs=1e-12, nan_ok=True), name
    for name in but:
        assert found[name] == pytest.approx(expected[name], rel=0.004), name
    return found


@given(in_order, st.integers(0, 2**32))
def test_metrics_equal_those_of_the_trace(scenario: Scenario, seed: int) -> None:
    """Every metric of a tally is that of the whole trace, for random scenarios in order."""
    assume(suits(scenario))
    assert_same(scenario, seed)


@settings(max_examples=60)
@given(on_machines(), st.integers(0, 2**32), st.sampled_from([1, 8, 64]))
def test_metrics_of_the_event_loop(scenario: Scenario, seed: int, room: int) -> None:
    """So is that of a tally made on any machine, in any order, however few columns there are."""
    whole = {"loader.timeout": 0.0, "consumer.stop_after": None, "failures": []}
    gone_on = {**whole, "loader.endless": False, "loader.refill": "return"}
    scenario = dlsim.replace(scenario, gone_on)
    assume(goes_on(scenario))
    found = measure(simulation.tally(scenario, seed, room))
    expected = measure(simulate(scenario, seed, engine="compiled"))
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9, nan_ok=True), name


@settings(max_examples=60)
@given(jobs(ideal | on_machines()), st.integers(0, 2**32), st.sampled_from([1, 8, 64]))
def test_metrics_of_jobs(scenario: Scenario, seed: int, room: int) -> None:
    """So are those of the tallies of all ranks of a job, however ranks meet."""
    whole = {"loader.timeout": 0.0, "consumer.stop_after": None, "failures": []}
    gone_on = {**whole, "loader.endless": False, "loader.refill": "return"}
    scenario = dlsim.replace(scenario, gone_on)
    assume(goes_on(scenario) and not uncovered(scenario))
    assume(not stopped_by_others(scenario) and not may_end_early(scenario))
    found = measure(tally_ranks(scenario, seed, lambda batches: None, room))
    expected = measure(dlsim.simulate_job(scenario, seed, engine="compiled"))
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9, nan_ok=True), name


def test_long_jobs_keep_no_traces() -> None:
    """Metrics alone of a long job, its steady state, too, are those of its traces."""
    scenario = long(70_000, **{"job.ranks": 4, "machine.cores": 8.0, "job.sync": 3})
    tally, traces = outcome(scenario, 1), dlsim.simulate_job(scenario, 1, engine="compiled")
    assert isinstance(tally, JobTally)
    found, expected = measure(tally), measure(traces)
    for name in expected:
        near = 0.004 if name in QUANTILES else 1e-9
        assert found[name] == pytest.approx(expected[name], rel=near, abs=1e-9, nan_ok=True), (
            name
        )  # there is no validation
    short = long(1000, **{"job.ranks": 4, "machine.cores": 8.0})
    assert isinstance(outcome(short), JobTrace)


def test_across_blocks_and_epochs() -> None:
    """The metrics stay exact where blocks end, columns are forgotten and epochs begin anew."""
    assert_same(long(20_000, epochs=3), 1)
    assert_same(long(20_000, **{"epochs": 2, "consumer.run_ahead": 70}), 1)
    assert_same(long(3000, **{"loader.num_workers": 300, "loader.prefetch_factor": 40}), 1)
    assert_same(long(3000, **{"loader.num_workers": 20, "loader.prefetch_factor": 4}), 1)
    assert_same(long(3000, **{"dataset.fetch": [], "epochs": 2}), 1)


def test_where_no_time_passes() -> None:
    """Levels count batches at a return only if time has passed since they came."""
    nothing = dlsim.Mixture([dlsim.Constant(0.0), dlsim.Constant(1.0)], [0.999, 0.001])
    changes = {"dataset.fetch": [dlsim.Stage("read", wait=nothing)], "consumer.step": nothing}
    assert_same(long(5000, **changes, epochs=2), 3)
    never = {"dataset.fetch": [], "consumer.step": dlsim.Constant(0.0)}
    assert assert_same(long(5000, **never), 1)["credit_max"] == 0


def test_batches_of_many_sizes() -> None:
    """The bytes that are ready are those of the samples in each batch."""
    batches = [list(range(1 + 7 * number % 13)) for number in range(4000)]
    sizes = {"loader.batch_sampler": batches, "loader.batch_size": 1}
    assert_same(long(4000, **sizes), 1)


def test_of_long_runs_quantiles_are_right_to_four_thousandths() -> None:
    """When waits are only counted in classes, all else is exact, and quantiles nearly."""
    found = assert_same(long(170_000), 2, but=QUANTILES)
    assert found["wait_p95"] > 0


@given(st.floats(1e-11, 1e6))
def test_the_middle_of_a_class_is_near_all_of_it(wait: float) -> None:
    """A wait differs from the middle of its class by less than 0.4 %."""
    classes = [middle(number) for number in range(1, 128 * 70 + 1)]
    assert np.abs(np.array(classes) / wait - 1).min() < 0.004


def test_memory_does_not_grow_with_batches() -> None:
    """A run of a thousand million batches needs no more columns than one of a million."""
    rooms = {InOrder(long(batches), keep=False).course.moments.shape for batches in (10**6, 10**9)}
    assert len(rooms) == 1


def test_short_runs_on_the_event_loop_keep_their_trace() -> None:
    """What is not in order, or not on the ideal machine, is tallied when it is long."""
    for changes in {"loader.in_order": False}, {"machine.cores": 2.0}:
        assert isinstance(outcome(long(10, **changes)), Trace)
        assert_same(long(70_000, **changes), 1, but=QUANTILES)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2, "dataset.collate": dlsim.Exponential(0.1)},
        {"loader.shuffle": True, "dataset.fetch.0.wait": dlsim.Recorded(np.arange(2000) / 500)},
        {"dataset.fetch.0.cpu": dlsim.Mixture([dlsim.Exponential(1.0)], [1.0])},
    ],
)
def test_runs_one_after_another(changes: dict[str, object]) -> None:
    """A run is the same whether others were made before it or not."""
    scenario = long(1000, **changes)
    found = [measure(run) for run in outcomes(scenario, [3, 1, 2])]
    np.testing.assert_equal(found, [measure(outcome(scenario, seed)) for seed in (3, 1, 2)])


@pytest.mark.parametrize("batches", [100, 20_000])
def test_kept_numbers(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are kept for others change nothing, whether all are kept, some, or none."""
    scenarios = [long(batches, **{"loader.num_workers": workers}) for workers in (2, 3, 5)]
    scenarios += [dlsim.replace(scenarios[0], {"consumer.step": dlsim.Gamma(0.5, 0.3)})]
    expected = [measure(outcome(scenario, seed)) for seed in (1, 2) for scenario in scenarios]
    for most in (10**7, 3 * batches, 0):
        monkeypatch.setattr("dlsim.engine.kept.MOST", most)
        with kept():
            found = [measure(outcome(scenario, seed)) for seed in (1, 2) for scenario in scenarios]
        np.testing.assert_equal(found, expected)
