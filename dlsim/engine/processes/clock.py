"""Moving about in simulated time: exact arrival times, and who goes first at one moment.

The rule for events at one moment: first messages arrive, and services end (cores, storage). Then
everyone acts who can, in turn: the workers by their numbers, their feeder threads likewise, the
pin-memory thread, and the main process. Who acts does all that takes no time; if that lets
someone act who would have been earlier in turn, that one is next.

A turn is a priority of SimPy's queue of events, whose own events come before all turns.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

import simpy
from simpy.events import EventPriority

Steps: TypeAlias = Generator[simpy.Event, Any, Any]

# Turns: add the worker's number to the first two.
WORKERS, FEEDERS, PINNING, LAST = 2, 1 << 40, 1 << 41, 1 << 42


def happen(event: simpy.Event, turn: int, delay: float = 0.0) -> simpy.Event:
    """Let `event` happen `delay` seconds from now, for the one who has this `turn`."""
    event._ok, event._value = True, None  # what succeed() does, which knows no priority
    event.env.schedule(event, EventPriority(turn), delay)
    return event


def sleep(env: simpy.Environment, seconds: float, turn: int) -> simpy.Event:
    """An event that happens `seconds` from now, for the one who has this `turn`."""
    return happen(env.event(), turn, seconds)


def until(env: simpy.Environment, moment: float, turn: int) -> simpy.Event:
    """An event that happens at exactly `moment`, for the one who has this `turn`.

    SimPy adds a delay to the present, which may round to a neighbouring float; then what
    happens at one moment in torch would happen at two here, and ties would break differently.
    """
    delay = moment - env.now
    if env.now + delay == moment:
        return sleep(env, delay, turn)
    # From half way on, a difference of two floats is exact (Sterbenz's lemma).
    arrived = env.event()

    def go_on(_: simpy.Event) -> None:
        happen(arrived, turn, moment - env.now)

    env.timeout(0.75 * delay).callbacks.append(go_on)
    return arrived


def settle(env: simpy.Environment) -> Steps:
    """Let everyone else do all that they do at this moment. For the main process only."""
    if env.peek() <= env.now:
        yield sleep(env, 0.0, LAST)
