"""Fetching a batch: samples from the dataset, one after another, then collate.

It follows torch's `_utils/fetch.py`, and is the same in a worker and in the main process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dlsim.engine.draws import CPU, READ, in_turn
from dlsim.engine.facts import Raised, failure, locked, shard_of
from dlsim.engine.processes.clock import Steps, sleep, until
from dlsim.engine.processes.downloads import Downloads
from dlsim.engine.processes.messages import ENDED, Fetched, Outcome
from dlsim.engine.processes.run import HELPING, Run
from dlsim.engine.processes.sampler import Job
from dlsim.engine.samples import Alike, SampleDraws, Work
from dlsim.engine.sums import after_equal_ones
from dlsim.scenario import IterableDataset, MapDataset, Scenario
from dlsim.scenario.dealing import kept


class Source(Protocol):
    """Where samples come from."""

    def take(self, job: Job) -> tuple[Sequence[int], Work]:
        """The dataset indices fetched for `job`, and the work they are."""

    def made(self, job: Job, taken: int) -> int:
        """How many samples the batch of `job` has, for which so many were taken; 0: no batch."""

    def there(self, place: int) -> Steps:
        """Wait until what the sample at a `place` of the last ones taken needs has come."""

    def broke(self) -> None:
        """An exception went through the source."""

    def close(self) -> None:
        """The worker wants no more of it."""


class MapSource:
    """`__getitem__` of a map-style dataset: whatever indices the job has."""

    def take(self, job: Job) -> tuple[Sequence[int], Work]:
        """All of the job's indices."""
        assert job.work is not None
        return job.indices, job.work

    def made(self, job: Job, taken: int) -> int:
        """All: every index has its sample."""
        return taken

    def there(self, place: int) -> Steps:
        """At once."""
        yield from ()

    def broke(self) -> None:
        """Leave the dataset as it is: the next index may well work."""

    def close(self) -> None:
        """Nothing of it goes on."""


class Shard:
    """The iterator that one worker gets from an iterable-style dataset, started anew each epoch.

    A generator that has raised is exhausted, as Python's are.
    """

    def __init__(self, run: Run, epoch: int, worker: int) -> None:
        scenario = run.scenario
        self._indices, self._taken = shard_of(scenario, worker), 0
        self._samples = SampleDraws(
            scenario, run.seed, epoch, worker + 1, at_once=run.at_once, ideal=run.cores is None
        )
        self._loader, self._job = scenario.loader, scenario.job
        self._batches = scenario.job.world if scenario.job.keeps else 1  # read for one
        self._ended, self._first = False, 0
        ahead = scenario.downloads and run.cores is not None
        self._files = Downloads(run, worker, self._indices) if ahead else None

    def take(self, job: Job) -> tuple[Sequence[int], Work]:
        """As many samples as make the batch that the job asks for, or as there still are."""
        asked = 0 if self._ended else len(job.indices) * self._batches
        indices = self._indices[self._taken : self._taken + asked]
        self._first = self._taken
        self._taken += asked
        self._ended = self._ended or len(indices) < asked
        return indices, self._samples.work(indices)

    def made(self, job: Job, taken: int) -> int:
        """None where nothing was left, or only part of a batch, if partial ones are dropped."""
        if self._job.keeps:
            return kept(taken, self._job, self._loader)
        return 0 if self._loader.drop_last and taken < len(job.indices) else taken

    def there(self, place: int) -> Steps:
        """Wait until the file of the sample has been downloaded, where files are."""
        if self._files is not None:
            yield from self._files.sample(self._first + place)

    def broke(self) -> None:
        """End the iterator."""
        self._ended = True

    def close(self) -> None:
        """End what is downloaded."""
        if self._files is not None:
            self._files.stop()


def source(run: Run, epoch: int, worker: int) -> Source:
    """Where `worker` gets its samples from in `epoch`."""
    if isinstance(run.scenario.dataset, IterableDataset):
        return Shard(run, epoch, worker)
    return MapSource()


def fetch(run: Run, job: Job, worker: int, samples: Source) -> Steps:
    """Fetch one sample after another, collate them, and return the outcome and its bytes."""
    indices, work = samples.take(job)
    made = samples.made(job, len(indices))
    if run.cores is None:
        raised = yield from fetch_undisturbed(run, job, worker, indices, work)
    else:
        raised = yield from fetch_sharing(run, job, worker, indices, work, samples)
    outcome: Outcome
    size = work.size
    if raised is not None:
        samples.broke()
        outcome = raised
    elif not made:
        outcome = ENDED
    else:
        size *= made / len(indices)  # of those that are kept
        yield from run.compute(
            worker, job.collate + run.shares.of(run.scenario.dataset.tensors, size)
        )
        outcome = failure(run.scenario, "collate", job.number) or Fetched(made)
    recorder = run.recorder
    recorder.size[job.number] = 0
    if isinstance(outcome, Fetched):
        recorder.size[job.number] = outcome.count
        recorder.fetched[job.number] = run.env.now
    return outcome, size


def calls_of(scenario: Scenario, indices: Sequence[int]) -> Sequence[Sequence[int]]:
    """The indices of each call of the dataset: one, or with `__getitems__` all at once."""
    dataset = scenario.dataset
    batched = isinstance(dataset, MapDataset) and dataset.batched
    return [indices] if batched else [(index,) for index in indices]


def fetch_undisturbed(run: Run, job: Job, worker: int, indices: Sequence[int], work: Work) -> Steps:
    """Fetch where nobody else can slow it down: all calls are one timeout.

    Returns the exception that user code raised, or None.
    """
    now = run.env.now
    round_trip, samples = run.round_trip, run.recorder.samples
    run.recorder.started[job.number] = now + round_trip if len(work.seconds) else now
    if samples is None and not run.scenario.failures:
        if isinstance(work.seconds, Alike):
            now = after_equal_ones(now, len(work.seconds), round_trip, work.seconds.value)
        elif round_trip == 0:
            now = in_turn(work.seconds, now)
        else:
            for seconds in work.seconds.tolist():
                now = now + round_trip + seconds
        yield from _until(run, now, worker)
        return None
    raised = None
    times = work.seconds if isinstance(work.seconds, Alike) else work.seconds.tolist()
    for call, seconds in zip(calls_of(run.scenario, indices), times, strict=True):
        began = now + round_trip
        now = began + seconds
        if samples is not None:
            row = samples.begin(call, job.number, worker, began)
            samples.end(row, len(call), now)
        raised = raised_by(run, call)
        if raised is not None:
            break
    yield from _until(run, now, worker)
    return raised


def _until(run: Run, moment: float, worker: int) -> Steps:
    """Wait for a moment to come; if it is this one, nobody gets a turn in between."""
    if moment > run.env.now:
        yield until(run.env, moment, run.turns.of(worker))


def fetch_sharing(
    run: Run, job: Job, worker: int, indices: Sequence[int], work: Work, dataset: Source
) -> Steps:
    """Fetch where cores and storage are shared: each demand takes as long as it takes.

    Returns the exception that user code raised, or None. Processor time that follows on
    processor time is asked for at once, unless samples are watched one by one.
    """
    env, turn, samples = run.env, run.turns.of(worker), run.recorder.samples
    run.recorder.started[job.number] = env.now + (run.round_trip if indices else 0.0)
    if work.computing is not None:
        yield from run.compute(worker, work.computing)
        return None
    calls = calls_of(run.scenario, indices)
    one_by_one = samples is not None or bool(run.scenario.failures)
    owed, ahead, customer = 0.0, run.scenario.downloads, run.customer(worker)
    stages = run.scenario.dataset.fetch
    threads = [stage.threads for stage in stages]
    locks = [locked(run.scenario, number) for number in range(len(stages))]
    slept = False
    for place, (call, demands) in enumerate(zip(calls, work.demands, strict=True)):
        if ahead:
            yield from run.compute(worker, owed)
            owed = 0.0
            yield from dataset.there(place)
        if run.round_trip:
            yield from run.compute(worker, owed)
            owed = 0.0
            yield sleep(env, run.round_trip, turn)
        if samples is not None:
            row = samples.begin(call, job.number, worker, env.now)
        for demand, stage, amount in demands:
            together = threads[stage]
            lock = locks[stage] if demand == CPU else 0.0
            if lock > 0 and amount[0] > 0:
                yield from run.compute(worker, owed)
                owed = 0.0
                yield from run.lock.enter(turn)
                yield from run.compute(worker, lock * amount[0])
                run.lock.leave()
            if demand == CPU and together > 1:
                yield from run.compute(worker, owed)
                owed = 0.0
                free = (1 - lock) * amount[0]
                crew, linger = helpers(worker, together), stages[stage].linger
                yield from run.compute_together(
                    crew, free, turn, linger, by_chance=True, slept=slept
                )
                slept = slept and not free > 0
                continue
            if demand == CPU:
                owed += (1 - lock) * amount[0]
                continue
            yield from run.compute(worker, owed, turn)
            owed = 0.0
            if demand == READ and not ahead:
                at = run.first_stage + stage  # whose samples may be in the page cache
                yield from run.disk.read(customer, turn, at, call, *amount)
            elif demand != READ and amount[0] > 0:
                yield sleep(env, amount[0], turn)
                slept = True
        if one_by_one:
            yield from run.compute(worker, owed)
            owed = 0.0
            if samples is not None:
                samples.end(row, len(call), env.now)
            raised = raised_by(run, call)
            if raised is not None:
                return raised
    yield from run.compute(worker, owed)
    return None


def helpers(worker: int, threads: int) -> list[int]:
    """The customers of the cores that threads of a library are in a worker: itself the first."""
    return [worker, *(HELPING * thread + worker for thread in range(1, threads))]


def raised_by(run: Run, indices: Sequence[int]) -> Raised | None:
    """The exception that a call of the dataset raises, or None."""
    if not run.scenario.failures:
        return None
    raised = (failure(run.scenario, "fetch", index) for index in indices)
    return next(filter(None, raised), None)
