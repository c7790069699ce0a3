"""The critical path: what, moment by moment, kept a run from being over sooner.

Walked back from the end. Whatever ends at a moment was begun by something that ended then: a
step, by the return of its batch; a return that was waited for, by the batch's arrival; an
arrival, by its fetching; a fetch, by the end of the worker's previous one, or else by the index
list that was sent; and that, by the return that gave the credit back. So every moment of the run
is put down to exactly one cause, and the shares add up to the whole.

=============  ==============================================================================
step           the training loop was busy with a step (or with anything else but `next()`)
fetch: ...     a worker was fetching: divided among its stages by their mean times
collate        it was collating
storage        it was reading from storage, or waited for others who were
core           it waited for a core
head of line   it was fetching, while a later batch lay ready that order forbade to return
take           between two batches of a worker; the way of an index list to it
transport      from the worker's collated batch to a message that can be read
receive        from there to the return of `next()`: receiving, pinning, dispatching
start-up       from the start of the first epoch to its first batch
epoch edge     the same of later epochs; and from the last step of an epoch to its end
error          from the last step to the exception or timeout that ended the run
waiting        waiting in `next()` for something else, or for what was not observed
=============  ==============================================================================

Without workers there is no pipeline to fill: fetching the first batch is fetching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.metrics import NAN, fetches, mean, span, worker_count
from dlsim.trace.trace import ENDED, SKIPPED, Floats, Integers, Trace

STEP, FETCH, COLLATE, HEAD_OF_LINE = "step", "fetch", "collate", "head of line"
CORE, STORAGE = "core", "storage"
TAKE, TRANSPORT, RECEIVE = "take", "transport", "receive"
START, EDGE, ERROR, WAITING = "start-up", "epoch edge", "error", "waiting"


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
    ranked = sorted(seconds.items(), key=lambda entry: -entry[1])
    return {cause: value / whole for cause, value in ranked} if whole > 0 else {}


def grouped(found: Mapping[str, float]) -> dict[str, float]:
    """What is `found` of each cause, all stages of fetching taken together."""
    groups: dict[str, float] = {}
    for cause, value in found.items():
        group = FETCH if cause.startswith(FETCH) else cause
        groups[group] = groups.get(group, 0.0) + value
    return groups


def fetch_shares(trace: Trace) -> dict[str, float]:
    """How the time of fetches is divided among the stages, collating, storage and cores.

    By the means that the scenario states, reading at its latency and full bandwidth. What
    fetches took on average beyond that, where cores or storage are limited, was spent waiting
    for them: for each in proportion to what was asked of it.
    """
    scenario = trace.meta.scenario
    if scenario is None:
        return {FETCH: 1.0}
    machine = scenario.machine
    seconds, computed, read = _stated(scenario, float(np.mean(trace.size)) if len(trace) else 0.0)
    stated = sum(seconds.values())
    took = mean(fetches(trace)[1] - trace.started)
    limited = machine.storage.bandwidth or machine.storage.requests_per_second
    asked = {CORE: computed if machine.cores else 0.0, STORAGE: read if limited else 0.0}
    total = sum(asked.values())
    if took > stated and total > 0:
        for cause, amount in asked.items():
            seconds[cause] = seconds.get(cause, 0.0) + (took - stated) * amount / total
        stated = took
    return {name: value / stated for name, value in seconds.items()} if stated > 0 else {FETCH: 1.0}


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
        self.workers = worker_count(trace) > 0
        self.in_order = scenario is None or scenario.loader.in_order
        self.latency = scenario.costs.index_latency if scenario is not None else 0.0
        self.before = _previous_on_worker(trace)
        self.epochs = trace.epoch_of(np.arange(len(trace)))
        self.order_epochs = trace.epoch_of(trace.order)
        self.done = np.where(np.isnan(trace.fetched), trace.arrived, trace.fetched)

    def to(self, cause: str, moment: float, batch: int = -1) -> None:
        """Put the time from `moment` to where the walk is down to `cause`.

        Never goes forward, nor below the floor; a moment not observed (NaN) does not move it.
        """
        moment = max(moment, self.floor)
        if moment < self.now:
            self.pieces.append(Piece(cause, moment, self.now, batch))
            self.now = moment

    def epoch(self, epoch: int) -> None:
        """All of one epoch: its end, the batches in reverse, its beginning."""
        trace = self.trace
        mine = trace.order[self.order_epochs == epoch]
        started = trace.epochs.started[epoch]
        begin = self.begin if epoch == 0 else started
        failed = trace.meta.problem is not None and epoch == len(trace.epochs.started) - 1
        self.floor = begin
        if len(mine):
            self.to(ERROR if failed else EDGE, float(np.fmax.reduce(trace.finished[mine])))
            if self.workers:
                self.floor = max(begin, trace.returned[mine[0]])
            self.batches(mine)
            self.floor = begin
        elif failed:
            self.to(ERROR, begin)
        self.to(START if epoch == 0 else EDGE, begin)

    def batches(self, order: Integers) -> None:
        """From the end of the last step of an epoch back to the floor, along binding causes."""
        trace = self.trace
        ready = _later_arrivals(trace, order, self.epochs) if self.in_order else None
        returned = trace.returned[order]
        at = len(order) - 1
        while at >= 0 and self.now > self.floor:
            batch = int(order[at])
            before = trace.finished[order[at - 1]] if at > 0 else NAN
            if trace.returned[batch] < before <= self.now:
                self.to(STEP, before, batch)  # an accelerator that the host runs ahead of
                at -= 1
                continue
            self.to(STEP, trace.returned[batch], batch)
            if trace.requested[batch] < self.now:
                line = ready[at] if ready is not None else NAN
                at = self.waited(at, order, returned, line)
            else:
                at -= 1

    def waited(self, at: int, order: Integers, returned: Floats, line: float) -> int:
        """`next()` waited for the batch at place `at`: walk back to what it waited for.

        `line` is when a later batch was ready. Returns the place to go on from, in whose step or
        `next()` the walk now is.
        """
        trace, batch = self.trace, int(order[at])
        requested = float(trace.requested[batch])
        arrived = trace.arrived[batch]
        if not arrived > requested:  # it was there: the time went into handing it over
            self.to(WAITING if np.isnan(arrived) else RECEIVE, requested, batch)
            return at - 1
        self.to(RECEIVE, arrived, batch)
        self.to(TRANSPORT, self.done[batch], batch)
        if line < self.now:
            started = trace.started[batch]
            self.to(HEAD_OF_LINE, np.fmax(np.fmax(requested, line), started), batch)
        current: int = batch
        while True:
            self.to(FETCH, trace.started[current], current)
            previous = int(self.before[current])
            bound = previous >= 0 and self.done[previous] >= trace.sent[current] + self.latency
            if not bound:
                break
            self.to(TAKE, self.done[previous], previous)
            current = previous
        self.to(TAKE, trace.sent[current], current)
        return self.sender(at, returned, order)

    def sender(self, at: int, returned: Floats, order: Integers) -> int:
        """The place in whose step the walk now is, or that `next()` was waiting for just then.

        An index list is sent by the `next()` that returns another batch, just before it does, or
        on word that a worker has no more data; the time since `next()` was called is its own.
        """
        place = min(int(np.searchsorted(returned, self.now, side="right")) - 1, at - 1)
        following = int(order[place + 1])
        requested = self.trace.requested[following]
        if place + 1 < at and self.trace.arrived[following] <= self.now:
            return place + 1  # it was about to return this one
        self.to(WAITING if self.workers else STEP, requested)
        return place


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


def _later_arrivals(trace: Trace, order: Integers, epochs: Integers) -> Floats:
    """For each batch of an epoch in `order`, when the first one after it was ready; inf if none."""
    epoch = epochs[order[0]]
    batch = (epochs == epoch) & (trace.status != ENDED) & (trace.status != SKIPPED)
    batch[order] = False
    never = np.nan_to_num(trace.arrived[batch], nan=np.inf).min(initial=np.inf)
    arrived = np.append(np.nan_to_num(trace.arrived[order], nan=np.inf), never)
    found: Floats = np.minimum.accumulate(arrived[::-1])[::-1][1:]
    return found
