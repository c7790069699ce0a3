"""What a thread has had of the processor so far, and how long it has waited for it."""

from __future__ import annotations

import os
from contextlib import suppress
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


NOTHING = Reading(0.0, 0.0, 0.0)
UNSEEN = Reading(float("nan"), float("nan"), float("nan"))


class QueueClock:
    """Called, it returns the seconds that the thread which made it has waited for a core so far.

    Always 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self._file = -1
        with suppress(OSError):
            self._file = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        """Seconds."""
        if self._file < 0:
            return 0.0
        return int(os.pread(self._file, 64, 0).split()[1]) * 1e-9

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def reading(queued: QueueClock) -> Reading:
    """All three, now.

    A thread is mostly made to wait where a system call returns. No call returns between reading
    the clock and the time in the queue, so what is waited falls on the same side of both.
    """
    cpu = thread_time()
    return Reading(monotonic(), cpu, queued())


class ThreadClock:
    """Called, it returns what the thread which made it has used until now.

    No system call is made where none is needed: just after another reading the thread was running;
    and who was on a core for all but a moment since the queue was read has not waited in it. What
    is not seen so is less than `JUST`, and seen by the next full reading.
    """

    def __init__(self) -> None:
        self._queued = QueueClock()
        self.last = self.full()

    def __call__(self) -> Reading:
        """All three, now."""
        now, before = monotonic(), self.last
        if now - before.time < JUST:
            return Reading(now, before.cpu + now - before.time, before.queued)
        cpu = thread_time()
        if now - cpu - self._off >= JUST:
            return self.full()
        self.last = Reading(now, cpu, before.queued)
        return self.last

    def full(self) -> Reading:
        """The same, asked of the system."""
        self.last = now = reading(self._queued)
        self._off = now.time - now.cpu  # seconds off the cores, and a constant
        return now
