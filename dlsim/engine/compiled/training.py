"""The training step: on an accelerator that works beside the host, or on the host's own cores."""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.clock import wait
from dlsim.engine.compiled.cores import compute, served_first, spin
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.meeting import give
from dlsim.engine.compiled.messages import (
    COPIED,
    COPYING,
    END_STEP,
    EXCEPTION,
    FINISHED,
    RAISED,
    REQUESTED,
    RETURNED_AT,
    RUN_AHEAD,
    STEPPED,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.trace.trace import FAILED, RETURNED


@inlined
def give_back(s: State) -> int:
    """Return a batch to the training loop, and begin to train on it; or raise for it."""
    m, r, number = s.main[0], s.rules[0], s.main[0].returning
    m.returning = NONE
    batch = s.batches[number]
    if batch.outcome >= RAISED:
        s.status[number] = FAILED
        m.answer = number
        return EXCEPTION
    s.moments[REQUESTED, number] = m.requested
    s.moments[RETURNED_AT, number] = m.now
    s.status[number] = RETURNED
    s.order[m.returned] = number
    m.returned += 1
    m.count += 1
    if r.threads > 0:
        compute(s, batch.step)
        m.customers, m.linger = r.threads, r.linger
        m.by_chance = False
        m.gang = r.threads if r.linger > 0.0 and batch.step > 0.0 else 0
        return served_first(s, STEPPED)
    if r.copy_byte * batch.bytes > 0.0 and batch.bytes > r.staged and not r.overlap_copy:
        m.ahead, m.then = 1, COPYING  # all but this one are over then
        return RUN_AHEAD if r.sync > 0 else COPYING
    return COPIED


@inlined
def copying(s: State) -> int:
    """The host copies a batch, when the accelerator has done all before."""
    m, r, number = s.main[0], s.rules[0], s.order[s.main[0].returned - 1]
    m.wake = max(m.now, m.accelerator) + r.copy_byte * s.batches[number].bytes
    spin(s, 1)
    return wait(s, COPIED)


@inlined
def copied(s: State) -> int:
    """The host has copied a batch, or leaves it to the accelerator: that will compute its step."""
    m, r, number = s.main[0], s.rules[0], s.order[s.main[0].returned - 1]
    ready, copy, size = 0.0, 0.0, s.batches[number].bytes
    spin(s, 0)
    if r.overlap_copy:
        ready = m.copied = max(m.now, m.copied) + r.copy_byte * size
    elif size <= r.staged:
        copy = r.copy_byte * size
    m.ahead, m.then = r.run_ahead, END_STEP
    if r.sync > 0:
        return give(s, number, copy, ready, s.batches[number].step)
    begin = max(m.now, m.accelerator)
    m.accelerator = max(begin + copy, ready) + s.batches[number].step
    s.moments[FINISHED, number] = m.accelerator
    return RUN_AHEAD


@inlined
def stepped(s: State) -> int:
    """A step on the host's cores has ended."""
    m, number = s.main[0], s.order[s.main[0].returned - 1]
    m.ahead, m.then = 0, END_STEP
    if s.rules[0].sync > 0:
        return give(s, number, 0.0, 0.0, 0.0)
    s.moments[FINISHED, number] = m.now
    m.trained = m.returned
    return END_STEP


@inlined
def run_ahead(s: State) -> int:
    """Wait until at most `main.ahead` steps are under way."""
    m = s.main[0]
    spin(s, 0)
    while m.returned - m.trained > m.ahead:
        end = s.moments[FINISHED, s.order[m.trained]]
        if end != end:  # others have not come to the meeting
            m.held, m.wake = True, inf
            spin(s, 1)
            return wait(s, RUN_AHEAD)
        m.trained += 1
        if end > m.now:
            m.wake = end
            spin(s, 1)
            return wait(s, RUN_AHEAD)
    return int(m.then)
