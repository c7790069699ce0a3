"""Metrics of a run on the event loop, taken from its columns before they are used again.

Levels (batches ready, sent, or held) are settled up to the moment at which the oldest batch that
is still on its way was sent: nothing that is not yet known can change them before that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.engine.compiled.messages import EXHAUSTED
from dlsim.engine.draws import Floats
from dlsim.engine.facts import only_processes
from dlsim.scenario import Scenario
from dlsim.trace import metrics
from dlsim.trace import trace as fates
from dlsim.trace.levels import Level
from dlsim.trace.tally import EXPONENTS, FINEST, KEPT, MOST_MARKS, PARTS, Marks, Tally
from dlsim.trace.trace import MOMENTS
from dlsim.trace.work import in_an_epoch

FIRST_STRIDE = 5  # batches between two marks


def goes_on(scenario: Scenario) -> bool:
    """Whether nothing ends an epoch before everything that was sent has come to its end."""
    early = scenario.consumer.stop_after is not None or scenario.loader.timeout > 0
    loader = scenario.loader
    other = loader.endless or loader.refill != "return" or only_processes(scenario) is not None
    return not (early or other or scenario.failures)


class Counting:
    """The tally of a run in the making."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        workers = scenario.loader.num_workers
        self.settled = 0  # batches that are not looked at again
        self.counted = 0  # batches returned that are
        self.samples = self.held = 0
        self.wait = self.step = self.buffer = self.lost = 0.0
        self.busy = np.zeros(workers)
        self.ready, self.content, self.credit, self.early = (Level() for _ in range(4))
        self.classes = np.zeros(PARTS * EXPONENTS + 1, np.int64)
        self.waits: list[Floats] = []
        self.first = [np.nan, np.nan]  # when the first batch was requested, and returned
        self.marks: list[Marks] = []
        self._accelerator = self._copied = -np.inf
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._ended_at = np.full(max(len(self.busy), 1), np.inf)  # each worker's iterator
        self._stride, self._returned = FIRST_STRIDE, 0
        self._sums = np.zeros(3)  # waited, stepped, samples
        self._points: Floats = np.empty((4, 0))

    def take(
        self, columns: dict[str, Any], base: int, returned: Any, oldest: int, until: float
    ) -> None:
        """Take in the batches `returned` since the last time, and all numbers before `oldest`.

        `columns` begin with batch `base`. Whatever happens before `until` (seconds) is known.
        """
        self._count(columns, returned - base)
        self.counted += len(returned)
        new = slice(self.settled - base, oldest - base)
        self._settle({name: column[new] for name, column in columns.items()}, until)
        self.settled = oldest

    def _count(self, columns: dict[str, Any], rows: Any) -> None:
        """Batches returned, in the order of return."""
        if not len(rows):
            return
        requested, returned, finished, arrived = (
            columns[name][rows] for name in ("requested", "returned", "finished", "arrived")
        )
        wait, size = returned - requested, columns["size"][rows].astype(np.int64)
        if self.counted == 0:
            self.first = [float(requested[0]), float(returned[0])]
        began, ended = metrics.computing(
            returned, finished, size, self.scenario, self._accelerator, self._copied
        )
        free = np.append(self._accelerator, ended[:-1])
        copies = self.scenario.copying(1.0) * size
        self._copied = float(metrics.arrivals(returned, copies, self._copied)[-1])
        self._accelerator = float(ended[-1])
        self.wait += float(wait.sum())
        self.step += float((ended - began).sum())
        self.buffer += float((returned - arrived).sum())
        self.samples += int(size.sum())
        if self.counted + len(rows) <= KEPT:
            self.waits.append(wait)
        part, exponent = np.frexp(wait)
        number = (exponent - 1 - FINEST) * PARTS + ((2 * part - 1) * PARTS).astype(np.int64) + 1
        number = np.where(wait > 0, np.clip(number, 0, len(self.classes) - 1), 0)
        self.classes += np.bincount(number, minlength=len(self.classes))
        self._add_marks(returned, wait, ended - began, np.maximum(free - returned, 0.0), size)
        self._add_lost(columns, rows)

    def _add_marks(
        self, returned: Floats, wait: Floats, step: Floats, under_way: Floats, size: Any
    ) -> None:
        """Write down where the epoch stood after every so many batches.

        `under_way`: what is left of earlier steps when a batch is returned.
        """
        sums = self._sums[:, None] + np.cumsum((wait, step, size), axis=1)
        self._sums = sums[:, -1].copy()
        sums[1] -= step + under_way
        self._last = (float(returned[-1]), *sums[:, -1].tolist())
        at = np.arange((-self._returned) % self._stride, len(wait), self._stride)
        points = np.vstack((returned, sums))[:, at]
        self._points = np.hstack((self._points, points))
        self._returned += len(wait)
        while self._points.shape[1] > MOST_MARKS:
            self._points = self._points[:, ::2]
            self._stride *= 2

    def _add_lost(self, columns: dict[str, Any], rows: Any) -> None:
        """Add what batches were waited for while a later one had arrived."""
        coming = (columns["status"] == fates.PENDING) & (columns["outcome"] != EXHAUSTED)
        line = np.append(rows, np.flatnonzero(coming))
        arrived = np.nan_to_num(columns["arrived"][line], nan=np.inf)
        later = np.append(np.minimum.accumulate(arrived[::-1])[::-1][1:], np.inf)[: len(rows)]
        lost = arrived[: len(rows)] - np.maximum(columns["requested"][rows], later)
        self.lost += float(np.maximum(lost, 0.0).sum())

    def _settle(self, new: dict[str, Any], until: float) -> None:
        """Batches that are not looked at again, by number."""
        status, worker, received = new["status"], new["worker"], new["received"]
        ended = status == fates.ENDED
        self._ended_at[worker[ended]] = received[ended]
        back = np.where(status == fates.RETURNED, new["returned"], received)
        skipped = status == fates.SKIPPED
        back[skipped] = self._ended_at[worker[skipped]]
        sent = worker >= 0
        self.credit.add(new["sent"][sent], back[sent], 1, until)
        done = status == fates.RETURNED
        come, go, size = new["arrived"][done], back[done], new["size"][done].astype(np.int64)
        self.ready.add(come, go, 1, until)
        self.content.add(come, go, size, until)
        early = new["received"] < new["requested"]
        self.held += int(early.sum())
        self.early.add(received[early], back[early], 1, until)
        spent = np.where(np.isnan(new["fetched"]), new["arrived"], new["fetched"]) - new["started"]
        mine = sent & ~np.isnan(spent)
        self.busy += np.bincount(worker[mine], spent[mine], len(self.busy))

    def end_epoch(self) -> None:
        """Everything of an epoch is taken in."""
        points = self._points
        if self._returned:
            points = np.column_stack((points, self._last))
        self.marks.append(Marks(self._stride, self._returned, *points))
        self._start_epoch()

    def tally(self, started: Floats, ended: Floats) -> Tally:
        """What was counted, with the beginnings and ends of the epochs in seconds."""
        size, few = self.scenario.dataset.sample_bytes.mean, self.counted <= KEPT
        waits = np.sort(np.concatenate((*self.waits, np.empty(0)))) if few else None
        return Tally(
            batches=self.counted,
            samples=self.samples,
            distinct=self.samples * in_an_epoch(self.scenario).share,
            lost=self.scenario.epochs * in_an_epoch(self.scenario).lost,
            elapsed=float(ended[-1] - started[0]),
            first_batch=self.first[1] - float(started[0]),
            epoch_times=ended - started,
            wait_first=self.first[1] - self.first[0],
            wait=self.wait,
            step=self.step,
            waits=waits,
            classes=self.classes,
            buffer=self.buffer,
            buffer_max=int(self.ready.highest),
            buffer_bytes=self.content.highest * size if size else np.nan,
            credit_max=int(self.credit.highest),
            held=self.held,
            held_max=int(self.early.highest),
            head_of_line=self.lost,
            busy=self.busy if len(self.busy) else np.array([np.nan]),
            marks=tuple(self.marks),
        )


def columns_of(state: Any, count: int) -> dict[str, Any]:
    """The columns of the first `count` batches of a state, by name."""
    moments = zip(MOMENTS, state.moments[:, :count], strict=True)
    others = {name: getattr(state, name)[:count] for name in ("worker", "size", "status")}
    return {**dict(moments), **others, "outcome": state.batches["outcome"][:count]}
