"""What a thread has had of the processor so far, and how long it has waited for it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, thread_time
from typing import NamedTuple

SCHEDSTAT = "/proc/thread-self/schedstat"  # ns on a core, ns in the queue for one, time slices
JUST = 20e-6  # seconds in which no thread waits for long


class Reading(NamedTuple):
    """Seconds: the clock, the thread's CPU so far, its waiting for a core so far."""

    time: float
    cpu: float
    queued: float

    def until(self, now: Reading) -> Reading:
        """When this was, and what the thread used and waited from then to `now`."""
        return Reading(self.time, now.cpu - self.cpu, now.queued - self.queued)


# The same, of a tuple of all three; C alone runs for it. A function of Python's that is called once
# for each batch is found in no cache, and takes microseconds.
as_reading: Callable[[tuple[float, float, float]], Reading] = partial(tuple.__new__, Reading)
NOTHING = Reading(0.0, 0.0, 0.0)
UNSEEN = Reading(float("nan"), float("nan"), float("nan"))


class Turns(NamedTuple):
    """What a thread has had so far: seconds in which it waited for a core, and turns on one."""

    queued: float
    number: int


UNTOLD = Turns(0.0, 0)


class QueueClock:
    """Called, it returns the seconds that the thread which made it has waited for a core so far.

    Always 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self._file, self._told, self._turns = -1, b"", UNTOLD
        with suppress(OSError):
            self._file = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)

    def turns(self) -> Turns:
        """The same, and how often it was given a core; never, where the system does not tell."""
        if self._file >= 0:
            told = os.pread(self._file, 64, 0).split(None, 1)[1]
            if told != self._told:
                queued, number = told.split()
                self._told, self._turns = told, Turns(int(queued) * 1e-9, int(number))
        return self._turns

    def __call__(self) -> float:
        """Seconds."""
        return self.turns().queued

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def blockings() -> int:
    """How often this thread has been blocked so far, in Linux."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def reading(queued: QueueClock) -> Reading:
    """All three, now.

    A thread is mostly made to wait where a system call returns. No call returns between reading
    the clock and the time in the queue, so what is waited falls on the same side of both.
    """
    cpu = thread_time()
    return Reading(monotonic(), cpu, queued())


class ThreadClock:
    """Called, it returns what the thread which made it has used until now.

    Who asks Linux what a thread has used makes it look whether the thread has had its share of the
    core, as it does else at ticks only, and so loses the core where others wait: threads that work
    together are then half as slow again. So it is asked only where that does not follow from the
    rest: who has not been blocked was on a core whenever it did not wait for one. Just after
    another reading the thread was running; what is not seen so is less than `JUST`, and seen by the
    next one.
    """

    def __init__(self) -> None:
        self._queued = QueueClock()
        self.last = reading(self._queued)
        self._turns, self._blocked = UNTOLD.number, -1

    def __call__(self) -> Reading:
        """All three, now."""
        now, before = monotonic(), self.last
        if now - before.time < JUST:
            return as_reading((now, before.cpu + now - before.time, before.queued))
        queued, turns = self._queued.turns()
        if monotonic() - now > JUST:  # it has lost its core since it looked at the clock
            now = monotonic()
            queued, turns = self._queued.turns()
        blocked = self._blocked
        if turns != self._turns:
            self._turns, self._blocked = turns, blockings()
        if turns and blocked == self._blocked:
            cpu = before.cpu + now - before.time - (queued - before.queued)
        else:
            cpu = thread_time()
        self.last = last = as_reading((now, cpu, queued))
        return last
