from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.whatif.luck import drawn, luck, told, weights
from dlsim.whatif.stretching import repeats
from tests.strategies import on_machines, scenarios

SEEDS = (3, 4, 5)
HALF = dlsim.Constant(0.5)


def loaded(
    fetch: Any, step: Any = HALF, batches: int = 40, epochs: int = 1, **loader: Any
) -> dlsim.Scenario:
    """Batches of one sample, by default of two workers."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"num_workers": 2} | loader),
        dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("read", wait=fetch)]),
        consumer=dlsim.Consumer(step=step),
        epochs=epochs,
    )


@pytest.mark.parametrize("batched", [False, True])
def test_luck_is_what_runs_take_beyond_their_expectation(batched: bool) -> None:
    """Luck is drawn as a simulation draws, in all epochs, and the last, smaller batch too."""
    read, collate = dlsim.Lognormal(1.0, 0.5), dlsim.Uniform(0.0, 1.0)
    stage = dlsim.Stage("read", wait=read, cpu=read)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=3),
        dataset=dlsim.MapDataset(30, fetch=[stage], collate=collate, batched=batched),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.5, 0.5)),
        epochs=2,
    )
    for seed, found in zip(SEEDS, luck(scenario, SEEDS), strict=True):
        trace = dlsim.simulate(scenario, seed=seed)
        calls = 1.0 if batched else trace.size
        fetching = (trace.fetched - trace.started - (2.0 * calls + 0.5)).sum()
        steps = (trace.finished - trace.returned - 0.5).sum()
        np.testing.assert_allclose(found[1:], [fetching, steps], atol=1e-9)


@pytest.mark.parametrize("sharding", ["split", "none"])
@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"num_workers": 0}])
def test_luck_of_workers_that_draw_for_themselves(sharding: Any, options: dict[str, Any]) -> None:
    """In batches as they are returned, those of an iterable-style dataset too."""
    stage = dlsim.Stage("read", wait=dlsim.Exponential(1.0))
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 4, "num_workers": 3} | options),
        dataset=dlsim.IterableDataset(29, sharding, fetch=[stage]),
        epochs=2,
    )
    fetches, _ = drawn(scenario, SEEDS)
    for run, seed in enumerate(SEEDS):
        trace = dlsim.simulate(scenario, seed=seed)
        took = (trace.fetched - trace.started)[trace.order]
        found = fetches.beyond[:, 2 * run : 2 * run + 2] + fetches.mean[:, None]
        np.testing.assert_allclose(took, found.T.ravel())


def test_luck_is_in_what_is_read_too() -> None:
    """One worker that reads alone takes as much longer as luck says: bytes, latencies and all."""
    stage = dlsim.Stage("read", read_bytes=dlsim.Gamma(1e6, 0.5), cpu=dlsim.Exponential(1.0))
    scenario = dlsim.replace(
        loaded(HALF, num_workers=1),
        {
            "dataset.fetch": [stage],
            "machine.storage.bandwidth": 1e6,
            "machine.storage.latency": dlsim.Exponential(0.5),
        },
    )
    elapsed = [dlsim.simulate(scenario, seed=seed).end for seed in SEEDS]
    longer = np.array(elapsed) - (40 * 2.5 + 0.5)
    np.testing.assert_allclose(luck(scenario, SEEDS)[:, 1], longer)


def test_where_one_thing_is_always_waited_for_luck_is_all_there_is() -> None:
    """One slow worker, slow steps, or no workers: the run is as much longer as luck says."""
    slow = dlsim.Uniform(2.0, 3.0)
    for scenario, expected in (
        (loaded(slow, num_workers=1), 40 * 2.5 + 0.5),
        (loaded(HALF, slow), 0.5 + 40 * 2.5),
        (loaded(slow, slow, num_workers=0), 40 * 5.0),
    ):
        elapsed = [dlsim.simulate(scenario, seed=seed).end for seed in SEEDS]
        np.testing.assert_allclose(luck(scenario, SEEDS)[:, 0], np.array(elapsed) - expected)


def test_luck_tells_most_of_what_chance_does() -> None:
    """Where now one worker is waited for and now another, luck tells 19 parts in 20."""
    scenario = loaded(dlsim.Gamma(2.5, 0.1), batches=80, num_workers=4)
    seeds = tuple(range(200))
    elapsed = np.array([dlsim.simulate(scenario, seed=seed).end for seed in seeds])
    longer = luck(scenario, seeds)[:, 0]
    assert np.var(elapsed - longer) < 0.05 * np.var(elapsed)


def test_weights_know_nothing_of_what_they_weigh() -> None:
    """What is drawn from a batch on leaves its weight as it was, so that the mean luck is zero."""
    random = dlsim.Exponential(1.0)
    for options in ({}, {"prefetch_factor": 1}, {"num_workers": 3, "in_order": False}):
        scenario = loaded(random, random, **options)
        fetches, steps = drawn(scenario, SEEDS)
        before = weights(scenario, fetches, steps)
        assert all(0 < each.mean() < 1 for each in before)
        for k in (0, 1, 7, 39):
            later = np.arange(40)[:, np.newaxis] >= k
            other = replace(fetches, beyond=np.where(later, 9.0, fetches.beyond))
            on_fetches, on_steps = weights(
                scenario, other, replace(steps, beyond=np.where(later, 9.0, steps.beyond))
            )
            assert (on_fetches[: k + 1] == before[0][: k + 1]).all()
            assert (on_steps[:k] == before[1][:k]).all()
            _, on_steps = weights(
                scenario, fetches, replace(steps, beyond=np.where(later, 9.0, steps.beyond))
            )
            assert (on_steps[: k + 1] == before[1][: k + 1]).all()


def test_the_mean_luck_is_zero() -> None:
    """Over many runs of few batches, luck adds up to nothing, as far as can be told."""
    random = dlsim.Exponential(1.0)
    found = luck(loaded(random, random, batches=5, epochs=2), tuple(range(3000)))
    error = found.std(axis=0) / np.sqrt(3000)
    assert (np.abs(found.mean(axis=0)) < 3 * error).all()


def test_constants_have_no_luck() -> None:
    """Where nothing is random nothing is beyond expectation, rounding included."""
    scenario = loaded(dlsim.Constant(0.1), dlsim.Constant(1 / 3), batches=1000)
    assert not luck(scenario, SEEDS).any()


def test_batches_count_as_often_as_they_stand_for_others() -> None:
    """What is drawn for batches whose cycles are repeated is multiplied."""
    part, whole = (
        loaded(dlsim.Uniform(2.0, 3.0), num_workers=1, batches=batches) for batches in (40, 400)
    )
    beyond, counted = drawn(part, SEEDS)[0].beyond, repeats(part, whole)
    assert counted.min() == 1.0
    assert counted.max() > 10.0
    np.testing.assert_allclose(luck(part, SEEDS, whole)[:, 0], (counted * beyond).sum(axis=0))


def test_of_windows_without_end_no_weights_are_told() -> None:
    """Where the futures would take too long, only sums are told."""
    random = dlsim.Exponential(1.0)
    scenario = loaded(random, random, batches=20_000, num_workers=16, prefetch_factor=100)
    found = luck(scenario, SEEDS)
    assert not found[:, 0].any()
    assert found[:, 1:].all()


@settings(max_examples=200)
@given(scenarios(torch_only=False) | on_machines())
def test_luck_of_any_scenario(scenario: dlsim.Scenario) -> None:
    """Luck is a number of seconds for every run, whatever is shared, cached, dropped or left."""
    if told(scenario):
        assert np.isfinite(luck(scenario, SEEDS)).all()
