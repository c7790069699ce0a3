"""Shared storage: a latency, a request rate, a bandwidth that all reads share, a page cache."""

from __future__ import annotations

from dlsim.engine.compiled.clock import wake
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import DEMAND, KEEP, LATENCY, REQUEST, STORAGE, TRANSFER
from dlsim.engine.compiled.state import State


@inlined
def read(s: State, worker: int) -> bool:
    """One step of reading for the demand that a worker is at; whether it takes time."""
    m, r, w, x = s.main[0], s.rules[0], s.workers[worker], s.sharing[STORAGE]
    message, demand = w.job, s.demands[w.demand]
    at = (0 if r.alike else w.call * r.width) + demand.place
    size, latency = s.amounts[message, at], s.amounts[message, at + 1]
    if w.doing == REQUEST:
        if holds(s, message, w.call, demand.stage):
            w.demand += 1
            w.doing = DEMAND
            return False
        w.doing = LATENCY
        if r.interval > 0.0:
            begin = max(m.now, s.source[0].next_request)
            s.source[0].next_request = begin + r.interval
            if begin > m.now:
                wake(s, worker, begin)
                return True
    if w.doing == LATENCY:
        w.doing = TRANSFER
        if latency > 0.0:
            wake(s, worker, m.now + latency)
            return True
    if w.doing == TRANSFER:
        w.doing = KEEP
        if r.limited and size > 0.0:
            m.amount, m.what, m.customer, m.customers = size, STORAGE, r.base + worker, 1
            return True
    if r.caching and 0.0 < size <= x.room and not holds(s, message, w.call, demand.stage):
        x.room -= size
        keep(s, message, w.call, demand.stage)
    w.demand += 1
    w.doing = DEMAND
    return False


@inlined
def holds(s: State, message: int, call: int, stage: int) -> bool:
    """Whether one stage of all samples of a call is in the page cache."""
    r, begin, end = s.rules[0], call, call + 1
    if r.batched:
        begin, end = 0, s.messages[message].taken
    if not r.caching:
        return bool(begin == end)
    for i in range(begin, end):
        bit = stage * r.length + s.kept[message, i]
        if not (s.cached[bit >> 3] >> (bit & 7)) & 1:
            return False
    return True


@inlined
def keep(s: State, message: int, call: int, stage: int) -> None:
    """Put one stage of all samples of a call into the page cache."""
    r, begin, end = s.rules[0], call, call + 1
    if r.batched:
        begin, end = 0, s.messages[message].taken
    for i in range(begin, end):
        bit = stage * r.length + s.kept[message, i]
        s.cached[bit >> 3] |= 1 << (bit & 7)
