"""Moving about in simulated time: exact arrival times, and who goes first at one moment.

The rule for events at one moment: first messages arrive, and services end (cores, storage). Then
everyone acts who can, in turn: the workers by their numbers, their feeder threads likewise, the
pin-memory thread, and the main process; of several ranks, in each of these turns, by their numbers.
Who acts does all that takes no time; if that lets someone act who would have been earlier in turn,
that one is next.

A turn is a priority of SimPy's queue of events, whose own events come before all turns.
"""

from __future__ import annotations

from collections.abc import Generator
from heapq import heappush
from math import inf
from typing import Any, Protocol, TypeAlias

import simpy
from simpy.events import NORMAL, EventPriority

from dlsim.engine.facts import MAIN

Steps: TypeAlias = Generator[simpy.Event, Any, Any]

ALARM = int(NORMAL)  # the turn of alarms, before all others
RANKS = 1 << 32  # at most, so that each kind of turn has one for each of them


class Turns:
    """When the processes of one rank act at one moment; `first` stands for its worker 0.

    So validation's workers come after those of training.
    """

    def __init__(self, rank: int = 0, first: int = 0) -> None:
        self.rank, self.first = rank, first
        self.pinning, self.last = self._of(1 << 21), self._of(1 << 22)

    def _of(self, kind: int) -> int:
        return kind * RANKS + self.rank

    def worker(self, number: int) -> int:
        """The turn of a worker's main thread; SimPy's own events come before all of them."""
        return self._of(2 + self.first + number)

    def feeder(self, worker: int) -> int:
        """The turn of the feeder thread of a worker."""
        return self._of((1 << 20) + self.first + worker)

    def of(self, process: int) -> int:
        """The turn of the main thread of a process (a worker's number, or MAIN)."""
        return self.last if process == MAIN else self.worker(process)


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


def begin(env: simpy.Environment, steps: Steps) -> None:
    """Let a process do at once what takes no time, and then the rest."""
    first = next(steps, None)
    if first is not None:
        env.process(_after(first, steps))


def _after(first: simpy.Event, steps: Steps) -> Steps:
    yield first
    yield from steps


def settle(env: simpy.Environment, last: int) -> Steps:
    """Let everyone else do all they do at this moment; for the main process, of the turn `last`."""
    if env.peek() <= env.now:
        yield sleep(env, 0.0, last)


class Shared(Protocol):
    """Something that processes share: `moment` is when the first of them is due, perhaps never."""

    moment: float

    def ring(self) -> list[tuple[simpy.Event, int]]:
        """That moment has come: the events that are due, each for the one who has a turn."""


class Alarms:
    """The alarms of all that is shared, of which only the first is one of SimPy's events.

    Until the next of these, nothing happens but that someone is due, who mostly asks for something
    else at once. So time goes on from alarm to alarm, and who alone acts at a moment does so as
    its alarm rings: SimPy's queue sees a batch begin and end, but none of its hundreds of samples.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self._shared = env, list[Shared]()
        self._set = inf  # the moment that SimPy knows of
        self._number = 0  # of the event that counts; earlier ones are stale
        self._ringing = False

    def watch(self, shared: Shared) -> None:
        """From now on `shared` has its alarm here."""
        self._shared.append(shared)

    def set(self) -> None:
        """A moment is another one: let SimPy know of the first, if that is sooner than it knows."""
        if self._ringing:
            return
        first = self._first()
        if first < self._set:
            self._set, self._number = first, self._number + 1
            event = self.env.event()
            event._ok, event._value = True, self._number
            event.callbacks.append(self._ring)
            # not by a delay: added to another moment than it was found at, it may round otherwise
            entry = first, EventPriority(ALARM), next(self.env._eid), event
            heappush(self.env._queue, entry)

    def _first(self) -> float:
        return min([shared.moment for shared in self._shared])

    def _ring(self, alarm: simpy.Event) -> None:
        if alarm.value != self._number:
            return
        env, self._set, self._ringing = self.env, inf, True
        while (now := self._first()) < env.peek() or now == env.now:
            env._now = now
            for shared in self._shared:
                if shared.moment == now:
                    due = shared.ring()
                    break
            if len(due) == 1 and now < env.peek() and now < self._first():
                _happen_now(due[0][0])
            else:
                for event, turn in due:
                    happen(event, turn)
        self._ringing = False
        self.set()


def _happen_now(event: simpy.Event) -> None:
    """Let `event` happen as if SimPy's queue had come to it."""
    event._ok, event._value = True, None
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    for callback in callbacks:
        callback(event)
