"""What everything in one simulation shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING

import simpy

from dlsim.engine.facts import MAIN, by_index, round_trip, sample_by_sample
from dlsim.engine.processes.buffer import Turnstile
from dlsim.engine.processes.clock import Alarms, Steps, Turns, sleep, until
from dlsim.engine.processes.cores import Sharing, Who
from dlsim.engine.processes.downloads import Cache
from dlsim.engine.processes.record import Recorder
from dlsim.engine.processes.sampler import Jobs
from dlsim.engine.processes.storage import Disk, Source, local
from dlsim.engine.processes.ticking import Ticking
from dlsim.engine.ranks import validation_seed
from dlsim.scenario import Cost, Scenario

if TYPE_CHECKING:
    from dlsim.engine.processes.barrier import Barrier
    from dlsim.engine.processes.dispatching import Broadcasts

# A write releases Python's lock: it needs a core, but shares it with no thread of its process.
# Only one writes at a time.
WRITING = 1 << 40
# Threads of libraries need cores, and share them with no thread of their process either. The n-th
# one of worker w is the customer n * HELPING + w.
HELPING = 1 << 20
# So does a worker's other thread, for as long as it does not hold up the one that fetches.
BESIDE = 1 << 41


class Node:
    """The machine that all ranks on it share, and the clock.

    On the ideal machine nothing is shared: there are no `cores` to wait for. `remote` is the
    storage of all nodes, where disks are not read.
    """

    def __init__(
        self, env: simpy.Environment, scenario: Scenario, remote: Source | None = None
    ) -> None:
        self.env = env
        machine = scenario.machine
        alarms = Alarms(env)
        self.disk = Disk(remote or local(env, machine.storage, alarms), machine.storage.cache)
        self.files = Cache(scenario)
        self.cores: Sharing | Ticking | None = None
        if not scenario.ideal and machine.slices:
            self.cores = Ticking(env, machine)
        elif not scenario.ideal:
            interval = machine.switch_interval
            self.cores = Sharing(env, machine.rate, machine.background, interval, alarms)


class Run:
    """One rank: what is simulated, where it is written down, and the node it runs on.

    What it asks of the node it asks under its own number, as others may be there.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        recorder: Recorder,
        node: Node,
        barrier: Barrier | None = None,
        broadcasts: Broadcasts | None = None,
    ) -> None:
        self.env, self.node, self.cores, self.disk = node.env, node, node.cores, node.disk
        self.scenario, self.seed, self.recorder = scenario, seed, recorder
        self.rank = scenario.job.rank or 0
        self.turns = Turns(self.rank)
        self.last: int | None = None  # after how many batches the loop leaves the present epoch
        self.barrier, self.broadcasts = barrier, broadcasts
        # whether no other thread of the main process computes when workers are terminated: one that
        # reads ahead does, and where there are two sets of workers, another one may be pinning
        self.alone = scenario.consumer.loop in ("plain", "accelerate")
        self.indices = recorder.samples is not None or by_index(scenario)
        self.at_once = recorder.samples is None and not sample_by_sample(scenario)
        self.round_trip = round_trip(scenario)
        self.costs = scenario.charged
        self.pins, self.through_pipe = scenario.pins, scenario.through_pipe
        self.shares = self.costs.share if scenario.through_shm else Cost()
        # else the feeder threads have nothing to do that takes time
        first = self.costs.first_serialise > 0
        serialises = self.through_pipe or first or self.costs.serialise != Cost()
        self.feeds = self.cores is not None and serialises
        self.first = 0  # under which number the node knows worker 0
        self.first_stage = 0  # and the first stage of the dataset
        self.beginning = iter((self.costs.first_receive,))  # of the first batch that is received
        self.lock = Turnstile(node.env)  # Python's, which workers share where they are threads

    def jobs(self, epoch: int) -> Jobs:
        """What the sampler gives out in an epoch, in no more detail than matters."""
        scenario, at_once = self.scenario, self.at_once
        ideal = self.cores is None
        return Jobs(scenario, self.seed, epoch, indices=self.indices, at_once=at_once, ideal=ideal)

    def beside(self, epoch: int) -> Run:
        """The same for the workers of an epoch that begins while those of the last one live."""
        other = copy(self)
        other.first += self.scenario.loader.num_workers * (epoch % 2)
        return other

    def reading(self) -> Run | None:
        """The loader behind the loop of this rank, where rank 0 reads for all."""
        if self.broadcasts is None:
            return None
        recorder = Recorder(samples=self.recorder.samples is not None)
        return Run(self.scenario.reading, self.seed, recorder, self.node)

    def validating(self) -> Run | None:
        """Validation in this rank, if there is any: the same main process, other workers."""
        if self.scenario.validation is None:
            return None
        recorder = Recorder(samples=self.recorder.samples is not None)
        seed = validation_seed(self.seed)
        other = Run(self.scenario.validating, seed, recorder, self.node)
        other.first = 2 * self.scenario.loader.num_workers  # there may be two sets of training's
        other.first_stage = len(self.scenario.dataset.fetch)
        other.turns = Turns(self.rank, other.first)
        other.lock = self.lock
        other.beginning = self.beginning
        other.alone = self.alone = False
        return other

    def customer(self, process: int) -> Who:
        """As whom the node knows a process: of workers there may be several sets at a time."""
        return self.rank, process + self.first if process >= 0 else process

    def compute(
        self, process: int, seconds: float, turn: int | None = None
    ) -> Iterable[simpy.Event]:
        """Use `seconds` of processor time in `process` (a worker's number, or MAIN).

        `turn` is that of the thread, if it is not the main one of its process.
        """
        if not seconds > 0:
            return ()
        turn = self.turns.of(process) if turn is None else turn
        if self.cores is None:
            return (until(self.env, self.env.now + seconds, turn),)
        return (self._serve(self.cores, process, seconds, turn),)

    def compute_beside(self, worker: int, seconds: float, turn: int) -> Steps:
        """Use `seconds` of processor time in another thread of a worker than the one that fetches.

        It holds that one up for a share of them, as both want Python's lock.
        """
        lock = self.costs.lock
        yield from self.compute(worker, lock * seconds, turn)
        yield from self.compute(BESIDE + worker, (1 - lock) * seconds, turn)

    def compute_together(
        self,
        processes: Sequence[int],
        seconds: float,
        turn: int,
        linger: float = 0.0,
        *,
        by_chance: bool = False,
        slept: bool = False,
    ) -> Steps:
        """Use `seconds` of processor time in each of the `processes`, at the same time.

        Those that `linger` wait for one another, where they take turns on cores, and meet again and
        again, or `by_chance`, if the first has `slept`.
        """
        assert self.cores is not None, "whatever asks for several makes the machine a shared one"
        if linger > 0 and seconds > 0 and isinstance(self.cores, Ticking):
            customers, turns = [self.customer(p) for p in processes], self._turns(processes[0])
            yield self.cores.serve_together(
                seconds, customers, turn, linger, turns=turns, by_chance=by_chance, slept=slept
            )
        elif seconds > 0:
            services = [self._serve(self.cores, p, seconds, turn) for p in processes]
            yield self.env.all_of(services)

    def make_room(self, worker: int, delay: float) -> Steps:
        """The main process lets whom it wakes in `delay` seconds have its core, if none is left.

        Not if both had different ones last. It goes on when processes take turns, or when a core is
        free.
        """
        if not isinstance(self.cores, Ticking):
            return
        yield sleep(self.env, delay, self.turns.last)
        if self.cores.apart(self.customer(worker), self.customer(MAIN)):
            return
        opening = self.cores.tick()
        while self.env.now < opening and self.cores.full():
            yield self.cores.gone(opening, self.turns.last)

    def _serve(
        self, cores: Sharing | Ticking, process: int, seconds: float, turn: int
    ) -> simpy.Event:
        turns = self._turns(process)
        return cores.serve(seconds, self.customer(process), turn, turns=turns)

    def _turns(self, process: int) -> bool:
        """Threads of a worker that gives Python's lock back by itself need not take turns."""
        return process == MAIN or self.costs.lock == 1

    def spin(self, until_then: simpy.Event) -> Steps:
        """Let the main process wait for the accelerator, on a core if it spins."""
        cores = self.cores if self.scenario.consumer.spin else None
        if cores is not None:
            cores.crowd(1)
        yield until_then
        if cores is not None:
            cores.crowd(-1)

    def terminate(self, workers: Sequence[simpy.Process]) -> None:
        """End all workers at once, with all their threads, whatever they wanted of the machine."""
        for process in workers:
            if process.is_alive:
                process.interrupt("terminate")
        for shared in (self.cores, self.disk.source.bandwidth):
            if shared is not None:
                threads = max((stage.threads for stage in self.scenario.dataset.fetch), default=1)
                helping = [HELPING * n + w for n in range(threads) for w in range(len(workers))]
                beside = [BESIDE + worker for worker in range(len(workers))]
                steps = self.scenario.consumer.threads
                main = [MAIN - thread for thread in range(steps)] if self.alone else []
                leaving = (*helping, *beside, WRITING, *main)
                shared.leave([self.customer(one) for one in leaving])
