"""Jobs: the states of all ranks in one event loop, with what they share and where they meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dlsim.engine.compiled.counting import Counting, Met, Waits
from dlsim.engine.compiled.messages import EPOCH_OVER, LEAVE, NOTHING_LEFT, OVER, RANK_LEFT
from dlsim.engine.compiled.settings import NONE, Place
from dlsim.engine.compiled.simulation import Simulation
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.together import run_ranks
from dlsim.engine.draws import SYNC, Stream
from dlsim.engine.facts import steps_of_ranks
from dlsim.engine.native.arrays import begin
from dlsim.engine.ranks import rank_scenarios, rank_seed, why_not
from dlsim.scenario import Scenario
from dlsim.trace.tally import JobTally
from dlsim.trace.trace import Meta, Trace

ROOM = 256  # batches of each rank whose columns are kept, where metrics alone are asked for


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
    job.cut()
    return [
        rank.trace(meta(rank.scenario), end) for rank, end in zip(job.ranks, job.ends, strict=True)
    ]


def tally_ranks(
    scenario: Scenario, seed: int, progress: Callable[[int], object], room: int = ROOM
) -> JobTally:
    """What the metrics of such a job follow from, in which all that is sent comes to its end.

    Columns of each rank have `room` for so many batches, or for as many as are under way.
    """
    job = Job(scenario, seed, samples=False, counted=Counted(scenario), room=room)
    job.run(progress)
    assert job.counted is not None
    return job.counted.tally([rank.moments for rank in job.ranks])


class Counted:
    """The tallies of all ranks in the making, and what they have in common."""

    def __init__(self, scenario: Scenario) -> None:
        job, steps = scenario.job, max(steps_of_ranks(scenario))
        self.waits, self.met, self.firsts = Waits(), None, None
        if isinstance(job.sync, int):
            each = steps // job.sync
            self.met = Met(each * scenario.epochs)
            if job.uneven == "join":  # who has no more in an epoch waits for the next one
                self.firsts = [each * epoch for epoch in range(scenario.epochs + 1)]
        self.ranks: list[Counting] = []

    def another(self, scenario: Scenario) -> Counting:
        """That of the next rank."""
        self.ranks.append(Counting(scenario, self.waits, self.met, self.firsts))
        return self.ranks[-1]

    def tally(self, moments: Sequence[Sequence[Sequence[float]]]) -> JobTally:
        """What was counted; `moments`: when each epoch of each rank started, and ended."""
        times = np.array(moments)  # rank, epoch; started, primed, ended
        started, ended = times[:, :, 0], times[:, :, 2]
        begin = float(started.min())
        return JobTally(
            ranks=tuple(
                counting.tally(*each)
                for counting, *each in zip(self.ranks, started, ended, strict=True)
            ),
            waits=self.waits.in_order,
            classes=self.waits.classes,
            begin=begin,
            end=float(ended.max()),
            at_barrier=sum(counting.at_barrier for counting in self.ranks),
            amplification=np.nan if self.met is None else self.met.amplification(begin),
        )


class Job:
    """The simulations of all ranks, of which those on a node share what it has.

    Where they are `counted`, batches that are done are forgotten.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        samples: bool,
        counted: Counted | None = None,
        room: int = 0,
    ) -> None:
        self.job, self.counted = scenario.job, counted
        job = self.job
        self.ranks: list[Simulation] = []
        states: list[State] = []
        for rank, mine in enumerate(rank_scenarios(scenario)):
            made = Simulation(
                mine,
                rank_seed(seed, rank),
                samples=samples,
                counting=None if counted is None else counted.another(mine),
                room=room,
                place=Place(rank, job.ranks, job.world),
                before=states,
            )
            self.ranks.append(made)
            states.append(made.state)
        most = (max(steps_of_ranks(scenario)) + 1) * scenario.epochs
        self.times = Stream(job.sync_time, "job.sync_time", (SYNC,), seed)
        drawn = np.asarray(self.times.array(range(most)), np.float64)
        self.recorded = int((~np.isnan(drawn)).sum())  # meetings that there are times for
        drawn = np.where(np.isnan(drawn), np.inf, drawn)
        for made in self.ranks:
            made.state = made.state._replace(meeting_times=drawn)
        self.common = self.ranks[0].state.job[0]
        self.epochs = [0] * job.world
        self.parked: list[int] = []  # ranks that wait at the end of an epoch
        self.changed: set[int] = set()  # ranks whose main process was told when to go on
        self.ends: list[float] = [np.nan] * job.world  # when each rank was over

    def run(self, progress: Callable[[int], object]) -> None:
        """All ranks, to their ends. Raises `ScenarioError` where a record turns out too short."""
        for rank in range(self.job.world):
            self.begin(rank, 0.0)
        while True:
            self.common["changed"] = len(self.changed)
            self.ranks[0].state.changed[: len(self.changed)] = sorted(self.changed)
            self.changed.clear()
            why = run_ranks(self.ranks[0].table)
            if self.common["met"] > self.recorded:
                self.times.take([self.recorded])  # raises
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
            self.leave(rank)
        elif why == EPOCH_OVER:
            progress(int(made.main["count"]))
            made.end_epoch()
            self.end_epoch(rank)
        else:
            made.fail(why)
            made.main["doing"] = OVER
            self.again(rank, float(self.common["now"]))

    def end_epoch(self, rank: int) -> None:
        """The rank has left an epoch; it waits for the others, if that is where they meet."""
        job, last = self.job, bool(self.ranks[rank].main["last"])
        now = float(self.common["now"])
        joins = self.joins
        if job.sync == "epoch" and not last:
            self.park(rank)
            if len(self.parked) == job.world:
                seconds = float(self.ranks[0].state.meeting_times[self.common["met"]])
                self.common["met"] += 1
                self.let_all_go(now + seconds, NONE if seconds > 0 else rank)
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
            self.begin(rank, now, at_once=True)

    @property
    def joins(self) -> bool:
        """Whether ranks without more steps take part in the meetings of the others."""
        return isinstance(self.job.sync, int) and self.job.uneven == "join"

    def leave(self, rank: int) -> None:
        """The rank is over; if it raised anything, so is the job, as torchrun has it."""
        made, now = self.ranks[rank], float(self.common["now"])
        self.ends[rank] = now
        made.main["doing"] = LEAVE
        if made.problem is not None:
            self.common["until"] = min(self.common["until"], now)
        elif not self.joins:
            self.common["gone"] += 1

    def cut(self) -> None:
        """Say of ranks that did not come to their end when the job ended, and why."""
        end = float(self.common["until"])
        raised = [made.problem for made in self.ranks]
        steps = [int(made.main["returned"]) for made in self.ranks]
        over = [rank for rank, at in enumerate(self.ends) if at == at and raised[rank] is None]
        left = {rank: self.ranks[rank].moments[-1][2] for rank in over}
        for rank, made in enumerate(self.ranks):
            if np.isnan(self.ends[rank]):
                self.ends[rank] = end
                made.problem = why_not(rank, raised, steps, left, end)
                made.cut()

    def park(self, rank: int) -> None:
        """The rank waits until it is let go."""
        self.parked.append(rank)
        self.again(rank)

    def let_all_go(self, moment: float, first: int = NONE) -> None:
        """All ranks that wait at the end of an epoch begin the next one, one of them at once."""
        for rank in sorted(self.parked):
            self.begin(rank, moment, at_once=rank == first)
        self.parked = []

    def begin(self, rank: int, moment: float, *, at_once: bool = False) -> None:
        """The rank begins its next epoch, in its turn, or before anyone else acts."""
        made = self.ranks[rank]
        made.begin_epoch(self.epochs[rank], moment)
        self.epochs[rank] += 1
        self.place(rank)
        if at_once:
            made.main["wake"], self.common["current"] = -np.inf, rank
        else:
            self.again(rank, moment)

    def place(self, rank: int) -> None:
        """Say where the rank's arrays are now."""
        made = self.ranks[rank]
        made.state.ranks[rank] = begin(made.where())

    def again(self, rank: int, moment: float = np.inf) -> None:
        """The main process of the rank goes on at this moment, in its turn."""
        self.ranks[rank].main["wake"] = moment
        self.changed.add(rank)
        if self.common["current"] == rank:
            self.common["current"] = NONE
