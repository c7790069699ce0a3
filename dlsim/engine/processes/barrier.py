"""Where ranks meet: the barrier, and training steps that lead up to it."""

from __future__ import annotations

from collections import deque
from math import inf

import simpy

from dlsim.engine.draws import SYNC, Stream
from dlsim.engine.processes.clock import Steps, Turns, begin, happen, until
from dlsim.engine.processes.run import Run
from dlsim.engine.processes.training import on_cores
from dlsim.scenario import Scenario


class Barrier:
    """Ranks that have come wait for the others; some time after the last has come, all go on."""

    def __init__(self, env: simpy.Environment, scenario: Scenario, seed: int) -> None:
        self.env, self.job = env, scenario.job
        self.stuck = env.event()  # those who wait, wait for ranks that are gone
        self._here: dict[int, simpy.Event] = {}
        self._joined: dict[int, simpy.Event] = {}  # have no more, and take part all the same
        self.gone: set[int] = set()
        self._times = Stream(self.job.sync_time, "job.sync_time", (SYNC,), seed)
        self._turns = [Turns(rank).last for rank in range(self.job.world)]
        self._met = 0

    @property
    def waiting(self) -> list[int]:
        """The ranks that have come, and wait."""
        return sorted(self._here)

    def meet(self, rank: int) -> Steps:
        """Come, and go on with the others: at once, if that takes no time."""
        mine = self._here[rank] = self.env.event()
        if self._look_around() > 0:
            yield mine

    def end_epoch(self, rank: int, *, last: bool) -> Steps:
        """The rank has left an epoch; it waits for the others, if that is where they meet."""
        if self.job.sync == "epoch" and not last:
            yield from self.meet(rank)
        if self.job.sync not in ("epoch", "never") and self.job.uneven == "join":
            mine = self._joined[rank] = self.env.event()
            if len(self._joined) == self.job.world:
                for other, each in self._joined.items():
                    happen(each, self._turns[other])
                self._joined = {}
            self._look_around()
            if not last:
                yield mine

    def leave(self, rank: int) -> None:
        """The rank has left its last epoch."""
        self.gone.add(rank)
        self._look_around()

    def _look_around(self) -> float:
        """Let all go on if all have come; returns in how many seconds, infinity if not."""
        if not self._here:
            return inf
        coming = self.job.world - len(self._here) - len(self._joined)
        if coming == 0:
            seconds = self._times.take((self._met,))[0]
            self._met += 1
            for rank, each in self._here.items():
                happen(each, self._turns[rank], seconds)
            self._here = {}
            return seconds
        if coming == len(self.gone - self._joined.keys()) and not self.stuck.triggered:
            self.stuck.succeed()
        return inf


class StepsToBarrier:
    """Where steps are computed, and batches copied to, if ranks meet after every so many steps.

    As `Training`; but when the accelerator will have done what is given to it, nobody knows before
    all have come.
    """

    def __init__(self, run: Run, barrier: Barrier, every: int) -> None:
        self.run, self.barrier, self.every = run, barrier, every
        self.consumer = run.scenario.consumer
        self._count = 0
        self._copied = 0.0  # when the accelerator has all batches given to it
        self._under_way: deque[simpy.Event] = deque()  # the end of each step, the oldest first
        self._last = run.env.event().succeed()  # the end of the step given last

    def step(self, number: int, seconds: float, size: float) -> Steps:
        """Train on batch `number` of `size` bytes for `seconds`; returns when the host goes on."""
        run, env = self.run, self.run.env
        self._count += 1
        meets = self._count % self.every == 0
        if self.consumer.device == "cpu":
            yield from on_cores(run, seconds)
            yield from self._end(number, meets)
            return
        copy, ready = run.costs.copy_byte * size, 0.0
        if self.consumer.overlap_copy:
            ready = self._copied = max(env.now, self._copied) + copy
            copy = 0.0
        elif copy > 0 and run.scenario.copied_by_host(size):
            yield from self._wait(0)
            yield from run.spin(until(env, env.now + copy, run.turns.last))
            copy = 0.0
        over = env.event()
        begin(env, self._accelerate(self._last, over, number, copy, ready, seconds, meets))
        self._last = over
        self._under_way.append(over)
        yield from self._wait(self.consumer.run_ahead)

    def drain(self) -> Steps:
        """Wait until the accelerator has done everything, as the end of an epoch does."""
        self._count = 0
        yield from self._wait(0)

    def catch_up(self) -> Steps:
        """The same in the middle of an epoch."""
        yield from self._wait(0)

    def _accelerate(
        self,
        before: simpy.Event,
        over: simpy.Event,
        number: int,
        copy: float,
        ready: float,
        seconds: float,
        meets: bool,
    ) -> Steps:
        """One step on the accelerator, when the one before it is over."""
        if not before.triggered:
            yield before
        env, last = self.run.env, self.run.turns.last
        end = max(env.now + copy, ready) + seconds
        if end > env.now:
            yield until(env, end, last)
        yield from self._end(number, meets)
        happen(over, last)

    def _end(self, number: int, meets: bool) -> Steps:
        self.run.recorder.stepped[number] = self.run.env.now
        if meets:
            yield from self.barrier.meet(self.run.rank)
        self.run.recorder.finished[number] = self.run.env.now

    def _wait(self, ahead: int) -> Steps:
        """Wait until at most `ahead` steps are under way."""
        while len(self._under_way) > ahead:
            over = self._under_way.popleft()
            if not over.triggered:
                yield from self.run.spin(over)
