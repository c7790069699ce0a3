"""Metrics of a run on the event loop, taken from its columns before they are used again.

Levels (batches ready, sent, or held) are settled up to the moment at which the oldest batch that
is still on its way was sent: nothing that is not yet known can change them before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dlsim.engine.compiled.messages import EXHAUSTED, FINISHED
from dlsim.engine.draws import Floats
from dlsim.engine.facts import meets_after, only_processes
from dlsim.scenario import Scenario
from dlsim.trace import metrics
from dlsim.trace import trace as fates
from dlsim.trace.levels import Level
from dlsim.trace.tally import EXPONENTS, FINEST, KEPT, MOST_MARKS, PARTS, Marks, Tally
from dlsim.trace.trace import MOMENTS
from dlsim.trace.work import in_an_epoch

FIRST_STRIDE = 5  # batches between two marks


def goes_on(scenario: Scenario) -> bool:
    """Whether nothing ends an epoch before everything that was sent has come to its end.

    And a credit is given back at the moment of a return, as no main process stands aside before it.
    """
    early = scenario.consumer.stop_after is not None or scenario.loader.timeout > 0
    loader = scenario.loader
    other = loader.endless or loader.refill != "return" or only_processes(scenario) is not None
    aside = scenario.machine.slices > 0 and not scenario.ideal
    return not (early or other or scenario.failures or aside)


class Waits:
    """How long `next()` waited: each time, while these are few, and how often in each class."""

    def __init__(self) -> None:
        self.classes = np.zeros(PARTS * EXPONENTS + 1, np.int64)
        self.counted = 0
        self._each: list[Floats] = []

    def add(self, waits: Floats) -> None:
        """Take in some of them, in seconds."""
        self.counted += len(waits)
        if self.counted <= KEPT:
            self._each.append(waits)
        else:
            self._each.clear()
        part, exponent = np.frexp(waits)
        number = (exponent - 1 - FINEST) * PARTS + ((2 * part - 1) * PARTS).astype(np.int64) + 1
        number = np.where(waits > 0, np.clip(number, 0, len(self.classes) - 1), 0)
        np.add.at(self.classes, number, 1)

    @cached_property
    def in_order(self) -> Floats | None:
        """All of them, the shortest first; None where there are too many. Asked for at the end."""
        return np.sort(np.concatenate((*self._each, np.empty(0)))) if self.counted <= KEPT else None


class Met:
    """When the ranks of a job met, in order: what is known of each meeting, and grows."""

    def __init__(self, meetings: int) -> None:
        self.come = np.zeros(meetings)  # ranks that came
        self.stepped = np.zeros(meetings)  # sum of the moments at which they did,
        self.latest = np.full(meetings, -np.inf)  # and the last of these
        self.released = np.full(meetings, np.nan)  # when all went on

    def add(self, first: int, stepped: Floats, finished: Floats) -> None:
        """A rank came to the meetings from `first` on."""
        here = slice(first, first + len(stepped))
        self.come[here] += 1
        self.stepped[here] += stepped
        self.latest[here] = np.maximum(self.latest[here], stepped)
        self.released[here] = finished

    def amplification(self, begin: float) -> float:
        """Barrier amplification of a job that began then (see `dlsim.trace.job_metrics`)."""
        met = self.come > 0
        before = np.append(begin, self.released[met][:-1])
        slowest = self.latest[met] - before
        mean = self.stepped[met] / self.come[met] - before
        return metrics.ratio(float(slowest.sum()), float(mean.sum()))


class Counting:
    """The tally of a run in the making; of one rank of many, what all have in common is given.

    `meetings`: the first one of each epoch; None where they are counted over all epochs.
    """

    def __init__(
        self,
        scenario: Scenario,
        waits: Waits | None = None,
        met: Met | None = None,
        meetings: Sequence[int] | None = None,
    ) -> None:
        self.scenario, self.waits, self.met = scenario, waits or Waits(), met
        self._meetings, self._sized = meetings, scenario.dataset.sample_bytes.mean > 0
        self._attended = 0
        self.at_barrier = 0.0
        workers = scenario.loader.num_workers
        self.settled = 0  # batches that are not looked at again
        self.counted = 0  # batches returned that are
        self.samples = self.held = 0
        self.wait = self.step = self.buffer = self.lost = 0.0
        self.busy = np.zeros(workers)
        self.ready, self.content, self.credit, self.early = (Level() for _ in range(4))
        self.first = [np.nan, np.nan]  # when the first batch was requested, and returned
        self.marks: list[Marks] = []
        self._accelerator = self._computed = self._copied = -np.inf
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._ended_at = np.full(max(len(self.busy), 1), np.inf)  # each worker's iterator
        self._stride, self._returned = FIRST_STRIDE, 0
        self._sums = np.zeros(3)  # waited, stepped, samples
        self._points: Floats = np.empty((4, 0))

    def take(
        self,
        columns: dict[str, Any],
        base: int,
        returned: Any,
        over: int,
        oldest: int,
        until: float,
    ) -> None:
        """Take in the batches `returned` since the last time, and all numbers before `oldest`.

        Of so many of them the steps are `over`; the others are taken in the next time. `columns`
        begin with batch `base`. Whatever happens before `until` (seconds) is known.
        """
        self._count(columns, returned[:over] - base)
        self._add_lost(columns, returned - base, over)
        self.counted += over
        new = slice(self.settled - base, oldest - base)
        self._settle({name: column[new] for name, column in columns.items()}, until)
        self.settled = oldest

    def _count(self, columns: dict[str, Any], rows: Any) -> None:
        """Batches returned, in the order of return."""
        if not len(rows):
            return
        requested, returned, finished, arrived, stepped = (
            columns[name][rows]
            for name in ("requested", "returned", "finished", "arrived", "stepped")
        )
        wait, size = returned - requested, columns["size"][rows].astype(np.int64)
        if self.counted == 0:
            self.first = [float(requested[0]), float(returned[0])]
        began, ended = metrics.computing(
            returned, finished, size, self.scenario, self._accelerator, self._copied
        )
        if self.met is not None:
            ended = np.fmin(ended, stepped)
            self._meet(stepped, finished)
        free = np.append(self._computed, ended[:-1])
        copies = self.scenario.copying(1.0) * size
        self._copied = float(metrics.arrivals(returned, copies, self._copied)[-1])
        self._computed = float(ended[-1])
        self._accelerator = max(self._accelerator, float(finished.max()))
        self.wait += float(wait.sum())
        self.step += float((ended - began).sum())
        self.buffer += float((returned - arrived).sum())
        self.samples += int(size.sum())
        self.waits.add(wait)
        self._add_marks(returned, wait, ended - began, np.maximum(free - returned, 0.0), size)

    def _meet(self, stepped: Floats, finished: Floats) -> None:
        """The rank has done some steps, and met others after some of these."""
        assert self.met is not None
        self.at_barrier += float((finished - stepped).sum())
        every = meets_after(self.scenario)
        mine = slice(every - 1 - self._returned % every, None, every)
        if len(some := stepped[mine]):
            self.met.add(self._attended, some, finished[mine])
            self._attended += len(some)

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

    def _add_lost(self, columns: dict[str, Any], rows: Any, count: int) -> None:
        """Add what the first `count` batches were waited for while a later one had arrived."""
        if not count:
            return
        coming = (columns["status"] == fates.PENDING) & (columns["outcome"] != EXHAUSTED)
        line = np.append(rows, np.flatnonzero(coming))
        arrived = np.nan_to_num(columns["arrived"][line], nan=np.inf)
        later = np.append(np.minimum.accumulate(arrived[::-1])[::-1][1:], np.inf)[:count]
        lost = arrived[:count] - np.maximum(columns["requested"][rows[:count]], later)
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
        if self._sized:
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
        if self._meetings is not None:
            self._attended = self._meetings[len(self.marks)]
        self._start_epoch()

    def tally(self, started: Floats, ended: Floats) -> Tally:
        """What was counted, with the beginnings and ends of the epochs in seconds."""
        size = self.scenario.dataset.sample_bytes.mean
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
            waits=self.waits.in_order,
            classes=self.waits.classes,
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
    stepped = state.stepped[0, :count] if len(state.stepped) else state.moments[FINISHED, :count]
    outcome = state.batches["outcome"][:count]
    return {**dict(moments), **others, "outcome": outcome, "stepped": stepped}
