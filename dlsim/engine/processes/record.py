"""Writing down what happens while it happens, in 81 bytes for each batch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from dlsim.trace.trace import (
    MOMENTS,
    PENDING,
    RETURNED,
    SKIPPED,
    Epochs,
    Meta,
    Problem,
    Samples,
    Trace,
)

NAN = float("nan")


class Recorder:
    """The columns of a trace in the making; `sent_to` opens a row, the rest fill it in."""

    def __init__(self, *, samples: bool, meets: bool = False) -> None:
        self.sent = array("d")
        self.started = array("d")
        self.fetched = array("d")
        self.arrived = array("d")
        self.received = array("d")
        self.requested = array("d")
        self.returned = array("d")
        self.finished = array("d")
        self.worker = array("i")
        self.size = array("i")
        self.status = array("B")
        self.order = array("q")
        self.first = array("q")
        self.epoch_started = array("d")
        self.epoch_primed = array("d")
        self.epoch_ended = array("d")
        self.problem: Problem | None = None
        self.caught: list[Problem] = []
        self.over: float | None = None  # when the rank had left its last epoch, if others go on
        self._later = [getattr(self, name) for name in MOMENTS[1:]]
        self.stepped = array("d")  # where the rank meets others after its steps
        if meets:
            self._later.append(self.stepped)
        self._meets = meets
        self.samples: SampleRecorder | None = SampleRecorder() if samples else None

    def __len__(self) -> int:
        return len(self.sent)

    def sent_to(self, worker: int, size: int, now: float) -> None:
        """A new batch number: `size` samples are asked of `worker`."""
        self.sent.append(now)
        for column in self._later:
            column.append(NAN)
        self.worker.append(worker)
        self.size.append(size)
        self.status.append(PENDING)

    def returned_to_user(self, number: int, requested: float, now: float) -> None:
        """The `next()` called at `requested` returns batch `number`."""
        self.requested[number] = requested
        self.returned[number] = now
        self.status[number] = RETURNED
        self.order.append(number)

    def skipped(self, number: int) -> None:
        """Batch `number` was sent to a worker that had ended."""
        self.status[number] = SKIPPED
        self.size[number] = 0

    def epoch(self, now: float, *, endless: bool = False) -> None:
        """A new epoch: `iter(loader)` is called.

        Of an `endless` sampler, a window of its batches is already sent.
        """
        self.first.append(len(self.order) if endless else len(self))
        self.epoch_started.append(now)
        self.epoch_primed.append(NAN)
        self.epoch_ended.append(NAN)

    def trace(
        self,
        meta: Meta,
        end: float,
        *,
        validation: Trace | None = None,
        reading: Trace | None = None,
    ) -> Trace:
        """The finished trace, which ends at `end`; the columns are handed over, not copied."""
        columns = {name: np.frombuffer(getattr(self, name), np.float64) for name in MOMENTS}
        # An accelerator may have been behind the host when an error ended the loop.
        columns["finished"][columns["finished"] > end] = np.nan
        if self._meets:
            columns["stepped"] = np.frombuffer(self.stepped)
        return Trace(
            **columns,
            worker=np.frombuffer(self.worker, np.int32),
            size=np.frombuffer(self.size, np.int32),
            status=np.frombuffer(self.status, np.uint8),
            order=np.frombuffer(self.order, np.int64),
            epochs=Epochs(
                first=np.frombuffer(self.first, np.int64),
                started=np.frombuffer(self.epoch_started),
                primed=np.frombuffer(self.epoch_primed),
                ended=np.frombuffer(self.epoch_ended),
            ),
            meta=meta,
            samples=self.samples.finish(end) if self.samples is not None else None,
            validation=validation,
            reading=reading,
        )


class SampleRecorder:
    """The rows of `Trace.samples` in the making."""

    def __init__(self) -> None:
        self.index = array("q")
        self.batch = array("q")
        self.worker = array("i")
        self.started = array("d")
        self.fetched = array("d")

    def begin(self, indices: Sequence[int], batch: int, worker: int, started: float) -> int:
        """Samples begun, possibly in the near future; returns the row of the first one.

        `finish` leaves out what did not happen.
        """
        row = len(self.index)
        for index in indices:
            self.index.append(index)
            self.batch.append(batch)
            self.worker.append(worker)
            self.started.append(started)
            self.fetched.append(NAN)
        return row

    def end(self, row: int, count: int, fetched: float) -> None:
        """`count` samples from `row` on are fetched, possibly in the near future."""
        for i in range(row, row + count):
            self.fetched[i] = fetched

    def cut(self, batch: int, now: float) -> None:
        """Its worker is terminated: what would happen of `batch` after `now` does not."""
        for i in range(len(self.batch) - 1, -1, -1):
            if self.batch[i] == batch and not self.fetched[i] <= now:
                self.fetched[i] = NAN
                if self.started[i] > now:
                    self.started[i] = NAN

    def finish(self, end: float) -> Samples:
        """The samples begun until `end` (seconds), ordered by batch, then as fetched."""
        batch = np.frombuffer(self.batch, np.int64)
        started = np.frombuffer(self.started)
        rows = np.argsort(batch, kind="stable")
        rows = rows[started[rows] <= end]
        fetched = np.frombuffer(self.fetched)[rows]
        return Samples(
            index=np.frombuffer(self.index, np.int64)[rows],
            batch=batch[rows],
            worker=np.frombuffer(self.worker, np.int32)[rows],
            started=started[rows],
            fetched=np.where(fetched <= end, fetched, np.nan),
        )
