"""Where messages wait: the index queues, the result queue, the line before the pipe or lock."""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.clock import pin_memory_thread, wake
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import IDLE, LISTEN, OWN, OWN_OR_STOLEN
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State


@inlined
def write(s: State, number: int) -> int:
    """An unused message, now with a number."""
    m = s.main[0]
    message: int = m.free
    m.free = s.messages[message].next
    s.messages[message].number = number
    return message


@inlined
def erase(s: State, message: int) -> None:
    """Make a message unused again."""
    s.messages[message].next = s.main[0].free
    s.main[0].free = message


@inlined
def deliver(s: State, worker: int, message: int) -> None:
    """Put a message on the worker's index queue, where it can be read after the latency."""
    w, at = s.workers[worker], s.main[0].now + s.rules[0].latency
    s.messages[message].at = at
    s.messages[message].next = NONE
    if w.head == NONE:
        w.head = message
    else:
        s.messages[w.tail].next = message
    w.tail = message
    if s.rules[0].taking != OWN and s.messages[message].number >= 0:
        call(s, at)
    elif w.idle:
        w.idle = False
        wake(s, worker, at)


@inlined
def call(s: State, at: float) -> None:
    """Let all who wait for something to do look for it at the moment `at`, in their turn."""
    for worker in range(s.rules[0].workers):
        if s.workers[worker].idle:
            s.workers[worker].idle = False
            wake(s, worker, at)


@inlined
def lying(s: State, worker: int) -> int:
    """In whose index queue the message lies that `worker`, which is free, takes or waits for.

    The rules of `dlsim.engine.processes.dispatcher`: it takes the oldest batch of its own queue; or
    of that of another one who is busy, if there is none; or of all.
    """
    r, now, own = s.rules[0], s.main[0].now, s.workers[worker].head
    if r.taking == OWN:
        return worker
    has_batch = own != NONE and s.messages[own].number >= 0 and s.messages[own].at <= now
    if r.taking == OWN_OR_STOLEN and has_batch:
        return worker
    found, oldest, later, soonest = NONE, 0, worker, inf
    for other in range(r.workers):
        head = s.workers[other].head if s.workers[other].alive else NONE
        if head == NONE or (other != worker and s.messages[head].number < 0):
            continue
        job = s.messages[head]
        free = r.taking == OWN_OR_STOLEN and s.workers[other].doing == LISTEN
        if job.at > now:
            if job.at < soonest:
                later, soonest = other, job.at
        elif job.number >= 0 and not free and (found == NONE or job.number < oldest):
            found, oldest = other, job.number
    if found != NONE:
        return found
    # what one is told to do besides batches was sent after all that lie here
    return worker if own != NONE and s.messages[own].at <= now else later


@inlined
def put(s: State, worker: int, number: int, moved: bool) -> None:
    """Put an answer on the result queue, which is sorted by time and worker."""
    m, last = s.main[0], len(s.results) - 1
    at = m.tail
    while at > m.head:
        before = s.results[(at - 1) & last]
        if before.time < m.now or before.worker <= worker:
            break
        s.results[at & last] = before
        at -= 1
    answer = s.results[at & last]
    answer.time, answer.worker, answer.number, answer.moved = m.now, worker, number, moved
    m.tail += 1
    if s.rules[0].pin_memory:
        if m.pinning == IDLE and m.tail == m.head + 1:
            wake(s, pin_memory_thread(s), m.now)
    else:
        ring_bell(s)


@inlined
def ring_bell(s: State) -> None:
    """Tell the main process that there is an answer, if it waits for one."""
    m = s.main[0]
    if m.listening:
        m.listening = False
        m.wake = m.now


@inlined
def enter(s: State, who: int) -> bool:
    """Whether what one has at a time is free; else who came waits in line until it is.

    That is the pipe, for feeder threads; or, where workers are threads, Python's lock.
    """
    m = s.main[0]
    if m.taken:
        s.line[m.line_tail & (len(s.line) - 1)] = who
        m.line_tail += 1
        return False
    m.taken = True
    return True


@inlined
def leave(s: State) -> None:
    """Let the next one have it."""
    m = s.main[0]
    m.taken = m.line_head < m.line_tail
    if m.taken:
        wake(s, s.line[m.line_head & (len(s.line) - 1)], m.now)
        m.line_head += 1
