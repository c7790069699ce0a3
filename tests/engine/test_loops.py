"""Loops around `next()`: one batch ahead, Lightning's, a thread that reads ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario, ScenarioError
from dlsim.engine.simulation import Engine
from dlsim.trace import account
from dlsim.trace.memory import memory
from dlsim.whatif.space import space
from tests.strategies import on_machines, scenarios


def loader(loop: str, batches: int = 12, workers: int = 2, **settings: object) -> Scenario:
    """Batches of a second on some workers, steps of a tenth, in that loop."""
    return Scenario(
        loader=dlsim.Loader(num_workers=workers),
        dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.1), loop=loop, **settings),
    )


def test_the_first_step_needs_two_batches() -> None:
    """With accelerate, before a batch is given the next has come; the last one is there at once."""
    scenario = loader("accelerate", batches=3, workers=1)
    trace = dlsim.simulate(scenario)
    assert trace.returned.tolist() == [2.0, 3.0, 3.1]
    plain = dlsim.simulate(dlsim.replace(scenario, {"consumer.loop": "plain"}))
    assert plain.returned.tolist() == [1.0, 2.0, 3.0]


def test_workers_are_gone_before_the_last_step() -> None:
    """With accelerate, the call that finds no batch after the last comes before the last step."""
    scenario = dlsim.replace(loader("accelerate", batches=3, workers=1), {"costs.worker_stop": 0.5})
    trace = dlsim.simulate(scenario)
    assert trace.returned.tolist() == [2.0, 3.0, 3.6]
    assert trace.end == pytest.approx(3.7)


def test_lightning_has_two_sets_of_workers_at_an_edge() -> None:
    """An epoch that is left early lets its workers go when the next one's are started and busy."""
    scenario = dlsim.replace(
        loader("lightning", workers=1, stop_after=1), {"epochs": 2, "loader.prefetch_factor": 1}
    )
    trace = dlsim.simulate(scenario)
    # The old worker, at its second batch until 2.0, is waited for when the new one has begun.
    assert trace.epochs.primed.tolist() == [0.0, 2.0]
    assert trace.returned[trace.order].tolist() == [1.0, pytest.approx(2.1)]
    plain = dlsim.simulate(dlsim.replace(scenario, {"consumer.loop": "plain"}))
    assert plain.returned[plain.order].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_a_rebound_iterator_has_two_sets_of_workers_at_an_edge(engine: Engine) -> None:
    """`iter()` waits for what the old workers are at, during which the new ones fetch already."""
    scenario = dlsim.replace(loader("rebind", stop_after=3), {"epochs": 2})
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.epochs.started.tolist() == [0.0, 2.1]
    assert trace.epochs.primed.tolist() == [0.0, 3.0]
    assert trace.returned[trace.order[3]] == pytest.approx(3.1)
    one_set = dlsim.simulate(dlsim.replace(scenario, {"consumer.loop": "plain"}), engine=engine)
    assert one_set.epochs.started.tolist() == [0.0, 3.0]
    assert one_set.returned[one_set.order[3]] == 4.0
    persistent = dlsim.replace(scenario, {"loader.persistent_workers": True})
    plain = dlsim.replace(persistent, {"consumer.loop": "plain"})
    kept, reset = (dlsim.simulate(each, engine=engine) for each in (persistent, plain))
    assert kept.returned.tolist() == pytest.approx(reset.returned.tolist(), nan_ok=True)


def test_two_sets_of_workers_share_the_cores() -> None:
    """What the old workers are at and what the new ones begin with takes twice as long."""
    scenario = dlsim.replace(
        loader("rebind", workers=1, stop_after=1),
        {"epochs": 2, "dataset.fetch": [dlsim.Stage("decode", cpu=dlsim.Constant(1.0))]},
    )
    trace = dlsim.simulate(dlsim.replace(scenario, {"machine.cores": 1}))
    # At 1.1 the old worker has 0.9 s to go, which takes 1.8 s beside the new one.
    assert trace.epochs.primed[1] == pytest.approx(2.9)
    assert trace.returned[trace.order[1]] == pytest.approx(3.0)
    assert "consumer.loop = rebind" in trace.meta.notes["engine"]


def test_waiting_for_old_workers_is_no_sending() -> None:
    """The account of a run that waits in `iter()` for old workers to stop says so."""
    scenario = dlsim.replace(
        loader("rebind", stop_after=3),
        {"epochs": 3, "dataset.fetch.0.wait": 0.01, "costs.worker_stop": 0.5},
    )
    found = account(dlsim.simulate(scenario)).idle
    assert found == pytest.approx({"joining": 1.5, "first batch": 0.01})


def test_two_windows_at_a_time_take_memory() -> None:
    """Old workers keep their window until the new ones have theirs: more than a window is there."""
    scenario = dlsim.replace(
        loader("rebind", batches=40, stop_after=20),
        {"epochs": 2, "dataset.fetch.0.wait": 0.01, "dataset.sample_bytes": 2**20},
    )
    slow = dlsim.replace(scenario, {"costs.worker_start": 1.0, "costs.worker_stop": 1.0})
    window = scenario.loader.window
    assert memory(dlsim.simulate(slow)).total.max / 2**20 == 2 * window + 1
    assert space(slow).most == (2 * window + 1) * 2**20
    assert space(dlsim.replace(slow, {"machine.shm": "8 MiB"})).largest_window == 3


@pytest.mark.parametrize("queue", [1, 3])
def test_a_thread_has_one_more_than_its_queue_ready(queue: int) -> None:
    """During a long step, `queue + 1` batches and the window are sent beyond the one in use."""
    scenario = dlsim.replace(
        loader("thread", batches=40, queue=queue),
        {"consumer.step": 1000.0, "consumer.stop_after": 1},
    )
    trace = dlsim.simulate(scenario)
    assert int(np.sum(trace.sent < 900)) == 1 + queue + 1 + scenario.loader.window


def test_a_thread_raises_where_the_loop_is() -> None:
    """What the thread's `next()` raises comes out when the loop has had all batches before it."""
    scenario = dlsim.replace(
        loader("thread", batches=4, workers=1), {"failures": [dlsim.Failure("fetch", 2)]}
    )
    trace = dlsim.simulate(scenario)
    assert trace.order.tolist() == [0, 1]
    assert trace.meta.problem is not None
    assert trace.meta.problem.batch == 2


@settings(max_examples=100)
@given(
    scenarios(torch_only=False) | on_machines(),
    st.sampled_from(["accelerate", "lightning", "rebind", "thread"]),
    st.integers(0, 99),
)
def test_loops_give_every_batch_once(scenario: Scenario, loop: str, seed: int) -> None:
    """Whatever the loop, an epoch has the plain one's batches, and the window holds.

    The next index list is sent before a batch is returned: in no time, and where processes take
    turns on cores the return may be later, so that for a while both count.
    """
    stop = {"consumer.on_error": "stop", "failures": [], "loader.timeout": 0.0}
    changes = {**stop, "loader.endless": False}
    plain = dlsim.replace(scenario, changes)
    assume(plain.loader.in_order)
    trace = dlsim.simulate(dlsim.replace(plain, {"consumer.loop": loop}), seed)
    expected = dlsim.simulate(plain, seed, engine="simpy")
    assert trace.size[trace.order].tolist() == expected.size[expected.order].tolist()
    assert np.all(trace.requested[trace.order] <= trace.returned[trace.order])
    if plain.consumer.stop_after is None:  # what is taken ahead and left counts to the end
        returning = 0 if plain.machine.slice is None else 1
        assert dlsim.summarize(trace).credit_max <= plain.loader.window + returning


def test_what_the_compiled_engine_has_not_is_said() -> None:
    """Asked for, it is refused; `auto` takes the other one, and says why."""
    with pytest.raises(ScenarioError, match="expected simpy or auto for consumer"):
        dlsim.simulate(loader("thread"), engine="compiled")
    trace = dlsim.simulate(loader("thread"))
    assert trace.meta.engine == "simpy"
    assert "consumer.loop = thread" in trace.meta.notes["engine"]


def test_ranks_of_a_job_have_the_loop() -> None:
    """Each rank's first step needs two batches with accelerate, whichever engine is free to run."""
    scenario = dlsim.replace(loader("accelerate", workers=1), {"job.ranks": 2})
    job = dlsim.simulate_job(scenario)
    assert [trace.returned[trace.order[0]] for trace in job.ranks] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"consumer.loop": "fabric"}, "loop: expected accelerate or lightning or plain or rebind"),
        ({"consumer.queue": 2}, 'queue: needs loop = "thread"'),
        ({"consumer.loop": "accelerate", "loader.endless": True}, "endless: needs a plain loop"),
    ],
)
def test_loops_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    """A loop that nobody has, a queue that nobody fills, a look ahead without an end."""
    with pytest.raises(ScenarioError, match=message):
        dlsim.replace(loader("plain"), changes)


# First batch after so many seconds, and images a second, of 10,000, by workers: torch's loader with
# workers that take seconds to start, one after another (facebookresearch/spdl, pull request 303).
START_UP = {
    1: (3.49, 265),
    2: (6.79, 410),
    4: (13.32, 446),
    8: (26.6, 321),
    16: (55.3, 173),
    32: (107, 92),
}


@pytest.mark.parametrize("workers", START_UP)
def test_a_published_start_up_series_follows_from_its_first_row(workers: int) -> None:
    """With batches of 32, what one worker takes foretells every row within 3 %."""
    images, size = 10_000, 32
    first, rate = START_UP[1]
    image = (images / rate - first) / (images - size)
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=workers, batch_size=size),
        dataset=dlsim.MapDataset(images, fetch=[dlsim.Stage("load", wait=dlsim.Constant(image))]),
        costs=dlsim.Costs(worker_start=first - size * image),
    )
    trace = dlsim.simulate(scenario)
    seen = trace.returned[trace.order]
    assert seen[0] == pytest.approx(START_UP[workers][0], rel=0.03)
    assert images / seen[-1] == pytest.approx(START_UP[workers][1], rel=0.03)
