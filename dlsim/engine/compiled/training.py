"""The training step: on an accelerator that works beside the host, or on the host's own cores."""

from __future__ import annotations

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    COPIED,
    CORES,
    END_STEP,
    EXCEPTION,
    FINISHED,
    GO_ON,
    RAISED,
    REQUESTED,
    RETURNED_AT,
    RUN_AHEAD,
    STEPPED,
    WAIT,
)
from dlsim.engine.compiled.rules import NONE
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
        m.doing = STEPPED
        m.amount, m.what = batch.step, CORES
        m.customer, m.customers = len(s.workers) + 1, r.threads
        return WAIT if m.amount > 0.0 else GO_ON
    m.doing = COPIED
    copy = r.copy_byte * batch.bytes
    if copy > 0.0 and batch.bytes > r.staged and not r.overlap_copy:
        m.wake = max(m.now, m.accelerator) + copy
        return WAIT
    return GO_ON


@inlined
def copied(s: State) -> int:
    """The host has copied a batch, or leaves it to the accelerator: that will compute its step."""
    m, r, number = s.main[0], s.rules[0], s.order[s.main[0].returned - 1]
    ready, size = m.now, s.batches[number].bytes
    if r.overlap_copy:
        ready = m.copied = max(m.now, m.copied) + r.copy_byte * size
    elif size <= r.staged:
        ready = max(m.now, m.accelerator) + r.copy_byte * size
    m.accelerator = max(ready, m.accelerator) + s.batches[number].step
    s.moments[FINISHED, number] = m.accelerator
    m.ahead, m.doing, m.then = r.run_ahead, RUN_AHEAD, END_STEP
    return GO_ON


@inlined
def stepped(s: State) -> int:
    """A step on the host's cores has ended."""
    m = s.main[0]
    s.moments[FINISHED, s.order[m.returned - 1]] = m.now
    m.trained = m.returned
    m.doing = END_STEP
    return GO_ON


@inlined
def run_ahead(s: State) -> int:
    """Wait until at most `main.ahead` steps are under way."""
    m = s.main[0]
    while m.returned - m.trained > m.ahead:
        end = s.moments[FINISHED, s.order[m.trained]]
        m.trained += 1
        if end > m.now:
            m.wake = end
            return WAIT
    m.doing = m.then
    return GO_ON
