"""What happened in a job: a trace for each rank, and the moments at which ranks met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.trace import Floats, Meta, Trace


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

    batch: NDArray[np.int64]
    stepped: Floats
    released: Floats

    def __len__(self) -> int:
        return len(self.released)

    @property
    def last(self) -> NDArray[np.int64]:
        """For each meeting, the rank that came last: all others waited for it."""
        found: NDArray[np.int64] = np.nanargmax(self.stepped, axis=1)
        return found

    @property
    def waited(self) -> Floats:
        """Seconds that each rank waited for the last one; NaN for one that had no more."""
        latest = np.nanmax(self.stepped, axis=1, keepdims=True) if len(self) else self.stepped
        found: Floats = latest - self.stepped
        return found


def meetings(job: JobTrace) -> Meetings:
    """When the ranks of `job` met after their steps; none, if they do not."""
    scenario = job.meta.scenario
    every = scenario.job.sync if scenario is not None else 1
    if not isinstance(every, int):
        return Meetings(
            batch=np.empty((0, len(job)), np.int64),
            stepped=np.empty((0, len(job))),
            released=np.empty(0),
        )
    joins = scenario is not None and scenario.job.uneven == "join"
    columns = [_met(trace, every, by_epoch=joins) for trace in job.ranks]
    rows = sorted({row for column in columns for row in column})
    batch = np.array([[column.get(row, -1) for column in columns] for row in rows], np.int64)
    batch = batch.reshape(len(rows), len(job))
    stepped = np.full(batch.shape, np.nan)
    released = np.full(len(rows), np.nan)
    for rank, trace in enumerate(job.ranks):
        there = batch[:, rank] >= 0
        mine = batch[there, rank]
        came = trace.finished if trace.stepped is None else trace.stepped
        stepped[there, rank] = came[mine]
        released[there] = np.fmax(released[there], trace.finished[mine])
    known = ~np.isnan(stepped).all(axis=1)
    return Meetings(batch=batch[known], stepped=stepped[known], released=released[known])


def _met(trace: Trace, every: int, *, by_epoch: bool) -> dict[tuple[int, int], int]:
    """The batch after which the rank came to each meeting; meetings are counted in each epoch.

    Or, where ranks do not wait for each other at the end of an epoch, over all of them.
    """
    epochs = trace.epoch_of(trace.order) if len(trace.epochs.first) else trace.order
    found: dict[tuple[int, int], int] = {}
    for epoch in np.unique(epochs).tolist():
        mine = trace.order[epochs == epoch][every - 1 :: every].tolist()
        start = 0 if by_epoch else len(found)
        place = epoch if by_epoch else 0
        found |= {(place, start + number): batch for number, batch in enumerate(mine)}
    return found
