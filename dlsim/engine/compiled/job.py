"""Jobs: the states of all ranks in one event loop, with what they share and where they meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlsim.engine.compiled.messages import EPOCH_OVER, LEAVE, NOTHING_LEFT, OVER, RANK_LEFT
from dlsim.engine.compiled.settings import NONE, Place
from dlsim.engine.compiled.simulation import Simulation
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.together import run_ranks
from dlsim.engine.draws import SYNC, Stream
from dlsim.engine.facts import steps_of_ranks
from dlsim.engine.ranks import rank_scenarios, rank_seed
from dlsim.scenario import Scenario
from dlsim.trace.trace import Meta, Trace


def simulate_ranks(
    scenario: Scenario,
    seed: int,
    meta: Callable[[Scenario], Meta],
    *,
    samples: bool,
    progress: Callable[[int], object],
) -> list[Trace]:
    """The trace of every rank of a job that is not `uncovered` (see `dlsim.engine.facts`)."""
    job = Job(scenario, seed, samples=samples)
    job.run(progress)
    return [
        rank.trace(meta(rank.scenario), end) for rank, end in zip(job.ranks, job.ends, strict=True)
    ]


class Job:
    """The simulations of all ranks, of which those on a node share what it has."""

    def __init__(self, scenario: Scenario, seed: int, *, samples: bool) -> None:
        self.job = job = scenario.job
        self.ranks: list[Simulation] = []
        states: list[State] = []
        for rank, mine in enumerate(rank_scenarios(scenario)):
            place, under = Place(rank, job.ranks, job.world), rank_seed(seed, rank)
            self.ranks.append(Simulation(mine, under, samples=samples, place=place, before=states))
            states.append(self.ranks[-1].state)
        most = (max(steps_of_ranks(scenario)) + 1) * scenario.epochs
        times = Stream(job.sync_time, "job.sync_time", (SYNC,), seed)
        drawn = np.asarray(times.array(range(most)), np.float64)
        for made in self.ranks:
            made.state = made.state._replace(meeting_times=drawn)
        self.common = self.ranks[0].state.job[0]
        self.epochs = [0] * job.world
        self.parked: list[int] = []  # ranks that wait at the end of an epoch
        self.changed: set[int] = set()  # ranks whose main process was told when to go on
        self.ends = [np.nan] * job.world  # when each rank was over

    def run(self, progress: Callable[[int], object]) -> None:
        """All ranks, to their ends."""
        for rank in range(self.job.world):
            self.begin(rank, 0.0)
        while True:
            self.common["changed"] = len(self.changed)
            self.ranks[0].state.changed[: len(self.changed)] = sorted(self.changed)
            self.changed.clear()
            why = run_ranks(self.ranks[0].table.ctypes.data)
            if why == NOTHING_LEFT:
                return
            self.answer(int(self.common["current"]), why, progress)

    def answer(self, rank: int, why: int, progress: Callable[[int], object]) -> None:
        """Give a rank what it asks for, or let it go on with another epoch, or end."""
        made = self.ranks[rank]
        if made.supply(why):
            self.place(rank)
        elif why == RANK_LEFT:
            self.again(rank)
        elif why == EPOCH_OVER and made.main["doing"] == OVER:
            self.ends[rank] = float(made.main["now"])
            made.main["doing"] = LEAVE
        elif why == EPOCH_OVER:
            progress(int(made.main["count"]))
            made.end_epoch()
            self.end_epoch(rank)

    def end_epoch(self, rank: int) -> None:
        """The rank has left an epoch; it waits for the others, if that is where they meet."""
        job, last = self.job, bool(self.ranks[rank].main["last"])
        now = float(self.common["now"])
        joins = isinstance(job.sync, int) and job.uneven == "join"
        if job.sync == "epoch" and not last:
            self.park(rank)
            if len(self.parked) == job.world:
                seconds = self.ranks[0].state.meeting_times[self.common["met"]]
                self.common["met"] += 1
                self.let_all_go(now + float(seconds))
            return
        if joins:
            self.common["joined"] += 1
            self.common["joined_at"] = now
            if not last:
                self.park(rank)
            if self.common["joined"] == job.world:
                self.common["joined"] = 0
                self.let_all_go(now)
        if last:
            self.ranks[rank].main["doing"] = OVER
            self.again(rank, now)
        elif not joins:
            self.begin(rank, now)

    def park(self, rank: int) -> None:
        """The rank waits until it is let go."""
        self.parked.append(rank)
        self.again(rank)

    def let_all_go(self, moment: float) -> None:
        """All ranks that wait at the end of an epoch begin the next one."""
        for rank in sorted(self.parked):
            self.begin(rank, moment)
        self.parked = []

    def begin(self, rank: int, moment: float) -> None:
        """The rank begins its next epoch."""
        made = self.ranks[rank]
        made.begin_epoch(self.epochs[rank], moment)
        self.epochs[rank] += 1
        self.place(rank)
        self.again(rank, moment)

    def place(self, rank: int) -> None:
        """Say where the rank's arrays are now."""
        made = self.ranks[rank]
        made.state.ranks[rank] = made.where()

    def again(self, rank: int, moment: float = np.inf) -> None:
        """The main process of the rank goes on at this moment, in its turn."""
        self.ranks[rank].main["wake"] = moment
        self.changed.add(rank)
        if self.common["current"] == rank:
            self.common["current"] = NONE
