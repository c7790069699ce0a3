"""Fetching a batch: samples from the dataset, one after another, then collate."""

from __future__ import annotations

from dlsim.engine.compiled.buffer import enter, leave
from dlsim.engine.compiled.clock import wake
from dlsim.engine.compiled.cores import ask, customer_of
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    CALL,
    CALLED,
    CALLING,
    COLLATED,
    DEMAND,
    FETCHED,
    FETCHED_AT,
    GATHERED,
    KEEP,
    LOCKED,
    REQUEST,
    STARTED,
    UNLOCKED,
)
from dlsim.engine.compiled.recurrence import after_alike
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.storage import read
from dlsim.engine.draws import CPU, READ


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
        w.call, w.owed, w.slept = 0, 0.0, False
        w.doing = CALL
        if r.computing:
            w.owed = computing(s, w.job)
            return gather(s, worker)
        return False
    w.doing = COLLATED
    end = fetch_undisturbed(s, w.job)
    if end > m.now:
        wake(s, worker, end)
        return True
    return False


@inlined
def gather(s: State, worker: int) -> bool:
    """All samples are there once what is owed is paid; whether that takes time."""
    w = s.workers[worker]
    w.doing = GATHERED
    return w.owed > 0.0 and pay(s, worker)


@inlined
def collate(s: State, worker: int) -> bool:
    """Collate the samples; whether that takes time."""
    w = s.workers[worker]
    w.doing, w.owed = COLLATED, s.messages[w.job].collate
    return w.owed > 0.0 and pay(s, worker)


@inlined
def computing(s: State, message: int) -> float:
    """The processor time of all calls, where they ask for nothing else."""
    seconds = 0.0
    for call in range(s.messages[message].calls):
        first = place_of(s, call)
        for i in range(first, first + s.rules[0].width):
            seconds += s.amounts[message, i]
    return seconds


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
                return gather(s, worker)
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
                        m.customers, m.linger = demand.threads, demand.linger
                        m.gang = demand.threads if demand.linger > 0.0 else 0
                        m.by_chance, m.slept = True, w.slept
                        w.slept = False
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
                        w.slept = True
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
