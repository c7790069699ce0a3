"""What all stages of a pipeline share: the machine, random numbers, and the record."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

import numpy as np
import simpy

from dlsim.engine.draws import CPU, LATENCY, READ, STEP, WAIT, Stream
from dlsim.engine.processes.buffer import Turnstile
from dlsim.engine.processes.clock import Alarms, Turns, sleep
from dlsim.engine.processes.cores import Sharing
from dlsim.engine.processes.storage import Disk, local
from dlsim.engine.progress import advance
from dlsim.scenario import Distribution, Stage
from dlsim.scenario.pipeline import Pipeline
from dlsim.trace.pipeline import Moments, PipelineTrace

Steps: TypeAlias = Generator[simpy.Event, Any, Any]
Row: TypeAlias = tuple[int, float, float, float]  # item, requested, returned, finished
END = object()  # comes after the last item
EACH = 100e-6  # seconds that it takes to simulate what a stage does for an item, about
SOURCE = 0  # the number of the source among stages; the n-th link is stage n


class Numbers:
    """The random numbers of one role, by item, whatever the order in which they are asked for."""

    def __init__(self, distribution: Distribution, name: str, role: tuple[int, ...], seed: int):
        self._stream = Stream(distribution, name, role, seed, 0)
        self._drawn: list[float] = []

    def of(self, item: int) -> float:
        """The number of `item`."""
        while len(self._drawn) <= item:
            self._drawn += self._stream.take((len(self._drawn),))
        return self._drawn[item]


class Run:
    """One run of a pipeline: its clock, its machine, and the moments of its items."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline, self.env, self.turns = pipeline, simpy.Environment(), Turns()
        machine, alarms = pipeline.machine, Alarms(self.env)
        self.disk = Disk(local(self.env, machine.storage, alarms), machine.storage.cache)
        self.cores = Sharing(self.env, machine.rate, machine.background, alarms=alarms)
        self.lock = Turnstile(self.env)  # Python's, of the main process
        self.stages = pipeline.stages
        self.begun: list[list[tuple[float, int]]] = [[] for _ in self.stages]
        self.ended: list[list[tuple[float, int]]] = [[] for _ in self.stages]
        self._locks: list[Turnstile] = []  # of each thread, that of its process
        self._numbers: dict[tuple[int, int], Numbers] = {}
        self.seed = seed
        self.step = Numbers(pipeline.step, "step", (STEP,), seed)

    def trace(self, rows: list[Row]) -> PipelineTrace:
        """The trace of the run, in which training got `rows`."""
        columns = np.array(rows, float).reshape(-1, 4).T
        stages = []
        for begun, ended in zip(self.begun, self.ended, strict=True):
            over = {item: moment for moment, item in ended}
            stages.append(
                Moments(
                    item=np.array([item for _, item in begun], np.int64),
                    began=np.array([moment for moment, _ in begun]),
                    ended=np.array([over.get(item, np.nan) for _, item in begun]),
                )
            )
        return PipelineTrace(
            pipeline=self.pipeline,
            seed=self.seed,
            item=columns[0].astype(np.int64),
            requested=columns[1],
            returned=columns[2],
            finished=columns[3],
            stages=tuple(stages),
        )

    def thread(self, lock: Turnstile | None = None) -> int:
        """The number of a new thread, of the main process or of that which has the `lock`."""
        self._locks.append(lock or self.lock)
        return len(self._locks)

    def perform(self, stage: int, item: int, thread: int) -> Steps:
        """What one stage does for an item: bytes are read, time passes blocked, then on a core."""
        asked = self.stages[stage]
        self.begun[stage].append((self.env.now, item))
        if asked is not None:
            yield from self._do(asked, stage, item, thread)
        self.ended[stage].append((self.env.now, item))
        advance(EACH)

    def _do(self, asked: Stage, stage: int, item: int, thread: int) -> Steps:
        turn = self.turns.worker(thread)
        if asked.read_bytes is not None:
            latency = self.pipeline.machine.storage.latency
            first = 0.0 if latency is None else self.of(latency, LATENCY, stage, item)
            size = self.of(asked.read_bytes, READ, stage, item)
            yield from self.disk.read((0, thread), turn, stage, (item,), size, first)
        if asked.wait is not None:
            yield sleep(self.env, self.of(asked.wait, WAIT, stage, item), turn)
        if asked.cpu is not None:
            seconds = self.of(asked.cpu, CPU, stage, item)
            if asked.lock > 0 and seconds > 0:
                lock = self._locks[thread - 1]
                yield from lock.enter(turn)
                yield self.cores.serve(asked.lock * seconds, (0, thread), turn)
                lock.leave()
            if (free := (1 - asked.lock) * seconds) > 0:
                yield self.cores.serve(free, (0, thread), turn)

    def of(self, distribution: Distribution, role: int, stage: int, item: int) -> float:
        """The number of a role that chance has given an item in a stage."""
        numbers = self._numbers.get((role, stage))
        if numbers is None:
            name = f"links.{stage - 1}.stage" if stage else "source"
            numbers = Numbers(distribution, name, (role, stage), self.seed)
            self._numbers[role, stage] = numbers
        return numbers.of(item)


class Pool:
    """Threads of one process, of which whoever asks first gets one first."""

    def __init__(self, run: Run, threads: int, lock: Turnstile | None = None) -> None:
        self._run, self.lock = run, lock
        self._free = simpy.Store(run.env)
        for _ in range(threads):
            self._free.put(run.thread(lock))

    def perform(self, item: Any, *stages: int) -> Steps:
        """What stages do in turn for an item, or for all of a list, in one of the threads."""
        thread = yield self._free.get()
        for stage in stages:
            for each in flat(item):
                yield from self._run.perform(stage, each, thread)
        yield self._free.put(thread)


def flat(items: Sequence[Any] | int) -> list[int]:
    """The items of a batch, or the one item there is."""
    if isinstance(items, int):
        return [items]
    return [each for item in items for each in flat(item)]


def hand_on(queue: simpy.Store, room: simpy.Store) -> Steps:
    """A thread with one item in hand, from a queue to where there is `room`, until the end."""
    item = None
    while item is not END:
        item = yield queue.get()
        yield room.put(item)
