"""The training step: on an accelerator that works beside the host, or on the host's own cores."""

from __future__ import annotations

from dlsim.engine.compiled.clock import wait
from dlsim.engine.compiled.cores import compute, served_first, spin
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    AT_BARRIER,
    COPIED,
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
        m.customers = r.threads
        return served_first(s, STEPPED)
    copy = r.copy_byte * batch.bytes
    if copy > 0.0 and batch.bytes > r.staged and not r.overlap_copy:
        m.wake = max(m.now, m.accelerator) + copy
        spin(s, 1)
        return wait(s, COPIED)
    return COPIED


@inlined
def copied(s: State) -> int:
    """The host has copied a batch, or leaves it to the accelerator: that will compute its step."""
    m, r, number = s.main[0], s.rules[0], s.order[s.main[0].returned - 1]
    ready, size = m.now, s.batches[number].bytes
    spin(s, 0)
    if r.overlap_copy:
        ready = m.copied = max(m.now, m.copied) + r.copy_byte * size
    elif size <= r.staged:
        ready = max(m.now, m.accelerator) + r.copy_byte * size
    m.accelerator = max(ready, m.accelerator) + s.batches[number].step
    s.moments[FINISHED, number] = m.accelerator
    m.ahead, m.then = r.run_ahead, END_STEP
    return meet(s)


@inlined
def stepped(s: State) -> int:
    """A step on the host's cores has ended."""
    m = s.main[0]
    s.moments[FINISHED, s.order[m.returned - 1]] = m.now
    if meets(s):
        m.ahead, m.then = 0, END_STEP
        return meet(s)
    m.trained = m.returned
    return END_STEP


@inlined
def meets(s: State) -> bool:
    """Whether other ranks are met after this step."""
    every = s.rules[0].sync
    return bool(every > 0 and s.main[0].count % every == 0)


@inlined
def meet(s: State) -> int:
    """Let the caller find out when all have come, if this step leads up to a meeting."""
    if meets(s):
        s.main[0].doing = RUN_AHEAD
        return AT_BARRIER
    return RUN_AHEAD


@inlined
def run_ahead(s: State) -> int:
    """Wait until at most `main.ahead` steps are under way."""
    m = s.main[0]
    spin(s, 0)
    while m.returned - m.trained > m.ahead:
        end = s.moments[FINISHED, s.order[m.trained]]
        m.trained += 1
        if end > m.now:
            m.wake = end
            spin(s, 1)
            return wait(s, RUN_AHEAD)
    return int(m.then)
