"""How a batch gets from a worker to the main process, where that costs something.

A feeder thread in each worker serialises finished batches while the worker fetches the next one;
both share what the worker gets of the cores. All feeders write into one pipe, one at a time. A
batch of tensors in shared memory is a short message. Everything else goes through the pipe
itself, which holds 64 KiB: of a larger message the writer writes as fast as the reader reads,
and the reader reads only inside `next()`, unless a pin-memory thread does it.
"""

from __future__ import annotations

from dlsim.engine.buffer import Mailbox, Pool
from dlsim.engine.clock import Steps
from dlsim.engine.messages import MAIN, Answer, Fetched
from dlsim.engine.run import Run

PIPE_BYTES = 65536  # Linux's default capacity of a pipe

# A write releases Python's lock: it needs a core, but shares it with no thread of its process.
WRITING = 1 << 20


def feeder(run: Run, worker: int, pool: Pool) -> Steps:
    """The feeder thread of one worker: serialises and writes its answers, one after another."""
    outbox, costs = pool.outboxes[worker], run.scenario.costs
    while True:
        answer = yield from outbox.get()
        yield from run.compute(worker, costs.serialise.of(*_content(run, answer)))
        with pool.pipe.request() as turn:
            yield turn
            if _goes_through_pipe(run, answer) and answer.size > PIPE_BYTES:
                answer.moved = run.env.event()
                pool.result_queue.put(answer, worker)
                yield answer.moved
            else:
                _arrived(run, answer)
                pool.result_queue.put(answer, worker)


def receive(run: Run, answer: Answer) -> Steps:
    """Take an answer that is there: read it from the pipe if it must be, and rebuild it."""
    costs = run.scenario.costs
    if _goes_through_pipe(run, answer):
        seconds = costs.pipe_byte * answer.size
        if answer.moved is None:
            yield from run.compute(MAIN, seconds)
        else:
            cores = run.cores
            assert cores is not None
            yield cores.serve(seconds, MAIN) & cores.serve(seconds, WRITING + answer.worker)
            _arrived(run, answer)
            answer.moved.succeed()
    yield from run.compute(MAIN, costs.receive.of(*_content(run, answer)))
    if answer.outcome is not None:
        run.recorder.received[answer.number] = run.env.now


def pin_memory_thread(run: Run, pool: Pool) -> Steps:
    """Takes each answer as it arrives, pins it, and leaves it for `next()`; has no bound."""
    while True:
        answer = yield from pool.result_queue.get()
        yield from receive(run, answer)
        yield from pin(run, answer)
        pool.pinned.put(answer)


def pin(run: Run, answer: Answer) -> Steps:
    """Copy a batch into pinned memory."""
    if isinstance(answer.outcome, Fetched):
        yield from run.compute(MAIN, run.scenario.costs.pin.of(*_content(run, answer)))


def answers(run: Run, pool: Pool) -> Mailbox:
    """Where `next()` looks for answers."""
    return pool.pinned if run.scenario.loader.pin_memory else pool.result_queue


def _content(run: Run, answer: Answer) -> tuple[int, float]:
    """Tensors and bytes of an answer; exceptions and end markers have neither."""
    if not isinstance(answer.outcome, Fetched):
        return 0, 0.0
    return run.scenario.dataset.tensors, answer.size


def _goes_through_pipe(run: Run, answer: Answer) -> bool:
    return run.scenario.dataset.path == "pipe" and isinstance(answer.outcome, Fetched)


def _arrived(run: Run, answer: Answer) -> None:
    if answer.outcome is not None:
        run.recorder.arrived[answer.number] = run.env.now
