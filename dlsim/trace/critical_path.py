"""The critical path: what, moment by moment, kept a run from being over sooner.

Walked back from the end. Whatever ends at a moment was begun by something that ended then: a
step, by the return of its batch; a return that was waited for, by the batch's arrival; an
arrival, by its fetching; a fetch, by the end of the worker's previous one, or else by the index
list that was sent; and that, by the return that gave the credit back. So every moment of the run
is put down to exactly one cause, and the shares add up to the whole.

==============  ======================================================================
Without workers there is no pipeline to fill: fetching the first batch is fetching.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlsim.scenario import Costs
from dlsim.trace.causes import (
    BARRIER,
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
    SHARDS,
    STARTING,
    STEP,
    TAKE,
    TIMEOUT,
    TRANSPORT,
    WAITING,
    ranked,
)
from dlsim.trace.fetch_parts import fetch_shares
from dlsim.trace.metrics import NAN, span, worker_count
from dlsim.trace.trace import ENDED, PENDING, SKIPPED, Floats, Integers, Trace


class Piece(NamedTuple):
    """One cause's piece of the path, `begin` to `end` in seconds, on the way of batch `batch`.

    `batch` is -1 where no batch is to blame.
    """

    cause: str
    begin: float
    end: float
    batch: int = -1


def critical_path(trace: Trace) -> list[Piece]:
    """The pieces of the critical path of `trace`, in order, without gaps.

    A fetch is one piece (`"fetch"`), but for its part as head of line.
    """
    trace = trace.as_one_epoch
    walk = _Walk(trace)
    for epoch in reversed(range(len(trace.epochs.started))):
        walk.epoch(epoch)
    return walk.pieces[::-1]


def causes(trace: Trace, clock: Callable[[Floats], Floats] | None = None) -> dict[str, float]:
    """For each cause its seconds on the critical path; they add up to the elapsed time.

    Fetching is divided by `fetch_shares`. Causes that took no time are left out. With a `clock`,
    which maps moments to others in the same order, the seconds are those between these.
    """
    found: dict[str, float] = {}
    parts = fetch_shares(trace)
    path = critical_path(trace)
    edges = np.array([[piece.begin, piece.end] for piece in path]).reshape(-1, 2)
    lengths = np.diff(edges if clock is None else clock(edges), axis=1)[:, 0].tolist()
    for piece, seconds in zip(path, lengths, strict=True):
        for cause, share in parts.items() if piece.cause == FETCH else ((piece.cause, 1.0),):
            found[cause] = found.get(cause, 0.0) + share * seconds
    return {cause: seconds for cause, seconds in found.items() if seconds > 0}


def shares(trace: Trace) -> dict[str, float]:
    """For each cause its share of the elapsed time; they add up to 1, greatest first.

    Empty for a trace in which no time passes.
    """
    seconds = causes(trace)
    whole = sum(seconds.values())
    found = ranked(seconds)
    return {cause: value / whole for cause, value in found.items()} if whole > 0 else {}


class _Walk:
    """The walk back. `now` is how far it has come; every piece ends there, and moves it.

    It goes from moment to moment, so that these are lists: an array is slow to ask for one number.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.sent, self.started = trace.sent.tolist(), trace.started.tolist()
        self.requested, self.returned = trace.requested.tolist(), trace.returned.tolist()
        self.finished = trace.finished.tolist()
        self.stepped = None if trace.stepped is None else trace.stepped.tolist()
        self.put_in_turn = np.nan_to_num(trace.sent, nan=np.inf).tolist()
        self.begin, self.now = span(trace)
        self.floor = self.begin
        self.pieces: list[Piece] = []
        scenario = trace.meta.scenario
        self.workers = worker_count(trace)
        self.in_order = scenario is None or scenario.loader.in_order
        self.persistent = scenario is not None and scenario.loader.persistent_workers
        self.window = max(scenario.loader.window, 1) if scenario is not None else None
        self.rebinds = scenario is not None and scenario.rebinds
        self.costs = scenario.charged if scenario is not None else Costs()
        self.pinning = _pinning(trace)
        row = scenario is not None and scenario.policy == "row"
        self.latency = 0.0 if row else self.costs.index_latency
        self.before = _previous_on_worker(trace).tolist()
        self.epochs = trace.epoch_of(np.arange(len(trace)))
        self.order_epochs = trace.epoch_of(trace.order)
        self.ended = np.where(np.isnan(trace.fetched), trace.arrived, trace.fetched)
        # of a run that was watched it is not known when messages could be read
        self.there = np.where(np.isnan(trace.arrived), trace.fetched, trace.arrived)
        self.done, self.arrived = self.ended.tolist(), self.there.tolist()
        self.line = [NAN] * len(trace)  # when a batch behind each one was ready
        self.lanes: list[list[int]] = []  # the batches of each worker in the epoch
        self.short = NAN, LAST_ROUND  # since when not all workers of the epoch have work, and why
        self.fresh = True  # whether workers were started for the epoch
        self.filling = False  # before the first batch of an epoch is there

    def to(self, cause: str, moment: float, batch: int = -1) -> None:
        """Put the time from `moment` to where the walk is down to `cause`.

        Never goes forward, nor below the floor; a moment not observed (NaN) does not move it.
        """
        moment = max(moment, self.floor)
        if moment < self.now:
            if self.filling and cause not in (READY, SEND):
                cause = FIRST_BATCH
            self.pieces.append(Piece(cause, moment, self.now, batch))
            self.now = moment

    def epoch(self, epoch: int) -> None:
        """All of one epoch: its end, the batches in reverse, its beginning."""
        trace = self.trace
        mine = trace.order[self.order_epochs == epoch]
        started, primed = trace.epochs.started[epoch], trace.epochs.primed[epoch]
        begin = self.begin if epoch == 0 else started
        problem = trace.meta.problem if epoch == len(trace.epochs.started) - 1 else None
        self.fresh = self.workers > 0 and (epoch == 0 or not self.persistent)
        self.short = self.shortage(epoch)
        self.floor = begin
        last = float(np.fmax.reduce(trace.finished[mine] if len(mine) else (begin, primed)))
        if problem is not None:
            self.to(TIMEOUT if problem.kind == TIMEOUT else ERROR, last)
        self.to(JOINING, max(last, self.drained(epoch, self.now)))
        self.to(DRAINING, last)
        if len(mine):
            if self.workers:
                self.floor = max(begin, trace.returned[mine[0]])
            self.batches(mine)
            self.floor = begin
            if self.workers:
                self.first_batch(epoch, int(mine[0]))
        if self.fresh or not self.workers:
            self.to(STARTING if self.workers else WAITING, begin)
        self.to(HANDSHAKE, self.drained(epoch - 1, self.now))
        self.to(DRAINING, begin)

    def drained(self, epoch: int, until: float) -> float:
        """When workers had done all that they were sent in `epoch`: `until` if some never had."""
        mine = self.epochs == epoch
        cut = mine & np.isnan(self.ended) & ~np.isnan(self.trace.started)
        if (cut & (self.trace.status == PENDING)).any():
            return until
        return float(np.fmax.reduce(self.ended[mine], initial=self.floor))

    def shortage(self, epoch: int) -> tuple[float, str]:
        """Since when some worker had nothing left to do in `epoch`, while others had; and why.

        It has used up its data, and at least as many batches as there are workers are still to
        come; or else fewer batches are left than there are workers. NaN if neither ever is.
        """
        trace = self.trace
        mine = self.epochs == epoch
        over = (trace.status == ENDED) | (trace.status == SKIPPED)
        coming = np.sort(np.nan_to_num(self.ended[mine & ~over], nan=np.inf))
        if self.workers > 1:
            gone = np.fmin.reduce(self.ended[mine & (trace.status == ENDED)], initial=np.inf)
            if gone < np.inf and len(coming) - np.searchsorted(coming, gone, "right") >= (
                self.workers
            ):
                return float(gone), SHARDS
            if len(coming) < self.workers:
                return -np.inf, LAST_ROUND
            return float(coming[len(coming) - self.workers]), LAST_ROUND
        return NAN, LAST_ROUND

    def batches(self, order: Integers) -> None:
        """From the end of the last step of an epoch back to the floor, along binding causes."""
        trace = self.trace
        if self.in_order:
            for batch, ready in zip(order.tolist(), _later_arrivals(self, order), strict=True):
                self.line[batch] = ready
        numbers = np.flatnonzero(self.epochs == self.epochs[order[0]])
        lanes = [numbers[trace.worker[numbers] == worker] for worker in range(self.workers)]
        self.lanes = [lane.tolist() for lane in lanes]
        moments = np.nan_to_num(trace.returned[order], nan=np.inf).tolist()
        line = order.tolist()
        at = len(line) - 1
        while at >= 0 and self.now > self.floor:
            batch = line[at]
            before = self.finished[line[at - 1]] if at > 0 else NAN
            if self.stepped is not None:
                self.to(BARRIER, self.stepped[batch], batch)
            if self.returned[batch] < before <= self.now:
                self.to(STEP, before, batch)  # an accelerator that the host runs ahead of
                at -= 1
                continue
            self.to(STEP, self.returned[batch], batch)
            at = self.waited(at, line, moments) if self.requested[batch] < self.now else at - 1

    def waited(self, at: int, line: list[int], returned: list[float]) -> int:
        """`next()` waited for the batch at place `at`: walk back to what it waited for.

        Returns the place to go on from, in whose step or `next()` the walk now is.
        """
        batch = line[at]
        requested, arrived = self.requested[batch], self.arrived[batch]
        if not arrived > requested:  # it was there: handing it over took the time
            unknown = arrived != arrived
            self.to(WAITING, requested, batch) if unknown else self.handed_over(batch, requested)
            return at - 1
        self.fetched(batch)
        return self.sender(at, returned, line)

    def first_batch(self, epoch: int, batch: int) -> None:
        """From the return of the first batch of an epoch back to where sending began."""
        self.filling = True
        if self.arrived[batch] > self.requested[batch]:
            self.fetched(batch)
        else:
            self.handed_over(batch, self.requested[batch])
            if self.rebinds and epoch > 0:
                # what the name was bound to goes before next() is called
                first = self.trace.sent[self.epochs == epoch][: self.window]
                began = float(np.fmax.reduce(first))
                self.filling = False
                self.to(JOINING, max(began, self.drained(epoch - 1, self.now)))
                self.to(DRAINING, began)
        self.filling = False
        sent = float(np.fmin.reduce(self.trace.sent[self.epochs == epoch]))
        self.to(SEND, sent - self.costs.index_put)

    def handed_over(self, batch: int, since: float) -> None:
        """Back from the return of `batch`: the next index list, pinning, receiving; to `since`.

        What a pin-memory thread did is divided by what either costs.
        """
        put = self.costs.index_put
        if put and self.workers:
            sent = self.sent[bisect_right(self.put_in_turn, self.returned[batch]) - 1]
            self.to(SEND, sent - put if sent > self.requested[batch] else NAN, batch)
        if self.pinning == self.pinning and self.now > since:
            self.to(PIN, self.now - self.pinning * (self.now - since), batch)
        self.to(RECEIVE, since, batch)

    def fetched(self, batch: int) -> None:
        """Back from where the walk is to the sending of the index list that `batch` hung on."""
        self.handed_over(batch, self.arrived[batch])
        self.to(TRANSPORT, self.done[batch], batch)
        current = batch
        short, why = self.short
        while True:
            started = self.started[current]
            if short < self.now:
                self.to(why, started if started > short else short, current)
            if self.line[current] < self.now:
                self.to(HEAD_OF_LINE, self.kept_back(current), current)
            self.to(FETCH, started, current)
            previous = self.before[current]
            here = self.sent[current] + self.latency
            if previous < 0 or not self.done[previous] >= here:
                break
            self.to(TAKE, self.done[previous], previous)
            current = previous
        self.to(READY if previous < 0 and self.fresh else TAKE, here)
        self.to(SEND, self.sent[current], current)

    def kept_back(self, batch: int) -> float:
        """Since when others waited for `batch`: one was ready, and a worker out of work.

        NaN where it is not known when it was requested or begun.
        """
        sent = bisect_left(self.put_in_turn, self.returned[batch])
        spare = float("inf")  # until this batch is back, nothing more is sent
        for numbers in self.lanes:
            last = bisect_left(numbers, sent) - 1
            spare = min(spare, self.done[numbers[last]] if last >= 0 else -float("inf"))
        requested, started = self.requested[batch], self.started[batch]
        if requested != requested or started != started:
            return NAN
        since: float = max(requested, started, self.line[batch], spare)
        return since

    def sender(self, at: int, returned: list[float], line: list[int]) -> int:
        """The place in whose step the walk now is, or that `next()` was waiting for just then.

        An index list is sent by the `next()` that returns another batch, just before it does, or
        on word that a worker has no more data; the time since `next()` was called is its own.
        """
        place = min(bisect_right(returned, self.now) - 1, at - 1)
        following = line[place + 1]
        if place + 1 < at and self.arrived[following] <= self.now:
            return place + 1  # it was about to return this one
        self.to(WAITING if self.workers else STEP, self.requested[following])
        return place


def _pinning(trace: Trace) -> float:
    """The share of handing batches over that goes into pinning them; NaN if none are pinned."""
    scenario = trace.meta.scenario
    if scenario is None or not scenario.loader.pin_memory:
        return NAN
    size = float(np.mean(trace.size)) if len(trace) else 0.0
    content = scenario.dataset.tensors, size * scenario.dataset.sample_bytes.mean
    pinned: float = scenario.charged.pin.of(*content)
    received: float = scenario.charged.receive.of(*content) if scenario.loader.num_workers else 0.0
    return pinned / (pinned + received) if pinned else NAN


def _previous_on_worker(trace: Trace) -> Integers:
    """For each batch, the one its worker was at before in the same epoch, or -1."""
    before = np.full(len(trace), -1)
    numbers = np.flatnonzero(~np.isnan(trace.started) & (trace.worker >= 0))
    epochs = trace.epoch_of(numbers)
    line = np.lexsort((numbers, trace.worker[numbers], epochs))
    numbers, epochs = numbers[line], epochs[line]
    same = (trace.worker[numbers[1:]] == trace.worker[numbers[:-1]]) & (epochs[1:] == epochs[:-1])
    before[numbers[1:][same]] = numbers[:-1][same]
    return before


def _later_arrivals(walk: _Walk, order: Integers) -> list[float]:
    """For each batch of an epoch in `order`, when the first one after it was ready; inf if none."""
    status, epochs = walk.trace.status, walk.epochs
    batch = (epochs == epochs[order[0]]) & (status != ENDED) & (status != SKIPPED)
    batch[order] = False
    never = np.nan_to_num(walk.there[batch], nan=np.inf).min(initial=np.inf)
    arrived = np.append(np.nan_to_num(walk.there[order], nan=np.inf), never)
    found: list[float] = np.minimum.accumulate(arrived[::-1])[::-1][1:].tolist()
    return found
