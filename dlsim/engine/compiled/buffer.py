"""Who acts next, and where messages wait: the index queues, and the result queue."""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.state import NONE, State


@inlined
def sooner(s: State, one: int, other: int) -> bool:
    """Whether worker `one` acts before `other`."""
    return s.wake[one] < s.wake[other] or (s.wake[one] == s.wake[other] and one < other)


@inlined
def plan(s: State, worker: int) -> None:
    """Put a worker that was idle among those that will act."""
    at = s.main[0].events
    s.main[0].events += 1
    while at > 0 and sooner(s, worker, s.events[(at - 1) // 2]):
        s.events[at] = s.events[(at - 1) // 2]
        at = (at - 1) // 2
    s.events[at] = worker


@inlined
def replan(s: State) -> None:
    """Find the place of the worker on top, whose time has changed, or take it out if idle."""
    m = s.main[0]
    worker = s.events[0]
    if s.wake[worker] == inf:
        m.events -= 1
        worker = s.events[m.events]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= m.events:
            break
        if below + 1 < m.events and sooner(s, s.events[below + 1], s.events[below]):
            below += 1
        if not sooner(s, s.events[below], worker):
            break
        s.events[at] = s.events[below]
        at = below
    s.events[at] = worker


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
    w = s.workers[worker]
    s.messages[message].at = s.main[0].now + s.rules[0].latency
    s.messages[message].next = NONE
    if w.head == NONE:
        w.head = message
    else:
        s.messages[w.tail].next = message
    w.tail = message
    if s.wake[worker] == inf and w.alive:
        s.wake[worker] = s.messages[message].at
        plan(s, worker)


@inlined
def put(s: State, worker: int, number: int, now: float) -> None:
    """Put an answer on the result queue, which is sorted by time and worker."""
    m, last = s.main[0], len(s.results) - 1
    at = m.tail
    while at > m.head:
        before = s.results[(at - 1) & last]
        if before.time < now or before.worker <= worker:
            break
        s.results[at & last] = before
        at -= 1
    answer = s.results[at & last]
    answer.time, answer.worker, answer.number = now, worker, number
    m.tail += 1
