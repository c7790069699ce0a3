"""What goes between the main process and the workers, and what everyone is doing, as numbers."""

from __future__ import annotations

RESUME, STOP = -1, -2  # messages that are no batch numbers

# Outcomes; RAISED + i is what the i-th planned failure raises.
FETCHED, EXHAUSTED, RAISED = range(1, 4)

# Where user code raises.
FETCH, COLLATE, WORKER_INIT_FN = range(3)
POINTS = ("fetch", "collate", "worker_init_fn")

# What the main process does next is one of those below; or it waits for its turn, or the event loop
# returns to its caller, because:
WAIT = -1
EPOCH_OVER, EXCEPTION, TIMED_OUT, NOT_RECORDED, MORE_ROOM, MORE_JOBS, MORE_SAMPLES = range(-8, -1)
RANK_LEFT, NOTHING_LEFT = -10, -9

# The rows of `State.moments`, in the order of `dlsim.trace.trace.MOMENTS`.
SENT_AT, STARTED, FETCHED_AT, ARRIVED, RECEIVED, REQUESTED, RETURNED_AT, FINISHED = range(8)

# From whose index queue a free worker may take.
OWN, OWN_OR_STOLEN, ANYONES = range(3)

# What can be shared.
CORES, STORAGE = range(2)

# Where each process goes on when it is its turn: the places at which the SimPy processes yield.
(
    START_EPOCH, WORKER_STARTED, PRIME, RESUME_WORKERS, SEND, INDICES_PUT,
    NEXT, LOOK, HANDED, READ, REBUILT, RETURN, COPIED, STEPPED, RUN_AHEAD, END_STEP,
    CLOSE, END_PINNING, PINNING_ENDED, JOIN, OVER,
    FETCH_ALONE, FETCHED_ALONE, PINNED_ALONE, COPYING, LEAVE, MAKE_ROOM, STAND_ASIDE,
) = range(28)  # fmt: skip
(
    GET_READY, WAIT_READY, READY, LISTEN, TAKEN, CALL, CALLING, DEMAND, WAITED, REQUEST, LATENCY,
    TRANSFER, KEEP, LOCKED, UNLOCKED, CALLED, GATHERED, COLLATED, ANSWER, STOPPED,
) = range(20)  # fmt: skip
IDLE, PICKLED, SERIALISED, WRITE, HANDED_OVER, WRITTEN = range(6)
PIN_HANDED, PIN_READ, PIN_REBUILT, PINNED, ENDED = range(1, 6)
