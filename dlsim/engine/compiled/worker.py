"""A worker: takes jobs off its index queue, fetches, collates, and answers."""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.buffer import erase, put, replan
from dlsim.engine.compiled.fetch import fetch, fetched
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import ARRIVED, EXHAUSTED, RAISED, RESUME, STARTED, STOP
from dlsim.engine.compiled.state import NONE, State


@inlined
def work(s: State, worker: int) -> None:
    """A worker acts: ends its job, and reads its index queue until something takes time."""
    m, w = s.main[0], s.workers[worker]
    now = s.wake[worker]
    while True:
        if w.job != NONE:
            message = w.job
            w.job = NONE
            fetched(s, message, now)
            w.ended = s.messages[message].outcome == EXHAUSTED
            put(s, worker, s.messages[message].number, now)
            erase(s, message)
        if w.head == NONE:
            s.wake[worker] = inf
            return
        message = w.head
        job = s.messages[message]
        if job.at > now:
            s.wake[worker] = job.at
            return
        w.head = job.next
        if job.number == STOP:
            erase(s, message)
            w.alive = False
            s.wake[worker] = inf
            return
        if job.number == RESUME:
            w.ended, w.equipped = False, True
            put(s, worker, NONE, now)
            erase(s, message)
        elif w.ended or m.closing:
            erase(s, message)
        elif w.broken != NONE and not (w.told and w.equipped):
            w.told = True
            s.moments[STARTED, job.number] = s.moments[ARRIVED, job.number] = now
            s.size[job.number] = 0
            s.outcome[job.number] = RAISED + w.broken
            put(s, worker, job.number, now)
            erase(s, message)
        else:
            w.job = message
            end = fetch(s, message, now)
            if end > now:
                s.wake[worker] = end
                return
            if end != end:
                s.wake[worker] = inf  # the simulation ends here: a value was not recorded
                return


@inlined
def advance(s: State, until: float) -> None:
    """Let the workers do all that they do up to the moment `until`, and at it."""
    m = s.main[0]
    while m.events > 0 and s.wake[s.events[0]] <= until:
        work(s, s.events[0])
        replan(s)
