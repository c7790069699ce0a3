"""torchdata's StatefulDataLoader: it waits for its workers, saves states, and resumes.

Its own code under a virtual clock is held against the simulation in test_oracles.py.
"""

from __future__ import annotations

import pytest

import dlsim
from dlsim import Scenario, ScenarioError
from dlsim.trace import account
from dlsim.trace.trace import DISCARDED


def loader(seconds: float = 1.0, batches: int = 24, **changes: object) -> Scenario:
    """Batches of one sample that takes so many seconds, on two workers of a stateful loader."""
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=2, stateful=True),
        dataset=dlsim.MapDataset(
            batches, fetch=[dlsim.Stage("read", wait=dlsim.Constant(seconds))]
        ),
    )
    return dlsim.replace(scenario, changes)


def test_resumes_as_was_seen() -> None:
    """After 7 batches with snapshots every 5, `iter()` makes two again, and the next takes one."""
    changes = {"loader.resume": 7, "loader.snapshot_every_n_steps": 5}
    trace = dlsim.simulate(loader(0.3, **changes))
    assert trace.epochs.primed[0] == 0.3
    assert trace.returned[trace.order[0]] == 0.6
    assert (trace.status == DISCARDED).sum() == 2
    assert len(trace.order) == 24 - 7


def test_an_iterable_style_dataset_makes_all_again() -> None:
    """Without a state, all batches before the one to go on with are made and thrown away."""
    dataset = dlsim.IterableDataset(
        24, sharding="split", fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.3))]
    )
    loaders = dlsim.Loader(num_workers=2, stateful=True, resume=7, snapshot_every_n_steps=5)
    trace = dlsim.simulate(Scenario(loader=loaders, dataset=dataset))
    assert trace.epochs.primed[0] == pytest.approx(4 * 0.3)
    assert (trace.status == DISCARDED).sum() == 7


def test_the_old_workers_live_until_the_new_ones_have_begun() -> None:
    """After a loop that was left, `iter()` waits for the old workers while the new ones fetch."""
    changes = {"consumer.stop_after": 2, "epochs": 2, "consumer.step": 0.01}
    stateful = dlsim.simulate(loader(**changes))
    took = stateful.epochs.primed[1] - stateful.epochs.started[1]
    first = stateful.order[2]
    waited = stateful.returned[first] - stateful.requested[first]
    assert took == pytest.approx(0.98)
    assert waited == pytest.approx(0.02)
    plain = dlsim.simulate(loader(**changes, **{"loader.stateful": False}))
    assert plain.epochs.primed[1] == plain.epochs.started[1]


def test_snapshots_cost_their_workers() -> None:
    """A state is saved when a worker begins, and after each of the batches that n stands for."""
    each = dlsim.simulate(loader(**{"costs.snapshot": 0.5}))
    assert each.fetched[:2].tolist() == [1.5, 1.5]
    assert each.arrived[:2].tolist() == [2.0, 2.0]
    never = {"costs.snapshot": 0.5, "loader.snapshot_every_n_steps": None}
    assert dlsim.simulate(loader(**never)).arrived[:2].tolist() == [1.5, 1.5]
    # of ten batches, those of the last two workers before the tenth
    some = {"costs.snapshot": 0.5, "loader.snapshot_every_n_steps": 10}
    found = dlsim.simulate(loader(**some))
    assert (found.arrived > found.fetched).nonzero()[0].tolist() == [8, 9, 18, 19]


def test_worker_init_fn_is_raised_by_iter() -> None:
    """All workers are waited for, and what one of them raises ends `iter()`."""
    scenario = loader(failures=[{"where": "worker_init_fn", "at": 1}])
    trace = dlsim.simulate(scenario)
    assert trace.meta.problem is not None
    assert trace.meta.problem.kind == "worker_init_fn"
    assert len(trace.sent) == 0


@pytest.mark.parametrize(("stateful", "first"), [(False, 0.1), (True, 1.1)])
def test_all_workers_are_waited_for(stateful: bool, first: float) -> None:
    """The `worker_init_fn` of worker 1 takes a second: torch's first batch does not wait for it."""
    changes = {"loader.stateful": stateful, "costs.worker_waits": ["0 s", "1 s"]}
    trace = dlsim.simulate(loader(0.1, **changes))
    assert trace.returned[:2].tolist() == pytest.approx([first, 1.1])


def test_a_state_after_the_last_batch_resumes_to_no_batches() -> None:
    """The epoch that is gone on with is over at once; the next one is whole."""
    trace = dlsim.simulate(loader(batches=4, epochs=2, **{"loader.resume": 4}))
    assert len(trace.order) == 4
    assert trace.epochs.ended[0] == 0.0
    assert sum(account(trace).idle.values()) == pytest.approx(account(trace).elapsed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"costs.worker_waits": [-1.0]}, "worker_waits: expected a list of seconds of at least 0"),
        ({"loader.resume": 25}, r"loader.resume: expected at most the batches of an epoch \(24\)"),
        ({"loader.resume": 1, "loader.in_order": False}, "resume: needs in_order"),
        ({"loader.stateful": False, "loader.resume": 1}, "resume: needs stateful = true"),
        ({"loader.snapshot_every_n_steps": 0}, "snapshot_every_n_steps"),
        ({"loader.snapshot_every_n_steps": 2, "loader.in_order": False}, "fails an assertion"),
        ({"loader.workers": "threads"}, "workers: excludes stateful = true"),
        ({"consumer.loop": "accelerate"}, "loader.stateful: needs a plain loop"),
        ({"consumer.on_error": "continue"}, "loader.stateful: needs consumer.on_error"),
    ],
)
def test_refuses_what_the_package_refuses(changes: dict[str, object], said: str) -> None:
    """What torchdata's loader cannot do, or fails at, is said in a line that names the key."""
    with pytest.raises(ScenarioError, match=said):
        loader(**changes)
