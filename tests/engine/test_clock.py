"""Simulated time."""

from __future__ import annotations

import simpy
from hypothesis import example, given
from hypothesis import strategies as st

from dlsim.engine.processes.clock import until


@given(st.floats(0, 1e6), st.floats(0, 1e6))
@example(1.0, 3.0000000000000004)
@example(2.0000000000000004 / 4, 3.0000000000000013)
def test_until_is_exact(one: float, other: float) -> None:
    """Waiting until a moment ends at that very float, whatever the present is."""
    now, moment = sorted((one, other))
    env = simpy.Environment(now)
    env.run(until(env, moment, 2))
    assert env.now == moment
