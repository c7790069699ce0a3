"""The schedule as a film: batches as tokens, the places they are at, and a frame for each event.

Every frame says what has just happened, why, and by which rule; and which tokens move where. A
place is `index 0` (the index queue of worker 0), `worker 0`, `results` (the result queue that all
share), `kept` (received before it is wanted), `main` (next() has it), `device` (it is trained on),
or `gone`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from dlsim.report.text import setup
from dlsim.scenario.errors import require
from dlsim.show.order import (
    ARRIVED,
    EPOCH_BEGINS,
    EPOCH_ENDS,
    FETCHED,
    FINISHED,
    RAISED,
    RECEIVED,
    REQUESTED,
    RETURNED,
    SAMPLE,
    SENT,
    STARTED,
    STEPPED,
    Event,
    Turns,
    happenings,
    turns,
)
from dlsim.show.why import Why
from dlsim.trace import MOMENTS
from dlsim.trace.metrics import span, worker_count
from dlsim.trace.narration import sample_sentence, sentence
from dlsim.trace.stays import given_back
from dlsim.trace.trace import DISCARDED, ENDED, FAILED, SKIPPED, Trace
from dlsim.trace.trace import RETURNED as GIVEN

MOST = 600  # frames of a film


class Move(Struct, frozen=True, omit_defaults=True):
    """Batch `batch` is now at the place `to`; beneath its number stands `note`.

    `kind`: "end" for word that a worker has nothing more, "error" for an exception.
    """

    batch: int
    to: str
    note: str = ""
    kind: str = ""


class Frame(Struct, frozen=True, omit_defaults=True):
    """One event: when, what, why, by which rule (a name in `dlsim.show.quotes`), what moves.

    `at`: the moment in seconds; `time`: the same as people write it.
    `main`: what the main process is at from now on. `credit`: batches sent and not returned.
    """

    at: float
    time: str
    say: str
    why: str
    rule: str
    moves: tuple[Move, ...]
    main: str
    credit: int


class Film(Struct, frozen=True):
    """A stretch of a run. `start`: where each batch is before the first frame.

    `first`, `last`: the first batch that is sent or returned in it, and the last; `whole`: whether
    it is all of the run; `meets`: whether it is of a rank that waits for others. `about`: the
    loader's settings.
    """

    about: str
    workers: int
    window: int
    pins: bool
    device: str
    begin: float
    end: float
    start: tuple[Move, ...]
    credit: int
    main: str
    frames: tuple[Frame, ...]
    first: int
    last: int
    whole: bool
    meets: bool

    @property
    def during(self) -> tuple[float, float]:
        """From when to when, in seconds."""
        return self.begin, self.end


def film(trace: Trace, batch: int = 0, most: int = MOST) -> Film:
    """The film of `trace` from the moment at which `batch` is sent, `most` frames or a few more.

    Raises `ScenarioError` for rules that are not torch's, whose causes it cannot tell.
    """
    begin, end = _stretch(trace, batch, most)
    scenario = trace.meta.scenario
    assert scenario is not None
    for key, shown in (("dispatch", ("turns", "dealt")), ("refill", ("return",))):
        value, words = getattr(scenario.loader, key), " or ".join(shown)
        way_out = "which the film shows (what happens else, `dlsim run` shows with --plot or -v)"
        require(value in shown, f"loader.{key}", f"{words}, {way_out}", value)
    known = turns(trace)
    stage = _Stage(trace, known, begin)
    start, credit, main = tuple(stage.there.values()), stage.credit, stage.main
    frames = list(stage.frames(end))
    whole = begin == -np.inf and end == np.inf
    seen = np.flatnonzero((trace.sent < end) & ~(_gone(trace) < begin))
    return Film(
        about=setup(scenario),
        workers=worker_count(trace),
        window=scenario.loader.window,
        pins=scenario.loader.pin_memory,
        device=scenario.consumer.device,
        begin=max(begin, span(trace)[0]),
        end=min(end, span(trace)[1]),
        start=start,
        credit=credit,
        main=main,
        frames=tuple(frames),
        first=int(seen.min(initial=len(trace))) if len(seen) else 0,
        last=int(seen.max(initial=0)),
        whole=whole,
        meets=trace.stepped is not None,
    )


def _stretch(trace: Trace, batch: int, most: int) -> tuple[float, float]:
    """From which moment to which: the whole run, if it has few events."""
    times = np.concatenate([getattr(trace, name) for name in MOMENTS])
    if trace.samples is not None:
        times = np.append(times, trace.samples.started)
    times = np.sort(times[~np.isnan(times)])
    if len(times) <= most:
        return -np.inf, np.inf
    begin = trace.sent[min(max(batch, 0), len(trace) - 1)] if batch > 0 else -np.inf
    last = int(np.searchsorted(times, begin)) + most
    return float(begin), float(times[last]) if last < len(times) else np.inf


def _gone(trace: Trace) -> NDArray[np.float64]:
    """When each batch has left the stage."""
    gone = given_back(trace)
    given = trace.status == GIVEN
    gone[given] = np.where(np.isnan(trace.finished), np.inf, trace.finished)[given]
    return gone


class _Stage:
    """Where every batch is, while the film goes on."""

    def __init__(self, trace: Trace, known: Turns, begin: float) -> None:
        self.trace, self.known, self.begin = trace, known, begin
        self.why = Why(trace, known)
        self.sent_for = set(known.trigger.tolist())
        present = np.flatnonzero((trace.sent < begin) & ~(_gone(trace) < begin))
        self.there = {int(batch): self._before(int(batch)) for batch in present}
        back = given_back(trace)
        self.credit = int(((trace.sent < begin) & (back >= begin) & (trace.worker >= 0)).sum())
        asked = (trace.requested < begin) & ~(trace.returned < begin)
        had = trace.order[trace.returned[trace.order] < begin]
        self.main = "in next()" if asked.any() else f"has batch {had[-1]}" if len(had) else ""

    def _before(self, batch: int) -> Move:
        trace, worker = self.trace, self.trace.worker[batch]
        if trace.returned[batch] < self.begin:
            return Move(batch, "device")
        if trace.received[batch] < self.begin:
            return Move(batch, "kept", kind=self._kind(batch))
        if trace.arrived[batch] < self.begin:
            return Move(batch, "results", kind=self._kind(batch))
        if trace.started[batch] < self.begin:
            return Move(batch, f"worker {worker}")
        return Move(batch, f"index {worker}")

    def _kind(self, batch: int) -> str:
        return {ENDED: "end", SKIPPED: "end", FAILED: "error"}.get(self.trace.status[batch], "")

    def frames(self, end: float) -> Iterator[Frame]:
        """A frame for each event until `end`."""
        clock = _clock(self.trace)
        for event in happenings(self.trace, self.known, self.begin, end):
            moves = tuple(self._moves(event))
            for move in moves:
                if move.to == "gone":
                    self.there.pop(move.batch, None)
                else:
                    self.there[move.batch] = move
            self._count(event, moves)
            self.main = self._at(event) or self.main
            why, rule = self.why.of(event)
            yield Frame(
                event.time,
                clock(event.time),
                self._say(event),
                why,
                rule,
                moves,
                self.main,
                self.credit,
            )
        problem = self.trace.meta.problem
        if problem is not None and end == np.inf:
            said = f"the loop ended: {problem.message}"
            yield Frame(
                problem.time, clock(problem.time), said, "", "error", (), "ended", self.credit
            )

    def _say(self, event: Event) -> str:
        if event.kind == SAMPLE:
            return sample_sentence(self.trace, event.row)
        if event.kind == RAISED:
            return (
                f"next() raises, and the loop goes on: {self.trace.meta.caught[event.row].message}"
            )
        if event.kind == STEPPED:
            return f"the step on batch {event.batch} is computed, and waits for the other ranks"
        if event.kind == EPOCH_BEGINS:
            return f"epoch {event.row} begins: iter(loader) is called"
        if event.kind == EPOCH_ENDS:
            return f"epoch {event.row} ends"
        return sentence(self.trace, event.kind, event.batch)

    def _moves(self, event: Event) -> Iterator[Move]:
        trace, batch, kind = self.trace, event.batch, event.kind
        worker = int(trace.worker[batch]) if batch >= 0 else -1
        at = f"worker {worker}" if worker >= 0 else "main"
        if kind == SENT:
            yield Move(batch, f"index {worker}" if worker >= 0 else "main")
        elif kind == STARTED:
            yield Move(batch, at)
        elif kind == SAMPLE and trace.samples is not None:
            yield Move(batch, at, f"row {trace.samples.index[event.row]}")
        elif kind == FETCHED:
            yield Move(batch, at, "whole")
        elif kind == ARRIVED and worker >= 0:
            yield Move(batch, "results", kind=self._kind(batch))
        elif kind == RECEIVED:
            yield from self._received(batch)
        elif kind == RETURNED:
            yield Move(batch, "device")
        elif kind == STEPPED:
            yield Move(batch, "device", "waits")
        elif kind == FINISHED or (kind == RAISED and batch >= 0):
            yield Move(batch, "gone")
        elif kind == EPOCH_ENDS:
            yield from self._left(event.row)

    def _received(self, batch: int) -> Iterator[Move]:
        trace, status = self.trace, self.trace.status[batch]
        if status == DISCARDED:
            yield Move(batch, "gone")
        elif status == ENDED:
            yield Move(batch, "gone")
            for other in list(self.there):
                mine = trace.worker[other] == trace.worker[batch]
                if mine and trace.status[other] == SKIPPED:
                    yield Move(other, "gone")
        else:
            wanted = self.known.receives[batch] == self.known.returns[batch]
            early = trace.received[batch] < trace.requested[batch] or not wanted
            yield Move(batch, "kept" if early else "main", kind=self._kind(batch))

    def _left(self, epoch: int) -> Iterator[Move]:
        """What is thrown away when the workers of an epoch are stopped."""
        scenario = self.trace.meta.scenario
        loader = scenario.loader if scenario is not None else None
        if loader is None or loader.workers_stay:
            return
        for batch in list(self.there):
            yield Move(batch, "gone")

    def _count(self, event: Event, moves: tuple[Move, ...]) -> None:
        """Credit: a batch sent in another's place takes over its credit."""
        batch, trace = event.batch, self.trace
        if event.kind == SENT and trace.worker[batch] >= 0:
            self.credit += int(self.known.trigger[batch] < 0)
        elif event.kind in (RETURNED, RAISED) and batch >= 0 and trace.worker[batch] >= 0:
            self.credit -= int(batch not in self.sent_for)
        elif event.kind == RECEIVED:
            gone = [move for move in moves if move.to == "gone"]
            kept = trace.status[batch] == ENDED and batch in self.sent_for
            self.credit -= len(gone) - int(kept)
        elif event.kind == EPOCH_ENDS:
            self.credit -= len(moves)

    def _at(self, event: Event) -> str:
        """What the main process is at, if that changes."""
        batch = event.batch
        if event.kind == EPOCH_BEGINS:
            return "in iter(loader)"
        if event.kind == REQUESTED:
            return "in next()"
        if event.kind == RAISED:
            return "caught an error"
        if event.kind == RETURNED:
            return f"has batch {batch}"
        if event.kind == EPOCH_ENDS:
            return "out of the loop"
        return ""


def _clock(trace: Trace) -> Callable[[float], str]:
    """How moments are written: with as many decimals as they need."""
    times = np.concatenate([getattr(trace, name) for name in MOMENTS])
    times = times[~np.isnan(times)]
    fits = (d for d in (0, 1, 3) if np.all(np.abs(times - np.round(times, d)) < 1e-9))
    decimals = next(fits, 6)
    return lambda time: f"{time:,.{decimals}f} s"
