"""Starting and stopping the workers, as an epoch begins and ends."""

from __future__ import annotations

from math import inf, nan

from dlsim.engine.compiled.buffer import deliver, write
from dlsim.engine.compiled.clock import settle, wait, wake
from dlsim.engine.compiled.consumer import listen
from dlsim.engine.compiled.cores import compute, leave_all, served_first
from dlsim.engine.compiled.dispatcher import note_all
from dlsim.engine.compiled.fate import failure
from dlsim.engine.compiled.jit import seldom
from dlsim.engine.compiled.messages import (
    CORES,
    END_PINNING,
    ENDED,
    FETCH_ALONE,
    GET_READY,
    IDLE,
    JOIN,
    PINNING_ENDED,
    PRIME,
    RANK_LEFT,
    RESUME,
    RESUME_WORKERS,
    SEND,
    STOP,
    STORAGE,
    WORKER_INIT_FN,
    WORKER_STARTED,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State


@seldom
def start_epoch(s: State) -> int:
    """`iter(loader)`: start the workers, or wake persistent ones; or there are none."""
    m, r = s.main[0], s.rules[0]
    m.count = 0
    m.primed = nan
    if r.workers == 0:
        w = s.workers[0]
        w.alive, w.idle = True, False
        m.primed = m.requested = m.now
        return FETCH_ALONE
    if m.resuming > 0:
        for worker in range(r.workers):
            deliver(s, worker, write(s, RESUME))
        return RESUME_WORKERS
    # Nothing is left of other workers before them.
    m.head = m.tail = m.pinned_head = m.pinned_tail = m.line_head = m.line_tail = 0
    m.free = m.at = 0
    m.closing = m.taken = False
    m.pinning = IDLE
    for message in range(len(s.messages)):
        s.messages[message].next = message + 1
    compute(s, (0.0 if m.begun else r.first_start) + r.worker_start)
    return served_first(s, WORKER_STARTED)


@seldom
def worker_started(s: State) -> int:
    """One worker is started, and the next one is begun with."""
    m, r, worker = s.main[0], s.rules[0], s.main[0].at
    w = s.workers[worker]
    w.doing, w.feeding, w.beginning = GET_READY, IDLE, r.first_serialise
    w.head = w.job = w.outbox = NONE
    w.alive, w.idle, w.ended = True, False, False
    w.broken = failure(s, WORKER_INIT_FN, worker)
    w.told = w.equipped = False
    wake(s, worker, m.now)
    m.at += 1
    if m.at == r.workers:
        m.wake = m.now + r.first_put
        return wait(s, PRIME) if r.first_put > 0.0 else PRIME
    compute(s, 0.0 if m.at % r.start_together else r.worker_start)
    return served_first(s, WORKER_STARTED)


@seldom
def prime(s: State) -> int:
    """Send the whole credit window: everyone is active and holds nothing."""
    m, r = s.main[0], s.rules[0]
    m.wanted = m.sent
    m.turn = 0
    m.active = r.workers
    for worker in range(r.workers):
        s.workers[worker].active = True
        s.workers[worker].held = 0
    note_all(s)
    m.owed = r.window
    return SEND


@seldom
def resume_workers(s: State) -> int:
    """Wait for all workers to say that they know of the new epoch."""
    m = s.main[0]
    return listen(s) if m.resuming > 0 else prime(s)


@seldom
def close(s: State) -> int:
    """Nothing new is begun, after everyone has done what they do at this moment."""
    return settle(s, END_PINNING)


@seldom
def end_pinning(s: State) -> int:
    """Tell the pin-memory thread to end, and wait until it has: it finishes what it is at."""
    return PINNING_ENDED if s.main[0].pinning == IDLE else wait(s, PINNING_ENDED)


@seldom
def pinning_ended(s: State) -> int:
    """Tell the workers to stop."""
    m = s.main[0]
    m.pinning = ENDED
    m.closing = True
    for worker in range(s.rules[0].workers):
        if s.workers[worker].alive:
            deliver(s, worker, write(s, STOP))
    m.at = 0
    m.deadline = m.now + s.rules[0].patience
    return JOIN


@seldom
def join(s: State) -> int:
    """Wait for one worker after another, some seconds at most for each; then terminate them."""
    m, r = s.main[0], s.rules[0]
    while m.at < r.workers:
        if s.workers[m.at].alive and m.now < m.deadline:
            m.wake = m.deadline
            return wait(s, JOIN)
        m.at += 1
        m.deadline = m.now + s.rules[0].patience
    end_all(s)
    return int(m.closed)


@seldom
def end_all(s: State) -> None:
    """Nobody but the main process acts any more."""
    m = s.main[0]
    for worker in range(s.rules[0].workers):
        w = s.workers[worker]
        if w.alive and w.job != NONE:
            cut(s, w.job)
        w.alive = False
    m.ready, m.soon = NONE, inf
    for who in range(len(s.wake)):
        s.wake[who] = inf
    for who in range(len(s.awaited)):
        s.awaited[who] = 0
    leave_all(s, CORES)
    leave_all(s, STORAGE)


@seldom
def leave_job(s: State) -> int:
    """The rank is over: its workers end, whatever they wanted of the machine."""
    end_all(s)
    s.main[0].wake = inf
    return RANK_LEFT


@seldom
def cut(s: State, message: int) -> None:
    """The worker fetching for `message` is terminated: samples of the future are not fetched."""
    job, now = s.messages[message], s.main[0].now
    for row in range(job.row, job.row + job.rows):
        if not s.sample_moments[1, row] <= now:
            s.sample_moments[1, row] = nan
            if s.sample_moments[0, row] > now:
                s.sample_moments[0, row] = nan
