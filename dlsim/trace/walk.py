"""The walk back along the critical path of a trace, from the end to the begin.

What is binding at each moment is said in `critical_path`; what came before what is in
`predecessors`, and what is known of an epoch as a whole in `edges`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dlsim.scenario import Costs
from dlsim.trace.causes import (
    AGAIN,
    BARRIER,
    CORE,
    DRAINING,
    ERROR,
    FETCH,
    FIRST_BATCH,
    HANDSHAKE,
    HEAD_OF_LINE,
    JOINING,
    LAST_ROUND,
    PIN,
    READY,
    RECEIVE,
    SEND,
    STARTING,
    STEP,
    TAKE,
    TIMEOUT,
    TRANSPORT,
    VALIDATION,
    WAITING,
)
from dlsim.trace.columns import new_column, parts, put_away
from dlsim.trace.edges import drained, first_sent, last_step, primed, shortage
from dlsim.trace.fetch_parts import mean_size
from dlsim.trace.metrics import NAN, span, validations, worker_count
from dlsim.trace.predecessors import (
    one_ahead,
    previous_in_time,
    previous_on_worker,
    sought,
    worker_lanes,
)
from dlsim.trace.stays import later_arrivals, order_by_epoch
from dlsim.trace.trace import DISCARDED, Floats, Trace

# What the time in validation would be put down to, being between a step and what comes after it.
AROUND = (STEP, BARRIER, JOINING, DRAINING)
MANY = 16384  # pieces that are made at a time


class Piece(NamedTuple):
    """One cause's piece of the path, `begin` to `end` in seconds, on the way of batch `batch`.

    `batch` is -1 where no batch is to blame.
    """

    cause: str
    begin: float
    end: float
    batch: int = -1


class Walk:
    """The walk back. `now` is how far it has come; every piece ends there, and moves it.

    It looks at single moments, here and there, as Python's numbers.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.begin, self.now = span(trace)
        self.floor = self.begin
        self.pieces: list[Piece] = []
        self.apart = [*zip(*(m.tolist() for m in validations(trace)), strict=True)]
        scenario = trace.meta.scenario
        self.workers = worker_count(trace)
        self.in_order = scenario is None or scenario.loader.in_order
        self.persistent = scenario is not None and scenario.loader.persistent_workers
        self.window = max(scenario.loader.window, 1) if scenario is not None else None
        self.resumes = (
            scenario is not None
            and scenario.loader.resume > 0
            and bool((trace.status == DISCARDED).any())
        )
        self.rebinds = scenario is not None and scenario.rebinds
        self.costs = scenario.charged if scenario is not None else Costs()
        self.makes_room = scenario is not None and scenario.machine.slices > 0
        self.on_arrival = scenario is not None and scenario.loader.refill == "arrival"
        steals = scenario is not None and scenario.loader.dispatch == "stealing"
        self.pinning = _pinning(trace)
        row = scenario is not None and scenario.policy == "row"
        self.latency = 0.0 if row else self.costs.index_latency
        self.first = [*trace.epochs.first.tolist(), len(trace)]
        self.places = order_by_epoch(trace)
        self.sent, self.started = trace.sent.data, trace.started.data
        self.requested, self.returned = trace.requested.data, trace.returned.data
        self.finished = trace.finished.data
        # A loop that is one batch ahead gives a batch when it has taken the next one.
        self.ahead = scenario is not None and scenario.taken_ahead == 1
        self.called, self.given = self.requested, self.returned
        if self.ahead:
            self.called, self.given = (each.data for each in one_ahead(trace, self.places))
        self.before = (previous_in_time if steals else previous_on_worker)(trace).data
        # when it was done; and of a run that was watched it is not known when it could be read
        self.done = _first_known(trace.fetched, trace.arrived).data
        arrived = _first_known(trace.arrived, trace.fetched)
        self.arrived = arrived.data
        line = new_column(len(trace))  # when a batch behind each one was ready
        for part in parts(0, len(trace)):
            line[part] = NAN
        if self.in_order:
            for order, later in later_arrivals(trace, arrived):
                line[order] = later
        self.line = line.data
        lanes = worker_lanes(trace, self.workers)
        come = np.argsort(trace.received) if self.on_arrival else np.empty(0, np.int64)
        self.came = trace.received[come], come  # when batches were received, and which
        self.lanes = [numbers.data for numbers in lanes]
        # when a worker had done each batch and those before; a stolen one is done after later ones
        self.until = self.done
        if steals:
            self.until = (until := np.array(self.done)).data
            for numbers in lanes:
                until[numbers] = np.fmax.accumulate(until[numbers])
        self.lasts = [len(lane) for lane in self.lanes]  # where the walk has come to in each
        self.sends = len(trace)  # and among all batches
        self.short = NAN, LAST_ROUND  # since when not all workers of the epoch have work, and why
        self.numbered = 0  # the first batch of the epoch
        self.fresh = True  # whether workers were started for the epoch
        self.filling = False  # before the first batch of an epoch is there

    def taken(self) -> list[Piece]:
        """The pieces made since the last time."""
        taken, self.pieces = self.pieces, []
        return taken

    def to(self, cause: str, moment: float, batch: int = -1) -> None:
        """Put the time from `moment` to where the walk is down to `cause`.

        Never goes forward, nor below the floor; a moment not observed (NaN) does not move it.
        """
        moment = max(moment, self.floor)
        if moment < self.now:
            if self.filling and cause not in (READY, SEND):
                cause = FIRST_BATCH
            while cause in AROUND and self.apart and self.apart[-1][1] > moment:
                self.beside(cause, moment, batch, *self.apart.pop())
            self.pieces += [Piece(cause, moment, self.now, batch)] if moment < self.now else []
            self.now = moment

    def beside(self, cause: str, moment: float, batch: int, began: float, ended: float) -> None:
        """Put what is after `moment` of a time in validation down to that, what comes after not."""
        for name, to in ((cause, ended), (VALIDATION, max(began, moment))):
            if to < self.now:
                self.pieces.append(Piece(name, to, self.now, batch if name == cause else -1))
                self.now = to

    def numbers(self, epoch: int) -> Iterator[slice]:
        """Those of the batches of an epoch."""
        return parts(self.first[epoch], self.first[epoch + 1])

    def epoch(self, epoch: int) -> Iterator[list[Piece]]:
        """All of one epoch: its end, the batches in reverse, its beginning."""
        trace = self.trace
        mine = trace.order[self.places[epoch]].data
        started, primed = (float(m[epoch]) for m in (trace.epochs.started, trace.epochs.primed))
        begin = self.begin if started != started else started
        problem = trace.meta.problem if epoch == len(trace.epochs.started) - 1 else None
        self.fresh = self.workers > 0 and (epoch == 0 or not self.persistent)
        done = np.asarray(self.done)
        self.short = shortage(trace, done, self.numbers(epoch), self.workers)
        self.numbered, self.floor = self.first[epoch], begin
        last = last_step(trace, self.places[epoch]) if len(mine) else float(np.fmax(begin, primed))
        if problem is not None:
            self.to(TIMEOUT if problem.kind == TIMEOUT else ERROR, last)
        self.to(JOINING, max(last, self.drained(epoch, self.now)))
        self.to(DRAINING, last)
        if len(mine):
            if self.workers:
                self.floor = max(begin, self.returned[mine[0]])
            yield from self.batches(mine)
            self.floor = begin
            if epoch == 0 and self.resumes:
                self.to(AGAIN, float(trace.sent[0]))
            elif self.workers:
                self.first_batch(epoch, mine[min(int(self.ahead), len(mine) - 1)])
        if self.fresh or not self.workers:
            self.to(STARTING if self.workers else WAITING, begin)
        self.to(HANDSHAKE, self.drained(epoch - 1, self.now))
        self.to(DRAINING, begin)

    def before_training(self) -> list[Piece]:
        """What comes before training: there may be validation."""
        self.floor = self.begin
        if self.apart:
            self.to(JOINING, self.begin)
        return self.taken()

    def drained(self, epoch: int, until: float) -> float:
        """When workers had done all that they were sent in `epoch`: `until` if some never had."""
        if epoch < 0:
            return self.floor
        return drained(self.trace, np.asarray(self.done), self.numbers(epoch), self.floor, until)

    def batches(self, order: memoryview) -> Iterator[list[Piece]]:
        """From the end of the last step of an epoch back to the floor, along binding causes."""
        stepped = None if self.trace.stepped is None else self.trace.stepped.data
        returned, requested, finished = self.returned, self.requested, self.finished
        at = len(order) - 1
        while at >= 0 and self.now > self.floor:
            if len(self.pieces) >= MANY:
                yield self.taken()
                put_away()
            batch = order[at]
            before = finished[order[at - 1]] if at > 0 else NAN
            if stepped is not None:
                self.to(BARRIER, stepped[batch], batch)
            if returned[batch] < before <= self.now:
                self.to(STEP, before, batch)  # an accelerator that the host runs ahead of
                at -= 1
                continue
            self.to(STEP, returned[batch], batch)
            if requested[batch] < self.now:
                at = self.waited(at, order)
            else:
                at -= 1

    def waited(self, at: int, order: memoryview) -> int:
        """`next()` waited for the batch at place `at`: walk back to what it waited for.

        Returns the place to go on from, in whose step or `next()` the walk now is.
        """
        requested, batch = self.requested[order[at]], order[at]
        if self.ahead:
            if at + 1 == len(order):  # it took none, but waited for workers to end
                self.to(JOINING, requested)
                return at - 1
            batch = order[at + 1]
        arrived = self.arrived[batch]
        if not arrived > requested:  # it was there: handing it over took the time
            unknown = arrived != arrived
            self.to(WAITING, requested, batch) if unknown else self.handed_over(batch, requested)
            return at - 1
        self.fetched(batch)
        return self.sender(at, order)

    def first_batch(self, epoch: int, batch: int) -> None:
        """From the return of the first batch of an epoch back to where sending began."""
        self.filling = True
        if self.arrived[batch] > self.called[batch]:
            self.fetched(batch)
        else:
            self.handed_over(batch, self.called[batch])
            if self.rebinds and epoch > 0:
                # what the name was bound to goes before next() is called
                began = primed(self.trace, slice(*self.first[epoch : epoch + 2]), self.window)
                self.filling = False
                self.to(JOINING, max(began, self.drained(epoch - 1, self.now)))
                self.to(DRAINING, began)
        self.filling = False
        self.to(SEND, first_sent(self.trace, self.numbers(epoch)) - self.costs.index_put)

    def handed_over(self, batch: int, since: float) -> None:
        """Back from the return of `batch`: the next index list, pinning, receiving; to `since`.

        What a pin-memory thread did is divided by what either costs.
        """
        put = self.costs.index_put
        if (put or self.makes_room) and self.workers:
            at = int(np.searchsorted(self.trace.sent, self.given[batch], "right")) - 1
            sent = self.sent[at]
            self.to(CORE, sent if self.makes_room and sent >= self.called[batch] else NAN, batch)
            self.to(SEND, sent - put if sent > self.called[batch] else NAN, batch)
        if self.pinning == self.pinning and self.now > since:
            self.to(PIN, self.now - self.pinning * (self.now - since), batch)
        self.to(RECEIVE, since, batch)

    def fetched(self, batch: int) -> None:
        """Back from where the walk is to the sending of the index list that `batch` hung on."""
        self.handed_over(batch, self.arrived[batch])
        self.to(TRANSPORT, self.done[batch], batch)
        current, (short, why) = batch, self.short
        while True:
            started, sent = self.started[current], self.sent[current]
            if short < self.now:
                self.to(why, started if started > short else short, current)
            if self.line[current] < self.now:
                self.to(HEAD_OF_LINE, self.kept_back(current), current)
            self.to(FETCH, started, current)
            previous = self.before[current]
            bound = previous >= 0 and self.done[previous] >= sent + self.latency
            if not bound:
                break
            self.to(TAKE, self.done[previous], previous)
            current = previous
        self.to(READY if previous < 0 and self.fresh else TAKE, sent + self.latency)
        self.to(SEND, sent, current)

    def kept_back(self, batch: int) -> float:
        """Since when others waited for `batch`: one was ready, and a worker out of work."""
        requested, started = self.called[batch], self.started[batch]
        since = max(requested, self.line[batch], started)
        if requested != requested or started != started:
            return NAN
        self.sends = sought(self.sent, self.given[batch], self.sends)
        spare = np.inf  # until this batch is back, nothing more is sent
        for worker, numbers in enumerate(self.lanes):
            last = self.lasts[worker] = sought(numbers, self.sends, self.lasts[worker])
            mine = last > 0 and numbers[last - 1] >= self.numbered
            spare = min(spare, self.until[numbers[last - 1]] if mine else -np.inf)
        return max(since, spare)

    def sender(self, at: int, order: memoryview) -> int:
        """The place in whose step the walk now is, or that `next()` was waiting for just then.

        An index list is sent by the `next()` that returns another batch, just before it does, or
        on word that a worker has no more data; the time since `next()` was called is its own.
        """
        place = at - 1
        while True:
            while place >= 0 and self.returned[order[place]] > self.now:
                place -= 1
            following = order[place + 1]
            if place + 1 < at and self.arrived[following] <= self.now:
                return place + 1  # it was about to return this one
            giver, then = self.giver(following) if self.on_arrival else -1, self.now
            if giver >= 0:
                self.fetched(giver)
            if giver < 0 or self.now == then:  # or it took no time
                self.to(WAITING if self.workers else STEP, self.requested[following])
                return place

    def giver(self, following: int) -> int:
        """The batch that came just now, while `next()` waited for `following`, and sent for more.

        Where more is sent for on arrival; -1 if it was there before that `next()`.
        """
        (times, line), now = self.came, self.now - self.costs.index_put
        last = int(np.searchsorted(times, self.now, "right"))
        at = int(np.searchsorted(times, now))
        near = [each for each in (at - 1, at) if 0 <= each < last]
        if not near:
            return -1
        came = int(line[min(near, key=lambda each: abs(now - times[each]))])
        return came if self.requested[following] < self.arrived[came] <= self.now else -1


def _pinning(trace: Trace) -> float:
    """The share of handing batches over that goes into pinning them; NaN if none are pinned."""
    scenario = trace.meta.scenario
    if scenario is None or not scenario.pins:
        return NAN
    size = mean_size(trace)
    content = scenario.dataset.tensors, size * scenario.dataset.sample_bytes.mean
    pinned = scenario.charged.pin.of(*content)
    received = scenario.charged.receive.of(*content) if scenario.loader.num_workers else 0.0
    return pinned / (pinned + received) if pinned else NAN


def _first_known(one: Floats, other: Floats) -> Floats:
    """The one moment of each batch, or the other where it is not known."""
    found: Floats = new_column(len(one))
    for part in parts(0, len(one)):
        found[part] = np.where(np.isnan(one[part]), other[part], one[part])
    return found
