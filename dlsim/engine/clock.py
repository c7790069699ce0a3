"""Moving about in simulated time: exact arrival times, and who goes first at one moment.

The rule for events at one moment: the workers act before the main process, and messages that
arrive at one moment are taken in the order of the workers' numbers.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, TypeAlias

import simpy

Steps: TypeAlias = Generator[simpy.Event, Any, Any]


def until(env: simpy.Environment, moment: float) -> simpy.Timeout:
    """A timeout that fires at exactly `moment`.

    SimPy adds a delay to the present, which may round to a neighbouring float; then what
    happens at one moment in torch would happen at two here, and ties would break differently.
    """
    delay = moment - env.now
    if env.now + delay < moment:
        delay = math.nextafter(delay, math.inf)
    elif env.now + delay > moment:
        delay = math.nextafter(delay, 0.0)
    return env.timeout(delay)


def settle(env: simpy.Environment) -> Steps:
    """Let everyone else do all that they do at this moment. For the main process only.

    Two who settled would each wait for the other to act.
    """
    while env.peek() <= env.now:
        yield env.timeout(0)
