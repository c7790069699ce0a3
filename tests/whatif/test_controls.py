from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.whatif import Replications, gained, interval, paired, replicate
from dlsim.whatif.controls import _less
from dlsim.whatif.luck import luck
from dlsim.whatif.stretching import measured


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


def test_what_luck_explains_is_no_uncertainty() -> None:
    """A difference that is luck and a constant is known to be that constant."""
    scenario = noisy()
    runs = given(scenario, np.zeros(30))
    drawn = luck(scenario, tuple(runs.seeds))
    found = paired(runs, given(scenario, 5.0 + drawn @ [3, 2, 1]), "samples_per_s")
    assert found.mean == pytest.approx(5.0)
    assert found.half_width == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "scenario",
    [
        noisy(
            dataset=dlsim.IterableDataset(30, [20, 5, 5], [dlsim.Stage("read", dlsim.Gamma(1, 1))])
        ),
        noisy(dataset=dlsim.MapDataset(30, [dlsim.Stage("read", dlsim.Recorded([1.0] * 30))])),
        noisy(dataset=dlsim.MapDataset(30, [dlsim.Stage("read", dlsim.Pareto(1.0, 1.5))])),
        noisy(failures=[dlsim.Failure("fetch", 3)]),
        noisy(loader=dlsim.Loader(batch_sampler=[[0, 1], [2]], num_workers=1)),
    ],
)
def test_where_luck_is_not_told_the_interval_is_the_plain_one(scenario: dlsim.Scenario) -> None:
    """Uneven shards, records, and variances without end change nothing."""
    values = np.random.default_rng(0).normal(1, 0.1, (2, 30))
    one, other = (given(scenario, each) for each in values)
    assert paired(one, other, "samples_per_s") == interval(values[1] - values[0])


def test_runs_that_failed_have_plain_intervals() -> None:
    """What is drawn says nothing of runs that an error or a timeout ended."""
    values = np.random.default_rng(0).normal(1, 0.1, (2, 30))
    failed = (np.arange(30) == 7).astype(float)
    one, other = (
        Replications(
            noisy(), 0, {"elapsed": each, "failed": failed, "batches": failed, "basis": failed}
        )
        for each in values
    )
    assert paired(one, other, "elapsed") == interval(values[1] - values[0])


def test_few_replications_have_plain_intervals() -> None:
    """Of five runs nothing more is told than what their differences say."""
    values = np.random.default_rng(0).normal(1, 0.1, (2, 5))
    one, other = (given(noisy(), each) for each in values)
    assert gained(one, other, "samples_per_s") == interval(values[1] / values[0] - 1)


def test_gains_beyond_all_measure_are_left_out_without_a_warning() -> None:
    """A run of next to no time gains what no float holds, which is no reason to warn or fail."""
    one, other = given(noisy(), [1e-308, 1.0, 1.0]), given(noisy(), [1e300, 2.0, 2.0])
    assert gained(one, other, "samples_per_s") == interval(np.array([1.0, 1.0]))
    endless = gained(
        given(noisy(), [1.0, 1.0]), given(noisy(), [1.5e308, 1.6e308]), "samples_per_s"
    )
    assert endless.mean == endless.half_width == float("inf")


def test_of_few_replications_only_what_makes_runs_longer_counts() -> None:
    """Twelve pairs do not tell six coefficients, but two."""
    one, other = noisy(), noisy(dlsim.Gamma(0.5, 0.6))
    a = given(one, np.zeros(12))
    seeds = tuple(a.seeds)
    longer = luck(one, seeds)[:, 0] - luck(other, seeds)[:, 0]
    assert paired(a, given(other, longer), "samples_per_s").half_width < 1e-9
    fetching = luck(one, seeds)[:, 1]
    assert paired(a, given(other, fetching), "samples_per_s").half_width > 0.1


def test_a_part_counts_as_much_as_it_stands_for() -> None:
    """Of a part whose middle stands for more, the luck of the middle counts more."""
    part = noisy(epochs=1, loader=dlsim.Loader(num_workers=1))
    whole = dlsim.replace(part, {"dataset.length": 3 * part.dataset.length})
    values = 5.0 + luck(part, tuple(given(part, np.zeros(30)).seeds), whole)[:, 0]
    a, b = (Replications(whole, 0, {"elapsed": v}, part=part) for v in (np.zeros(30), values))
    assert paired(a, b, "elapsed").mean == pytest.approx(5.0)
    assert paired(a, b, "elapsed").half_width < 1e-9


@pytest.mark.parametrize("change", [{"loader.num_workers": 2}, {"loader.prefetch_factor": 1}])
def test_changes_of_the_image_scenario(change: dict[str, object]) -> None:
    """Of mere settings, too, intervals are three times narrower than without common numbers."""
    base = dlsim.load(Path(__file__).parent.parent.parent / "scenarios" / "imagenet_a100.toml")
    size = 80 * (base.loader.batch_size or 1)
    base = dlsim.replace(base, {"consumer.stop_after": None, "dataset.length": size})
    changed = dlsim.replace(base, change)
    one, other, apart = (
        replicate(case, 40, seed, measured=measured(case))
        for case, seed in ((base, 0), (changed, 0), (changed, 1))
    )
    metric = "samples_per_s"
    independent = interval(apart[metric] - one[metric])
    found = paired(one, other, metric)
    assert found.half_width * 3 < independent.half_width
    assert abs(found.mean - independent.mean) < 2 * independent.half_width


def test_luck_that_one_run_alone_had_tells_nothing() -> None:
    """Without that run nothing would be known of it, so that no residual is left to judge by."""
    values, unlike = np.arange(20.0), np.full(20, -1 / 19)
    unlike[0] = 1.0
    assert _less(values, unlike[:, None], 0.95) is None
