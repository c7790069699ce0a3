"""The compiled engine against the SimPy engine; `test_torch.py` has it against torch's code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Scenario, ScenarioError
from dlsim.trace.difference import difference
from tests.strategies import ideal, on_machines

pytest.importorskip("llvmlite", reason="the compiled engine needs it")

from dlsim.engine.compiled.ahead import AHEAD, ahead
from dlsim.engine.compiled.jit import compiled
from dlsim.engine.compiled.jobs import Block, Jobs
from dlsim.engine.compiled.tournament import leaves, play, tournament
from dlsim.engine.native.arrays import Table, reader, table


@settings(max_examples=500)
@given(ideal | on_machines(), st.integers(0, 2**32), st.booleans())
def test_equals_simpy(scenario: Scenario, seed: int, samples: bool) -> None:
    """Every moment of every batch and sample is the same as in the SimPy engine."""
    slow = dlsim.simulate(scenario, seed, engine="simpy", samples=samples)
    fast = dlsim.simulate(scenario, seed, engine="compiled", samples=samples)
    assert difference(slow, fast) is None
    if slow.meta.problem is not None and fast.meta.problem is not None:
        assert slow.meta.problem.message == fast.meta.problem.message


def long(
    *, workers: int = 3, batches: int = 5000, stop_after: int | None = None, **loader: object
) -> Scenario:
    """Long enough for several blocks of random numbers, and for columns to grow."""
    return Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=workers, **loader),
        dataset=dlsim.MapDataset(
            2 * batches, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.7, 0.5), stop_after=stop_after),
        epochs=2,
    )


def iterable(batches: int, **loader: object) -> Scenario:
    """The same of an iterable-style dataset, of which each worker reads a third."""
    return dlsim.replace(
        long(**loader),
        {
            "dataset": dlsim.IterableDataset(
                2 * batches,
                sharding="split",
                fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))],
            )
        },
    )


@pytest.mark.parametrize(
    "scenario",
    [
        long(),
        long(shuffle=True, prefetch_factor=300),
        long(workers=20, prefetch_factor=4),
        dlsim.replace(
            long(workers=7),
            {
                "dataset.fetch.0.wait": dlsim.Constant(1.0),
                "consumer.step": dlsim.Mixture([dlsim.Constant(0.0), dlsim.Constant(0.5)], [2, 1]),
            },
        ),
        long(workers=70, in_order=False),
        long(in_order=False, persistent_workers=True, stop_after=4000),
        iterable(5000),
        iterable(5000, in_order=False, workers=40),
    ],
)
def test_long_runs_equal_simpy(scenario: Scenario) -> None:
    """Traces stay the same over many blocks of numbers, many workers and large windows."""
    slow = dlsim.simulate(scenario, 3, engine="simpy")
    assert difference(slow, dlsim.simulate(scenario, 3, engine="compiled")) is None


@given(
    st.floats(0, 4) | st.integers(0, 64).map(lambda i: i * 2.0**-52),
    st.floats(0, 1e-3) | st.integers(0, 64).map(lambda i: i * 2.0**-53),
    st.integers(1, 600),
)
def test_equal_samples_are_added_up_exactly(seconds: float, latency: float, size: int) -> None:
    """Where all samples take equally long, batches are fetched at the very floats of SimPy."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=size, num_workers=1),
        dataset=dlsim.MapDataset(5 * size, fetch=[dlsim.Stage("a", wait=dlsim.Constant(seconds))]),
        costs=dlsim.Costs(index_latency=latency),
        policy="row",
    )
    slow, fast = (dlsim.simulate(scenario, engine=engine) for engine in ("simpy", "compiled"))
    assert slow.fetched.tolist() == fast.fetched.tolist()


@pytest.mark.parametrize("collate", [None, dlsim.Constant(0.0), dlsim.Gamma(0.3, 0.5)])
@pytest.mark.parametrize("second", [dlsim.Constant(0.0), dlsim.Constant(0.2), dlsim.Gamma(0.2, 1)])
@pytest.mark.parametrize("data", ["map", "batched", "iterable"])
def test_processor_time_is_added_up_exactly(data: str, second: object, collate: object) -> None:
    """Where samples only compute, they are fetched at the very floats of SimPy: with nothing to
    compute, too, and with what their messages cost, or for nothing.
    """
    fetch = [dlsim.Stage("a", cpu=second), dlsim.Stage("b", cpu=second)]
    kind = dlsim.IterableDataset if data == "iterable" else dlsim.MapDataset
    batched = {"batched": True} if data == "batched" else {}
    dataset = kind(90, fetch=fetch, collate=collate, sample_bytes=dlsim.Constant(1000.0), **batched)
    cost = dlsim.Cost(message=0.01, byte=1e-5)
    for costs in (dlsim.Costs(), dlsim.Costs(receive=cost), dlsim.Costs(hand_over=cost)):
        scenario = Scenario(
            loader=dlsim.Loader(batch_size=4, num_workers=3),
            dataset=dataset,
            consumer=dlsim.Consumer(step=dlsim.Gamma(0.3, 0.5)),
            machine=dlsim.scenario.Machine(cores=1.5),
            costs=costs,
            epochs=2,
        )
        slow, fast = (dlsim.simulate(scenario, engine=engine) for engine in ("simpy", "compiled"))
        assert difference(slow, fast) is None


def test_received_in_the_right_call() -> None:
    """Where much arrives at one moment, each batch is still received in the right next()."""
    times = st.sampled_from(
        [dlsim.Constant(0.0), dlsim.Empirical([0.0, 1.0]), dlsim.Empirical([0.0, 0.0, 5.0])]
    )

    @settings(max_examples=100)
    @given(times, times, st.integers(1, 40), st.integers(1, 9))
    def check(fetch: object, step: object, workers: int, prefetch_factor: int) -> None:
        scenario = Scenario(
            loader=dlsim.Loader(num_workers=workers, prefetch_factor=prefetch_factor),
            dataset=dlsim.MapDataset(300, fetch=[dlsim.Stage("read", wait=fetch)]),
            consumer=dlsim.Consumer(step=step),
        )
        slow = dlsim.simulate(scenario, engine="simpy")
        assert difference(slow, dlsim.simulate(scenario, engine="compiled")) is None

    check()


def test_nobody_acts_while_numbers_are_drawn() -> None:
    """The main process that had to wait for random numbers goes on before the workers act."""
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=4, pin_memory=True, in_order=False),
        dataset=dlsim.IterableDataset(26, sharding="none"),
    )
    slow = dlsim.simulate(scenario, engine="simpy")
    assert difference(slow, dlsim.simulate(scenario, engine="compiled")) is None


RECORDS = {
    "consumer.step": {"consumer.step": dlsim.Recorded([0.5] * 7)},
    "dataset.collate": {"dataset.collate": dlsim.Recorded([0.5] * 7)},
    "dataset.fetch.0.wait": {
        "dataset.batched": True,
        "dataset.fetch": [dlsim.Stage("read", wait=dlsim.Recorded([0.5] * 7))],
    },
}


@pytest.mark.parametrize("key", RECORDS)
@pytest.mark.parametrize("in_order", [True, False])
def test_short_records(key: str, in_order: bool) -> None:
    """A record that is too short is refused with the message of the SimPy engine."""
    scenario = dlsim.replace(long(in_order=in_order), RECORDS[key])
    with pytest.raises(ScenarioError) as slow:
        dlsim.simulate(scenario, engine="simpy")
    with pytest.raises(ScenarioError) as fast:
        dlsim.simulate(scenario, engine="compiled")
    assert str(slow.value) == str(fast.value)
    assert key in str(fast.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_short_records_of_iterables(workers: int) -> None:
    """A sample beyond the record is refused if it is fetched, and only then."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=workers),
        dataset=dlsim.IterableDataset(
            20, fetch=[dlsim.Stage("read", wait=dlsim.Recorded([0.5] * 7))]
        ),
    )
    for engine in ("simpy", "compiled"):
        with pytest.raises(ScenarioError, match="at least 8 values, got 7 values"):
            dlsim.simulate(scenario, engine=engine)
    early = dlsim.replace(scenario, {"consumer.stop_after": 1, "consumer.step": dlsim.Constant(0)})
    fast = dlsim.simulate(early, engine="compiled")
    assert difference(dlsim.simulate(early, engine="simpy"), fast) is None


def test_auto_takes_the_fast_engine() -> None:
    """The compiled engine is what runs unless asked otherwise, on every machine."""
    for limits in {}, {"machine.cores": 2}:
        scenario = dlsim.replace(long(batches=10), limits)
        assert dlsim.simulate(scenario).meta.engine == "compiled"


def test_without_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llvmlite everything runs on the SimPy engine, and the trace says why."""
    monkeypatch.setattr("dlsim.engine.compiled.find_spec", lambda name: None)
    trace = dlsim.simulate(long(batches=10))
    assert trace.meta.engine == "simpy"
    assert "llvmlite" in trace.meta.notes["engine"]
    with pytest.raises(ScenarioError, match="compiled needs llvmlite"):
        dlsim.simulate(long(batches=10), engine="compiled")


def test_progress_counts_every_batch() -> None:
    """Progress is told of as many batches as are returned."""
    for scenario in (long(), long(in_order=False), iterable(50), long(workers=0)):
        told: list[int] = []
        trace = dlsim.simulate(scenario, engine="compiled", progress=told.append)
        assert sum(told) == len(trace.order)


def test_blocks_drawn_ahead_are_the_same_numbers() -> None:
    """A thread draws the numbers of long runs, and every one is where it was."""
    plan = long(batches=40_000)
    assert difference(dlsim.simulate(plan, 1), dlsim.simulate(plan, 1, engine="simpy")) is None


def test_nothing_is_drawn_for_batches_that_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is left early has numbers drawn for what it is sent until then."""
    taken, take = [], Jobs.take

    def counting(self: Jobs, count: int) -> Block:
        taken.append(take(self, count))
        return taken[-1]

    monkeypatch.setattr(Jobs, "take", counting)
    trace = dlsim.simulate(long(batches=60_000, stop_after=20_000), engine="compiled")
    assert sum(len(block.steps) for block in taken) == len(trace) == 2 * (20_000 + 3 * 2)


def test_what_goes_wrong_in_the_thread_is_raised() -> None:
    """An exception of a thread that draws ahead is one of the run."""

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    made = ahead(failing())
    assert next(made) == 1
    with pytest.raises(ValueError, match="no more"):
        next(made)


def test_nobody_draws_on_for_a_run_that_is_over() -> None:
    """Once the items are closed the thread ends, a few items ahead of those that were used."""
    before = threading.active_count()
    made = ahead(taken := Counted())
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    made.close()
    assert taken.count <= 5 + AHEAD
    assert threading.active_count() == before


def test_nothing_is_drawn_ahead_on_a_single_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no core to spare, items are made when they are wanted, by no other thread."""
    monkeypatch.setattr("dlsim.engine.compiled.ahead.usable_cores", lambda: 1.0)
    made = ahead(taken := Counted())
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    assert taken.count == 3


class Counted(Iterator[int]):
    """Numbers from zero on, and how many were taken."""

    def __init__(self) -> None:
        self.count = 0

    def __next__(self) -> int:
        self.count += 1
        return self.count - 1


@given(st.integers(1, 20), st.data())
def test_the_earliest_wins(players: int, data: st.DataObject) -> None:
    """Whoever has the earliest moment wins, and of several the one with the lowest number."""
    moments = np.full(leaves(players), np.inf)
    winners = tournament(players)
    moves = st.tuples(st.integers(0, players - 1), st.sampled_from([0.0, 1.0, 2.0, np.inf]))
    for player, moment in data.draw(st.lists(moves, max_size=30)):
        assert played(moments, winners, player, moment) == moments.min()
        assert winners[1] == moments.argmin()


class Games(NamedTuple):
    """A tournament, and what is played: the moment of who plays, then that of the winner."""

    moments: Any
    winners: Any
    played: Any


read = reader(Games(np.empty(0), np.empty(0, np.int64), np.empty(0)))


@compiled
def play_once(table: Table, who: int) -> None:
    """One player has another moment now."""
    games = read(table)
    games.played[0] = play(games.moments, games.winners, who, games.played[0], True)


def played(moments: Any, winners: Any, who: int, moment: float) -> float:
    """One player has another moment now: the winner's."""
    games = Games(moments, winners, np.array([moment]))
    play_once(table(games), who)
    return float(games.played[0])
