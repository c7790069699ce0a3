"""Threads that meet, of a step or a sample, and wait for one another on a core: by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import simpy

import dlsim
from dlsim.engine.processes.ticking import Ticking
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference

ENGINES = ["simpy", "compiled"]


def training(fetch: list[float], *, linger: float) -> Scenario:
    """Batches of one sample, of two workers on two cores that are had in turns of a second."""
    return Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2, prefetch_factor=1),
        dataset=dlsim.MapDataset(
            len(fetch), fetch=[dlsim.Stage("fetch", cpu=dlsim.Recorded(fetch))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5), device="cpu", threads=2, linger=linger),
        machine=dlsim.Machine(cores=2, slice=1.0),
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_on_one_core_hardly_get_on(engine: Any) -> None:
    """They wait for each other on it, until at a tick the second one goes to a core that is free.

    The step begins at 1 s, when the first batch is there, and its second thread stands in the line
    of the first, as the second worker has the other core, until 3.5 s. Until 4 s the first is 10,
    then 30 ms further (a fiftieth of the step ahead of the other), and the second 20 ms.
    """
    trace = dlsim.simulate(training([1.0, 3.5], linger=0.25), engine=engine)
    # From 4 s on the first has 470 ms to go, and the second, that it waits for, 480 ms.
    assert trace.finished.tolist() == pytest.approx([4.48, 4.98])


@pytest.mark.parametrize("engine", ENGINES)
def test_who_has_slept_meets_others_at_a_turn(engine: Any) -> None:
    """At 0.25 s the second of two workers finds three others: it wants its 0.5 s, and two turns.

    It has core 0 until the tick at 1 s, the first one's first until 1.5 s, and it from then on.
    """
    fetch = [
        dlsim.Stage("read", wait=dlsim.Constant(0.25)),
        dlsim.Stage("fetch", cpu=dlsim.Constant(0.5), threads=2, linger=0.25),
    ]
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2),
        dataset=dlsim.MapDataset(2, fetch=fetch),
        machine=dlsim.Machine(cores=2, slice=1.0),
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.fetched.tolist() == pytest.approx([1.5, 3.25])


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_of_samples_meet_by_chance(engine: Any) -> None:
    """Of two workers, each with two threads, the second begins when four want two cores.

    It computes three times as long: of the three others, one has a core. Its first thread has core
    0 until the tick at 1 s, where it has 3.5 s to go; then the first one's first has it, until 1.5
    s, and then again it. The others have core 1.
    """
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2),
        dataset=dlsim.MapDataset(
            2,
            fetch=[dlsim.Stage("fetch", cpu=dlsim.Recorded([0.5, 1.5]), threads=2, linger=0.25)],
        ),
        machine=dlsim.Machine(cores=2, slice=1.0),
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.fetched.tolist() == pytest.approx([1.5, 5.0])


@pytest.mark.parametrize(("linger", "expected"), [(1e-9, [3, 3]), (3.0, [5, 4])])
def test_threads_wait_for_the_next_step_on_a_core(linger: float, expected: list[float]) -> None:
    """When a step is over, its second thread keeps core 1 until 4 s.

    Of two processes that want 2 s of a core from then on, at 1 s, both have core 0, in turns of a
    second, of which the one that came last has the first.
    """
    env, done = simpy.Environment(), dict[str, float]()
    cores = Ticking(env, dlsim.Machine(cores=2, slice=1.0))

    def step() -> Iterator[simpy.Event]:
        yield cores.serve_together(1.0, [(0, -1), (0, -2)], 2, linger)
        done["step"] = env.now

    def process(number: int) -> Iterator[simpy.Event]:
        yield env.timeout(1.0 + 1e-6)
        yield cores.serve(2.0, (0, number), 2)
        done[f"process {number}"] = env.now

    for one in (step(), process(0), process(1)):
        env.process(one)
    env.run()
    assert done["step"] == pytest.approx(1.0)
    assert [done["process 0"], done["process 1"]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_who_has_lingered_may_compute_again(seed: int) -> None:
    """A thread that has lingered, and then shares out what another stage does, spins no more."""
    fetch = [
        dlsim.Stage("read", wait=dlsim.Gamma(1.0, 1.0), cpu=dlsim.Constant(1.0), threads=2),
        dlsim.Stage("decode", cpu=dlsim.Constant(0.5), threads=2, linger=0.25),
    ]
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2),
        dataset=dlsim.MapDataset(20, fetch=fetch),
        machine=dlsim.Machine(cores=2, slice=1.0),
    )
    first, second = (dlsim.simulate(scenario, seed, engine=engine) for engine in ENGINES)
    assert difference(first, second) is None
