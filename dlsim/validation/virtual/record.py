"""Writing down what torch's loader does on the virtual clock, in the terms of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from torch.utils.data._utils.worker import _IterableDatasetStopIteration

from dlsim.engine.facts import MAIN
from dlsim.engine.processes.epochs import Metas
from dlsim.engine.processes.record import Recorder
from dlsim.engine.processes.sampler import Job, Jobs
from dlsim.engine.ranks import validation_seed
from dlsim.scenario import IterableDataset, Scenario
from dlsim.trace import trace as fates
from dlsim.trace.trace import Problem, Trace
from dlsim.validation.virtual.clock import Clock, Thread


@dataclass(frozen=True)
class Batch:
    """What the virtual `collate_fn` returns."""

    number: int
    size: int


@dataclass
class Hand:
    """What one process is fetching: which batch, taken when, and how many calls it has made."""

    number: int = MAIN
    taken: float = 0.0
    calls: int = 0


class Watcher:
    """Is told what goes through the queues and what user code is called; fills the recorder."""

    def __init__(
        self, scenario: Scenario, seed: int, clock: Clock, *, samples: bool, meets: bool = False
    ) -> None:
        self.scenario, self.seed, self.clock = scenario, seed, clock
        self.recorder = Recorder(samples=samples, meets=meets)
        self.problem: Problem | None = None  # that ended validation, or reading
        self.validation: Watcher | None = None
        if scenario.validation is not None:
            theirs = validation_seed(seed)
            self.validation = Watcher(scenario.validating, theirs, clock, samples=samples)
        self.reading: Watcher | None = None  # of the loader behind, where rank 0 reads for all
        if scenario.job.dispatches:
            self.reading = Watcher(scenario.reading, seed, clock, samples=samples)
        self.over = False  # the trace has ended; what still happens is not part of it
        self.count = 0  # batches returned in this epoch
        self.first_job: dict[int, int] = {}  # the batch number each worker answered first
        self._workers = scenario.loader.num_workers
        self._hands: dict[Thread, Hand] = {}  # of each process that has taken a job
        self._in_flight: dict[int, Job] = {}
        self._ended: set[int] = set()
        self._last_received = MAIN

    def is_over(self) -> None:
        """The trace has ended."""
        self.over = True
        for beside in (self.validation, self.reading):
            if beside is not None:
                beside.is_over()

    def trace(self, metas: Metas, problem: Problem | None, end: float) -> Trace:
        """What happened until `end`, with what ended it; and in validation, with what it raised."""
        recorder = self.recorder
        theirs, behind = (
            None if beside is None else beside.trace(metas, beside.problem, end)
            for beside in (self.validation, self.reading)
        )
        meta = metas(self.scenario, problem, recorder.caught)
        return recorder.trace(meta, end, validation=theirs, reading=behind)

    def start_epoch(self, epoch: int) -> None:
        """`iter(loader)` is about to be called."""
        endless = self.scenario.loader.endless
        self.recorder.epoch(self.clock.now, endless=endless)
        self.count = 0
        if epoch == 0 or not endless:
            self.draw(epoch)
            self.first_job = {}

    def skip(self, batches: int) -> None:
        """So many batches were returned before, in another run."""
        for _ in range(batches):
            self._jobs.next_indices()

    def thrown_away(self, passed: int) -> None:
        """`iter(loader)` has passed over so many batches, which nobody gets."""
        for number in range(passed):
            came = not isnan(self.recorder.received[number])
            if self.recorder.status[number] == fates.PENDING and came:
                self.recorder.status[number] = fates.DISCARDED

    def draw(self, epoch: int) -> None:
        """The sampler begins with the batches of `epoch`."""
        self._jobs = Jobs(self.scenario, self.seed, epoch)

    def job(self, number: int) -> Job:
        """The job of batch `number`."""
        return self._in_flight[number]

    def step(self, batch: Batch) -> float:
        """Seconds of the training step on a batch, which is the last asked of it."""
        each = self.scenario.consumer.step_per_sample
        return self._in_flight.pop(batch.number).step + each * batch.size

    def gives(self, job: Job) -> None:
        """A loop gives a batch that no worker of its own has fetched."""
        self._in_flight[job.number] = job

    # Told by the queues. A label travels beside each message.

    def sent(self, worker: int, message: Any) -> int | None:
        """Main puts `message` on an index queue; the label of a job is its batch number."""
        if not isinstance(message, tuple):
            return None
        indices = message[1]
        if self.scenario.loader.stateful:
            indices, _snapshot = indices
        return self._open(worker, indices if isinstance(indices, Sequence) else (indices,))

    def _open(self, worker: int, indices: Sequence[int]) -> int:
        if isinstance(self.scenario.dataset, IterableDataset):
            indices = range(len(indices))  # Nones, one for each sample to take
        number = len(self.recorder)
        self._in_flight[number] = self._jobs.job(number, indices)
        self.recorder.sent_to(worker, len(indices), self.clock.now)
        return number

    def taken(self, worker: int, number: int | None) -> None:
        """A worker takes a message off its index queue."""
        self._hands.pop(self.clock.current, None)
        if number is not None:
            self._hands[self.clock.current] = Hand(number, self.clock.now)

    def answered(self, message: Any) -> int | None:
        """A worker puts its answer on the result queue; the label is the batch number."""
        key, outcome = message
        if not isinstance(key, int):
            return None
        if self.scenario.loader.stateful:
            outcome, _worker, _state = outcome
        worker = self.clock.current.rank
        number = self._begun()
        self.first_job.setdefault(worker, number)
        if isinstance(outcome, _IterableDatasetStopIteration):
            self._ended.add(number)
        self._fetched(number, outcome)
        return number

    def _fetched(self, number: int, outcome: object) -> None:
        if self.over:
            return
        self.recorder.arrived[number] = self.clock.now
        if not isinstance(outcome, Batch):
            self._made(number, None)

    def _made(self, number: int, batch: Batch | None) -> None:
        """A worker is done with fetching for a job, and with collating what came of it."""
        if self.over:
            return
        self.recorder.size[number] = 0
        if batch is not None:
            self.recorder.size[number] = batch.size
            self.recorder.fetched[number] = self.clock.now

    def saving(self) -> None:
        """A worker saves its state, perhaps with nothing made of its last job."""
        if self.clock.current in self._hands:  # not when it has just begun
            number = self._begun()
            if isnan(self.recorder.fetched[number]):
                self._made(number, None)

    def received(self, number: int | None) -> None:
        """Main takes an answer off the result queue."""
        if number is None or self.over:
            return
        self._last_received = number
        self.recorder.received[number] = self.clock.now
        if number < self.recorder.first[-1] and not self.scenario.loader.endless:
            self.recorder.status[number] = fates.DISCARDED  # by the handshake of a new epoch
        elif number in self._ended:
            self.recorder.status[number] = fates.ENDED

    def terminated(self) -> None:
        """The worker that runs is terminated in whatever it does."""
        hand = self._hands.get(self.clock.current)
        if not self.over and self.recorder.samples is not None and hand is not None:
            self.recorder.samples.cut(hand.number, self.clock.now)

    # Told by user code, in the process that runs it.

    def _here(self) -> int:
        return MAIN if self.clock.in_main else self.clock.current.rank

    def _begun(self) -> int:
        """The batch that the running process fetches; it began when the process took it."""
        hand = self._hands[self.clock.current]
        if hand.number == MAIN:
            indices = self._jobs.next_indices()
            assert indices is not None
            hand.number = self._open(MAIN, indices)
        if not self.over:
            self.recorder.started[hand.number] = hand.taken
        return hand.number

    def service_time(self) -> float:
        """Seconds for the next call of a map-style dataset."""
        work = self.job(self._begun()).work
        assert work is not None
        return work.seconds[self._hands[self.clock.current].calls]

    def fetching(self, indices: Sequence[int], seconds: float) -> int:
        """The dataset is called here, for `seconds`; returns the batch number."""
        worker = self._here()
        number = self._begun()
        self._hands[self.clock.current].calls += 1
        if self.recorder.samples is not None and not self.over:
            now = self.clock.now
            row = self.recorder.samples.begin(indices, number, worker, now)
            self.recorder.samples.end(row, len(indices), now + seconds)
        return number

    def collating(self) -> int:
        """`collate_fn` is called here; returns the batch number."""
        return self._begun()

    def collated(self, batch: Batch) -> None:
        """A batch is collated."""
        self._made(batch.number, batch)
        self._fetched_here(batch.number, batch)

    def begin_alone(self) -> None:
        """Without workers, another batch is asked for."""
        self._hands[self.clock.current] = Hand(MAIN, self.clock.now)

    # Told by the training loop.

    def request(self) -> float:
        """`next(iterator)` is called, at the moment returned."""
        return self.clock.now

    def returned(self, batch: Batch, requested: float) -> None:
        """`next(iterator)` returned `batch`."""
        self.recorder.returned_to_user(batch.number, requested, self.clock.now)
        self.count += 1

    def passed_last(self, passed: int) -> int:
        """The batch of the last `next(iterator)`; torch has passed over `passed` of the epoch."""
        in_order = self.scenario.loader.in_order
        return self.recorder.first[-1] + passed - 1 if in_order else self._last_received

    def exhausted(self) -> None:
        """Without workers, there is no other batch: the dataset's iterator said so."""
        if isinstance(self.scenario.dataset, IterableDataset):
            number = self._begun()
            self._fetched_here(number, None)
            self.recorder.status[number] = fates.ENDED

    def failed(self, number: int) -> None:
        """`next(iterator)` raised what user code raised for batch `number`."""
        self._fetched_here(number, None)
        self.recorder.status[number] = fates.FAILED

    def _fetched_here(self, number: int, outcome: Batch | None) -> None:
        """Without workers, a batch is received where and when it is fetched."""
        if not self._workers:
            self._fetched(number, outcome)
            self.recorder.received[number] = self.clock.now

    def end_epoch(self, passed: int) -> None:
        """The loop is left when torch had passed over the epoch's first `passed` batches."""
        if self.scenario.loader.endless:
            return
        first = self.recorder.first[-1]
        for number in range(first, first + passed):
            came = not isnan(self.recorder.received[number])  # and a loop around torch's has it
            if self.recorder.status[number] == fates.PENDING and not came:
                self.recorder.skipped(number)
