from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.whatif import Replications, gained, interval, paired, replicate
from dlsim.whatif.controls import luck
from dlsim.whatif.extent import measured


def noisy(step: Any = dlsim.Gamma(0.5, 0.5), **changes: Any) -> dlsim.Scenario:  # noqa: B008
    """Exponential samples, three workers, a last batch that is smaller, two epochs."""
    read = dlsim.Exponential(1.0)
    parts: dict[str, Any] = {
        "loader": dlsim.Loader(batch_size=4, num_workers=3),
        "dataset": dlsim.MapDataset(30, fetch=[dlsim.Stage("read", wait=read, cpu=read)]),
        "consumer": dlsim.Consumer(step=step),
        "epochs": 2,
    }
    return dlsim.Scenario(**parts | changes)


def given(scenario: dlsim.Scenario, values: Any, seed: int = 0) -> Replications:
    """Replications in which these values were measured."""
    return Replications(scenario, seed, {"samples_per_s": np.asarray(values)})


@pytest.mark.parametrize("batched", [False, True])
def test_luck_is_what_a_run_takes_beyond_its_expectation(batched: bool) -> None:
    """Luck is drawn as a simulation draws, for each worker's turn and for the steps."""
    read, collate = dlsim.Lognormal(1.0, 0.5), dlsim.Uniform(0.0, 1.0)
    dataset = dlsim.MapDataset(
        30, fetch=[dlsim.Stage("read", wait=read, cpu=read)], collate=collate, batched=batched
    )
    scenario = noisy(dataset=dataset)
    trace = dlsim.simulate(scenario, seed=7)
    number = np.arange(len(trace)) % 8
    calls = 1.0 if batched else trace.size
    more = trace.fetched - trace.started - (2.0 * calls + 0.5)
    expected = [float(more[number % 3 == turn].sum()) for turn in range(3)]
    expected.append(float((trace.finished - trace.returned - 0.5).sum()))
    np.testing.assert_allclose(luck(scenario, 7), expected, atol=1e-9)


def test_constants_have_no_luck() -> None:
    """Where nothing is random nothing is beyond expectation, rounding included."""
    times = [dlsim.Stage("read", wait=dlsim.Constant(0.1), cpu=dlsim.Constant(0.7))]
    scenario = noisy(dlsim.Constant(1 / 3), dataset=dlsim.MapDataset(1000, fetch=times))
    assert not luck(scenario, 1).any()


def test_what_luck_explains_is_no_uncertainty() -> None:
    """A difference that is luck and a constant is known to be that constant."""
    scenario = noisy()
    seeds = given(scenario, np.zeros(30)).seeds
    drawn = np.array([luck(scenario, seed) for seed in seeds])
    found = paired(
        given(scenario, np.zeros(30)), given(scenario, 5.0 + drawn @ [3, 2, 1, 0]), "samples_per_s"
    )
    assert found.mean == pytest.approx(5.0)
    assert found.half_width == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "scenario",
    [
        noisy(dataset=dlsim.IterableDataset(30, "split", [dlsim.Stage("read", dlsim.Gamma(1, 1))])),
        noisy(dataset=dlsim.MapDataset(30, [dlsim.Stage("read", dlsim.Recorded([1.0] * 30))])),
        noisy(dataset=dlsim.MapDataset(30, [dlsim.Stage("read", dlsim.Pareto(1.0, 1.5))])),
        noisy(failures=[dlsim.Failure("fetch", 3)]),
        noisy(loader=dlsim.Loader(batch_sampler=[[0, 1], [2]], num_workers=1)),
        noisy(loader=dlsim.Loader(num_workers=12)),
    ],
)
def test_where_luck_is_not_told_the_interval_is_the_plain_one(scenario: dlsim.Scenario) -> None:
    """Other draws than by batch, variances without end, and too many workers change nothing."""
    values = np.random.default_rng(0).normal(1, 0.1, (2, 30))
    one, other = (given(scenario, each) for each in values)
    assert paired(one, other, "samples_per_s") == interval(values[1] - values[0])


def test_few_replications_have_plain_intervals() -> None:
    """Of five runs nothing more is told than what their differences say."""
    values = np.random.default_rng(0).normal(1, 0.1, (2, 5))
    one, other = (given(noisy(), each) for each in values)
    assert gained(one, other) == interval(values[1] / values[0] - 1)


def test_gains_beyond_all_measure_are_left_out_without_a_warning() -> None:
    """A run of next to no time gains what no float holds, which is no reason to warn or fail."""
    one, other = given(noisy(), [1e-308, 1.0, 1.0]), given(noisy(), [1e300, 2.0, 2.0])
    assert gained(one, other) == interval(np.array([1.0, 1.0]))
    endless = gained(given(noisy(), [1.0, 1.0]), given(noisy(), [1.5e308, 1.6e308]))
    assert endless.mean == endless.half_width == float("inf")


def test_workers_of_the_image_scenario() -> None:
    """With other workers, too, the interval is three times narrower than without common numbers."""
    base = dlsim.load(Path(__file__).parent.parent / "scenarios" / "imagenet_a100.toml")
    base = dlsim.replace(base, {"consumer.stop_after": 40})
    fewer = dlsim.replace(base, {"loader.num_workers": 2})
    one, other, apart = (
        replicate(case, 40, seed, measured=measured(case))
        for case, seed in ((base, 0), (fewer, 0), (fewer, 1))
    )
    metric = "samples_per_s"
    independent = interval(apart[metric] - one[metric])
    found = paired(one, other, metric)
    assert found.half_width * 3 < independent.half_width
    assert abs(found.mean - independent.mean) < independent.half_width
