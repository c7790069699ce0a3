"""Who acts next: a tournament of all, of which whoever acts sooner wins.

Everyone has a number, which is their turn at one moment: the workers, their feeder threads, the
pin-memory thread. The main process comes last, and is not in the tournament. Nor is one of those
who can act at this very moment, as there mostly is one only.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import WAIT
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.tournament import play


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
def wake(s: State, who: int, moment: float) -> None:
    """Let someone act at `moment` who would not act by themselves."""
    m = s.main[0]
    if who == main_process(s):
        m.wake = moment
        return
    if moment == m.now and m.ready == NONE:
        m.ready, m.soon = who, moment
        return
    act_at(s, who, moment)


@inlined
def act_at(s: State, who: int, moment: float) -> None:
    """Someone acts at `moment`."""
    if who == s.main[0].acting:
        s.main[0].acting = NONE
    soon = play(s.wake, s.first, who, moment, True)
    m = s.main[0]
    m.soon = soon if m.ready == NONE else m.now


@inlined
def next_one(s: State) -> int:
    """The one who acts next, which is not the main process.

    Who was first in the tournament stays there, as whoever acts mostly says when that is again.
    """
    m = s.main[0]
    first: int = m.ready
    other: int = s.first[1]
    soon = s.wake[other]
    if first != NONE and (soon > m.now or other > first):
        m.ready, m.soon = NONE, soon
        return first
    m.acting = other
    return other


@inlined
def has_acted(s: State) -> None:
    """The one who acted acts no more, unless that was said."""
    if s.main[0].acting != NONE:
        act_at(s, s.main[0].acting, inf)


@inlined
def wait(s: State, then: int) -> int:
    """The main process waits, and goes on with what is `then` to be done."""
    s.main[0].doing = then
    return WAIT


@inlined
def settle(s: State, then: int) -> int:
    """The main process lets everyone else do first all that they do at this moment."""
    m = s.main[0]
    if m.soon <= m.now or m.alarm <= m.now:
        m.wake = m.now
        return wait(s, then)
    return then
