"""What happened: the moments of every batch, as arrays.

A batch number counts the messages sent to workers, over all epochs, in the order of sending; it
is the index into every array. A moment that did not happen, or was not observed, is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import DlsimError, Scenario

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

MOMENTS = (
    "sent",
    "started",
    "fetched",
    "arrived",
    "received",
    "requested",
    "returned",
    "finished",
)

# What became of a batch number, as `Trace.status` holds it.
PENDING = 0  # sent; the loop ended before it was returned
RETURNED = 1  # returned by a next()
ENDED = 2  # the worker answered that its iterator had ended
SKIPPED = 3  # sent to a worker that had ended
FAILED = 4  # its exception was raised by a next()
DISCARDED = 5  # arrived after its epoch was left; dropped by the resume handshake
STATUSES = ("pending", "returned", "ended", "skipped", "failed", "discarded")


class TraceError(DlsimError):
    """A file that is no trace, or a trace that cannot answer the question."""


class Problem(msgspec.Struct, frozen=True):
    """An exception in the training loop at `time` (seconds), raised for `batch`.

    `kind`: where it comes from: fetch, collate, worker_init_fn, or timeout; in a job also hang, as
    all others are gone for good, and job, which another rank ended. `batch` is -1 where none
    answers for it.
    """

    kind: str
    message: str
    batch: int
    time: float


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Where a trace comes from: scenario, seed, the engine that ran, versions, what went wrong.

    `problem` is the exception that ended the run, `caught` those that the training loop caught.

    `engine`: simpy, compiled, numpy, torch (torch's own code under a virtual clock) or observed.
    `notes` are remarks about how the trace came to be, by topic.
    """

    engine: str
    scenario: Scenario | None = None
    seed: int | None = None
    versions: dict[str, str] = {}
    problem: Problem | None = None
    caught: tuple[Problem, ...] = ()
    notes: dict[str, str] = {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """One row for each sample fetched, ordered by batch number, then as fetched.

    `index`: dataset index; `batch`: batch number; `worker`: -1 is the main process; `started`
    and `fetched`: seconds.
    """

    index: Integers
    batch: Integers
    worker: NDArray[np.int32]
    started: Floats
    fetched: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Epochs:
    """One row for each epoch.

    `first`: the first batch number (of an endless sampler, how many were returned before);
    `started`: `iter(loader)` is called; `primed`: it returned, the first batches are sent; `ended`:
    the loop over the loader is left, its workers (unless persistent) gone.
    """

    first: Integers
    started: Floats
    primed: Floats
    ended: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """The moments of every batch, in seconds, and who fetched it.

    All arrays but `order` have one entry for each batch number; `order` holds batch numbers in
    the order in which they were returned.

    `sent`: the main process puts the indices on a worker's index queue; `started`: the worker
    begins to fetch; `fetched`: every sample is fetched and collated; `arrived`: the message can
    be read from the result queue; `received`: the main process has taken it off; `requested`:
    the `next()` that returns it is called; `returned`: it returns; `finished`: the training step
    has ended. `worker`: who fetched it, -1 the main process; `size`: its number of samples;
    `status`: what became of it, an index into `STATUSES`.

    `validation`: what happened in validation, where there is any, on the same clock: an epoch for
    each time that it came, of a scenario of its own (`Scenario.validating`).

    `reading`, of a rank of a job in which rank 0 reads for all: what happened in the loader of its
    own (`Scenario.reading`). Of rank 0 its batches are what all ranks have slices of; of others
    nobody takes them. The batches of the trace itself are those slices: `sent` when word of them
    had come, `received` when they had.

    `stepped`, of a rank that meets others after its steps: when its own part of the step has ended,
    and it waits; `finished` is then when all go on.
    """

    sent: Floats
    started: Floats
    fetched: Floats
    arrived: Floats
    received: Floats
    requested: Floats
    returned: Floats
    finished: Floats
    worker: NDArray[np.int32]
    size: NDArray[np.int32]
    status: NDArray[np.uint8]
    order: Integers
    epochs: Epochs
    meta: Meta
    samples: Samples | None = field(default=None)
    stepped: Floats | None = field(default=None)
    validation: Trace | None = field(default=None)
    reading: Trace | None = field(default=None)

    def __len__(self) -> int:
        return len(self.sent)

    def __repr__(self) -> str:
        return (
            f"Trace({len(self.order)} batches returned in {len(self.epochs.first)} epoch(s), "
            f"engine={self.meta.engine!r})"
        )

    @property
    def end(self) -> float:
        """Seconds from the start to the end of the last epoch (to the error, if one ended it)."""
        if self.meta.problem is not None:
            return self.meta.problem.time
        return float(self.epochs.ended[-1]) if len(self.epochs.ended) else 0.0

    @property
    def of_loader(self) -> Trace:
        """What happened in the loader: the trace itself, unless rank 0 reads for all."""
        return self if self.reading is None else self.reading

    @property
    def as_one_epoch(self) -> Trace:
        """The trace itself; of an endless sampler, whose iterator is made once, with one epoch."""
        scenario, epochs = self.meta.scenario, self.epochs
        if scenario is None or not scenario.loader.endless:
            return self
        whole = Epochs(
            first=epochs.first[:1],
            started=epochs.started[:1],
            primed=epochs.primed[:1],
            ended=epochs.ended[-1:],
        )
        return replace(self, epochs=whole)

    def epoch_of(self, batches: Integers) -> Integers:
        """The epoch, from 0, of each of the given batch numbers."""
        found: Integers = np.searchsorted(self.epochs.first, batches, side="right") - 1
        return found
