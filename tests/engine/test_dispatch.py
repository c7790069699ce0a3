"""Who gets the next batch, and when it is sent for, by rules that are not torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario, ScenarioError
from dlsim.engine.simulation import Engine
from dlsim.show.film import film
from dlsim.trace.critical_path import critical_path
from dlsim.trace.difference import difference
from tests.strategies import scenarios

SECONDS = [4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # batch 0 is slow


def of(step: float = 0.5, seconds: list[float] = SECONDS, **settings: object) -> Scenario:
    """Batches of one sample on two workers, of which the first is slow."""
    return Scenario(
        loader=dlsim.Loader(**{"num_workers": 2, **settings}),
        dataset=dlsim.MapDataset(
            len(seconds), fetch=[dlsim.Stage("read", wait=dlsim.Recorded(seconds))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
    )


HAND_COMPUTED = {
    "turns": ({}, "01010101", [0, 0, 4, 1, 5, 4.5, 6, 5.5]),
    "arrival": ({"refill": "arrival"}, "01010101", [0, 0, 4, 1, 5, 2, 6, 4]),
    # worker 1 does 1 and 3, then takes what lies before worker 0
    "stealing": ({"dispatch": "stealing"}, "01110101", [0, 0, 2, 1, 4, 4.5, 5, 5.5]),
    "shared": ({"dispatch": "shared"}, "01110101", [0, 0, 1, 2, 4, 4.5, 5, 5.5]),
    # nothing keeps worker 1 idle: it has done 1 to 4 when batch 0 is there
    "shared, arrival": (
        {"dispatch": "shared", "refill": "arrival"},
        "01111010",
        [0, 0, 1, 2, 3, 4, 4, 5],
    ),
    "dealt, any order": (
        {"dispatch": "dealt", "in_order": False},
        "01010101",
        [0, 0, 4, 1, 5, 2, 6, 4],
    ),
    "shared, any order": (
        {"dispatch": "shared", "in_order": False},
        "01111010",
        [0, 0, 1, 2, 3, 4, 4, 5],
    ),
}


@pytest.mark.parametrize("name", HAND_COMPUTED)
def test_hand_computed(name: str) -> None:
    """Who does which batch from when on, where batch 0 takes four times as long as the others."""
    changes, workers, started = HAND_COMPUTED[name]
    trace = dlsim.simulate(of(**changes))
    assert "".join(map(str, trace.worker)) == workers
    assert trace.started.tolist() == started


def test_dealt_goes_at_the_pace_of_the_slowest() -> None:
    """Of two workers one ten times slower: dealt out in turn, 2 S a slow batch; shared, all add up.

    What SPDL's stages in processes did, and the same work in a pool that all share.
    """
    fast, slow, batches = 0.0025, 0.025, 440
    dealt = of(0.0, [slow, fast] * (batches // 2), dispatch="dealt", in_order=False)
    trace = dlsim.simulate(dealt)
    assert batches / trace.end == pytest.approx(2 / slow, rel=0.01)
    stolen = dlsim.simulate(dlsim.replace(dealt, {"loader.dispatch": "stealing"}))
    assert batches / stolen.end == pytest.approx(2 / (slow + fast) * 2, rel=0.03)


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_slots_are_what_is_read_before_anything_is_taken(slots: int) -> None:
    """With one batch taken, as torchdata.nodes: as many as there are slots are begun, and one."""
    scenario = of(1000.0, [1.0] * 40, dispatch="shared", slots=slots)
    trace = dlsim.simulate(dlsim.replace(scenario, {"consumer.stop_after": 1}))
    assert int(np.sum(trace.started < 900)) == slots + 1


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("dispatch", ["stealing", "shared"])
def test_what_is_thrown_away_is_its_to_whom_it_was_sent(dispatch: str, engine: Engine) -> None:
    """When the loop is left early, what nobody has begun belongs to the worker it was sent to."""
    if engine == "compiled":
        pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = dlsim.replace(
        of(0.0, [4.0] * 31, dispatch=dispatch),
        {"consumer.stop_after": 4},
    )
    trace = dlsim.simulate(scenario, engine=engine, samples=True)
    assert trace.worker.tolist() == [0, 1] * 4
    assert trace.started[:6].tolist() == [0, 0, 4, 4, 8, 8]
    assert np.isnan(trace.started[6:]).all()
    assert trace.samples is not None
    assert trace.samples.worker.tolist() == [0, 1] * 3


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("dispatch", ["stealing", "shared"])
def test_who_fetches_in_no_time_goes_on_before_others_do(dispatch: str, engine: Engine) -> None:
    """Who acts does all that takes no time: a worker that finds its queue full empties it."""
    if engine == "compiled":
        pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = of(1.0, [0.0] * 6, dispatch=dispatch, slots=6)
    scenario = dlsim.replace(scenario, {"costs.index_latency": 0.25})
    expected = {"stealing": [0, 1, 0, 1, 0, 1], "shared": [0] * 6}
    for samples in (False, True):
        trace = dlsim.simulate(scenario, engine=engine, samples=samples)
        assert trace.worker.tolist() == expected[dispatch]
        assert (trace.fetched == 0.25).all()


@settings(max_examples=60)
@given(scenarios(torch_only=False), st.integers(0, 99))
def test_every_rule_gives_every_batch_once(scenario: Scenario, seed: int) -> None:
    """Whatever the rule, an epoch has the sampler's batches, and the window holds."""
    assume(isinstance(scenario.dataset, dlsim.MapDataset) and scenario.loader.num_workers)
    changes = {"failures": [], "loader.timeout": 0.0, "consumer.stop_after": None}
    scenario = dlsim.replace(scenario, {**changes, "consumer.on_error": "stop"})
    trace = dlsim.simulate(scenario, seed, samples=True)
    torchs = {"loader.dispatch": "turns", "loader.refill": "return", "loader.slots": None}
    expected = dlsim.simulate(dlsim.replace(scenario, torchs), seed)
    assert sorted(trace.order) == sorted(expected.order) or scenario.loader.endless
    if scenario.loader.in_order:
        assert trace.order.tolist() == expected.order.tolist()
    gone = trace.received if scenario.loader.refill == "arrival" else trace.returned
    for number, sent in enumerate(trace.sent):
        under_way = (np.arange(len(trace)) < number) & ~(gone <= sent)
        assert int(np.sum(under_way)) < scenario.loader.window
    assert trace.samples is not None
    assert np.array_equal(trace.samples.worker, trace.worker[trace.samples.batch])


@settings(max_examples=40)
@given(scenarios(torch_only=False), st.integers(0, 99))
def test_nobody_is_idle_while_a_batch_lies_in_a_shared_queue(scenario: Scenario, seed: int) -> None:
    """A batch is begun in its turn, when it is sent, or when a worker is done with another one."""
    assume(isinstance(scenario.dataset, dlsim.MapDataset) and scenario.loader.num_workers)
    changes = {"loader.dispatch": "shared", "failures": [], "costs.index_latency": 0.0}
    scenario = dlsim.replace(scenario, {**changes, "policy": "torch", "costs.worker_start": 0.0})
    trace = dlsim.simulate(scenario, seed)
    begun = trace.started[~np.isnan(trace.started)]
    assert np.all(np.diff(begun) >= 0)
    assert set(begun) <= {*trace.sent, *trace.fetched}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loader.dispatch": "random"}, "loader.dispatch: expected"),
        ({"loader.num_workers": 0, "loader.dispatch": "shared"}, "dispatch: needs num_workers"),
        ({"loader.num_workers": 0, "loader.refill": "arrival"}, "refill: needs num_workers"),
        ({"loader.slots": 3}, 'slots: needs dispatch = "shared" or "stealing"'),
        (
            {"loader.slots": 3, "loader.dispatch": "shared", "loader.prefetch_factor": 2},
            "slots: excludes prefetch_factor",
        ),
        ({"loader.slots": 0, "loader.dispatch": "shared"}, "slots: expected an integer of at"),
    ],
)
def test_rules_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    """A rule that nobody has, or nobody to go by it; slots beside torch's own window."""
    with pytest.raises(ScenarioError, match=message):
        dlsim.replace(of(), changes)


def test_parts_of_an_iterable_are_not_shared() -> None:
    """Of an iterable-style dataset, no worker can make another one's batches."""
    with pytest.raises(ScenarioError, match=r"loader\.dispatch: expected turns or dealt"):
        Scenario(
            loader=dlsim.Loader(num_workers=2, dispatch="shared"), dataset=dlsim.IterableDataset(8)
        )


def test_the_critical_path_goes_by_arrivals() -> None:
    """Where an arrival sends for more, a batch hung on the one that arrived, not on a return."""
    seconds = [1, 1, 3.5, 1, 1, 1, 6]
    rule = {"dispatch": "shared", "refill": "arrival", "slots": 2}
    path = critical_path(dlsim.simulate(of(0.0, seconds, **rule)))
    # while batch 2 is waited for, the other worker does 3, 4, 5 and begins 6
    assert [(piece.batch, piece.begin, piece.end) for piece in path[1:4]] == [
        (3, 1.0, 2.0),
        (4, 2.0, 3.0),
        (5, 3.0, 4.0),
    ]
    assert {piece.batch for piece in path[4:]} == {6}


def test_what_piles_up_counts() -> None:
    """Where arrivals send for more, batches beyond the window wait in the main process."""
    scenario = dlsim.replace(
        of(0.0, [100.0] + [1.0] * 40, dispatch="shared", refill="arrival"),
        {"dataset.sample_bytes": 1.0},
    )
    assert dlsim.trace.memory(dlsim.simulate(scenario)).total.max == 41
    within = dlsim.replace(scenario, {"loader.refill": "return"})
    assert dlsim.trace.memory(dlsim.simulate(within)).total.max == within.loader.window + 1


def test_the_film_says_what_it_does_not_show() -> None:
    """Causes of rules that are not torch's are not made up."""
    for changes in ({"dispatch": "shared"}, {"refill": "arrival"}):
        trace = dlsim.simulate(of(**changes), samples=True)
        with pytest.raises(ScenarioError, match=r"which the film shows \(what happens else"):
            film(trace)


def test_torchs_code_has_torchs_rules() -> None:
    """Torch's own loader is not run for a rule that it does not have."""
    virtual = pytest.importorskip("dlsim.validation.virtual.loader", reason="needs torch")
    with pytest.raises(ScenarioError, match=r"loader\.dispatch: expected turns, as torch's code"):
        virtual.run_virtual(of(dispatch="shared"))


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("dispatch", ["turns", "shared"])
def test_errors_send_nothing_more_until_they_are_raised(engine: Engine, dispatch: str) -> None:
    """A worker that fails in no time, and a sampler without end: the run ends with the error."""
    scenario = dlsim.replace(
        of(refill="arrival", dispatch=dispatch, endless=True),
        {"epochs": 2, "failures": [dlsim.Failure("worker_init_fn", at=1)]},
    )
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.meta.problem is not None
    assert len(trace) <= 8


@pytest.mark.parametrize("seed", range(2))
def test_what_others_may_take_wakes_all_who_wait(seed: int) -> None:
    """The main process makes room for the first of two batches that are sent to idle workers."""
    settings = {"dispatch": "stealing", "in_order": False, "prefetch_factor": 1}
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2, **settings),
        dataset=dlsim.MapDataset(60, fetch=[dlsim.Stage("read", cpu=dlsim.Gamma(0.5, 1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.6, 1.0), device="cpu"),
        machine=dlsim.Machine(cores=1, slice=0.7),
        costs=dlsim.Costs(index_latency=0.125),
    )
    first = dlsim.simulate(scenario, seed, engine="simpy")
    assert difference(first, dlsim.simulate(scenario, seed, engine="compiled")) is None
