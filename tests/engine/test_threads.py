"""Workers that are threads of the main process, and the lock that they share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim import Costs, Scenario, ScenarioError
from dlsim.trace.critical_path import shares
from dlsim.trace.difference import difference
from dlsim.trace.memory import uses
from dlsim.whatif.bounds import bounds
from tests.strategies import scenarios

ENGINES = ["simpy", "compiled"]


def threads(workers: int, lock: float, **more: object) -> Scenario:
    """64 batches of one sample, each 1 s of a core."""
    return dlsim.replace(
        Scenario(
            loader=dlsim.Loader(num_workers=workers, prefetch_factor=4, workers="threads"),
            dataset=dlsim.MapDataset(
                64, fetch=[dlsim.Stage("decode", cpu=dlsim.Constant(1.0), lock=lock)]
            ),
        ),
        more,
    )


def elapsed(scenario: Scenario, engine: str) -> float:
    """Seconds until the last batch is returned."""
    return float(dlsim.simulate(scenario, engine=engine).returned.max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_with_the_lock_threads_are_as_fast_as_one(engine: str, workers: int) -> None:
    """Of pure Python, n threads do what one does, whatever the cores."""
    assert elapsed(threads(workers, 1.0), engine) == pytest.approx(64.0)
    assert elapsed(threads(workers, 1.0, **{"machine.cores": 2}), engine) == pytest.approx(64.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("workers", "cores", "rate"), [(2, 8, 2), (8, 8, 8), (16, 4, 4)])
def test_without_the_lock_threads_use_all_cores(
    engine: str, workers: int, cores: int, rate: int
) -> None:
    """Of code that releases the lock, n threads do n times what one does, up to the cores."""
    scenario = threads(workers, 0.0, **{"machine.cores": cores})
    assert elapsed(scenario, engine) == pytest.approx(64 / rate)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_lock_bounds_threads(engine: str) -> None:
    """A lock held for a quarter of each second lets no more than four batches by in a second."""
    scenario = threads(16, 0.25, **{"dataset.length": 640})
    assert bounds(scenario).binds == "lock"
    assert bounds(scenario).period == pytest.approx(0.25)
    assert elapsed(scenario, engine) == pytest.approx(640 / 4, rel=0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_threads_by_hand(engine: str) -> None:
    """Half with the lock, which one has after the other, then half without, beside each other."""
    scenario = threads(2, 0.5, **{"dataset.length": 2})
    found = dlsim.simulate(scenario, engine=engine)
    assert found.fetched.tolist() == [1.0, 1.5]
    alone = dlsim.replace(scenario, {"loader.num_workers": 1})
    assert dlsim.simulate(alone, engine=engine).fetched.tolist() == [1.0, 2.0]


@settings(max_examples=100)
@given(scenarios().filter(lambda scenario: scenario.loader.num_workers > 0), st.integers(0, 2**32))
def test_threads_that_release_the_lock_are_processes_at_no_cost(
    scenario: Scenario, seed: int
) -> None:
    """Nothing else differs, as long as no worker takes more than five seconds to exit."""
    free = structs.replace(scenario, costs=Costs())
    loader = structs.replace(scenario.loader, workers="threads", persistent_workers=True)
    processes = structs.replace(loader, workers="processes")
    one = dlsim.simulate(structs.replace(scenario, loader=loader), seed, engine="simpy")
    other = dlsim.simulate(structs.replace(free, loader=processes), seed, engine="simpy")
    assert difference(one, other) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_are_not_terminated(engine: str) -> None:
    """A loop that is left early waits for the batch in hand, however long it takes."""
    long = {"dataset.fetch.0.cpu": 9.0, "consumer.stop_after": 1}
    scenario = threads(2, 0.0, **long)
    assert dlsim.simulate(scenario, engine=engine).epochs.ended[-1] == 18.0
    processes = dlsim.replace(scenario, {"loader.workers": "processes"})
    assert dlsim.simulate(processes, engine=engine).epochs.ended[-1] == 18.0 - 9.0 + 5.0 + 4.0


def test_threads_use_no_shared_memory() -> None:
    """Batches of threads are where the main process is: no /dev/shm, no descriptors."""
    scenario = threads(2, 0.0, **{"dataset.sample_bytes": 1e6, "machine.shm": 10.0})
    assert {use.resource for use in uses(dlsim.simulate(scenario)) if use.needed} == {"memory"}


def test_waiting_for_the_lock_is_told() -> None:
    """What fetches take longer than stated is put down to the lock."""
    found = shares(dlsim.simulate(threads(4, 1.0, **{"consumer.step": 0.1})))
    assert max(found, key=lambda cause: found[cause]) == "lock"


@pytest.mark.parametrize("lock", [-0.1, 1.1, "some"])
def test_refuses_a_share_that_is_none(lock: object) -> None:
    """A share outside of 0 to 1 is an error that names the key."""
    with pytest.raises(ScenarioError, match="lock: expected a share, 0 to 1"):
        threads(1, lock)  # type: ignore[arg-type]


def test_refuses_threads_that_nobody_starts() -> None:
    """Threads need workers; how processes are started does not go with them."""
    with pytest.raises(ScenarioError, match="workers: threads needs num_workers above 0"):
        dlsim.Loader(workers="threads")
    with pytest.raises(ScenarioError, match="multiprocessing_context"):
        dlsim.Loader(workers="threads", num_workers=1, multiprocessing_context="spawn")
