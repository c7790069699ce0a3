"""Bytes over time, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.report import run_text
from dlsim.trace.memory import FOR_EACH_WORKER, OWN_DESCRIPTORS, uses
from dlsim.whatif.space import at_most
from tests.strategies import scenarios


def loading(**changes: object) -> dlsim.Trace:
    """Eight batches of two samples of 100 B, 1 s each, by two workers, with a step of 10 s."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2, prefetch_factor=2),
        dataset=dlsim.MapDataset(
            16,
            fetch=[dlsim.Stage("decode", wait=dlsim.Constant(1.0))],
            sample_bytes=dlsim.Constant(100.0),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(10.0)),
    )
    return dlsim.simulate(dlsim.replace(scenario, changes))


def test_shared_memory_holds_the_window_and_the_batch_in_use() -> None:
    """With a slow step, the window's four batches and the one in training are in /dev/shm."""
    used = dlsim.memory(loading())
    assert used.shm.max == 5 * 200
    assert used.workers.max == 2 * 200
    assert used.pinned.max == 0


def test_pinning_frees_shared_memory() -> None:
    """A pin-memory thread moves batches out of /dev/shm as they arrive: each crosses it."""
    used = dlsim.memory(loading(**{"loader.pin_memory": True}))
    assert used.shm.mean == 0
    assert used.shm.max == 2 * 200
    assert used.pinned.max == 5 * 200


def test_how_soon_batches_leave_shm_is_not_taken_from_costs_that_nobody_stated() -> None:
    """Where pinning has no cost, each worker is taken to have a batch in /dev/shm, as they may."""
    changes = {"loader.pin_memory": True, "dataset.fetch.0.wait": dlsim.Exponential(1.0)}
    assert dlsim.memory(loading(**changes)).shm.max == 2 * 200
    stated = {**changes, "costs.pin.message": 1e-3}
    assert dlsim.memory(loading(**stated)).shm.max == 200


def test_the_old_batch_goes_after_the_new_one_has_come() -> None:
    """At each change of batches two are in /dev/shm: 8 MiB, as in a real run of torch 2.13."""
    one = {"loader.num_workers": 1, "loader.batch_size": 1, "dataset.length": 8}
    trace = loading(
        **one,
        **{
            "dataset.fetch.0.wait": dlsim.Constant(0.3),
            "dataset.sample_bytes": 4 * 2**20,
            "consumer.step": dlsim.Constant(0.1),
        },
    )
    assert dlsim.memory(trace).shm.max == 8 * 2**20


def test_the_last_batch_of_an_epoch_is_kept_into_the_next() -> None:
    """Epochs of four batches and a larger window: those four, and one of the epoch before."""
    changes = {"loader.num_workers": 8, "loader.persistent_workers": True, "dataset.length": 8}
    one, three = (loading(**changes, epochs=epochs) for epochs in (1, 3))
    assert dlsim.memory(one).shm.max == 4 * 200
    assert dlsim.memory(three).shm.max == 5 * 200


def test_file_descriptors() -> None:
    """Main has a file open for each tensor of each batch received, workers for those not yet."""
    busy = {"dataset.tensors": 100, "machine.descriptors": 1024}
    used = {use.resource: use for use in uses(loading(**busy))}
    own = OWN_DESCRIPTORS + 2 * FOR_EACH_WORKER
    # main takes messages in next() only: what it holds is the batch in use, and the new one
    assert used["file descriptors"].needed == own + 2 * 100
    assert not used["file descriptors"].outgrown
    found = dlsim.overflow(loading(**{**busy, "dataset.tensors": 600}))
    assert found is not None
    assert (found.resource, found.limit) == ("file descriptors", 1024)
    # what waits to be taken is open in its worker: two batches each
    slow = loading(**busy, **{"loader.prefetch_factor": 4})
    assert {use.resource: use for use in uses(slow)}["file descriptors"].needed == own + 400
    pinned = loading(**busy, **{"loader.pin_memory": True})
    assert {use.resource: use for use in uses(pinned)}["file descriptors"].needed == own + 100


def test_pickled_batches_use_no_shared_memory() -> None:
    """What goes through the pipe is in ordinary memory."""
    used = dlsim.memory(loading(**{"dataset.path": "pipe"}))
    assert used.shm.max == 0
    assert used.total.max == 5 * 200


def test_overflow_names_the_batch_and_what_would_fit() -> None:
    """A /dev/shm of four batches overflows when the fifth is fetched; a window of 3 would fit."""
    trace = loading(**{"machine.shm": 800.0})
    found = dlsim.overflow(trace)
    assert found == dlsim.trace.Overflow("/dev/shm", 4, 1000.0, 800.0, 3)
    told = run_text(trace)
    assert "take up to 1000 B, /dev/shm has 800 B, outgrown at batch 4; num_workers * " in told
    assert dlsim.overflow(loading(**{"machine.shm": 800.0, "loader.prefetch_factor": 1})) is None


def test_overflow_of_all_memory() -> None:
    """Batches in the making count towards the machine's memory."""
    found = dlsim.overflow(loading(**{"machine.memory": 700.0}))
    assert found is not None
    assert found.resource == "memory"


@settings(max_examples=60)
@given(scenarios(torch_only=False), st.integers(0, 1000))
def test_never_more_than_the_window_and_one(scenario: dlsim.Scenario, seed: int) -> None:
    """What is in /dev/shm never exceeds the credit window and the batch in use.

    But for the one that is about to be returned, while the main process stands aside. Where what
    arrives sends for more, nothing limits what piles up.
    """
    assume(scenario.loader.refill == "return")
    sized = dlsim.replace(scenario, {"dataset.sample_bytes": 1.0})
    trace = dlsim.simulate(sized, seed)
    batch = int(trace.size.max(initial=0))
    beside = 2 if scenario.machine.slices else 1
    assert dlsim.memory(trace).shm.max <= (sized.loader.window + beside) * batch


def test_observed_traces_without_a_scenario_are_refused() -> None:
    """Nothing says how big the samples of a bare trace are."""
    import msgspec

    trace = loading()
    bare = dlsim.Trace(
        **{**trace.__dict__, "meta": msgspec.structs.replace(trace.meta, scenario=None)}
    )
    with pytest.raises(dlsim.DlsimError, match="scenario"):
        dlsim.memory(bare)
    assert np.isfinite(dlsim.memory(trace).total.mean)


def test_what_a_loop_takes_ahead_is_beyond_the_window() -> None:
    """During a long step, a reading thread's queue, what it holds and the window are all there."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(
            40,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))],
            sample_bytes=dlsim.Constant(1.0),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0), loop="thread", queue=3),
    )
    most = scenario.loader.window + 3 + 1 + 1
    assert dlsim.trace.memory(dlsim.simulate(scenario)).total.max == most
    assert at_most(scenario) == most
    ahead = dlsim.replace(scenario, {"consumer.loop": "accelerate", "consumer.queue": 1})
    assert dlsim.trace.memory(dlsim.simulate(ahead)).total.max == ahead.loader.window + 1 + 1
