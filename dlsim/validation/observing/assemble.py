"""From what the processes of a loader wrote down to a trace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.observation import Observation
from dlsim.trace.trace import (
    DISCARDED,
    ENDED,
    FAILED,
    PENDING,
    RETURNED,
    SKIPPED,
    Epochs,
    Floats,
    Meta,
    Samples,
)
from dlsim.validation.observing.cpu_time import UNSEEN
from dlsim.validation.observing.payload import Payload
from dlsim.validation.observing.probe import (
    COLLATED,
    EXHAUSTED,
    MAIN,
    RAISED,
    READY,
    SAMPLE,
    SERIALISED,
    TAKEN,
)
from dlsim.validation.observing.records import Rows
from dlsim.validation.observing.wrapped_loader import Log, Return

NAN = float("nan")
UNRETURNED = Return(
    MAIN, UNSEEN[:2], UNSEEN[:2], UNSEEN, UNSEEN, UNSEEN, UNSEEN, NAN, NAN
).columns()
MAIN_COLUMNS = tuple(name for name in UNRETURNED if "_" in name)


@dataclass(frozen=True)
class Setup:
    """What of a loader's settings decides how its records are read."""

    num_workers: int
    iterable: bool
    in_order: bool
    persistent_workers: bool
    samples: bool


def without_lost(log: Log, rows: Rows) -> tuple[Log, Rows]:
    """The same without index lists that were drawn and never sent, and so have no number.

    Torch draws before it looks for a worker; when all iterators have ended, there is none.
    """
    kept = np.array([batch in log.sent for batch in range(len(log.draws))], bool)
    number = np.append(np.cumsum(kept) - 1, -1)  # the last entry is for -1, no batch
    rows["batch"] = number[rows["batch"]]
    return replace(
        log,
        draws=[draw for draw, keep in zip(log.draws, kept, strict=True) if keep],
        returns=[back._replace(batch=int(number[back.batch])) for back in log.returns],
        payloads={int(number[batch]): seen for batch, seen in log.payloads.items()},
        first=[int(kept[:first].sum()) for first in log.first],
    ), rows


class Assembly:
    """The columns of a trace in the making, from a log and all records."""

    def __init__(self, log: Log, rows: Rows, setup: Setup) -> None:
        if setup.iterable:
            log, rows = without_lost(log, rows)
        self.log, self.rows, self.setup = log, rows, setup
        self.zero = log.started[0]
        self.first = np.array(log.first, np.int64)
        self.asked = np.array([size for _, size in log.draws], np.int32)
        self.numbers = np.arange(len(log.draws))
        self.epoch = np.searchsorted(self.first, self.numbers, side="right") - 1
        self.order = np.array([back.batch for back in log.returns], np.int64)
        self.taken = self.column(TAKEN, "began")
        self.collated = self.column(COLLATED, "ended")
        self.worker = self.workers()
        self.ended = np.full(len(self.numbers), NAN)
        self.status = self.fates()

    def of(self, kind: int) -> Rows:
        """The records of one kind that belong to a batch."""
        rows: Rows = self.rows[(self.rows["kind"] == kind) & (self.rows["batch"] >= 0)]
        return rows

    @property
    def took(self) -> float:
        """Seconds of a typical sample; infinite where none was seen."""
        rows = self.of(SAMPLE)
        return float(np.median(rows["ended"] - rows["began"])) if len(rows) else float("inf")

    def column(self, kind: int, name: str) -> Floats:
        """A column of the records of one kind, by batch number; NaN where there is none."""
        values = np.full(len(self.numbers), NAN)
        rows = self.of(kind)
        values[rows["batch"]] = rows[name]
        return values

    def workers(self) -> NDArray[np.int32]:
        """Who took each batch.

        Batches that nobody has taken went round robin, if all others of their epoch did; else
        their worker is not known, and -1.
        """
        worker = np.full(len(self.numbers), MAIN, np.int32)
        rows = self.of(TAKEN)
        worker[rows["batch"]] = rows["worker"]
        if self.setup.num_workers == 0:
            return worker
        turn = (self.numbers - self.first[self.epoch]) % self.setup.num_workers
        untaken = np.isnan(self.taken)
        for epoch in np.unique(self.epoch[untaken]):
            here = self.epoch == epoch
            if np.array_equal(worker[here & ~untaken], turn[here & ~untaken]):
                worker[here & untaken] = turn[here & untaken]
        return worker

    def left(self) -> Floats:
        """For each batch, when the loop of its epoch was left."""
        end = self.log.failure.time if self.log.failure else NAN
        times = np.array(self.log.left + [end] * (len(self.first) - len(self.log.left)))
        left: Floats = times[self.epoch]
        return left

    def fates(self) -> NDArray[np.uint8]:
        """What became of each batch, but for one that failed."""
        status = np.full(len(self.numbers), PENDING, np.uint8)
        status[self.order] = RETURNED
        uncollated = np.isnan(self.collated) & (self.taken <= self.left())
        for row in self.of(EXHAUSTED):
            # A partial batch is still collated; the next one is then answered with the end.
            rest = uncollated & (self.worker == row["worker"]) & (self.numbers >= row["batch"])
            rest &= self.epoch == self.epoch[row["batch"]]
            after = np.flatnonzero(rest)
            status[after[:1]] = ENDED
            self.ended[after[:1]] = self.taken_in(row)
            status[after[1:]] = SKIPPED
        if self.setup.persistent_workers:
            answered = ~np.isnan(self.collated)
            answered[self.of(RAISED)["batch"]] = True
            answered[self.of(EXHAUSTED)["batch"]] = True
            resumed = self.epoch < len(self.log.primed) - 1
            status[(status == PENDING) & answered & resumed] = DISCARDED
        return status

    def taken_in(self, word: Any) -> float:
        """When the main process first can have known what a worker said: in a `next()`.

        In one of the same epoch; the last of them returns nothing.
        """
        epoch, said = self.epoch[word["batch"]], float(word["ended"])
        asked = self.log.primed[epoch : epoch + 1]
        for back, finished in zip_longest(self.log.returns, self.log.finished):
            if self.epoch[back.batch] == epoch:
                if back.returned >= said:
                    return max(said, back.requested)
                asked = [finished or back.returned]
        return max(said, *asked)

    def observation(self, meta: Meta) -> Observation:
        """The finished trace; times count from the start of the first epoch."""
        problem = meta.problem
        if problem is not None and problem.batch >= 0 and problem.kind != "worker":
            self.status[problem.batch] = FAILED
        log, order, nan = self.log, self.order, np.full(len(self.numbers), NAN)
        seen = [back.columns() for back in log.returns]
        back = {name: nan.copy() for name in UNRETURNED}
        for name, values in back.items():
            values[order] = [one[name] for one in seen]
        entered, left, released, begun, ended = (nan.copy() for _ in range(5))
        entered[order[: len(log.entered)]] = log.entered[: len(order)]
        left[order[: len(log.finished)]] = log.finished
        released[order[: len(log.released)]] = log.released
        on_device = np.array(log.device).reshape(-1, 2)[: len(log.finished)]
        begun[order[: len(on_device)]], ended[order[: len(on_device)]] = on_device.T
        stepped = np.fmax(left, ended)
        # A message taken while workers are told to stop is not worked on.
        working = ~np.isnan(self.collated) | (self.taken <= self.left())
        working &= self.status != SKIPPED
        received = np.where(self.status == ENDED, self.ended, back["received"])
        if self.setup.num_workers == 0:
            received = self.collated
        size = np.where(np.isnan(self.collated), self.asked, self.column(COLLATED, "what"))
        size[(self.status == ENDED) | (self.status == SKIPPED) | (self.status == FAILED)] = 0
        samples, sample_rows = self.samples()
        return Observation(
            sent=np.array([time for time, _ in log.draws]) - self.zero,
            started=np.where(working, self.taken, NAN) - self.zero,
            fetched=self.collated - self.zero,
            arrived=(self.collated if self.setup.num_workers == 0 else nan) - self.zero,
            received=received - self.zero,
            requested=back["requested"] - self.zero,
            returned=back["returned"] - self.zero,
            finished=np.fmax(stepped, released) - self.zero,
            stepped=stepped - self.zero if log.released else None,
            worker=self.worker,
            size=size.astype(np.int32),
            status=self.status,
            order=order,
            epochs=self.epochs(),
            meta=meta,
            samples=samples if self.setup.samples else None,
            validation=None,
            reading=None,
            **self.beginnings(),
            collating=self.column(COLLATED, "began") - self.zero,
            collate_cpu=self.column(COLLATED, "cpu"),
            collate_queued=self.column(COLLATED, "queued"),
            pinning=back["pinning"] - self.zero,
            pinned=back["pinned"] - self.zero,
            entered=entered - self.zero,
            left=left - self.zero,
            device_began=begun - self.zero,
            device_ended=ended - self.zero,
            serialising=self.column(SERIALISED, "began") - self.zero,
            serialised=self.column(SERIALISED, "ended") - self.zero,
            serialise_cpu=self.column(SERIALISED, "cpu"),
            rebuilding=back["rebuilding"] - self.zero,
            cpu_started=np.where(working, self.column(TAKEN, "used"), NAN),
            cpu_fetched=self.column(COLLATED, "used"),
            thread_started=np.where(working, self.column(TAKEN, "cpu"), NAN),
            queued_started=np.where(working, self.column(TAKEN, "queued"), NAN),
            **{name: back[name] for name in MAIN_COLUMNS},
            **self.payload(),
            sample_cpu=sample_rows["cpu"].copy(),
            sample_queued=sample_rows["queued"].copy(),
        )

    def beginnings(self) -> dict[str, Floats]:
        """When and how each worker got ready, at its first batch."""
        columns = ("initialising", "initialised", "init_cpu", "init_queued")
        found = {name: np.full(len(self.numbers), NAN) for name in columns}
        rows = self.rows
        for process in np.unique(rows["process"][rows["kind"] == READY]):
            mine = rows[rows["process"] == process]
            taken = mine[(mine["kind"] == TAKEN) & (mine["batch"] >= 0)]["batch"]
            ready = mine[(mine["kind"] == READY) & (mine["batch"] < 0)]  # not of later epochs
            if len(taken) and len(ready):
                found["initialising"][taken[0]] = ready["began"].min() - self.zero
                found["initialised"][taken[0]] = ready["ended"].max() - self.zero
                for name in ("cpu", "queued"):
                    found[f"init_{name}"][taken[0]] = ready[name].sum()
        return found

    def payload(self) -> dict[str, Floats]:
        """What the batches are made of that were looked at."""
        columns = {name: np.full(len(self.numbers), NAN) for name in Payload._fields}
        for batch, payload in self.log.payloads.items():
            for name, value in payload._asdict().items():
                columns[name][batch] = value
        return columns

    def epochs(self) -> Epochs:
        """The epochs; NaN for what an error kept from happening."""
        columns = {
            name: np.array(times + [NAN] * (len(self.first) - len(times))) - self.zero
            for name in ("started", "primed", "ended")
            for times in [getattr(self.log, name)]
        }
        return Epochs(first=self.first, **columns)

    def samples(self) -> tuple[Samples, Rows]:
        """The samples seen, by batch, then as fetched; and the records they were seen in."""
        rows: Any = self.of(SAMPLE)
        rows = rows[np.argsort(rows["batch"], kind="stable")]
        found = Samples(
            index=rows["what"].astype(np.int64),
            batch=rows["batch"].astype(np.int64),
            worker=rows["worker"].astype(np.int32),
            started=rows["began"] - self.zero,
            fetched=rows["ended"] - self.zero,
        )
        return found, rows
