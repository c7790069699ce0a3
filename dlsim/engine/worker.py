"""A worker: takes jobs off its index queue, fetches, collates, and puts the outcome on a queue.

It follows torch's `_worker_loop` and `_utils/fetch.py`. The main process fetches with the same
`fetch` when there are no workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import simpy

from dlsim.engine.buffer import Mailbox
from dlsim.engine.clock import Steps, until
from dlsim.engine.draws import ServiceTimes
from dlsim.engine.run import Run
from dlsim.engine.sampler import Job
from dlsim.scenario import IterableDataset, MapDataset, Scenario

MAIN = -1  # the worker number of the main process

# Messages to workers besides jobs.
RESUME = "resume"  # a new epoch begins: acknowledge, and start the iterator again
STOP = "stop"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A batch of `size` samples."""

    size: int


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of user code, on its way to the `next()` that will raise it."""

    kind: str
    message: str


ENDED: Literal["ended"] = "ended"  # the iterator has nothing more for this worker
Outcome: TypeAlias = Fetched | Raised | Literal["ended"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker puts on the result queue: a job's outcome; None acknowledges a new epoch."""

    worker: int
    number: int
    outcome: Outcome | None


@dataclass(slots=True)
class Pool:
    """The workers of one or more epochs: their queues, their processes, and torch's done event."""

    index_queues: list[Mailbox]
    result_queue: Mailbox
    processes: list[simpy.Process] = field(default_factory=list)
    closing: bool = False


class Source(Protocol):
    """Where samples come from."""

    def take(self, job: Job) -> tuple[Sequence[int], Sequence[float]]:
        """The dataset indices fetched for `job`, and the seconds for each."""

    def exhausted_by(self, job: Job, taken: int) -> bool:
        """Whether `taken` samples are too few to make a batch of `job`."""

    def broke(self) -> None:
        """An exception went through the source."""


class MapSource:
    """`__getitem__` of a map-style dataset: whatever indices the job has."""

    def take(self, job: Job) -> tuple[Sequence[int], Sequence[float]]:
        """All of the job's indices."""
        return job.indices, job.service

    def exhausted_by(self, job: Job, taken: int) -> bool:
        """Never: every index has its sample."""
        return False

    def broke(self) -> None:
        """Leave the dataset as it is: the next index may well work."""


class Shard:
    """The iterator that one worker gets from an iterable-style dataset, started anew each epoch.

    A generator that has raised is exhausted, as Python's are.
    """

    def __init__(self, scenario: Scenario, seed: int, epoch: int, worker: int) -> None:
        dataset, loader = scenario.dataset, scenario.loader
        assert isinstance(dataset, IterableDataset)
        self._rest: Iterator[int] = iter(dataset.shard(max(worker, 0), loader.num_workers))
        self._service = ServiceTimes(dataset.fetch, seed, epoch, worker + 1)
        self._drop_last = loader.drop_last
        self._ended = False

    def take(self, job: Job) -> tuple[Sequence[int], Sequence[float]]:
        """As many samples as the job asks for, or as there still are."""
        indices = list(islice(self._rest, 0 if self._ended else len(job.indices)))
        self._ended = len(indices) < len(job.indices)
        return indices, self._service.take(indices)

    def exhausted_by(self, job: Job, taken: int) -> bool:
        """Whether nothing was left, or only part of a batch where partial ones are dropped."""
        return taken == 0 or (self._drop_last and taken < len(job.indices))

    def broke(self) -> None:
        """End the iterator."""
        self._ended = True


def source(scenario: Scenario, seed: int, epoch: int, worker: int) -> Source:
    """Where `worker` gets its samples from in `epoch`."""
    if isinstance(scenario.dataset, IterableDataset):
        return Shard(scenario, seed, epoch, worker)
    return MapSource()


def failure(scenario: Scenario, where: str, at: int) -> Raised | None:
    """The exception that user code raises at this place, or None."""
    for planned in scenario.failures:
        if planned.where == where and planned.at == at:
            place = {"fetch": "sample", "collate": "batch", "worker_init_fn": "worker"}[where]
            return Raised(where, f"{where} raised an exception for {place} {at}")
    return None


def fetch(run: Run, job: Job, worker: int, samples: Source) -> Steps:
    """Fetch one sample after another, collate them, and return the outcome.

    Nothing here depends on anyone else, so all of it is one timeout.
    """
    scenario, recorder, number = run.scenario, run.recorder, job.number
    indices, seconds = samples.take(job)
    if isinstance(scenario.dataset, MapDataset) and scenario.dataset.batched:
        calls = [(indices, seconds[0])]  # __getitems__: one call fetches them all
    else:
        calls = [((index,), duration) for index, duration in zip(indices, seconds, strict=True)]
    # Row by row, each index comes with a round trip, which torch's one message for all spares.
    round_trip = scenario.costs.index_latency if scenario.policy == "row" else 0.0
    now = run.env.now
    recorder.started[number] = now + round_trip if calls else now
    raised = None
    for fetched, duration in calls:
        began = now + round_trip
        now = began + duration
        if recorder.samples is not None:
            for index in fetched:
                recorder.samples.add(index, number, worker, began, now)
        if scenario.failures:
            raised = next(filter(None, (failure(scenario, "fetch", i) for i in fetched)), None)
            if raised is not None:
                break
    outcome: Outcome
    if raised is not None:
        samples.broke()
        outcome = raised
    elif samples.exhausted_by(job, len(indices)):
        outcome = ENDED
    else:
        now += job.collate
        outcome = failure(scenario, "collate", number) or Fetched(len(indices))
    yield until(run.env, now)
    if isinstance(outcome, Fetched):
        recorder.fetched[number] = now
        recorder.size[number] = outcome.size
    else:
        recorder.size[number] = 0
    return outcome


def worker(run: Run, number: int, epoch: int, pool: Pool) -> Steps:
    """Worker process `number`, started in `epoch`, until it is told to stop."""
    env, recorder = run.env, run.recorder
    samples = source(run.scenario, run.seed, epoch, number)
    broken = failure(run.scenario, "worker_init_fn", number)
    ended = False
    while True:
        job = yield from pool.index_queues[number].get()
        if job is STOP:
            return
        if job is RESUME:
            epoch += 1
            samples = source(run.scenario, run.seed, epoch, number)
            ended = False
            pool.result_queue.put(Answer(number, -1, None), number)
            continue
        if ended or pool.closing:
            continue
        outcome: Outcome
        if broken is not None:
            # The first job is answered by what worker_init_fn raised. Later ones fail as well,
            # as there is nothing to fetch with, but the loop ends before it sees those.
            outcome = broken
            recorder.started[job.number] = env.now
            recorder.size[job.number] = 0
        else:
            try:
                outcome = yield from fetch(run, job, number, samples)
            except simpy.Interrupt:  # terminated, having taken too long to stop
                if recorder.samples is not None:
                    recorder.samples.cut(job.number, env.now)
                return
        ended = outcome is ENDED
        recorder.arrived[job.number] = env.now
        pool.result_queue.put(Answer(number, job.number, outcome), number)
