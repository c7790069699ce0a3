from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Machine, Storage
from dlsim.scenario.distributions import scaled
from dlsim.whatif import explain, replicate
from dlsim.whatif.changes import changes
from dlsim.whatif.otherwise import slower
from tests.strategies import distributions, scenarios


def scenario(
    read: float = 1.0, step: float = 0.1, loader: dict[str, Any] | None = None, **changes: Any
) -> dlsim.Scenario:
    """Two workers, batches of 2 samples that are read and decoded, gamma times."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 2, "num_workers": 2} | (loader or {})),
        dataset=dlsim.MapDataset(
            100,
            fetch=[
                dlsim.Stage("read", wait=dlsim.Gamma(read, 0.2)),
                dlsim.Stage("decode", cpu=dlsim.Gamma(0.2, 0.2)),
            ],
        ),
        consumer=dlsim.Consumer(step=dlsim.Gamma(step, 0.2)),
        **changes,
    )


def test_workers_limit() -> None:
    """Where fetching limits, the sentence says so, and the change that gains most is named."""
    found = explain(scenario(), 10)
    assert found.limit == "fetch"
    assert found.best is not None
    assert found.best.change.setting == "num_workers=4"
    assert 0.8 < found.best.gain.mean < 1.05
    first = str(found).splitlines()[0]
    assert first.startswith("Training is idle 9")
    assert "most of it read; twice the workers (num_workers=4) would help most: " in first


def test_one_replication_is_enough_to_name_a_change() -> None:
    """With a single replication the change that gains most is named, without an interval."""
    first = str(explain(scenario(), 1)).splitlines()[0]
    assert "twice the workers (num_workers=4) would help most: " in first
    assert "±" not in first


def test_changes_to_long_runs_are_replicated_until_they_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three pairs of runs are enough where they tell what is gained; else there are all of them."""
    monkeypatch.setattr(sys.modules["dlsim.whatif.explain"], "EFFORT", 1.0)
    found = explain(scenario())
    assert len(found.runs) == 5
    assert {gain.gain.count for gain in found.gains} == {3, 5}
    assert all(gain.clear for gain in found.gains if gain.gain.count == 3)


def test_changes_are_replicated_until_they_tell() -> None:
    """Eight pairs of runs are enough where they tell what is gained; else there are up to 30.

    The scenario itself is run as often as the change that takes most.
    """
    found = explain(scenario(step=1.5))
    assert {gain.gain.count for gain in found.gains} == {8}
    assert len(found.runs) == 8
    found = explain(scenario())
    assert {gain.gain.count for gain in found.gains} == {8, 30}
    assert len(found.runs) == 30
    assert all(gain.clear for gain in found.gains if gain.gain.count == 8)


def test_an_answer_does_not_hang_on_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first runs tell, the answer is the same without llvmlite."""
    case = scenario(step=1.5)
    found = explain(case)
    monkeypatch.setattr("dlsim.engine.effort.installed", lambda: False)
    assert str(explain(case)) == str(found)


def test_an_unknown_size_is_that_of_no_setting() -> None:
    """Where the size of samples is not stated, it is not said with which settings it is not."""
    second = str(explain(scenario(), 2)).splitlines()[1]
    assert second == "Does it fit? How large a sample is, is not stated (dataset.sample_bytes)."


def test_threads_of_libraries_come_first() -> None:
    """Four workers with two spinning threads each on two cores: one thread would do as much.

    Where cores are enough for all of them, nothing is said of threads.
    """
    fetch = [dlsim.Stage("blur", cpu=dlsim.Constant(0.005), threads=2, spin=0.5)]
    crowded = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=8, num_workers=4),
        dataset=dlsim.MapDataset(640, fetch=fetch),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.005)),
        machine=Machine(cores=2),
    )
    assert str(explain(crowded)).startswith(
        "Each sample keeps 2 cores busy while it computes (blur), by threads of libraries in each "
        "worker: limit threads in worker_init_fn: at least 2 times as fast, +"
    )
    met = {"dataset.fetch.0.spin": 0.0, "dataset.fetch.0.linger": 0.03, "machine.slice": 0.004}
    assert " worker_init_fn: about " in str(explain(dlsim.replace(crowded, met)))
    enough = dlsim.replace(crowded, {"machine.cores": 16})
    assert str(explain(enough)).startswith("Training is idle")
    few = dlsim.replace(crowded, {"machine.cores": 1, "dataset.fetch": fetch * 2})
    assert str(explain(few)).startswith(
        "Each sample keeps 1 core busy while it computes (blur), by"
    )


def test_step_limits() -> None:
    """Where the step limits, no change of the loader is advised."""
    found = explain(scenario(step=5.0), 10)
    assert (found.limit, found.best) == ("step", None)
    assert found.headspace.gain.mean < 0.02
    first = str(found).splitlines()[0]
    assert first.startswith("Training is idle ")
    assert " of the time: the training step limits; " in first
    assert "the loader is good enough: a perfect loader would gain " in first


def test_order_limits() -> None:
    """Where slow batches keep back ready ones, returning batches in any order is advised."""
    slow = dlsim.Mixture((dlsim.Constant(0.1), dlsim.Constant(20.0)), (0.95, 0.05))
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=8, prefetch_factor=2),
        dataset=dlsim.MapDataset(400, fetch=[dlsim.Stage("read", wait=slow)]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
    )
    found = explain(case, 10)
    assert found.shares["head of line"].mean > 0.2
    order = next(gain for gain in found.gains if gain.change.setting == "in_order=False")
    assert order.sure


def test_storage_limits() -> None:
    """Where storage limits, faster storage is what helps, and twice the workers do not."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=4),
        dataset=dlsim.MapDataset(
            200, fetch=[dlsim.Stage("read", read_bytes=dlsim.Gamma(1e6, 0.2))]
        ),
        machine=Machine(storage=Storage(bandwidth=1e6)),
    )
    found = explain(case, 3)
    assert found.limit == "storage"
    assert found.best is not None
    assert found.best.change.name == "storage twice as fast"
    assert found.best.gain.mean == pytest.approx(1.0, abs=0.05)


def test_gains_are_what_a_simulation_gives() -> None:
    """Making the change, under the same random numbers, gives the gain that was promised."""
    case = scenario()
    before = replicate(case, 5)["elapsed"]
    for gain in explain(case, 5).gains:
        after = replicate(gain.change.scenario, 5)["elapsed"]
        assert np.mean(before / after - 1) == pytest.approx(gain.gain.mean)


def test_shares_add_up() -> None:
    """The mean shares of the causes add up to 1."""
    found = explain(scenario(epochs=2), 5)
    assert sum(share.mean for share in found.shares.values()) == pytest.approx(1, abs=1e-9)


def names(case: dlsim.Scenario) -> set[str]:
    """The names of the changes that make sense for `case`."""
    return {change.name for change in changes(case)}


def test_only_what_makes_sense() -> None:
    """Changes that the scenario has no use for, or torch has not, are left out."""
    usual = {"read twice as fast", "decode twice as fast", "step twice as fast"}
    more = {"one more worker", "twice the workers", "twice the prefetch"}
    more |= {"one shared queue", "refill on arrival"}
    assert names(scenario()) == usual | more | {"any order"}
    assert names(scenario(torch="2.5")) == usual | more
    later = {"persistent workers", "a sampler that does not end"}
    assert names(scenario(epochs=2)) == usual | more | {"any order"} | later
    rebinds = {"consumer.loop": "rebind", "consumer.stop_after": 2, "epochs": 2}
    assert names(dlsim.replace(scenario(), rebinds)) == usual | more | {"any order"} | later
    ahead = dlsim.replace(scenario(), {"consumer.loop": "accelerate", "epochs": 2})
    assert names(ahead) == usual | more | {
        "any order",
        "persistent workers",
        "without accelerate's look-ahead",
    }
    free = {"machine.storage.latency": 0.0, "dataset.fetch.0.read_bytes": 1e6}
    assert names(dlsim.replace(scenario(), free)) == usual | more | {"any order"}
    alone = {"one worker", "two workers", "four workers"}
    assert names(scenario(loader={"num_workers": 0})) == usual | alone
    assert names(scenario(machine=Machine(cores=2))) == usual | more | {
        "any order",
        "twice the cores",
    }


@given(distributions(4), st.floats(0.1, 4))
def test_scaled_distributions(distribution: Any, factor: float) -> None:
    """A scaled distribution has every value scaled, under the same random numbers."""
    values = distribution.sample(np.random.default_rng(1), 20)
    found = scaled(distribution, factor).sample(np.random.default_rng(1), 20)
    np.testing.assert_allclose(found, factor * values, rtol=1e-9)


def test_everything_slower() -> None:
    """With all times doubled, everything takes twice as long."""
    case = scenario(
        costs=dlsim.Costs(index_latency=0.1, take=0.2), machine=Machine(cores=2, background=1)
    )
    double = dlsim.simulate(slower(case, loading=2.0, step=2.0))
    assert double.end == pytest.approx(2 * dlsim.simulate(case).end)


@settings(max_examples=25)
@given(scenarios(torch_only=False))
def test_every_scenario_can_be_explained(case: dlsim.Scenario) -> None:
    """Whatever the scenario, there is an explanation, in a sentence of one line."""
    assert str(explain(case, 2)).splitlines()[0].endswith(".")
