"""What will come of a batch, which is certain when it is sent, as each source is used in order."""

from __future__ import annotations

from math import nan

from dlsim.engine.compiled.buffer import write
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import (
    COLLATE,
    EXHAUSTED,
    FETCH,
    FETCHED,
    FINISHED,
    RAISED,
    SENT_AT,
)
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
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
