"""What goes between the main process and the workers, and what comes of it, as numbers."""

from __future__ import annotations

MAIN = -1
RESUME, STOP = -1, -2  # messages that are no batch numbers

# Outcomes; RAISED + i is what the i-th planned failure raises.
FETCHED, EXHAUSTED, RAISED = range(1, 4)

# Where user code raises.
FETCH, COLLATE, WORKER_INIT_FN = range(3)
POINTS = ("fetch", "collate", "worker_init_fn")

# Why the event loop returns to its caller.
EPOCH_OVER, EXCEPTION, TIMED_OUT, NOT_RECORDED, MORE_ROOM, MORE_JOBS, MORE_SAMPLES = range(7)
DONE = -1

# The rows of `State.moments`, in the order of `dlsim.trace.trace.MOMENTS`.
SENT_AT, STARTED, FETCHED_AT, ARRIVED, RECEIVED, REQUESTED, RETURNED_AT, FINISHED = range(8)
