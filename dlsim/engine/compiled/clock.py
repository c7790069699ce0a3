"""Who acts next: a heap of everyone who knows when.

Everyone has a number, which is their turn at one moment: the workers, their feeder threads, the
pin-memory thread. The main process comes last, and is not in the heap. Nor is one of those who
can act at this very moment, as there mostly is one only.
"""

from __future__ import annotations

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import GO_ON, WAIT
from dlsim.engine.compiled.rules import NONE
from dlsim.engine.compiled.state import State


@inlined
def feeder(s: State, worker: int) -> int:
    """The number of a worker's feeder thread."""
    return len(s.workers) + worker


@inlined
def pin_memory_thread(s: State) -> int:
    """The number of the pin-memory thread."""
    return 2 * len(s.workers)


@inlined
def main_process(s: State) -> int:
    """The number of the main process."""
    return 2 * len(s.workers) + 1


@inlined
def sooner(s: State, one: int, other: int) -> bool:
    """Whether `one` acts before `other`."""
    return s.wake[one] < s.wake[other] or (s.wake[one] == s.wake[other] and one < other)


@inlined
def wake(s: State, who: int, moment: float) -> None:
    """Let someone act at `moment` who would not act by themselves."""
    m = s.main[0]
    if who == main_process(s):
        m.wake = moment
        return
    if moment == m.now and m.ready == NONE:
        m.ready = who
        return
    s.wake[who] = moment
    at = m.events
    m.events += 1
    while at > 0 and sooner(s, who, s.events[(at - 1) // 2]):
        s.events[at] = s.events[(at - 1) // 2]
        at = (at - 1) // 2
    s.events[at] = who


@inlined
def next_one(s: State) -> int:
    """The one who acts next, which is not the main process."""
    m = s.main[0]
    first: int = m.ready
    if first != NONE and (m.events == 0 or s.wake[s.events[0]] > m.now or s.events[0] > first):
        m.ready = NONE
        return first
    first = s.events[0]
    m.events -= 1
    last = s.events[m.events]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= m.events:
            break
        if below + 1 < m.events and sooner(s, s.events[below + 1], s.events[below]):
            below += 1
        if not sooner(s, s.events[below], last):
            break
        s.events[at] = s.events[below]
        at = below
    s.events[at] = last
    return first


@inlined
def settle(s: State) -> int:
    """Let everyone else do all that they do at this moment: WAIT, or GO_ON if nobody does."""
    m = s.main[0]
    others = m.ready != NONE or (m.events > 0 and s.wake[s.events[0]] <= m.now)
    if others or s.sharing[0].alarm <= m.now or s.sharing[1].alarm <= m.now:
        m.wake = m.now
        return WAIT
    return GO_ON
