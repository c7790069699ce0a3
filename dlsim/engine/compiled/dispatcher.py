"""The dispatcher: who gets the next batch."""

from __future__ import annotations

from dlsim.engine.compiled.buffer import deliver
from dlsim.engine.compiled.fetch import new_job
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import DONE, MORE_JOBS, MORE_ROOM, MORE_SAMPLES, NOT_RECORDED
from dlsim.engine.compiled.state import NONE, State


@inlined
def choose(s: State) -> int:
    """The next worker in turn that is active and, under that rule, has room; or NONE."""
    m, r = s.main[0], s.rules[0]
    for _ in range(r.workers):
        worker: int = m.turn
        m.turn = worker + 1 if worker + 1 < r.workers else 0
        w = s.workers[worker]
        if w.active and (not r.with_room or w.held < r.window // m.active):
            return worker
    return NONE


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
    return DONE
