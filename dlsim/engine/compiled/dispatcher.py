"""The dispatcher: who gets the next batch."""

from __future__ import annotations

from dlsim.engine.compiled.buffer import deliver
from dlsim.engine.compiled.clock import wait
from dlsim.engine.compiled.cores import compute, customer_of, served_first, writing
from dlsim.engine.compiled.fate import new_job
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    CORES,
    INDICES_PUT,
    MAKE_ROOM,
    MORE_JOBS,
    MORE_ROOM,
    MORE_SAMPLES,
    NEXT,
    NOT_RECORDED,
    RETURN,
    SEND,
    STAND_ASIDE,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import WORD, State
from dlsim.engine.native.arrays import lowest_bit


@inlined
def eligible(s: State, worker: int) -> bool:
    """Whether a worker may get the next batch: it is active and, under that rule, has room."""
    m, w, r = s.main[0], s.workers[worker], s.rules[0]
    # as many batches at a time as its share of the window: without a division, which takes long
    return bool(w.active and (not r.with_room or (w.held + 1) * m.active <= r.window))


@inlined
def note(s: State, worker: int) -> None:
    """Keep `eligible` up to date for a worker that holds more or less now, where that counts."""
    if s.rules[0].with_room:
        mark(s, worker)


@inlined
def note_all(s: State) -> None:
    """The same for all workers."""
    for worker in range(s.rules[0].workers):
        mark(s, worker)


@inlined
def mark(s: State, worker: int) -> None:
    """Write down whether a worker is eligible."""
    word, bit = worker // WORD, 1 << worker % WORD
    others = s.eligible[word] - (s.eligible[word] & bit)
    s.eligible[word] = others | (bit if eligible(s, worker) else 0)


@inlined
def first_eligible(s: State, worker: int) -> int:
    """The first worker from `worker` on that may get the next batch, or NONE."""
    word, before = worker // WORD, worker % WORD
    bits = s.eligible[word] >> before << before
    while bits == 0:
        word += 1
        if word == len(s.eligible):
            return NONE
        bits = s.eligible[word]
    return WORD * word + lowest_bit(bits)


@inlined
def choose(s: State) -> int:
    """The next worker in turn that may get the next batch, or NONE."""
    m = s.main[0]
    worker = first_eligible(s, m.turn)
    if worker == NONE:
        worker = first_eligible(s, 0)
    if worker != NONE:
        m.turn = worker + 1 if worker + 1 < s.rules[0].workers else 0
    return worker


@inlined
def lacking(s: State, worker: int) -> int:
    """What is missing for a new job of `worker`, or NONE."""
    m, r = s.main[0], s.rules[0]
    if m.sent == len(s.batches) or (r.watch and m.rows + r.most > s.sample_moments.shape[1]):
        return MORE_ROOM
    if r.iterable:
        m.hungry = max(worker, 0)
        shard = s.shards[m.hungry]
        if not shard.ended and shard.have - shard.used < min(r.size, shard.rest):
            return MORE_SAMPLES
    if s.steps[m.job] != s.steps[m.job]:
        m.short_number = m.sent
        return NOT_RECORDED
    return NONE


@inlined
def send(s: State) -> int:
    """Choose who gets the next batch, if there is one and a worker can take it."""
    m, r = s.main[0], s.rules[0]
    m.doing = SEND
    if m.job == len(s.steps) and m.more:
        return MORE_JOBS
    if m.job == len(s.steps):
        m.owed = 0
    if m.owed == 0:
        return all_sent(s)
    turn = m.turn
    m.to = choose(s)
    if m.to == NONE:
        m.owed -= 1
        return SEND
    missing = lacking(s, m.to)
    if missing != NONE:
        m.turn = turn
        return missing
    compute(s, r.index_put)
    return served_first(s, INDICES_PUT)


@inlined
def all_sent(s: State) -> int:
    """All that was owed is sent: what comes next."""
    m = s.main[0]
    if m.primed != m.primed:
        if m.gone > m.now:  # the iterator before this one waits for its workers
            m.wake = m.gone
            return wait(s, SEND)
        m.primed = m.requested = m.now
    return NEXT if m.returning == NONE else RETURN


@inlined
def indices_put(s: State) -> int:
    """The index list is on its way."""
    m, r, worker = s.main[0], s.rules[0], s.main[0].to
    wakes = s.workers[worker].idle
    deliver(s, worker, new_job(s, worker))
    s.workers[worker].held += 1
    note(s, worker)
    m.owed -= 1
    if wakes and r.slice > 0.0 and m.primed == m.primed:
        m.wake = m.now + r.latency
        return wait(s, MAKE_ROOM)
    return SEND if m.owed > 0 else all_sent(s)


@inlined
def make_room(s: State) -> int:
    """A worker is woken: where no core is left, it takes the one that it had last."""
    m, each, customers = s.main[0], s.rules[0].slice, s.customers[CORES]
    core, own = customers[customer_of(s, m.to)].core, customers[writing(s) + 1].core
    if core != NONE and own != NONE and core != own:
        return SEND
    m.opening = (int(m.now / each) + 1) * each
    return STAND_ASIDE


@inlined
def stand_aside(s: State) -> int:
    """The main process waits until processes take turns, or a core is free."""
    m, x, r = s.main[0], s.sharing[CORES], s.rules[0]
    if m.now >= m.opening or x.present + x.spinning + r.background < r.cores:
        return SEND
    m.wake = m.opening
    return wait(s, STAND_ASIDE)
