"""What happened in a stretch of a run, in an order of cause and effect.

Much happens at one moment. The event log orders that for reading; a film needs causes before
effects. So the rule for events at one moment (docs/model.md) is gone through again: what the
accelerator has done comes first, then everyone acts who can: the workers by their numbers, the
pin-memory thread, the main process. If that lets someone act whose turn was earlier, that one is
next.

Where an answer is sent for, made and received all at one moment, moments do not tell which answer
was first. Then it is the one of the worker with the lower number; and if that cannot be, the first
in turn whose batch has come that far. So in any case what happens to a batch happens in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dlsim.trace.trace import DISCARDED, ENDED, MOMENTS, Floats, Integers, Trace

SENT, STARTED, FETCHED, ARRIVED, RECEIVED, REQUESTED, RETURNED, FINISHED = range(len(MOMENTS))
SAMPLE, EPOCH_BEGINS, EPOCH_ENDS, RAISED, STEPPED = range(len(MOMENTS), len(MOMENTS) + 5)

DEVICE, WORKERS, PINNING, MAIN = 0, 1, 1 << 40, 1 << 41  # whose turn is first
IN_TURN = {
    REQUESTED: 0,
    RECEIVED: 1,
    SENT: 2,
    RETURNED: 4,
    RAISED: 4,
}  # what a next() does, in order
ALONE = {SENT: 1, STARTED: 2, SAMPLE: 2.5, FETCHED: 3, ARRIVED: 3.5, RECEIVED: 3.8}  # if no workers
NEEDS = {
    STARTED: SENT,
    RECEIVED: ARRIVED,
    RETURNED: RECEIVED,
    FINISHED: RETURNED,
    STEPPED: RETURNED,
}
LIFE = (SENT, STARTED, FETCHED, ARRIVED, RECEIVED, RETURNED, FINISHED)
# What has happened to a batch before something does.
BEFORE = {kind: LIFE[:place] for place, kind in enumerate(LIFE)}
BEFORE |= {SAMPLE: LIFE[:2], STEPPED: LIFE[:6], RETURNED: (*LIFE[:5], REQUESTED)}


@dataclass(frozen=True)
class Event:
    """Something that happened at `time` (seconds).

    `kind`: an index into `MOMENTS`; or SAMPLE, the beginning of the sample in `row` of
    `trace.samples`; or EPOCH_BEGINS or EPOCH_ENDS, of the epoch `row`; or RAISED, an exception that
    the loop caught, in `row` of `trace.meta.caught`; or STEPPED, the end of a rank's own part of a
    step, from which on it waits for others.
    """

    time: float
    kind: int
    batch: int
    row: int = -1


@dataclass(frozen=True, eq=False)
class Turns:
    """In which call of `next()`, counted from 0 over all epochs, things happened to each batch.

    `returns` (or raises what came of it), `receives`, `sends`: which call did; the number of calls,
    if none did. A batch of the window that an epoch begins with is sent by none, -1. `trigger`: the
    batch in whose place it was sent, -1 if in none's. `place`: how many were received before.
    `line`: the batches that calls were for, in order; `until`: when each call was over.
    """

    returns: Integers
    receives: Integers
    sends: Integers
    trigger: Integers
    place: Integers
    line: Integers
    until: Floats


def turns(trace: Trace) -> Turns:
    """In which `next()` of `trace` everything happened that happens in one.

    Where an answer is sent for, made and received all at one moment, which answer was received
    first is taken to be the order of the workers' numbers.
    """
    count = len(trace)
    come = np.lexsort((trace.worker, trace.arrived, np.nan_to_num(trace.received, nan=np.inf)))
    place = np.empty(count, np.int64)
    place[come] = np.arange(count)
    line, until = _answered(trace, place)
    returns = np.full(count, len(line))
    returns[line] = np.arange(len(line))
    # next() takes off the queue until what it wants is there
    receives = np.searchsorted(np.maximum.accumulate(place[line]), place)
    if trace.worker.max(initial=-1) < 0:
        receives = sends = np.searchsorted(line, np.arange(count))
        trigger = np.full(count, -1)
    else:
        sends, trigger = _sends(trace, returns, receives, until)
    return Turns(returns, receives, sends, trigger, place, line, until)


def _answered(trace: Trace, place: Integers) -> tuple[Integers, Floats]:
    """The batches that a next() returned, or raised the exception of, in order; and when."""
    until = trace.returned.copy()
    last = trace.meta.problem
    raised = [
        error for error in (*trace.meta.caught, *([last] if last else [])) if error.batch >= 0
    ]
    for error in raised:
        until[error.batch] = error.time
    failed = np.array([error.batch for error in raised], np.int64)
    line = np.concatenate((trace.order, failed))
    if not len(failed):
        return line, until
    scenario = trace.meta.scenario
    in_order = scenario is None or scenario.loader.in_order
    return line[np.lexsort((line if in_order else place[line], until[line]))], until


def _sends(
    trace: Trace, returns: Integers, receives: Integers, until: Floats
) -> tuple[Integers, Integers]:
    """Which `next()` sent each batch, and in whose place.

    Each return gives a credit back, each exception, and each word that a worker has nothing more.
    """
    over = trace.status == ENDED
    gave = np.flatnonzero(~np.isnan(until) | over)
    turn = np.where(over, receives, returns)
    gave = gave[np.lexsort((gave, ~over[gave], turn[gave]))]
    scenario = trace.meta.scenario
    window = scenario.loader.window if scenario is not None else 0
    epochs, numbers = trace.as_one_epoch.epochs, np.arange(len(trace))
    epoch = np.searchsorted(epochs.first, numbers, side="right") - 1
    first = (numbers - epochs.first[epoch] < window) & ~(trace.sent > epochs.primed[epoch])
    sends, trigger = np.full(len(trace), -1), np.full(len(trace), -1)
    credits = iter(gave.tolist())
    for batch in np.flatnonzero(~first).tolist():
        for giver in credits:
            late = over[giver] or until[giver] >= trace.sent[batch]
            if late and epoch[giver] == epoch[batch]:
                sends[batch], trigger[batch] = turn[giver], giver
                break
    return sends, trigger


def happenings(trace: Trace, known: Turns, begin: float, end: float) -> Iterator[Event]:
    """All events from `begin` (seconds) up to `end`, which is not included, in order."""
    order = Order(trace, known)
    found = sorted(order.among(_events(trace, begin, end)), key=lambda each: each.event.time)
    first = 0
    for last in range(1, len(found) + 1):
        if last == len(found) or found[last].event.time > found[first].event.time:
            yield from _at_one_moment(found[first:last])
            first = last


def _events(trace: Trace, begin: float, end: float) -> Iterator[Event]:
    def during(times: Floats) -> Iterator[tuple[float, int]]:
        found = np.flatnonzero((times >= begin) & (times < end))
        return zip(times[found].tolist(), found.tolist(), strict=True)

    for kind, name in enumerate(MOMENTS):
        for time, batch in during(getattr(trace, name)):
            yield Event(time, kind, batch)
    if trace.samples is not None:
        for time, row in during(trace.samples.started):
            yield Event(time, SAMPLE, int(trace.samples.batch[row]), row)
    for kind, times in ((EPOCH_BEGINS, trace.epochs.started), (EPOCH_ENDS, trace.epochs.ended)):
        for time, epoch in during(times):
            yield Event(time, kind, -1, epoch)
    if trace.stepped is not None:
        for time, batch in during(np.where(trace.stepped < trace.finished, trace.stepped, np.nan)):
            yield Event(time, STEPPED, batch)
    for row, error in enumerate(trace.meta.caught):
        if begin <= error.time < end:
            yield Event(error.time, RAISED, error.batch, row)


Place: TypeAlias = tuple[float, ...]


@dataclass(frozen=True)
class Act:
    """An event, whose turn it is then, and its place among all that this one does."""

    event: Event
    turn: int
    place: Place


class Order:
    """Whose turn an event is, and where in the order of all that this one does."""

    def __init__(self, trace: Trace, known: Turns) -> None:
        self.trace, self.known = trace, known
        scenario = trace.meta.scenario
        self.pins = scenario is not None and scenario.loader.pin_memory
        self.endless = scenario is not None and scenario.loader.endless

    def among(self, events: Iterable[Event]) -> Iterator[Act]:
        """Each event with its place."""
        for event in events:
            yield Act(event, *self._place(event))

    def _place(self, event: Event) -> tuple[int, Place]:
        kind, batch, known = event.kind, event.batch, self.known
        if kind in (EPOCH_BEGINS, EPOCH_ENDS):
            return MAIN, (event.row, -np.inf if kind == EPOCH_BEGINS else np.inf)
        if kind in (STEPPED, FINISHED):
            return DEVICE, (known.returns[batch], kind == FINISHED)
        worker = self.trace.worker[batch]
        if worker < 0 and kind in ALONE:
            turn = known.sends[batch]
            return MAIN, (self._epoch(batch, turn), turn, ALONE[kind], event.row)
        if kind in (STARTED, SAMPLE, FETCHED, ARRIVED):
            return WORKERS + int(worker), (batch, ALONE[kind], event.row)
        if kind == RECEIVED and self.pins:
            return PINNING, (known.place[batch],)
        if kind == RECEIVED and self.trace.status[batch] == DISCARDED:
            return MAIN, (self._epoch(batch) + 1, -2, known.place[batch])
        if batch < 0:  # a timeout that no batch answers for
            turn = int(np.searchsorted(known.until[known.line], event.time))
            return MAIN, (self._epoch(0, turn), turn, IN_TURN[kind])
        turn = {SENT: known.sends, RECEIVED: known.receives}.get(kind, known.returns)[batch]
        trigger = known.trigger[batch]
        if kind == SENT and trigger >= 0 and self.trace.status[trigger] == ENDED:
            # at once, before the next answer is looked at
            return MAIN, (
                self._epoch(batch, turn),
                turn,
                IN_TURN[RECEIVED],
                known.place[trigger] + 0.5,
            )
        within = known.place[batch] if kind == RECEIVED else batch
        return MAIN, (self._epoch(batch, turn), turn, IN_TURN[kind], within)

    def _epoch(self, batch: int, turn: int = 0) -> int:
        """The epoch in which something happens to a batch, in the given call of `next()`."""
        if self.endless:  # its epochs are told by what was returned in them
            batch = max(turn, 0)
        return int(np.searchsorted(self.trace.epochs.first, batch, side="right")) - 1


def _at_one_moment(acts: list[Act]) -> Iterator[Event]:
    """The events of one moment: again and again the first in turn who can act does."""
    if len(acts) == 1:
        yield acts[0].event
        return
    lines: dict[int, deque[Event]] = {}
    for act in sorted(acts, key=lambda act: (act.turn, act.place)):
        lines.setdefault(act.turn, deque()).append(act.event)
    waiting = {(act.event.kind, act.event.batch) for act in acts}

    def able(turn: int) -> bool:
        return (
            turn in lines and (NEEDS.get(lines[turn][0].kind), lines[turn][0].batch) not in waiting
        )

    while lines:
        turn = next(filter(able, lines), None)
        if turn is None:  # who was first is not told by moments that are one
            yield _freed(lines, waiting)
            continue
        while True:  # who acts does all that takes no time
            event = lines[turn].popleft()
            waiting.discard((event.kind, event.batch))
            if not lines[turn]:
                del lines[turn]
            yield event
            looks = turn == MAIN and turn in lines and lines[turn][0].kind == RECEIVED
            if looks or not able(turn) or able(DEVICE):
                break


def _freed(lines: dict[int, deque[Event]], waiting: set[tuple[int, int]]) -> Event:
    """The first event in turn whose batch has come that far, taken out of its line."""
    every = [(turn, event) for turn, line in lines.items() for event in line]
    turn, event = next(
        (
            (turn, event)
            for turn, event in every
            if not any((before, event.batch) in waiting for before in BEFORE.get(event.kind, ()))
        ),
        every[0],  # never so where moments are those of one run
    )
    lines[turn].remove(event)
    waiting.discard((event.kind, event.batch))
    if not lines[turn]:
        del lines[turn]
    return event
