"""The main process: `next()`, and the training loop; starting and stopping workers.

What the SimPy processes do between two yields is a function here; `main.doing` says which one goes
on when it is the main process's turn. Each returns GO_ON, WAIT for something that takes time, or
why the event loop returns to its caller.
"""

from __future__ import annotations

from math import inf, nan

from dlsim.engine.compiled.buffer import deliver, erase, write
from dlsim.engine.compiled.clock import wake
from dlsim.engine.compiled.cores import compute, leave_all
from dlsim.engine.compiled.dispatcher import lacking, note, note_all
from dlsim.engine.compiled.fetch import failure, new_job
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    ARRIVED,
    CLOSE,
    CORES,
    END_PINNING,
    ENDED,
    EXHAUSTED,
    FETCH_ALONE,
    GET_READY,
    GO_ON,
    IDLE,
    JOIN,
    LOOK,
    MAIN,
    MORE_JOBS,
    NEXT,
    OVER,
    PINNED_ALONE,
    PINNING_ENDED,
    READ,
    REBUILT,
    RESUME,
    RESUME_WORKERS,
    RETURN,
    RUN_AHEAD,
    SEND,
    STOP,
    STORAGE,
    TAKEN,
    TIMED_OUT,
    WAIT,
    WORKER_INIT_FN,
    WORKER_STARTED,
)
from dlsim.engine.compiled.rules import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.transport import pin, read, rebuild, received
from dlsim.trace import trace as fates

JOIN_TIMEOUT = 5.0


@inlined
def start_epoch(s: State) -> int:
    """`iter(loader)`: start the workers, or wake persistent ones; or there are none."""
    m, r = s.main[0], s.rules[0]
    m.count = 0
    m.primed = nan
    if r.workers == 0:
        w = s.workers[0]
        w.alive, w.idle = True, False
        m.primed = m.requested = m.now
        m.doing = FETCH_ALONE
    elif m.resuming > 0:
        for worker in range(r.workers):
            deliver(s, worker, write(s, RESUME))
        m.doing = RESUME_WORKERS
    else:
        # Nothing is left of other workers before them.
        m.head = m.tail = m.pinned_head = m.pinned_tail = m.pipe_head = m.pipe_tail = 0
        m.free = m.at = 0
        m.closing = m.writing = False
        m.pinning = IDLE
        for message in range(len(s.messages)):
            s.messages[message].next = message + 1
        m.doing = WORKER_STARTED
        return compute(s, r.worker_start)
    return GO_ON


@inlined
def worker_started(s: State) -> int:
    """One worker is started, and the next one is begun with."""
    m, r, worker = s.main[0], s.rules[0], s.main[0].at
    w = s.workers[worker]
    w.doing, w.feeding = GET_READY, IDLE
    w.head = w.job = w.outbox = NONE
    w.alive, w.idle, w.ended = True, False, False
    w.broken = failure(s, WORKER_INIT_FN, worker)
    w.told = w.equipped = False
    wake(s, worker, m.now)
    m.at += 1
    return compute(s, r.worker_start) if m.at < r.workers else prime(s)


@inlined
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
    m.doing = SEND
    return GO_ON


@inlined
def resume_workers(s: State) -> int:
    """Wait for all workers to say that they know of the new epoch."""
    m = s.main[0]
    return listen(s) if m.resuming > 0 else prime(s)


@inlined
def listen(s: State) -> int:
    """Look for an answer after everyone else; the timeout counts for each one anew."""
    m, r = s.main[0], s.rules[0]
    m.deadline = m.now + r.timeout if r.timeout > 0.0 else inf
    m.doing = LOOK
    m.wake = m.now
    return WAIT


@inlined
def look(s: State) -> int:
    """Take an answer that is there, or wait for one, or give up."""
    m, r = s.main[0], s.rules[0]
    m.listening = False
    if r.pin_memory and m.pinned_head < m.pinned_tail:
        answer = s.pinned[m.pinned_head & (len(s.pinned) - 1)]
        m.pinned_head += 1
        m.answer, m.owner = answer.number, answer.worker
        m.doing = REBUILT
        return GO_ON
    if not r.pin_memory and m.head < m.tail:
        answer = s.results[m.head & (len(s.results) - 1)]
        m.head += 1
        m.answer, m.owner, m.moved = answer.number, answer.worker, answer.moved
        m.doing = READ
        return read(s, m.answer, m.owner, m.moved)
    if m.now >= m.deadline:
        return TIMED_OUT
    m.wake = m.deadline
    m.listening = True
    return WAIT


@inlined
def read_done(s: State) -> int:
    """An answer has been read from the pipe, if it was there: now it is rebuilt."""
    m = s.main[0]
    m.doing = REBUILT
    return rebuild(s, m.answer, m.owner, m.moved)


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
        m.doing = RESUME_WORKERS
        return GO_ON
    m.doing = NEXT
    if s.batches[number].outcome == EXHAUSTED:
        s.status[number] = fates.ENDED
        if not r.persistent:
            deliver(s, m.owner, write(s, STOP))
        s.workers[m.owner].active = False
        m.active -= 1
        note_all(s)
        m.owed = 1
        m.doing = SEND
    elif number == m.wanted or not r.in_order:
        process(s, number)
    else:
        s.batches[number].early = True
    return GO_ON


@inlined
def next_batch(s: State) -> int:
    """`next(iterator)`: return a batch that is there, wait for it, or end the epoch."""
    m, r = s.main[0], s.rules[0]
    if not find_wanted(s):
        m.then, m.closed = OVER, RUN_AHEAD
        m.ahead = 0
        m.doing = RUN_AHEAD if r.persistent else CLOSE
        return GO_ON
    if s.batches[m.wanted].early:
        process(s, m.wanted)
        return GO_ON
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
def process(s: State, number: int) -> None:
    """Send the next batch, then return this one or raise for it."""
    m, owner = s.main[0], s.worker[number]
    if number == m.wanted:
        m.wanted += 1
    s.workers[owner].held -= 1
    note(s, owner)
    m.owed = 1
    m.returning = number
    m.doing = SEND


@inlined
def end_step(s: State) -> int:
    """The training loop asks for the next batch, or leaves the epoch."""
    m, r = s.main[0], s.rules[0]
    m.requested = m.now
    m.doing = NEXT if r.workers > 0 else FETCH_ALONE
    if m.count == r.stop_after:
        m.ahead, m.doing = 0, RUN_AHEAD
        m.then = OVER if r.persistent or r.workers == 0 else CLOSE
        m.closed = OVER
    return GO_ON


@inlined
def close(s: State) -> int:
    """Nothing new is begun, after everyone has done what they do at this moment."""
    m = s.main[0]
    m.doing = END_PINNING
    m.wake = m.now
    return WAIT


@inlined
def end_pinning(s: State) -> int:
    """Tell the pin-memory thread to end, and wait until it has: it finishes what it is at."""
    m = s.main[0]
    m.doing = PINNING_ENDED
    return GO_ON if m.pinning == IDLE else WAIT


@inlined
def pinning_ended(s: State) -> int:
    """Tell the workers to stop."""
    m = s.main[0]
    m.pinning = ENDED
    m.closing = True
    for worker in range(s.rules[0].workers):
        if s.workers[worker].alive:
            deliver(s, worker, write(s, STOP))
    m.at = 0
    m.deadline = m.now + JOIN_TIMEOUT
    m.doing = JOIN
    return GO_ON


@inlined
def join(s: State) -> int:
    """Wait for one worker after another, five seconds at most for each; then terminate them."""
    m, r = s.main[0], s.rules[0]
    while m.at < r.workers:
        if s.workers[m.at].alive and m.now < m.deadline:
            m.wake = m.deadline
            return WAIT
        m.at += 1
        m.deadline = m.now + JOIN_TIMEOUT
    for worker in range(r.workers):
        w = s.workers[worker]
        if w.alive and w.job != NONE:
            cut(s, w.job)
        w.alive = False
    m.events = 0
    for who in range(len(s.awaited)):
        s.awaited[who] = 0
    leave_all(s, CORES)
    leave_all(s, STORAGE)
    m.doing = m.closed
    return GO_ON


@inlined
def cut(s: State, message: int) -> None:
    """The worker fetching for `message` is terminated: samples of the future are not fetched."""
    job, now = s.messages[message], s.main[0].now
    for row in range(job.row, job.row + job.rows):
        if not s.sample_moments[1, row] <= now:
            s.sample_moments[1, row] = nan
            if s.sample_moments[0, row] > now:
                s.sample_moments[0, row] = nan


@inlined
def fetch_alone(s: State) -> int:
    """`next(iterator)` without workers: fetch a batch, or end the epoch."""
    m = s.main[0]
    if m.job == len(s.steps):
        if m.more:
            return MORE_JOBS
        return leave_alone(s)
    missing = lacking(s, MAIN)
    if missing != GO_ON:
        return missing
    m.answer = m.sent
    w = s.workers[0]
    w.job = new_job(s, MAIN)
    w.doing = TAKEN
    wake(s, 0, m.now)
    return WAIT


@inlined
def leave_alone(s: State) -> int:
    """The epoch is over when the accelerator has done everything."""
    m = s.main[0]
    m.ahead, m.doing, m.then = 0, RUN_AHEAD, OVER
    return GO_ON


@inlined
def fetched_alone(s: State) -> int:
    """A batch is fetched, and pinned if it is to be."""
    m, r, number = s.main[0], s.rules[0], s.main[0].answer
    erase(s, s.workers[0].job)
    s.moments[ARRIVED, number] = m.now
    received(s, number)
    m.doing = PINNED_ALONE
    return pin(s, number) if r.pin_memory else GO_ON


@inlined
def pinned_alone(s: State) -> int:
    """A batch is there, or the news that the iterator has ended."""
    m, number = s.main[0], s.main[0].answer
    if s.batches[number].outcome == EXHAUSTED:
        s.status[number] = fates.ENDED
        return leave_alone(s)
    m.returning = number
    m.doing = RETURN
    return GO_ON
