"""How a batch gets from a worker to the main process, where that costs something.

A feeder thread in each worker, one pipe, and the main process or its pin-memory thread, as in the
SimPy engine.
"""

from __future__ import annotations

from dlsim.engine.compiled.buffer import enter, erase, leave, put, ring_bell
from dlsim.engine.compiled.clock import feeder, wake
from dlsim.engine.compiled.cores import ask, beside, compute, customer_of, writing
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    ARRIVED,
    FETCHED,
    HANDED_OVER,
    IDLE,
    PICKLED,
    PIN_HANDED,
    PIN_READ,
    PIN_REBUILT,
    PINNED,
    PINNING_ENDED,
    RECEIVED,
    SERIALISED,
    WRITE,
    WRITTEN,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.scenario.machine import PIPE_BYTES


@inlined
def feed(s: State, worker: int) -> None:
    """The feeder thread of one worker: serialises and writes its answers, one after another."""
    m, w = s.main[0], s.workers[worker]
    while True:
        if w.feeding == IDLE:
            if w.outbox == NONE:
                return
            w.sending = w.outbox
            w.outbox = s.messages[w.sending].next
            w.feeding = PICKLED
            seconds = w.beginning + serialise(s, s.messages[w.sending].number)
            ask(s, customer_of(s, worker), s.rules[0].lock * seconds)
            if m.amount > 0.0:
                return
        number = s.messages[w.sending].number
        if w.feeding == PICKLED:
            w.feeding = SERIALISED
            seconds = w.beginning + serialise(s, number)
            w.beginning = 0.0
            ask(s, beside(s, worker), (1.0 - s.rules[0].lock) * seconds)
            if m.amount > 0.0:
                return
        if w.feeding == SERIALISED:
            w.feeding = WRITE
            if not enter(s, feeder(s, worker)):
                return
        if w.feeding == WRITE:
            if goes_through_pipe(s, number) and s.batches[number].bytes > PIPE_BYTES:
                w.feeding = WRITTEN
                put(s, worker, number, True)
                return
            w.feeding = HANDED_OVER
            if goes_through_pipe(s, number):
                ask(s, writing(s), hand_over(s, number))
                if m.amount > 0.0:
                    return
        if w.feeding == HANDED_OVER:
            arrived(s, number)
            put(s, worker, number, False)
        erase(s, w.sending)
        w.feeding = IDLE
        leave(s)


@inlined
def read(s: State, number: int, owner: int, moved: bool) -> None:
    """Ask for the time that an answer's handing over takes while it is taken.

    Of what holds up its worker; for the rest, `read_on` asks.
    """
    if moved:
        # One side writes while the other reads, which is part of receiving: both one after the
        # other, or at the same time, as the next customer.
        ask(s, writing(s), jitter(s, number) * hand_over(s, number))
        s.main[0].customers = 1 if s.rules[0].reading > 0.0 else 2
    elif not goes_through_pipe(s, number):
        handing = jitter(s, number) * hand_over(s, number)
        ask(s, customer_of(s, owner), s.rules[0].lock * handing)


@inlined
def read_on(s: State, number: int, owner: int, moved: bool) -> None:
    """Ask for the rest of it, beside the worker, or for reading from the pipe."""
    if moved and s.rules[0].reading > 0.0:
        compute(s, receive(s, number) * s.rules[0].reading)
    if not moved and not goes_through_pipe(s, number):
        handing = jitter(s, number) * hand_over(s, number)
        ask(s, beside(s, owner), (1.0 - s.rules[0].lock) * handing)


@inlined
def rebuild(s: State, number: int, owner: int, moved: bool) -> None:
    """An answer has been read: let its writer go on, and ask for the time that rebuilding takes."""
    seconds = receive(s, number)
    if moved:
        reading = jitter(s, number) * hand_over(s, number)
        if s.rules[0].reading > 0.0:
            reading = seconds * s.rules[0].reading
        seconds -= reading
        arrived(s, number)
        wake(s, feeder(s, owner), s.main[0].now)
    if not s.main[0].rebuilt and is_batch(s, number):
        s.main[0].rebuilt = True
        seconds += s.rules[0].first_receive
    compute(s, seconds)


@inlined
def received(s: State, number: int) -> None:
    """An answer is rebuilt."""
    if number != NONE:
        s.moments[RECEIVED, number] = s.main[0].now


@inlined
def pin_memory(s: State) -> None:
    """The pin-memory thread takes each answer as it arrives, pins it, and leaves it for next()."""
    m = s.main[0]
    while True:
        if m.pinning == IDLE:
            if m.doing == PINNING_ENDED:
                m.wake = m.now  # the main process waits for the thread to end
                return
            if m.head == m.tail:
                return
            answer = s.results[m.head & (len(s.results) - 1)]
            m.head += 1
            m.pin_answer, m.pin_owner, m.pin_moved = answer.number, answer.worker, answer.moved
            m.pinning = PIN_HANDED
            read(s, m.pin_answer, m.pin_owner, m.pin_moved)
        elif m.pinning == PIN_HANDED:
            m.pinning = PIN_READ
            read_on(s, m.pin_answer, m.pin_owner, m.pin_moved)
        elif m.pinning == PIN_READ:
            m.pinning = PIN_REBUILT
            rebuild(s, m.pin_answer, m.pin_owner, m.pin_moved)
        elif m.pinning == PIN_REBUILT:
            received(s, m.pin_answer)
            m.pinning = PINNED
            pin(s, m.pin_answer)
        else:
            m.pinning = IDLE
            done = s.pinned[m.pinned_tail & (len(s.pinned) - 1)]
            done.worker, done.number = m.pin_owner, m.pin_answer
            m.pinned_tail += 1
            ring_bell(s)
        if m.amount > 0.0:
            return


@inlined
def pin(s: State, number: int) -> None:
    """Ask for the time that copying a batch into pinned memory takes."""
    r, size = s.rules[0], content(s, number)
    seconds = r.pin_message + r.pin_tensor * r.tensors + r.pin_byte * size
    compute(s, seconds if is_batch(s, number) else 0.0)


@inlined
def serialise(s: State, number: int) -> float:
    """Processor time to serialise an answer, in seconds."""
    r, size = s.rules[0], content(s, number)
    return float(
        r.serialise_message + r.serialise_tensor * tensors(s, number) + r.serialise_byte * size
    )


@inlined
def hand_over(s: State, number: int) -> float:
    """Processor time to hand an answer over, in seconds."""
    r, size = s.rules[0], content(s, number)
    return float(
        r.hand_over_message + r.hand_over_tensor * tensors(s, number) + r.hand_over_byte * size
    )


@inlined
def receive(s: State, number: int) -> float:
    """Processor time to take an answer off the queue and rebuild it, in seconds."""
    r, size = s.rules[0], content(s, number)
    seconds = r.receive_message + r.receive_tensor * tensors(s, number) + r.receive_byte * size
    return float(jitter(s, number) * seconds)


@inlined
def jitter(s: State, number: int) -> float:
    """By how many times an answer takes longer to be received than on average."""
    return float(s.batches[number].jitter) if number != NONE else 1.0


@inlined
def is_batch(s: State, number: int) -> bool:
    """Whether an answer is a batch: exceptions, and the news of an end or an epoch, are not."""
    return bool(number != NONE and s.batches[number].outcome == FETCHED)


@inlined
def tensors(s: State, number: int) -> float:
    """Tensors of an answer."""
    return float(s.rules[0].tensors) if is_batch(s, number) else 0.0


@inlined
def content(s: State, number: int) -> float:
    """Bytes of an answer."""
    return float(s.batches[number].bytes) if is_batch(s, number) else 0.0


@inlined
def goes_through_pipe(s: State, number: int) -> bool:
    """Whether an answer is pickled through the pipe."""
    return bool(s.rules[0].pipe and is_batch(s, number))


@inlined
def arrived(s: State, number: int) -> None:
    """The whole message can be read."""
    if number != NONE:
        s.moments[ARRIVED, number] = s.main[0].now
