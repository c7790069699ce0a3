"""What goes between the main process and the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import simpy

from dlsim.engine.facts import Raised

# Messages to workers besides jobs.
RESUME = "resume"  # a new epoch begins: acknowledge, and start the iterator again
STOP = "stop"
HELLO = "hello"  # answered by a worker that is ready, where all are waited for


@dataclass(frozen=True, slots=True)
class Fetched:
    """A batch of `count` samples."""

    count: int


ENDED: Literal["ended"] = "ended"  # the iterator has nothing more for this worker
Outcome: TypeAlias = Fetched | Raised | Literal["ended"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What `next()` returns: the batch number, seconds to train on it, and its bytes."""

    number: int
    step: float
    size: float


@dataclass(slots=True)
class Answer:
    """What a worker answers: a job's outcome and its bytes; None acknowledges a new epoch.

    `jitter`: receiving it takes so many times as long as on average. `moved` happens when the
    reader has read a message that did not fit into the pipe.
    """

    worker: int
    number: int
    outcome: Outcome | None
    size: float = 0.0
    jitter: float = 1.0
    moved: simpy.Event | None = None
