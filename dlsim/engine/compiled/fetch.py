"""Fetching a batch: samples from the dataset, one after another, then collate."""

from __future__ import annotations

from math import nan

from dlsim.engine.compiled.buffer import write
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    ARRIVED,
    COLLATE,
    EXHAUSTED,
    FETCH,
    FETCHED,
    FETCHED_AT,
    RAISED,
    SENT_AT,
    STARTED,
)
from dlsim.engine.compiled.state import NONE, State
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
    shard = s.shards[max(worker, 0) if r.iterable else 0]
    message = write(s, m.sent)
    job = s.messages[message]
    row = m.job
    m.job += 1
    if r.iterable:
        begin, first = shard.used, shard.index
        asked = r.size
        taken = 0 if shard.ended else min(asked, shard.rest)
        shard.used += taken
        shard.rest -= taken
        shard.index += taken
        shard.ended = taken < asked
        numbers = s.shard_seconds[max(worker, 0)]
    else:
        begin, first = s.offsets[row], 0
        asked = taken = s.offsets[row + 1] - begin
        numbers = s.services
    calls = 1 if r.batched else taken
    outcome = FETCHED
    if len(s.fail_at) > 0:
        for i in range(taken):
            raised = failure(s, FETCH, first + i if r.iterable else s.indices[begin + i])
            if raised != NONE:
                outcome = RAISED + raised
                calls = min(calls, i + 1)
                shard.ended = True
                break
    job.rows = 0
    if r.watch:
        job.row, job.rows = m.rows, taken if r.batched else calls
        m.rows += job.rows
        for i in range(job.rows):
            s.sample_index[job.row + i] = first + i if r.iterable else s.indices[begin + i]
            s.sample_batch[job.row + i] = m.sent
            s.sample_worker[job.row + i] = worker
            s.sample_started[job.row + i] = s.sample_fetched[job.row + i] = nan
    job.collate = 0.0
    if outcome == FETCHED and r.iterable and (taken == 0 or (r.drop_last and taken < asked)):
        outcome = EXHAUSTED
    elif outcome == FETCHED:
        job.collate = s.collates[row]
        raised = failure(s, COLLATE, m.sent)
        if raised != NONE:
            outcome = RAISED + raised
    job.calls, job.taken, job.outcome, job.first = calls, taken, outcome, first
    begin = row if r.batched else begin
    for i in range(calls):
        s.seconds[message, i] = numbers[begin + i]
    sent_to(s, worker, asked, row)
    return message


@inlined
def sent_to(s: State, worker: int, size: int, row: int) -> None:
    """A new batch number: `size` samples are asked of `worker`."""
    m = s.main[0]
    number = m.sent
    for moment in range(len(s.moments)):
        s.moments[moment, number] = nan
    s.moments[SENT_AT, number] = m.now
    s.worker[number] = worker
    s.size[number] = size
    s.status[number] = PENDING
    s.outcome[number] = NONE
    s.step[number] = s.steps[row]
    m.sent += 1


@inlined
def fetch(s: State, message: int, now: float) -> float:
    """Fetch one sample after another from `now` on, and collate; when that is done."""
    job, r = s.messages[message], s.rules[0]
    s.moments[STARTED, job.number] = now + r.round_trip if job.calls > 0 else now
    for call in range(job.calls):
        began = now + r.round_trip
        now = began + s.seconds[message, call]
        if r.watch:
            for i in range(job.rows) if r.batched else range(call, call + 1):
                s.sample_started[job.row + i] = began
                s.sample_fetched[job.row + i] = now
        if now != now and s.main[0].short_index == NONE:
            s.main[0].short_index = job.first + call
    return float(now + job.collate)


@inlined
def fetched(s: State, message: int, now: float) -> None:
    """Write down what came of the job."""
    job = s.messages[message]
    s.size[job.number] = 0
    if job.outcome == FETCHED:
        s.size[job.number] = job.taken
        s.moments[FETCHED_AT, job.number] = now
    s.outcome[job.number] = job.outcome
    s.moments[ARRIVED, job.number] = now
