"""Torch's own loaders of all ranks of a job, on one virtual clock, a barrier between steps."""

from __future__ import annotations

import contextlib
import threading

from dlsim.engine.draws import SYNC, Stream
from dlsim.engine.facts import MAIN
from dlsim.engine.job import first_problem
from dlsim.engine.ranks import rank_scenarios, rank_seed
from dlsim.scenario import Scenario, ScenarioError
from dlsim.trace.job import JobTrace
from dlsim.trace.trace import Problem
from dlsim.validation.virtual.clock import MAIN_RANK, Clock, Terminated, Thread
from dlsim.validation.virtual.dispatching import VirtualBroadcasts
from dlsim.validation.virtual.loader import check_runnable, metas, undisturbed
from dlsim.validation.virtual.record import Watcher
from dlsim.validation.virtual.training import training_loop


def run_virtual_job(scenario: Scenario, seed: int = 0, *, samples: bool = False) -> JobTrace:
    """The traces of a job whose ranks run the installed torch's DataLoader on one virtual clock.

    It equals `simulate_job(scenario, seed, samples=samples)`, or one of the two is wrong. Indices
    are dealt by torch's DistributedSampler. Raises `ScenarioError` as `run_virtual` does, and for
    accelerators that hosts run ahead of.
    """
    check_runnable(scenario)
    if scenario.consumer.run_ahead or scenario.consumer.overlap_copy:
        raise ScenarioError("consumer.run_ahead: expected 0, as torch's loop is one thread")
    clock = Clock()
    clock.main.rank = MAIN_RANK + 1  # sees to it that the job ends, after all ranks
    barrier = VirtualBarrier(clock, scenario, seed)
    dispatches = scenario.job.dispatches
    broadcasts = VirtualBroadcasts(clock, scenario, seed) if dispatches else None
    ranks = [
        Rank(number, mine, rank_seed(seed, number), barrier, broadcasts, samples=samples)
        for number, mine in enumerate(rank_scenarios(scenario))
    ]
    collectives = contextlib.nullcontext() if broadcasts is None else broadcasts.in_place()
    with undisturbed(), collectives, contextlib.closing(clock):
        for rank in ranks:
            rank.start()
        clock.wait()
        end = clock.now
        for rank in ranks:
            rank.watcher.is_over()
    for rank in ranks:
        if rank.crash is not None:
            raise rank.crash
    meta = metas(seed)
    failed = next((rank.problem for rank in ranks if rank.problem is not None), None)
    cut = Problem("hang" if failed is None else "job", "cut short", MAIN, end)
    traces = tuple(
        rank.watcher.trace(meta, rank.problem if rank.over else cut, rank.end if rank.over else end)
        for rank in ranks
    )
    return JobTrace(ranks=traces, meta=meta(scenario, first_problem(traces), ()))


class Rank:
    """One rank: torch's loader and a loop over it, in a thread on the clock."""

    def __init__(
        self,
        number: int,
        scenario: Scenario,
        seed: int,
        barrier: VirtualBarrier,
        broadcasts: VirtualBroadcasts | None,
        *,
        samples: bool,
    ) -> None:
        self.broadcasts = broadcasts
        self.number, self.scenario, self.seed, self.barrier = number, scenario, seed, barrier
        self.clock = barrier.clock
        every = scenario.job.sync
        self.every = every if isinstance(every, int) else 0
        self.watcher = Watcher(scenario, seed, self.clock, samples=samples, meets=self.every > 0)
        self.thread = Thread(MAIN_RANK)
        self.over, self.end = False, 0.0
        self.problem: Problem | None = None
        self.crash: BaseException | None = None

    def start(self) -> None:
        """Let it begin."""
        self.clock.mains.append(self.thread)
        threading.Thread(target=self._run, daemon=True).start()
        self.clock.wake(self.thread)

    def _run(self) -> None:
        self.thread.turn.acquire()
        try:
            if not self.thread.killed:
                training_loop(self.scenario, self.seed, self.clock, self.watcher, self)
        except Terminated:
            pass
        except BaseException as error:  # what is wrong here is to be seen, not to hang
            self.crash = error
            self.clock.wake(self.clock.main)
        self.clock.exit()

    def stepped(self, batch: int) -> None:
        """A step is done: meet the others, if it is time to."""
        if self.every:
            self.watcher.recorder.stepped[batch] = self.clock.now
            if self.watcher.count % self.every == 0:
                self.barrier.meet(self)

    def epoch_over(self, *, last: bool) -> None:
        """The loop over the loader is left: meet the others, if that is where they do."""
        job = self.scenario.job
        if job.sync == "epoch" and not last:
            self.barrier.meet(self)
        if self.every and job.uneven == "join":
            self.barrier.join(self, wait=not last)

    def left(self, problem: Problem | None) -> None:
        """The last epoch is over, or something went wrong."""
        self.over, self.end, self.problem = True, self.clock.now, problem
        self.barrier.leave(self, problem)


class VirtualBarrier:
    """Threads wait here until all have come, or have said that they take part all the same."""

    def __init__(self, clock: Clock, scenario: Scenario, seed: int) -> None:
        self.clock, self.world = clock, scenario.job.world
        self.here: list[Thread] = []
        self.joined: list[tuple[Thread, bool]] = []
        self.left: list[int] = []
        self.times = Stream(scenario.job.sync_time, "job.sync_time", (SYNC,), seed)
        self.meetings = 0

    def meet(self, rank: Rank) -> None:
        """Wait until all have come, and for as long as what they do then takes."""
        self.here.append(rank.thread)
        self.look()
        self.clock.wait()

    def join(self, rank: Rank, *, wait: bool) -> None:
        """Count as come wherever others are, until all others say the same."""
        self.joined.append((rank.thread, wait))
        if len(self.joined) == self.world:
            for thread, waits in self.joined:
                if waits:
                    self.clock.wake(thread)
            self.joined.clear()
        self.look()
        if wait:
            self.clock.wait()

    def leave(self, rank: Rank, problem: Problem | None) -> None:
        """A rank is done; the job is, if it failed, or was the last, or others wait for it."""
        self.left.append(rank.number)
        if problem is not None or len(self.left) == self.world:
            self.clock.wake(self.clock.main)
        self.look()

    def look(self) -> None:
        """Let all go on, if all are here; give up, if someone waits for those who have left."""
        if self.here and len(self.here) + len(self.joined) == self.world:
            then = self.clock.now + self.times.take((self.meetings,))[0]
            self.meetings += 1
            for thread in self.here:
                self.clock.wake(thread, then)
            self.here.clear()
        elif self.here and len(self.here) + len(self.left) == self.world:
            self.clock.wake(self.clock.main)
