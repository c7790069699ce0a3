"""Who acts next: a tournament of all, of which whoever acts sooner wins.

Everyone has a number, which is their turn at one moment: the workers, their feeder threads, the
pin-memory thread. The main process comes last, and is not in the tournament. Nor is one of those
who can act at this very moment, as there mostly is one only.
"""

from __future__ import annotations

from math import inf

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
    act_at(s, who, moment)


@inlined
def act_at(s: State, who: int, moment: float) -> None:
    """Someone acts at `moment`; note it wherever they are now the first, or no longer."""
    s.wake[who] = moment
    at, winner = len(s.wake) + who, who
    while at > 1:
        other = s.first[at ^ 1]
        winner = other if sooner(s, other, winner) else winner
        at >>= 1
        s.first[at] = winner


@inlined
def next_one(s: State) -> int:
    """The one who acts next, which is not the main process."""
    m = s.main[0]
    first: int = m.ready
    other: int = s.first[1]
    if first != NONE and (s.wake[other] > m.now or other > first):
        m.ready = NONE
        return first
    act_at(s, other, inf)
    return other


@inlined
def settle(s: State) -> int:
    """Let everyone else do all that they do at this moment: WAIT, or GO_ON if nobody does."""
    m = s.main[0]
    others = m.ready != NONE or s.wake[s.first[1]] <= m.now
    if others or s.sharing[0].alarm <= m.now or s.sharing[1].alarm <= m.now:
        m.wake = m.now
        return WAIT
    return GO_ON
