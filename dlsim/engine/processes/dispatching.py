"""Rank 0 reads for all ranks of a job: what it broadcasts, and the loop of each rank around it.

`DataLoaderDispatcher` of accelerate 1.15. Every rank makes an iterator of its own loader, but only
rank 0 calls its `next()`: the workers of the others fetch a window that nobody takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from dlsim.engine.draws import BROADCAST, STEP, Stream
from dlsim.engine.facts import MAIN
from dlsim.engine.processes.clock import Steps, Turns, happen
from dlsim.engine.processes.consumer import Loader, LoaderError
from dlsim.engine.processes.messages import Batch
from dlsim.engine.processes.run import Run
from dlsim.scenario import Scenario
from dlsim.scenario.dealing import slices


@dataclass(frozen=True, slots=True)
class Round:
    """Batches that rank 0 has read: samples in each, bytes of all, and whether there are no more.

    That is known beforehand only of a round that is short of batches.
    """

    samples: list[int]
    size: float
    last: bool


class Broadcasts:
    """Where all ranks meet for what rank 0 has to tell: who has come waits for the others."""

    def __init__(self, env: simpy.Environment, scenario: Scenario, seed: int) -> None:
        self.env, self.world = env, scenario.job.world
        time = scenario.job.broadcast_time
        self._times = Stream(time, "job.broadcast_time", (BROADCAST,), seed)
        self._turns = [Turns(rank).last for rank in range(self.world)]
        self._here: dict[int, simpy.Event] = {}
        self._said: Round | None = None
        self._heard: list[Round | None] = [None] * self.world
        self._sent = 0

    def tell(self, rank: int, found: Round | None) -> Steps:
        """Meet for the next round, which only rank 0 has `found`; returns it, None for the end."""
        if rank == 0:
            self._said = found
        yield from self._meet(rank, 0.0)
        return self._heard[rank]

    def send(self, rank: int) -> Steps:
        """Meet for the batches of a round."""
        took = 0.0
        if len(self._here) + 1 == self.world:
            took = self._times.take((self._sent,))[0]
            self._sent += 1
        yield from self._meet(rank, took)

    def _meet(self, rank: int, seconds: float) -> Steps:
        """Come, and go on with the others: so many seconds after the last one has come."""
        mine = self._here[rank] = self.env.event()
        if len(self._here) == self.world:
            for other, each in self._here.items():
                self._heard[other] = self._said
                happen(each, self._turns[other], seconds)
            self._here = {}
            if not seconds > 0:
                return
        yield mine


class Dispatched:
    """The loop of a rank around the rounds that rank 0 reads, one of them ahead.

    Before a batch is given, the next round has been read. What is written down of a batch is when
    word of its round has come (`sent`), and the batches themselves (`received`); what is written
    down of the loader behind is its own.
    """

    def __init__(self, run: Run, loader: Loader) -> None:
        assert run.broadcasts is not None
        self.run, self.loader, self.broadcasts = run, loader, run.broadcasts
        self.drop_last = run.scenario.loader.drop_last

    def start_epoch(self, epoch: int) -> Steps:
        """`iter(loader)`, which does nothing yet."""
        self.epoch, self.begun = epoch, False
        step = self.run.scenario.consumer.step
        self.steps = Stream(step, "consumer.step", (STEP,), self.run.seed, epoch)
        yield from ()

    def _begin(self) -> Steps:
        """The first `next()`: the loader begins its epoch, and the first round is read."""
        self.begun, self.open, self.first = True, True, 0
        recorder = self.loader.run.recorder
        recorder.epoch(self.run.env.now)
        yield from self.loader.start_epoch(self.epoch)
        recorder.epoch_primed[-1] = self.run.env.now
        self.ahead: Round | None = yield from self._next_round()

    def next(self) -> Steps:
        """This rank's slice of the round that was read last, once the next one has been read."""
        run, env, recorder = self.run, self.run.env, self.run.recorder
        if not self.begun:
            yield from self._begin()
        current = self.ahead
        if current is None:
            yield from self._close()
            return None
        number = len(recorder) - 1
        yield from self.broadcasts.send(run.rank)
        recorder.received[number] = env.now
        self.ahead = None if current.last else (yield from self._next_round())
        total = sum(current.samples)
        self.first = self.first or total
        last = self.first if self.ahead is None else 0
        world = run.scenario.job.world
        count = slices(current.samples, world, last, drop_last=self.drop_last)[run.rank]
        recorder.size[number] = count
        step = self.steps.take((len(recorder.order),))[0]
        step += run.scenario.consumer.step_per_sample * count
        return Batch(number, step, current.size * count / total)

    def _next_round(self) -> Steps:
        """Read a round, if this is rank 0, and hear what it has read: None if there is no more."""
        run = self.run
        found = (yield from self._read()) if run.rank == 0 else None
        found = yield from self.broadcasts.tell(run.rank, found)
        if found is not None:
            run.recorder.sent_to(MAIN, 0, run.env.now)
        return found

    def _read(self) -> Steps:
        """The next round of the loader; None if nothing comes of what there is."""
        env, job = self.run.env, self.run.scenario.job
        recorder, taken = self.loader.run.recorder, list[Batch]()
        while len(taken) < job.round:
            requested = env.now
            try:
                batch = yield from self.loader.next()
            except LoaderError as error:
                recorder.problem = error.at(env.now)
                raise LoaderError(error.kind, str(error), MAIN) from None
            if batch is None:
                break
            recorder.returned_to_user(batch.number, requested, env.now)
            taken.append(batch)
        short = len(taken) < job.round
        if short and (not taken or self.drop_last):
            return None
        samples = [recorder.size[batch.number] for batch in taken]
        return Round(samples, sum(batch.size for batch in taken), last=short)

    def _close(self) -> Steps:
        """The iterator of the loader goes: that of rank 0 has come to its end."""
        if self.open:
            if self.run.rank != 0:
                yield from self.loader.leave()
            self._end()

    def leave(self) -> Steps:
        """The loop is left early."""
        if self.begun and self.open:
            yield from self.loader.leave()
            self._end()

    def _end(self) -> None:
        self.open = False
        self.loader.run.recorder.epoch_ended[-1] = self.run.env.now
