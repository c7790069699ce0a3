"""Moving about in simulated time: exact arrival times, and who goes first at one moment.

The rule for events at one moment: the workers act before the main process, and messages that
arrive at one moment are taken in the order of the workers' numbers.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

import simpy

Steps: TypeAlias = Generator[simpy.Event, Any, Any]


def until(env: simpy.Environment, moment: float) -> simpy.Event:
    """An event that happens at exactly `moment`.

    SimPy adds a delay to the present, which may round to a neighbouring float; then what
    happens at one moment in torch would happen at two here, and ties would break differently.
    """
    delay = moment - env.now
    if env.now + delay == moment:
        return env.timeout(delay)
    # From half way on, a difference of two floats is exact (Sterbenz's lemma).
    arrived = env.event()

    def go_on(_: simpy.Event) -> None:
        env.timeout(moment - env.now).callbacks.append(arrive)

    def arrive(_: simpy.Event) -> None:
        arrived.succeed()

    env.timeout(0.75 * delay).callbacks.append(go_on)
    return arrived


def settle(env: simpy.Environment) -> Steps:
    """Let everyone else do all that they do at this moment. For the main process only.

    Two who settled would each wait for the other to act.
    """
    while env.peek() <= env.now:
        yield env.timeout(0)
