"""The event loop: the same mechanisms as the SimPy processes, under the same names, over arrays.

The main process is the driver. It runs ahead in `epoch` until it has to wait for an answer;
then `advance` lets the workers act, one after another in the order of their moments, until there
is one. A worker that is fetching, or whose next message is still on its way, knows when it will
act next; those moments are a heap, with ties by worker number, so that each action costs the
logarithm of the workers. A worker with an empty index queue acts when it is sent something.

Messages to workers are rows of one table, linked to a list for each worker. A batch's numbers
(seconds of its samples, its fate) are put into its message when it is sent, so the drawn numbers
can come in blocks: the loop returns to its caller, in `send_next` only, when it needs more of
them, or longer columns, and goes on when it is called again.
"""

from __future__ import annotations

from math import inf, nan

from dlsim.engine.compiled.buffer import deliver, erase, write
from dlsim.engine.compiled.dispatcher import lacking, note, note_all, send_next
from dlsim.engine.compiled.fetch import failure, fetch, fetched, new_job
from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.compiled.messages import (
    DONE,
    EPOCH_OVER,
    EXCEPTION,
    EXHAUSTED,
    FINISHED,
    MAIN,
    MORE_JOBS,
    NOT_RECORDED,
    RAISED,
    RECEIVED,
    REQUESTED,
    RESUME,
    RETURNED_AT,
    STOP,
    TIMED_OUT,
    WORKER_INIT_FN,
)
from dlsim.engine.compiled.state import NONE, State
from dlsim.engine.compiled.worker import advance
from dlsim.trace.trace import DISCARDED, ENDED, FAILED, PENDING, RETURNED, SKIPPED

JOIN_TIMEOUT = 5.0


@inlined
def start_workers(s: State) -> None:
    """Start all workers, one after another; nothing is left of others before them."""
    m, r = s.main[0], s.rules[0]
    m.head = m.tail = m.events = m.free = 0
    m.closing = False
    for message in range(len(s.messages)):
        s.messages[message].next = message + 1
    for worker in range(r.workers):
        m.now += r.worker_start
        w = s.workers[worker]
        w.head = w.job = NONE
        w.alive, w.ended = True, False
        w.broken = failure(s, WORKER_INIT_FN, worker)
        w.told = w.equipped = False
        s.wake[worker] = inf


@compiled
def resume_workers(s: State) -> int:
    """Tell every worker that an epoch begins, and wait for all to say so."""
    for worker in range(s.rules[0].workers):
        deliver(s, worker, write(s, RESUME))
    waiting_for = s.rules[0].workers
    while waiting_for > 0:
        why = receive(s)
        if why != DONE:
            return why
        if s.main[0].answer == NONE:
            waiting_for -= 1
        else:
            s.status[s.main[0].answer] = DISCARDED
    return DONE


@compiled
def start_epoch(s: State, first: bool) -> int:
    """`iter(loader)`, up to the sending of the window: everyone is active and holds nothing."""
    m, r = s.main[0], s.rules[0]
    m.count = 0
    if first or not r.persistent:
        start_workers(s)
    else:
        why = resume_workers(s)
        if why != DONE:
            return why
    m.wanted = m.sent
    m.turn = 0
    m.active = r.workers
    for worker in range(r.workers):
        s.workers[worker].active = True
        s.workers[worker].held = 0
    note_all(s)
    m.owed = r.window
    m.requested = m.now
    return DONE


@inlined
def receive(s: State) -> int:
    """Take the next answer, waiting for it at most the timeout."""
    m, r = s.main[0], s.rules[0]
    deadline = m.now + r.timeout if r.timeout > 0 else inf
    advance(s, m.now)
    while m.head == m.tail:
        soon = s.wake[s.events[0]] if m.events > 0 else inf
        if soon > deadline or soon == inf:
            m.now = deadline
            return TIMED_OUT
        m.now = soon
        advance(s, soon)
    m.answer = s.results[m.head & (len(s.results) - 1)].number
    m.head += 1
    if m.answer != NONE:
        s.moments[RECEIVED, m.answer] = m.now
    return DONE


@inlined
def find_wanted(s: State) -> bool:
    """Advance to the next batch that can still come; False when there is none."""
    m = s.main[0]
    while m.wanted < m.sent:
        number = m.wanted
        if s.status[number] == PENDING:
            if holds(s, number) or s.workers[s.worker[number]].active:
                return True
            s.status[number] = SKIPPED
            s.size[number] = 0
        m.wanted += 1
    return False


@inlined
def holds(s: State, number: int) -> bool:
    """Whether the answer to a batch was received and waits for its turn."""
    return bool(s.moments[RECEIVED, number] == s.moments[RECEIVED, number])


@compiled
def epoch(s: State) -> int:
    """The rest of an epoch with workers: EPOCH_OVER, what ended the loop, or what is missing."""
    m, r = s.main[0], s.rules[0]
    while True:
        while m.owed > 0:
            missing = send_next(s)
            if missing != DONE:
                return missing
            m.owed -= 1
        if m.returning != NONE:
            number = m.returning
            m.returning = NONE
            if not train(s, number):
                return EXCEPTION
            if m.count == r.stop_after:
                drain(s, 0)
                if not r.persistent:
                    close(s)
                return EPOCH_OVER
        if not find_wanted(s):
            if not r.persistent:
                close(s)
            drain(s, 0)
            return EPOCH_OVER
        number = m.wanted
        if not holds(s, number):
            why = receive(s)
            if why != DONE:
                return why
            number = m.answer
            owner = s.worker[number]
            if s.outcome[number] == EXHAUSTED:
                s.status[number] = ENDED
                if not r.persistent:
                    deliver(s, owner, write(s, STOP))
                s.workers[owner].active = False
                m.active -= 1
                note_all(s)
                m.owed = 1
                continue
            if r.in_order and number != m.wanted:
                continue
        if number == m.wanted:
            m.wanted += 1
        s.workers[s.worker[number]].held -= 1
        note(s, s.worker[number])
        m.owed = 1
        m.returning = number


@inlined
def train(s: State, number: int) -> bool:
    """Return a batch and train on it; False if it raises instead."""
    m = s.main[0]
    if s.outcome[number] >= RAISED:
        s.status[number] = FAILED
        m.answer = number
        return False
    s.moments[REQUESTED, number] = m.requested
    s.moments[RETURNED_AT, number] = m.now
    s.status[number] = RETURNED
    s.order[m.returned] = number
    m.returned += 1
    m.count += 1
    m.accelerator = max(m.now, m.accelerator) + s.step[number]
    s.moments[FINISHED, number] = m.accelerator
    drain(s, s.rules[0].run_ahead)
    m.requested = m.now
    return True


@inlined
def drain(s: State, ahead: int) -> None:
    """Wait until at most `ahead` steps are under way."""
    m = s.main[0]
    while m.returned - m.trained > ahead:
        m.now = max(m.now, s.moments[FINISHED, s.order[m.trained]])
        m.trained += 1


@compiled
def close(s: State) -> None:
    """Nothing new is begun, and everyone exits or is terminated."""
    m, r = s.main[0], s.rules[0]
    advance(s, m.now)
    m.closing = True
    for worker in range(r.workers):
        if s.workers[worker].alive:
            deliver(s, worker, write(s, STOP))
    for worker in range(r.workers):
        deadline = m.now + JOIN_TIMEOUT
        while s.workers[worker].alive:
            soon = s.wake[s.events[0]] if m.events > 0 else inf
            m.now = min(max(m.now, soon), deadline)
            if soon > deadline:
                break
            advance(s, m.now)
    for worker in range(r.workers):
        if s.workers[worker].alive and s.workers[worker].job != NONE:
            cut(s, s.workers[worker].job)
        s.workers[worker].alive = False
    m.events = 0


@inlined
def cut(s: State, message: int) -> None:
    """The worker fetching for `message` is terminated: samples of the future are not fetched."""
    job, now = s.messages[message], s.main[0].now
    for row in range(job.row, job.row + job.rows):
        if not s.sample_fetched[row] <= now:
            s.sample_fetched[row] = nan
            if s.sample_started[row] > now:
                s.sample_started[row] = nan


@compiled
def epoch_alone(s: State) -> int:
    """The rest of an epoch without workers: EPOCH_OVER, an exception, or what is missing."""
    m = s.main[0]
    while m.count != s.rules[0].stop_after:
        if m.job == len(s.steps):
            if m.more:
                return MORE_JOBS
            break
        missing = lacking(s, MAIN)
        if missing != DONE:
            return missing
        number = m.sent
        message = new_job(s, MAIN)
        m.now = fetch(s, message, m.now)
        if m.short_index != NONE:
            return NOT_RECORDED
        fetched(s, message, m.now)
        s.moments[RECEIVED, number] = m.now
        erase(s, message)
        if s.outcome[number] == EXHAUSTED:
            s.status[number] = ENDED
            break
        if not train(s, number):
            return EXCEPTION
    drain(s, 0)
    return EPOCH_OVER
