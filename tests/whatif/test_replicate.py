from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import t

import dlsim
from dlsim.trace import Trace, summarize
from dlsim.whatif import (
    WhatIfError,
    interval,
    mser5,
    paired,
    replicate,
    replication_seed,
    steady_state,
)
from dlsim.whatif.statistics import intervals
from dlsim.whatif.steady import marks_of, steady_states
from tests.strategies import scenarios


def noisy(length: int = 40, batch_size: int = 2, **loader: Any) -> dlsim.Scenario:
    """Exponential samples, gamma steps, two workers."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": batch_size, "num_workers": 2} | loader),
        dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.5, 0.5)),
    )


def ending(trace: Trace) -> dict[str, float]:
    """The end of a trace, and nothing else."""
    return {"elapsed": trace.end}


def test_seeds_are_children_of_the_seed() -> None:
    """The seed of replication r is 63 bits of the r-th child that spawning the seed makes."""
    children = np.random.SeedSequence(7).spawn(5)
    expected = [int(child.generate_state(1, np.uint64)[0]) >> 1 for child in children]
    assert [replication_seed(7, r) for r in range(5)] == expected


def test_replications_are_simulations_of_their_seeds() -> None:
    """Each replication's metrics are those of a single simulation with its seed."""
    found = replicate(noisy(), 3, seed=5)
    for r, seed in enumerate(found.seeds):
        summary = summarize(dlsim.simulate(noisy(), seed)).as_dict()
        assert {name: found[name][r] for name in summary} == pytest.approx(summary, nan_ok=True)


@pytest.mark.usefixtures("one_engine")
def test_replication_does_not_depend_on_the_others() -> None:
    """Replication r has the same numbers however many are made, in however many processes."""
    few, many = replicate(noisy(), 4), replicate(noisy(), 8, jobs=2)
    for metric, values in few.metrics.items():
        np.testing.assert_array_equal(values, many[metric][:4])


def test_replications_go_on_from_those_before() -> None:
    """With the first ones given, all are what they would be, and only the others are simulated."""
    whole, first = replicate(noisy(), 5, seed=3), replicate(noisy(), 2, seed=3)
    seen: list[Trace] = []

    def watched(trace: Trace) -> dict[str, float]:
        seen.append(trace)
        return ending(trace)

    found = replicate(noisy(), 5, seed=3, measured=watched, before=first.rows)
    assert [trace.meta.seed for trace in seen] == found.seeds[2:]
    np.testing.assert_array_equal(found["elapsed"], whole["elapsed"])


def test_constant_costs_have_no_half_width() -> None:
    """Where nothing is random the interval is a point: the known throughput."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1),
        dataset=dlsim.MapDataset(10, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.3))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.1)),
    )
    found = replicate(scenario, 5).interval("samples_per_s")
    assert found.mean == pytest.approx(2.5)
    assert found.half_width == 0.0


def test_intervals_of_many_rows() -> None:
    """Rows with any NaN among them have the means and half-widths of what is known."""
    values = np.random.default_rng(1).gamma(2.0, 1.0, (50, 12))
    values[10:40] = np.where(values[10:40] > 2.5, np.nan, values[10:40])
    values[30:40] = values[30]
    values[40:45], values[45:47, 1:], values[47:] = np.nan, np.nan, 0.1
    for row, found in zip(values, intervals(values, 0.9), strict=True):
        known = row[~np.isnan(row)]
        mean, half = (known.mean(), np.nan) if len(known) else (np.nan, np.nan)
        if len(known) > 1:
            half = t.ppf(0.95, len(known) - 1) * known.std(ddof=1) / len(known) ** 0.5
        assert found.count == len(known)
        assert found.mean == pytest.approx(mean, rel=1e-12, nan_ok=True)
        assert found.half_width == pytest.approx(half, rel=1e-9, abs=1e-15, nan_ok=True)
        assert repr(interval(row, 0.9)) == repr(found)


def test_rounding_is_no_variation() -> None:
    """Times that differ in their last digits alone are equal: their interval has no width."""
    found = interval(np.array([0.3604, 0.3604 * (1 + 2e-16), 0.3604 * (1 - 4e-16)]))
    assert found.half_width == 0
    assert interval(np.array([0.3604, 0.3604 * (1 + 1e-6)])).half_width > 0


def test_intervals_cover_the_known_mean() -> None:
    """Of 1,000 95 % intervals, 93 to 97 % hold the true mean of a case with a known answer.

    One worker with a window of one: each batch is fetched during the step on the one before, so
    that the expected time of N batches is `S + (N - 1) E[max(S, T)] + T`; both are exponential.
    """
    fetch, step, batches = 1.0, 0.7, 8
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=1, prefetch_factor=1),
        dataset=dlsim.MapDataset(
            batches, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(fetch))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Exponential(step)),
    )
    longer = fetch + step - 1 / (1 / fetch + 1 / step)
    expected = fetch + (batches - 1) * longer + step
    covered = sum(
        expected in replicate(scenario, 8, seed, measured=ending).interval("elapsed")
        for seed in range(1000)
    )
    assert 930 <= covered <= 970


def test_precision_is_reached() -> None:
    """With a precision, replications go on until the relative half-width is reached."""
    found = replicate(noisy(), precision=0.03)
    measured = found.interval("samples_per_s")
    assert measured.half_width <= 0.03 * measured.mean
    assert 30 <= len(found) < 1000


def test_precision_ends_at_the_maximum() -> None:
    """A precision that is out of reach ends at the maximum, and the interval says what is known."""
    found = replicate(noisy(), precision=1e-6, maximum=40)
    assert len(found) == 40
    assert found.interval("samples_per_s").half_width > 0


def test_paired_intervals_are_narrower() -> None:
    """Common random numbers make the interval of a difference at least three times narrower."""
    base = noisy(400, 4, num_workers=4)
    one = replicate(base, 20)
    other = replicate(dlsim.replace(base, {"consumer.step.mean": 0.6}), 20)
    apart = replicate(dlsim.replace(base, {"consumer.step.mean": 0.6}), 20, seed=1)
    common = paired(one, other, "samples_per_s")
    independent = interval(apart["samples_per_s"] - one["samples_per_s"])
    assert common.half_width * 3 < independent.half_width


def test_paired_intervals_of_the_image_scenario() -> None:
    """On the image scenario, the steady-state gain of a faster transform is known far better.

    Figures of the whole run gain less: they hold how long leaving the epoch takes, which depends
    on what the workers are at just then.
    """
    base = dlsim.load(Path(__file__).parent.parent.parent / "scenarios" / "imagenet_a100.toml")
    faster = dlsim.replace(base, {"dataset.fetch.1.cpu.mean": "3 ms"})
    one, other, apart = replicate(base, 10), replicate(faster, 10), replicate(faster, 10, seed=1)
    metric = "steady_samples_per_s"
    independent = interval(apart[metric] - one[metric])
    assert paired(one, other, metric).half_width * 3 < independent.half_width


def test_paired_needs_common_random_numbers() -> None:
    """Replications of different seeds are not paired."""
    one, other = replicate(noisy(), 2), replicate(noisy(), 2, seed=1)
    with pytest.raises(WhatIfError, match=r"^paired: expected as many replications of one seed"):
        paired(one, other, "stall")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replications": 0}, "replications: expected an integer of at least 1, got 0"),
        ({"confidence": 1.0}, "confidence: expected a number between 0 and 1, got 1.0"),
        ({"precision": -1.0}, "precision: expected a share above 0 such as 0.01, got -1.0"),
        ({"jobs": 0}, "jobs: expected a number of processes, or -1 for all, got 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """What cannot be is refused in one line."""
    with pytest.raises(WhatIfError) as error:
        replicate(noisy(), **arguments)
    assert str(error.value) == message


def test_unknown_metric() -> None:
    """An unknown metric is refused, and the known ones are named."""
    with pytest.raises(WhatIfError, match=r"no such metric 'speed'; known: samples_per_s, "):
        replicate(noisy(), 2).interval("speed")


def test_mser5_finds_the_warm_up() -> None:
    """MSER-5 cuts off a decaying start, and nothing of a level series."""
    rng = np.random.default_rng(1)
    level = rng.normal(10, 1, 500)
    decaying = level + 50 * np.exp(-np.arange(500) / 20)
    assert mser5(np.full(500, 0.1)) == 0
    assert mser5(level) <= 100  # type: ignore[operator]
    assert 40 <= mser5(decaying) <= 150  # type: ignore[operator]


def test_mser5_of_too_short_a_run() -> None:
    """MSER-5 says nothing of few values, nor where the warm-up does not end in the first half."""
    assert mser5(np.ones(49)) is None
    assert mser5(np.concatenate([np.arange(80.0, 0, -1), np.ones(40)])) is None


def test_steady_states_of_many_runs() -> None:
    """Runs that are looked at together have the steady states that each of them has alone."""
    runs = [dlsim.simulate(noisy(length), seed) for length in (4, 400, 403) for seed in range(3)]
    together = steady_states([marks_of(run) for run in runs])
    for state, run in zip(together, runs, strict=True):
        np.testing.assert_equal(state.as_dict(), steady_state(run).as_dict())


def test_steady_state_of_constant_costs() -> None:
    """In the steady state constant costs give the period of the slowest part, start-up left out."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(800, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.5)),
        epochs=2,
    )
    trace = dlsim.simulate(scenario)
    found = steady_state(trace)
    assert found.period == pytest.approx(1.5)
    assert found.samples_per_s == pytest.approx(2 / 1.5)
    assert (found.stall, found.au) == pytest.approx((0.0, 1.0))
    assert summarize(trace).stall > 0  # the whole run has its starts


def test_steady_state_of_a_short_run() -> None:
    """A run too short to have a steady state has no steady-state figures."""
    found = steady_state(dlsim.simulate(noisy(4)))
    assert all(np.isnan(value) for value in found.as_dict().values())


@settings(max_examples=30)
@given(scenarios())
def test_every_scenario_can_be_replicated(scenario: dlsim.Scenario) -> None:
    """Whatever the scenario, each replication has all metrics, and nothing warns."""
    found = replicate(scenario, 2)
    assert all(len(values) == 2 for values in found.metrics.values())
    assert str(found).startswith("2 replications")
