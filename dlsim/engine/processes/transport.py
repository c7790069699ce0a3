"""How a batch gets from a worker to the main process, where that costs something.

A feeder thread in each worker serialises finished batches while the worker fetches the next one;
both share what the worker gets of the cores, as far as both want Python's lock. All feeders write
into one pipe, one at a time. A batch of tensors in shared memory is a short message. Everything
else goes through the pipe itself, which holds 64 KiB: of a larger message the writer writes as fast
as the reader reads, and the reader reads only inside `next()`, unless a pin-memory thread does it.
Of both, one waits until the other has filled or emptied the pipe: they compute one after the other.
"""

from __future__ import annotations

from dlsim.engine.facts import MAIN
from dlsim.engine.processes.buffer import Mailbox, Pool
from dlsim.engine.processes.clock import Steps, happen, settle
from dlsim.engine.processes.messages import STOP, Answer, Fetched
from dlsim.engine.processes.run import WRITING, Run
from dlsim.scenario.machine import PIPE_BYTES


def feeder(run: Run, worker: int, pool: Pool) -> Steps:
    """The feeder thread of one worker: serialises and writes its answers, one after another."""
    outbox, costs = pool.outboxes[worker], run.costs
    turn, beginning = run.turns.feeder(worker), costs.first_serialise
    while True:
        answer = yield from outbox.get()
        content = _content(run, answer)
        seconds = beginning + costs.serialise.of(*content)
        yield from run.compute_beside(worker, seconds, turn)
        beginning = 0.0
        yield from pool.pipe.enter(turn)
        if _goes_through_pipe(run, answer) and answer.size > PIPE_BYTES:
            answer.moved = run.env.event()
            pool.result_queue.put(answer, worker)
            yield answer.moved
        else:
            if _goes_through_pipe(run, answer):
                yield from run.compute(WRITING, costs.hand_over.of(*content), turn)
            _arrived(run, answer)
            pool.result_queue.put(answer, worker)
        pool.pipe.leave()


def receive(run: Run, answer: Answer, turn: int) -> Steps:
    """Take an answer that is there: read it from the pipe if it must be, and rebuild it.

    `turn` is that of the thread of the main process that does it.
    """
    costs, content = run.costs, _content(run, answer)
    receiving = answer.jitter * costs.receive.of(*content)
    handing = answer.jitter * costs.hand_over.of(*content)
    if answer.moved is not None:
        # One side writes while the other reads, which is part of receiving.
        if costs.reading > 0:
            reading = receiving * costs.reading
            yield from run.compute(WRITING, handing, turn)
            yield from run.compute(MAIN, reading, turn)
        else:
            reading = handing
            yield from run.compute_together((WRITING, MAIN), handing, turn)
        receiving -= reading
        _arrived(run, answer)
        happen(answer.moved, run.turns.feeder(answer.worker))
    elif not _goes_through_pipe(run, answer):
        yield from run.compute_beside(answer.worker, handing, turn)
    if isinstance(answer.outcome, Fetched):
        receiving += next(run.beginning, 0.0)
    yield from run.compute(MAIN, receiving, turn)
    if answer.number != MAIN:
        run.recorder.received[answer.number] = run.env.now


def pin_memory_thread(run: Run, pool: Pool) -> Steps:
    """Takes each answer as it arrives, pins it, and leaves it for `next()`; has no bound."""
    while not pool.pinning_over:
        answer = yield from pool.result_queue.get()
        if answer is STOP:
            return
        yield from receive(run, answer, run.turns.pinning)
        yield from pin(run, answer, run.turns.pinning)
        pool.pinned.put(answer)


def stop_pinning(run: Run, pool: Pool) -> Steps:
    """Tell the pin-memory thread to end, and wait until it has: it finishes what it is at."""
    thread = pool.pin_memory_thread
    if thread is not None and thread.is_alive:
        pool.pinning_over = True
        pool.result_queue.put(STOP)
        yield thread
        yield from settle(run.env, run.turns.last)


def pin(run: Run, answer: Answer, turn: int) -> Steps:
    """Copy a batch into pinned memory, in the thread of the main process that has this `turn`."""
    if isinstance(answer.outcome, Fetched):
        yield from run.compute(MAIN, run.costs.pin.of(*_content(run, answer)), turn)


def answers(run: Run, pool: Pool) -> Mailbox:
    """Where `next()` looks for answers."""
    return pool.pinned if run.pins else pool.result_queue


def _content(run: Run, answer: Answer) -> tuple[int, float]:
    """Tensors and bytes of an answer; exceptions and end markers have neither."""
    if not isinstance(answer.outcome, Fetched):
        return 0, 0.0
    return run.scenario.dataset.tensors, answer.size


def _goes_through_pipe(run: Run, answer: Answer) -> bool:
    return run.through_pipe and isinstance(answer.outcome, Fetched)


def _arrived(run: Run, answer: Answer) -> None:
    if answer.number != MAIN:
        run.recorder.arrived[answer.number] = run.env.now
