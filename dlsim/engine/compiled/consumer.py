"""The main process: `next()`, and the training loop.

What the SimPy processes do between two yields is a function here; `main.doing` says which one goes
on when it is the main process's turn. Each returns what is done next, or WAIT for something that
takes time, or why the event loop returns to its caller.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.buffer import deliver, erase, write
from dlsim.engine.compiled.clock import settle, wait, wake
from dlsim.engine.compiled.cores import compute, served_first
from dlsim.engine.compiled.dispatcher import lacking, note, note_all
from dlsim.engine.compiled.fate import new_job
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    ARRIVED,
    CLOSE,
    EXHAUSTED,
    FETCH_ALONE,
    GET_READY,
    HANDED,
    LOOK,
    MORE_JOBS,
    NEXT,
    OVER,
    PINNED_ALONE,
    RAISED,
    READ,
    REBUILT,
    RESUME_WORKERS,
    RETURN,
    RUN_AHEAD,
    SEND,
    STOP,
    TAKEN,
    TIMED_OUT,
    WAIT,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.transport import pin, read, read_on, rebuild, received
from dlsim.engine.facts import MAIN
from dlsim.trace import trace as fates


@inlined
def listen(s: State) -> int:
    """Look for an answer after everyone else; the timeout counts for each one anew."""
    m, r = s.main[0], s.rules[0]
    m.deadline = m.now + r.timeout if r.timeout > 0.0 else inf
    return settle(s, LOOK)


@inlined
def look(s: State) -> int:
    """Take an answer that is there, or wait for one, or give up."""
    m, r = s.main[0], s.rules[0]
    m.listening = False
    if r.pin_memory and m.pinned_head < m.pinned_tail:
        answer = s.pinned[m.pinned_head & (len(s.pinned) - 1)]
        m.pinned_head += 1
        m.answer, m.owner = answer.number, answer.worker
        return REBUILT
    if not r.pin_memory and m.head < m.tail:
        answer = s.results[m.head & (len(s.results) - 1)]
        m.head += 1
        m.answer, m.owner, m.moved = answer.number, answer.worker, answer.moved
        if r.at_once:
            return REBUILT
        read(s, m.answer, m.owner, m.moved)
        return served_first(s, HANDED)
    if m.now >= m.deadline:
        return TIMED_OUT
    m.wake = m.deadline
    m.listening = True
    return wait(s, LOOK)


@inlined
def handed(s: State) -> int:
    """An answer has been handed over as far as that holds up its worker: the rest comes now."""
    m = s.main[0]
    read_on(s, m.answer, m.owner, m.moved)
    return served_first(s, READ)


@inlined
def read_done(s: State) -> int:
    """An answer has been read from the pipe, if it was there: now it is rebuilt."""
    m = s.main[0]
    rebuild(s, m.answer, m.owner, m.moved)
    return served_first(s, REBUILT)


@inlined
def rebuilt(s: State) -> int:
    """An answer has been received: keep it, return its batch, or do what else it asks for."""
    m, r, number = s.main[0], s.rules[0], s.main[0].answer
    if not r.pin_memory:
        received(s, number)
    if m.resuming > 0:
        if number == NONE:
            m.resuming -= 1
        else:
            s.status[number] = fates.DISCARDED
        return RESUME_WORKERS
    if s.batches[number].outcome == EXHAUSTED:
        s.status[number] = fates.ENDED
        if not r.persistent:
            deliver(s, m.owner, write(s, STOP))
        s.workers[m.owner].active = False
        m.active -= 1
        note_all(s)
        m.owed = 1
        return SEND
    if number == m.wanted or not r.in_order:
        return process(s, number)
    s.batches[number].early = True
    return credit(s, number) if credited_on_arrival(s, number) else NEXT


@inlined
def next_batch(s: State) -> int:
    """`next(iterator)`: return a batch that is there, wait for it, or end the epoch."""
    m, r = s.main[0], s.rules[0]
    if not find_wanted(s):
        m.then, m.closed = OVER, RUN_AHEAD
        m.ahead = 0
        return RUN_AHEAD if r.persistent else CLOSE
    if not m.begun:
        m.begun = True
        compute(s, r.first_next)
        return served_first(s, NEXT)
    if s.batches[m.wanted].early:
        return process(s, m.wanted)
    return listen(s)


@inlined
def find_wanted(s: State) -> bool:
    """Advance to the next batch that can still come; False when there is none."""
    m = s.main[0]
    while m.wanted < m.sent:
        number = m.wanted
        if s.status[number] == fates.PENDING:
            if s.batches[number].early or s.workers[s.worker[number]].active:
                return True
            s.status[number] = fates.SKIPPED
            s.size[number] = 0
        m.wanted += 1
    return False


@inlined
def process(s: State, number: int) -> int:
    """Send the next batch, then return this one or raise for it."""
    m = s.main[0]
    if number == m.wanted:
        m.wanted += 1
    m.returning = number
    if credited_on_arrival(s, number) and s.batches[number].early:
        return RETURN
    return credit(s, number)


@inlined
def credited_on_arrival(s: State, number: int) -> bool:
    """Errors never are: workers that fail in no time would be sent batches for ever."""
    return bool(s.rules[0].on_arrival and s.batches[number].outcome < RAISED)


@inlined
def credit(s: State, number: int) -> int:
    """A batch gives its credit back, which sends the next one."""
    m, owner = s.main[0], s.worker[number]
    s.workers[owner].held -= 1
    note(s, owner)
    m.owed = 1
    return SEND


@inlined
def end_step(s: State) -> int:
    """The training loop asks for the next batch, or leaves the epoch."""
    m, r = s.main[0], s.rules[0]
    m.requested = m.now
    if m.count == r.stop_after:
        m.ahead = 0
        stay = r.persistent or (r.lingers and not m.last)
        m.then = OVER if stay or r.workers == 0 else CLOSE
        m.closed = OVER
        return RUN_AHEAD
    return NEXT if r.workers > 0 else FETCH_ALONE


@inlined
def fetch_alone(s: State) -> int:
    """`next(iterator)` without workers: fetch a batch, or end the epoch."""
    m = s.main[0]
    m.doing = FETCH_ALONE
    if m.job == len(s.steps):
        return MORE_JOBS if m.more else leave_alone(s)
    missing = lacking(s, MAIN)
    if missing != NONE:
        return missing
    m.answer = m.sent
    w = s.workers[0]
    w.job = new_job(s, MAIN)
    w.doing = GET_READY if m.answer == 0 else TAKEN
    wake(s, 0, m.now)
    return WAIT


@inlined
def leave_alone(s: State) -> int:
    """The epoch is over when the accelerator has done everything."""
    m = s.main[0]
    m.ahead, m.then = 0, OVER
    return RUN_AHEAD


@inlined
def fetched_alone(s: State) -> int:
    """A batch is fetched, and pinned if it is to be."""
    m, r, number = s.main[0], s.rules[0], s.main[0].answer
    erase(s, s.workers[0].job)
    s.moments[ARRIVED, number] = m.now
    received(s, number)
    if r.pin_memory:
        pin(s, number)
    return served_first(s, PINNED_ALONE)


@inlined
def pinned_alone(s: State) -> int:
    """A batch is there, or the news that the iterator has ended."""
    m, number = s.main[0], s.main[0].answer
    if s.batches[number].outcome == EXHAUSTED:
        s.status[number] = fates.ENDED
        return leave_alone(s)
    m.returning = number
    return RETURN
