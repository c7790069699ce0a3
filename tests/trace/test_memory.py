"""Bytes over time, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.report import run_text
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
    """A pin-memory thread moves batches out of /dev/shm as they arrive."""
    used = dlsim.memory(loading(**{"loader.pin_memory": True}))
    assert used.shm.max == 0
    assert used.pinned.max == 5 * 200


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
    assert "/dev/shm would need 1000 B and has 800 B; it overflows at batch 4" in run_text(trace)
    assert dlsim.overflow(loading(**{"machine.shm": 800.0, "loader.prefetch_factor": 1})) is None


def test_overflow_of_all_memory() -> None:
    """Batches in the making count towards the machine's memory."""
    found = dlsim.overflow(loading(**{"machine.memory": 700.0}))
    assert found is not None
    assert found.resource == "memory"


@settings(max_examples=60)
@given(scenarios(torch_only=False), st.integers(0, 1000))
def test_never_more_than_the_window_and_one(scenario: dlsim.Scenario, seed: int) -> None:
    """What is in /dev/shm never exceeds the credit window and the batch in use."""
    sized = dlsim.replace(scenario, {"dataset.sample_bytes": 1.0})
    trace = dlsim.simulate(sized, seed)
    batch = int(trace.size.max(initial=0))
    assert dlsim.memory(trace).shm.max <= (sized.loader.window + 1) * batch


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
