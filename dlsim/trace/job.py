"""What happened in a job: a trace for each rank, and the moments at which ranks met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest

import numpy as np

from dlsim.trace.trace import Floats, Integers, Meta, Trace

NOBODY: Integers = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class JobTrace:
    """The traces of all `ranks`, in their order, on one clock.

    In each, `finished` of a step is when the ranks that met after it went on, and `stepped` when
    the rank itself had come. `meta` has the scenario of the whole job, those of the ranks what is
    theirs.
    """

    ranks: tuple[Trace, ...]
    meta: Meta

    def __len__(self) -> int:
        return len(self.ranks)

    def __repr__(self) -> str:
        return f"JobTrace({len(self)} ranks, engine={self.meta.engine!r})"

    @property
    def end(self) -> float:
        """Seconds from the start to the end of the rank that ends last."""
        return max(trace.end for trace in self.ranks)


def ranks_of(run: Trace | JobTrace) -> tuple[Trace, ...]:
    """The traces of a job's ranks, or that of a run alone."""
    return run.ranks if isinstance(run, JobTrace) else (run,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Meetings:
    """When ranks met after their steps: a row for each time, in order, a column for each rank.

    `batch`: the batch whose step led up to it, -1 for a rank that had no more; `stepped`: when the
    rank came; `released`: when all went on, one for each row.
    """

    batch: Integers
    stepped: Floats
    released: Floats

    def __len__(self) -> int:
        return len(self.released)

    @cached_property
    def last(self) -> Integers:
        """For each meeting, the rank that came last: all others waited for it."""
        found: Integers = np.nanargmax(self.stepped, axis=1)
        return found

    @cached_property
    def latest(self) -> Floats:
        """When that one came."""
        found: Floats = np.take_along_axis(self.stepped, self.last[:, np.newaxis], axis=1)[:, 0]
        return found

    @property
    def waited(self) -> Floats:
        """Seconds that each rank waited for the last one; NaN for one that had no more."""
        found: Floats = self.latest[:, np.newaxis] - self.stepped
        return found


def meetings(job: JobTrace) -> Meetings:
    """When the ranks of `job` met after their steps; none, if they do not.

    Where no scenario says after how many steps they do, they met where one of them waited.
    """
    scenario = job.meta.scenario
    every = scenario.job.sync if scenario is not None else 1
    if not isinstance(every, int):
        return Meetings(
            batch=np.empty((0, len(job)), np.int64),
            stepped=np.empty((0, len(job))),
            released=np.empty(0),
        )
    joins = scenario is not None and scenario.job.uneven == "join"
    met = [_met(trace, every) for trace in job.ranks]
    if not joins:  # who leaves an epoch waits for nobody: meetings are counted over all of them
        met = [epochs if len(epochs) == 1 else [np.concatenate(epochs)] for epochs in met]
    batch = np.concatenate([_side_by_side(epoch) for epoch in zip_longest(*met, fillvalue=NOBODY)])
    stepped = np.full(batch.shape, np.nan)
    released = np.full(len(batch), np.nan)
    known = np.full(len(batch), scenario is not None)
    for rank, trace in enumerate(job.ranks):
        there = batch[:, rank] >= 0
        mine = batch[there, rank]
        came = trace.finished if trace.stepped is None else trace.stepped
        stepped[there, rank] = came[mine]
        released[there] = np.fmax(released[there], trace.finished[mine])
        known[there] |= trace.finished[mine] > came[mine]
    known &= ~np.isnan(stepped).all(axis=1)
    return Meetings(batch=batch[known], stepped=stepped[known], released=released[known])


def _met(trace: Trace, every: int) -> list[Integers]:
    """The batches after which the rank came to a meeting in each epoch, in order."""
    epochs = trace.epoch_of(trace.order)  # of which one comes after another
    begins = np.searchsorted(epochs, np.arange(len(trace.epochs.first) + 1))
    return [trace.order[a:b][every - 1 :: every] for a, b in pairwise(begins)]


def _side_by_side(columns: Sequence[Integers]) -> Integers:
    """The columns in one table, in which -1 is below the shorter ones."""
    found = np.full((max(map(len, columns)), len(columns)), -1, np.int64)
    for number, column in enumerate(columns):
        found[: len(column), number] = column
    return found
