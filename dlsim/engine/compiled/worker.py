"""A worker: takes jobs off its index queue, fetches, collates, and answers."""

from __future__ import annotations

from dlsim.engine.compiled.buffer import call, erase, lying, put
from dlsim.engine.compiled.clock import feeder, wake
from dlsim.engine.compiled.fetch import begin_to_fetch, collate, fetch_sharing, fetched, pay
from dlsim.engine.compiled.jit import inlined, seldom
from dlsim.engine.compiled.messages import (
    ANSWER,
    ARRIVED,
    CALL,
    CALLED,
    COLLATED,
    EXHAUSTED,
    FETCHED_ALONE,
    GATHERED,
    GET_READY,
    IDLE,
    JOIN,
    LISTEN,
    OWN,
    OWN_OR_STOLEN,
    RAISED,
    READY,
    RESUME,
    STARTED,
    STOP,
    STOPPED,
    TAKEN,
    WAIT_READY,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State


@inlined
def work(s: State, worker: int) -> None:
    """Go on until something takes time, or there is nothing to do: what comes next is below."""
    m, r, w = s.main[0], s.rules[0], s.workers[worker]
    while True:
        if w.doing == GATHERED and collate(s, worker):
            return
        if w.doing == COLLATED:
            fetched(s, w.job)
            w.ended = s.messages[w.job].outcome == EXHAUSTED
            w.doing = ANSWER
            if r.workers == 0:
                m.wake, m.doing = m.now, FETCHED_ALONE
                return
        if w.doing == ANSWER:
            w.doing = LISTEN
            send(s, worker, w.job)
        if w.doing == LISTEN and not get(s, worker):
            return
        if w.doing == TAKEN and begin_to_fetch(s, worker):
            return
        if CALL <= w.doing <= CALLED and fetch_sharing(s, worker):
            return
        if (w.doing < LISTEN or w.doing == STOPPED) and begin_or_end(s, worker):
            return


@seldom
def begin_or_end(s: State, worker: int) -> bool:
    """What a worker does before it listens, and at its end; whether that takes time."""
    m, r, w = s.main[0], s.rules[0], s.workers[worker]
    if w.doing == STOPPED:
        w.alive = False
        if m.doing == JOIN:
            m.wake = m.now
        return True
    if w.doing == GET_READY:
        w.doing = WAIT_READY
        if r.worker_ready > 0.0:
            w.owed = r.worker_ready
            return pay(s, worker)
    if w.doing == WAIT_READY:
        w.doing = READY  # not free before
        if r.worker_wait > 0.0:
            wake(s, worker, m.now + r.worker_wait)
            return True
    w.doing = LISTEN if r.workers > 0 else TAKEN
    return False


@inlined
def get(s: State, worker: int) -> bool:
    """Take the next message off the index queue; False if there is none, or it takes time."""
    m, r, w = s.main[0], s.rules[0], s.workers[worker]
    owner = lying(s, worker)
    message = s.workers[owner].head
    w.idle = message == NONE
    if w.idle:
        return False
    job = s.messages[message]
    if job.at > m.now:
        wake(s, worker, job.at)
        return False
    s.workers[owner].head, w.job = job.next, message
    if r.taking != OWN and job.number >= 0:
        taken(s, worker, message)
    if job.number == STOP:
        erase(s, message)
        w.job = NONE
        w.doing = STOPPED
        if r.worker_stop > 0.0:
            w.owed = r.worker_stop
            return not pay(s, worker)
    elif job.number == RESUME:
        w.ended, w.equipped = False, True
        w.doing = ANSWER
    elif w.ended or m.closing:
        erase(s, message)
        w.job = NONE
    elif w.broken != NONE and not (w.told and w.equipped):
        w.told = True
        s.moments[STARTED, job.number] = m.now
        s.size[job.number] = 0
        s.batches[job.number].outcome = RAISED + w.broken
        s.batches[job.number].bytes = 0.0
        w.doing = ANSWER
    else:
        w.doing = TAKEN
        if r.take > 0.0:
            w.owed = r.take
            return not pay(s, worker)
    return True


@inlined
def taken(s: State, worker: int, message: int) -> None:
    """A batch that several might have taken is this worker's, who is no longer free for others.

    What is thrown away, since the loop was left, stays with the one to whom it was sent.
    """
    job, w = s.messages[message], s.workers[worker]
    if not s.main[0].closing:
        s.worker[job.number] = worker
        for row in range(job.row, job.row + job.rows):
            s.sample_numbers[2, row] = worker
    if s.rules[0].taking == OWN_OR_STOLEN and w.head != NONE:
        call(s, max(s.main[0].now, s.messages[w.head].at))


@inlined
def send(s: State, worker: int, message: int) -> None:
    """Put an answer on the result queue; through the feeder thread where that takes time."""
    m, w, number = s.main[0], s.workers[worker], s.messages[message].number
    w.job = NONE
    if s.rules[0].direct:
        if number >= 0:
            s.moments[ARRIVED, number] = m.now
        put(s, worker, number, False)
        erase(s, message)
        return
    s.messages[message].next = NONE
    if w.outbox != NONE:
        s.messages[w.last].next = message
    else:
        w.outbox = message
        if w.feeding == IDLE:
            wake(s, feeder(s, worker), m.now)
    w.last = message
