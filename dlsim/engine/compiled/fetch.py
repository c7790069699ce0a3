"""Fetching a batch: samples from the dataset, one after another, then collate."""

from __future__ import annotations

from math import nan

from dlsim.engine.compiled.buffer import enter, leave, write
from dlsim.engine.compiled.clock import wake
from dlsim.engine.compiled.cores import ask, customer_of
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    CALL,
    CALLED,
    CALLING,
    COLLATE,
    COLLATED,
    DEMAND,
    EXHAUSTED,
    FETCH,
    FETCHED,
    FETCHED_AT,
    FINISHED,
    KEEP,
    LOCKED,
    RAISED,
    REQUEST,
    SENT_AT,
    STARTED,
    UNLOCKED,
)
from dlsim.engine.compiled.recurrence import after_alike
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.storage import read
from dlsim.engine.draws import CPU, READ
from dlsim.trace.trace import PENDING


@inlined
def failure(s: State, where: int, at: int) -> int:
    """The planned failure at this place, or NONE."""
    for i in range(len(s.fail_at)):
        if s.fail_where[i] == where and s.fail_at[i] == at:
            return i
    return NONE


@inlined
def new_job(s: State, worker: int) -> int:
    """The message that sends the next of the jobs drawn to `worker`: what it will find.

    What comes of the job is certain from the start, as each source is used in order.
    """
    m, r = s.main[0], s.rules[0]
    message = write(s, m.sent)
    job = s.messages[message]
    row = m.job
    m.job += 1
    if r.iterable:
        shard = s.shards[max(worker, 0)]
        begin, job.first = shard.used, shard.index
        asked = r.size
        taken = 0 if shard.ended else min(asked, shard.rest)
        shard.used += taken
        shard.rest -= taken
        shard.index += taken
        shard.ended = taken < asked
        numbers, sizes = s.shard_amounts[max(worker, 0)], s.shard_sizes[max(worker, 0)]
    else:
        begin, job.first = s.offsets[row], 0
        asked = taken = s.offsets[row + 1] - begin
        numbers, sizes = s.services, s.sizes
    calls = 1 if r.batched else taken
    job.taken = taken
    size = 0.0
    if r.sized:
        for i in range(begin, begin + taken):
            size += sizes[i]
    job.short = size != size
    if not r.alike:
        first = (row if r.batched else begin) * r.width
        for i in range(calls * r.width):
            s.amounts[message, i] = numbers[first + i]
    if r.iterable:
        for i in range(calls * r.width):
            job.short |= s.amounts[message, i] != s.amounts[message, i]
    outcome = FETCHED
    if len(s.fail_at) > 0:
        for i in range(taken):
            raised = failure(s, FETCH, index_of(s, message, begin, i))
            if raised != NONE:
                outcome = RAISED + raised
                calls = min(calls, i + 1)
                if r.iterable:
                    s.shards[max(worker, 0)].ended = True
                break
    if r.caching:
        for i in range(taken):
            s.kept[message, i] = index_of(s, message, begin, i)
    job.rows = 0
    if r.watch:
        job.row, job.rows = m.rows, taken if r.batched else calls
        m.rows += job.rows
        for i in range(job.rows):
            s.sample_numbers[0, job.row + i] = index_of(s, message, begin, i)
            s.sample_numbers[1, job.row + i] = m.sent
            s.sample_numbers[2, job.row + i] = worker
            s.sample_moments[0, job.row + i] = s.sample_moments[1, job.row + i] = nan
    job.collate = 0.0
    if outcome == FETCHED and r.iterable and (taken == 0 or (r.drop_last and taken < asked)):
        outcome = EXHAUSTED
    elif outcome == FETCHED:
        job.collate = s.collates[row]
        if r.sharing:
            job.collate += r.share_message + r.share_tensor * r.tensors + r.share_byte * size
        raised = failure(s, COLLATE, m.sent)
        if raised != NONE:
            outcome = RAISED + raised
    job.calls, job.outcome = calls, outcome
    step = s.steps[row] + (r.step_per_sample * taken if r.iterable else 0.0)
    s.batches[m.sent].jitter = s.jitters[row]
    sent_to(s, worker, asked, step, size if outcome == FETCHED else 0.0)
    return message


@inlined
def index_of(s: State, message: int, begin: int, i: int) -> int:
    """The dataset index of the i-th sample of a new job, whose samples begin at `begin`."""
    if not s.rules[0].iterable:
        return int(s.indices[begin + i])
    place = s.messages[message].first + i
    return int(s.places[place] if len(s.places) > 0 else place)


@inlined
def sent_to(s: State, worker: int, size: int, step: float, content: float) -> None:
    """A new batch number: `size` samples are asked of `worker`, `content` bytes come of it."""
    m = s.main[0]
    number = m.sent
    for moment in range(FINISHED + 1):
        s.moments[moment, number] = nan
    s.moments[SENT_AT, number] = m.now
    if s.rules[0].sync > 0:
        s.stepped[0, number] = nan
    s.worker[number] = worker
    s.size[number] = size
    s.status[number] = PENDING
    batch = s.batches[number]
    batch.outcome, batch.early = NONE, False
    batch.step, batch.bytes = step, content
    m.sent += 1


@inlined
def begin_to_fetch(s: State, worker: int) -> bool:
    """The worker has taken a job; whether what it does now takes time."""
    m, r, w = s.main[0], s.rules[0], s.workers[worker]
    job = s.messages[w.job]
    if job.short:
        m.short_index, m.short_count = job.first, job.taken
        return True
    s.moments[STARTED, job.number] = m.now + r.round_trip if job.calls > 0 else m.now
    if r.shared:
        w.call, w.owed = 0, 0.0
        w.doing = CALL
        return False
    w.doing = COLLATED
    end = fetch_undisturbed(s, w.job)
    if end > m.now:
        wake(s, worker, end)
        return True
    return False


@inlined
def fetch_undisturbed(s: State, message: int) -> float:
    """Fetch and collate where nobody else can slow it down; when that is done."""
    job, r, now = s.messages[message], s.rules[0], s.main[0].now
    if r.alike and not r.watch and job.calls > 0:
        now = after_alike(now, job.calls, r.round_trip, s.amounts[message, 0])
        return float(now + job.collate)
    for call in range(job.calls):
        began = now + r.round_trip
        now = began + s.amounts[message, place_of(s, call)]
        if r.watch:
            for i in range(job.rows) if r.batched else range(call, call + 1):
                s.sample_moments[0, job.row + i] = began
                s.sample_moments[1, job.row + i] = now
    return float(now + job.collate)


@inlined
def fetch_sharing(s: State, worker: int) -> bool:
    """Go on fetching where cores and storage are shared; whether that takes time."""
    m, r, w = s.main[0], s.rules[0], s.workers[worker]
    message = w.job
    job = s.messages[message]
    while True:
        if w.doing == CALL:
            if w.call == job.calls:
                if w.owed > 0.0:
                    return pay(s, worker)
                w.doing = COLLATED
                w.owed = job.collate
                return w.owed > 0.0 and pay(s, worker)
            if r.round_trip > 0.0:
                if w.owed > 0.0:
                    return pay(s, worker)
                w.doing = CALLING
                wake(s, worker, m.now + r.round_trip)
                return True
            w.doing = CALLING
        if w.doing == CALLING:
            if r.watch:
                write_down(s, worker, 0)
            w.demand = 0
            w.doing = DEMAND
        if w.doing == DEMAND:
            if w.demand == len(s.demands):
                w.doing = CALLED
                if r.one_by_one and w.owed > 0.0:
                    return pay(s, worker)
            else:
                demand = s.demands[w.demand]
                amount = s.amounts[message, place_of(s, w.call) + demand.place] * demand.part
                if demand.locked:
                    if amount == 0.0:
                        w.demand += 1
                        continue
                    if w.owed > 0.0:
                        return pay(s, worker)
                    w.doing = LOCKED
                    if not enter(s, worker):
                        return True
                    continue
                if demand.kind == CPU and demand.threads > 1:
                    if w.owed > 0.0:
                        return pay(s, worker)
                    w.demand += 1
                    if amount > 0.0:
                        w.owed = amount
                        pay(s, worker)
                        m.customers = demand.threads
                        return True
                    continue
                if demand.kind == CPU:
                    w.owed += amount
                    w.demand += 1
                    continue
                if w.owed > 0.0:
                    return pay(s, worker)
                if demand.kind == READ:
                    w.doing = REQUEST
                else:
                    w.demand += 1
                    if amount > 0.0:
                        wake(s, worker, m.now + amount)
                        return True
                    continue
        if w.doing == LOCKED:
            w.doing = UNLOCKED
            demand = s.demands[w.demand]
            w.owed = s.amounts[message, place_of(s, w.call) + demand.place] * demand.part
            return pay(s, worker)
        if w.doing == UNLOCKED:
            leave(s)
            w.demand += 1
            w.doing = DEMAND
        if w.doing == CALLED:
            if r.watch:
                write_down(s, worker, 1)
            w.call += 1
            w.doing = CALL
        if w.doing >= REQUEST and w.doing <= KEEP and read(s, worker):
            return True


@inlined
def place_of(s: State, call: int) -> int:
    """Where the amounts of a call begin: where all are alike, there is one row for all."""
    return 0 if s.rules[0].alike else call * s.rules[0].width


@inlined
def pay(s: State, worker: int) -> bool:
    """Ask for the processor time that is owed, which takes time."""
    w = s.workers[worker]
    ask(s, customer_of(s, worker), w.owed)
    w.owed = 0.0
    return True


@inlined
def write_down(s: State, worker: int, moment: int) -> None:
    """The call that a worker is at begins (0) or ends (1) now."""
    w = s.workers[worker]
    job = s.messages[w.job]
    for i in range(job.rows) if s.rules[0].batched else range(w.call, w.call + 1):
        s.sample_moments[moment, job.row + i] = s.main[0].now


@inlined
def fetched(s: State, message: int) -> None:
    """Write down what came of the job."""
    job = s.messages[message]
    s.size[job.number] = 0
    if job.outcome == FETCHED:
        s.size[job.number] = job.taken
        s.moments[FETCHED_AT, job.number] = s.main[0].now
    s.batches[job.number].outcome = job.outcome
