"""The dispatcher: who gets the next batch."""

from __future__ import annotations

from dlsim.engine.compiled.buffer import deliver
from dlsim.engine.compiled.fetch import new_job
from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.compiled.messages import DONE, MORE_JOBS, MORE_ROOM, MORE_SAMPLES, NOT_RECORDED
from dlsim.engine.compiled.state import NONE, State


@inlined
def eligible(s: State, worker: int) -> bool:
    """Whether a worker may get the next batch: it is active and, under that rule, has room."""
    w, r = s.workers[worker], s.rules[0]
    return bool(w.active and (not r.with_room or w.held < r.window // s.main[0].active))


@inlined
def note(s: State, worker: int) -> None:
    """Keep `eligible` up to date for a worker that has changed."""
    at = worker + len(s.eligible) // 2
    s.eligible[at] = eligible(s, worker)
    while at > 1:
        at //= 2
        s.eligible[at] = s.eligible[2 * at] or s.eligible[2 * at + 1]


@compiled
def note_all(s: State) -> None:
    """The same for all workers."""
    half = len(s.eligible) // 2
    for worker in range(s.rules[0].workers):
        s.eligible[half + worker] = eligible(s, worker)
    for at in range(half - 1, 0, -1):
        s.eligible[at] = s.eligible[2 * at] or s.eligible[2 * at + 1]


@inlined
def first_eligible(s: State, worker: int) -> int:
    """The first worker from `worker` on that may get the next batch, or NONE."""
    half = len(s.eligible) // 2
    at = worker + half
    while not s.eligible[at]:
        while at % 2 == 1:  # there is nothing to the right of it under the same parent
            at //= 2
        if at == 0:
            return NONE
        at += 1
    while at < half:
        at = 2 * at if s.eligible[2 * at] else 2 * at + 1
    return at - half


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
    """What is missing for a new job of `worker`, else DONE."""
    m, r = s.main[0], s.rules[0]
    if m.sent == len(s.step) or (r.watch and m.rows + r.most > len(s.sample_batch)):
        return MORE_ROOM
    if r.iterable:
        m.hungry = max(worker, 0)
        shard = s.shards[m.hungry]
        if not shard.ended and shard.have - shard.used < min(r.size, shard.rest):
            return MORE_SAMPLES
    elif r.batched and s.services[m.job] != s.services[m.job]:
        m.short_number = m.sent
    if s.collates[m.job] != s.collates[m.job] or s.steps[m.job] != s.steps[m.job]:
        m.short_number = m.sent
    return NOT_RECORDED if m.short_number != NONE else DONE


@inlined
def send_next(s: State) -> int:
    """Send the next batch, if there is one and a worker can take it; what is missing, or DONE."""
    m = s.main[0]
    if m.job == len(s.steps):
        return MORE_JOBS if m.more else DONE
    turn = m.turn
    worker = choose(s)
    if worker == NONE:
        return DONE
    missing = lacking(s, worker)
    if missing != DONE:
        m.turn = turn
        return missing
    deliver(s, worker, new_job(s, worker))
    s.workers[worker].held += 1
    note(s, worker)
    return DONE
