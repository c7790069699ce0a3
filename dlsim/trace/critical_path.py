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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Costs, MapDataset, Scenario
from dlsim.trace.causes import (
    BARRIER,
    COLLATE,
    CONTENTION,
    CORE,
    DRAINING,
    ERROR,
    FETCH,
    FIRST_BATCH,
    HANDSHAKE,
    HEAD_OF_LINE,
    JOINING,
    LAST_ROUND,
    LOCK,
    PIN,
    READY,
    RECEIVE,
    SEND,
    SHARDS,
    STARTING,
    STEP,
    STORAGE,
    TAKE,
    TIMEOUT,
    TRANSPORT,
    WAITING,
    ranked,
)
from dlsim.trace.metrics import NAN, fetches, mean, span, worker_count
from dlsim.trace.trace import ENDED, PENDING, SKIPPED, Floats, Integers, Trace


@dataclass(frozen=True)
class Piece:
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


def fetch_shares(trace: Trace) -> dict[str, float]:
    """How the time of fetches is divided among the stages, collating, storage and cores.

    By the means that the scenario states, reading at its latency and full bandwidth. What
    fetches took on average beyond that, where cores or storage are limited, was spent waiting
    for them: for each in proportion to what was asked of it. Contention has at most its share of
    what was computed.
    """
    scenario = trace.meta.scenario
    if scenario is None:
        return {FETCH: 1.0}
    machine = scenario.machine
    seconds, computed, read = _stated(scenario, float(np.mean(trace.size)) if len(trace) else 0.0)
    stated = sum(seconds.values())
    took = mean(fetches(trace)[1] - trace.started)
    limited = machine.storage.bandwidth or machine.storage.requests_per_second
    shared = machine.cores or machine.contention or machine.crosstalk
    locks = _held(scenario, float(np.mean(trace.size)) if len(trace) else 0.0)
    asked = {CORE: computed if shared else 0.0, STORAGE: read if limited else 0.0}
    if locks > 0:
        asked[LOCK] = locks * (scenario.loader.num_workers - 1)
    total = sum(asked.values())
    if took > stated and total > 0:
        for cause, amount in asked.items():
            seconds[cause] = seconds.get(cause, 0.0) + (took - stated) * amount / total
        seconds[CONTENTION] = min(seconds[CORE], computed * _slowed(scenario))
        seconds[CORE] -= seconds[CONTENTION]
        stated = took
    return {name: value / stated for name, value in seconds.items()} if stated > 0 else {FETCH: 1.0}


def _held(scenario: Scenario, size: float) -> float:
    """Seconds for which a fetch of `size` samples holds the lock that threads share."""
    if not scenario.locks:
        return 0.0
    dataset = scenario.dataset
    calls = 1.0 if isinstance(dataset, MapDataset) and dataset.batched else size
    return calls * sum(stage.lock * stage.cpu.mean for stage in dataset.fetch if stage.cpu)


def _slowed(scenario: Scenario) -> float:
    """By how much computing takes longer at most, relative, while others compute beside it."""
    machine, workers = scenario.machine, max(scenario.loader.num_workers, 1)
    processes = workers + machine.background
    return min(1.0, (machine.cores or processes) / processes) / machine.rate(processes) - 1


def _stated(scenario: Scenario, size: float) -> tuple[dict[str, float], float, float]:
    """Mean seconds of the parts of a fetch of `size` samples; those computed, and those read."""
    dataset, storage = scenario.dataset, scenario.machine.storage
    calls = 1.0 if isinstance(dataset, MapDataset) and dataset.batched else size
    seconds: dict[str, float] = {}
    computed = read = 0.0
    for stage in dataset.fetch:
        name = f"{FETCH}: {stage.name}"
        spent = calls * sum(time.mean for time in (stage.wait, stage.cpu) if time is not None)
        seconds[name] = seconds.get(name, 0.0) + spent
        computed += calls * stage.cpu.mean if stage.cpu is not None else 0.0
        if stage.read_bytes is not None:
            read += calls * storage.latency.mean if storage.latency is not None else 0.0
            read += calls * stage.read_bytes.mean / storage.bandwidth if storage.bandwidth else 0.0
            # a rate of requests takes no time of its own, but there can be waiting for it
            read = max(read, 1e-12) if storage.requests_per_second else read
    seconds[STORAGE] = read
    if scenario.policy == "row":
        seconds[SEND] = calls * scenario.charged.index_latency
    collated = 0.0 if dataset.collate is None else dataset.collate.mean
    collated += scenario.sharing(size * dataset.sample_bytes.mean)
    if collated > 0:
        seconds[COLLATE] = collated
        computed += collated
    return seconds, computed, read


class _Walk:
    """The walk back. `now` is how far it has come; every piece ends there, and moves it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
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
        self.before = _previous_on_worker(trace)
        self.epochs = trace.epoch_of(np.arange(len(trace)))
        self.order_epochs = trace.epoch_of(trace.order)
        self.done = np.where(np.isnan(trace.fetched), trace.arrived, trace.fetched)
        # of a run that was watched it is not known when messages could be read
        self.arrived = np.where(np.isnan(trace.arrived), trace.fetched, trace.arrived)
        self.line = np.full(len(trace), NAN)  # when a batch behind each one was ready
        self.lanes: list[Integers] = []  # the batches of each worker in the epoch
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
        cut = mine & np.isnan(self.done) & ~np.isnan(self.trace.started)
        if (cut & (self.trace.status == PENDING)).any():
            return until
        return float(np.fmax.reduce(self.done[mine], initial=self.floor))

    def shortage(self, epoch: int) -> tuple[float, str]:
        """Since when some worker had nothing left to do in `epoch`, while others had; and why.

        It has used up its data, and at least as many batches as there are workers are still to
        come; or else fewer batches are left than there are workers. NaN if neither ever is.
        """
        trace = self.trace
        mine = self.epochs == epoch
        over = (trace.status == ENDED) | (trace.status == SKIPPED)
        coming = np.sort(np.nan_to_num(self.done[mine & ~over], nan=np.inf))
        if self.workers > 1:
            gone = np.fmin.reduce(self.done[mine & (trace.status == ENDED)], initial=np.inf)
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
            self.line[order] = _later_arrivals(self, order)
        numbers = np.flatnonzero(self.epochs == self.epochs[order[0]])
        self.lanes = [numbers[trace.worker[numbers] == worker] for worker in range(self.workers)]
        returned = trace.returned[order]
        at = len(order) - 1
        while at >= 0 and self.now > self.floor:
            batch = int(order[at])
            before = trace.finished[order[at - 1]] if at > 0 else NAN
            if trace.stepped is not None:
                self.to(BARRIER, trace.stepped[batch], batch)
            if trace.returned[batch] < before <= self.now:
                self.to(STEP, before, batch)  # an accelerator that the host runs ahead of
                at -= 1
                continue
            self.to(STEP, trace.returned[batch], batch)
            if trace.requested[batch] < self.now:
                at = self.waited(at, order, returned)
            else:
                at -= 1

    def waited(self, at: int, order: Integers, returned: Floats) -> int:
        """`next()` waited for the batch at place `at`: walk back to what it waited for.

        Returns the place to go on from, in whose step or `next()` the walk now is.
        """
        trace, batch = self.trace, int(order[at])
        requested = float(trace.requested[batch])
        if not self.arrived[batch] > requested:  # it was there: handing it over took the time
            unknown = np.isnan(self.arrived[batch])
            self.to(WAITING, requested, batch) if unknown else self.handed_over(batch, requested)
            return at - 1
        self.fetched(batch)
        return self.sender(at, returned, order)

    def first_batch(self, epoch: int, batch: int) -> None:
        """From the return of the first batch of an epoch back to where sending began."""
        trace = self.trace
        self.filling = True
        if self.arrived[batch] > trace.requested[batch]:
            self.fetched(batch)
        else:
            self.handed_over(batch, float(trace.requested[batch]))
            if (
                self.rebinds and epoch > 0
            ):  # what the name was bound to goes before next() is called
                began = np.fmax.reduce(trace.sent[self.epochs == epoch][: self.window])
                self.filling = False
                self.to(JOINING, max(began, self.drained(epoch - 1, self.now)))
                self.to(DRAINING, began)
        self.filling = False
        sent = np.fmin.reduce(trace.sent[self.epochs == epoch])
        self.to(SEND, sent - self.costs.index_put)

    def handed_over(self, batch: int, since: float) -> None:
        """Back from the return of `batch`: the next index list, pinning, receiving; to `since`.

        What a pin-memory thread did is divided by what either costs.
        """
        trace = self.trace
        put = self.costs.index_put
        if put and self.workers:
            sent = trace.sent[np.searchsorted(trace.sent, trace.returned[batch], "right") - 1]
            self.to(SEND, sent - put if sent > trace.requested[batch] else NAN, batch)
        if self.pinning == self.pinning and self.now > since:
            self.to(PIN, self.now - self.pinning * (self.now - since), batch)
        self.to(RECEIVE, since, batch)

    def fetched(self, batch: int) -> None:
        """Back from where the walk is to the sending of the index list that `batch` hung on."""
        trace = self.trace
        self.handed_over(batch, self.arrived[batch])
        self.to(TRANSPORT, self.done[batch], batch)
        current: int = batch
        while True:
            short, why = self.short
            if short < self.now:
                self.to(why, np.fmax(short, trace.started[current]), current)
            if self.line[current] < self.now:
                self.to(HEAD_OF_LINE, self.kept_back(current), current)
            self.to(FETCH, trace.started[current], current)
            previous = int(self.before[current])
            bound = previous >= 0 and self.done[previous] >= trace.sent[current] + self.latency
            if not bound:
                break
            self.to(TAKE, self.done[previous], previous)
            current = previous
        self.to(READY if previous < 0 and self.fresh else TAKE, trace.sent[current] + self.latency)
        self.to(SEND, trace.sent[current], current)

    def kept_back(self, batch: int) -> float:
        """Since when others waited for `batch`: one was ready, and a worker out of work."""
        trace = self.trace
        since = np.max([trace.requested[batch], self.line[batch], trace.started[batch]])
        sent = np.searchsorted(trace.sent, trace.returned[batch])
        spare = np.inf  # until this batch is back, nothing more is sent
        for numbers in self.lanes:
            last = np.searchsorted(numbers, sent) - 1
            spare = min(spare, self.done[numbers[last]] if last >= 0 else -np.inf)
        return float(max(since, spare))

    def sender(self, at: int, returned: Floats, order: Integers) -> int:
        """The place in whose step the walk now is, or that `next()` was waiting for just then.

        An index list is sent by the `next()` that returns another batch, just before it does, or
        on word that a worker has no more data; the time since `next()` was called is its own.
        """
        place = min(int(np.searchsorted(returned, self.now, side="right")) - 1, at - 1)
        following = int(order[place + 1])
        requested = self.trace.requested[following]
        if place + 1 < at and self.arrived[following] <= self.now:
            return place + 1  # it was about to return this one
        self.to(WAITING if self.workers else STEP, requested)
        return place


def _pinning(trace: Trace) -> float:
    """The share of handing batches over that goes into pinning them; NaN if none are pinned."""
    scenario = trace.meta.scenario
    if scenario is None or not scenario.loader.pin_memory:
        return NAN
    size = float(np.mean(trace.size)) if len(trace) else 0.0
    content = scenario.dataset.tensors, size * scenario.dataset.sample_bytes.mean
    pinned = scenario.charged.pin.of(*content)
    received = scenario.charged.receive.of(*content) if scenario.loader.num_workers else 0.0
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


def _later_arrivals(walk: _Walk, order: Integers) -> Floats:
    """For each batch of an epoch in `order`, when the first one after it was ready; inf if none."""
    status, epochs = walk.trace.status, walk.epochs
    batch = (epochs == epochs[order[0]]) & (status != ENDED) & (status != SKIPPED)
    batch[order] = False
    never = np.nan_to_num(walk.arrived[batch], nan=np.inf).min(initial=np.inf)
    arrived = np.append(np.nan_to_num(walk.arrived[order], nan=np.inf), never)
    found: Floats = np.minimum.accumulate(arrived[::-1])[::-1][1:]
    return found
