"""Jobs whose ranks share nothing: each runs by itself, from one meeting to the next.

What happens in a rank until it comes to a meeting does not depend on the others, nor does when it
comes. So all are simulated up to there, one after another; then it is known when they go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from dlsim.engine.compiled.simulation import Meeting, Simulation
from dlsim.engine.draws import SYNC, Stream
from dlsim.engine.ranks import rank_scenarios, rank_seed
from dlsim.scenario import Scenario
from dlsim.scenario.dealing import batches
from dlsim.trace.trace import Meta, Trace

Course = Generator[Meeting, float, None]


def covered(scenario: Scenario) -> str:
    """Why not all of this job is covered, in a few words; "" if it is."""
    job, loader = scenario.job, scenario.loader
    if scenario.consumer.loop != "plain":
        return f"its loop is {scenario.consumer.loop}"
    if not scenario.ideal:
        return "its ranks share a machine that is not ideal"
    if scenario.failures or loader.timeout > 0:
        return "a rank may raise an error, which ends all"
    counts = {batches(loader, scenario.dataset, job, rank) for rank in range(job.world)}
    stop_after = scenario.consumer.stop_after
    if stop_after is not None:
        counts = {min(count, stop_after) for count in counts}
    if len(counts) > 1 and job.uneven == "wait" and isinstance(job.sync, int):
        return "some ranks have more steps than others"
    return ""


def simulate_ranks(
    scenario: Scenario,
    seed: int,
    meta: Callable[[Scenario], Meta],
    *,
    samples: bool,
    progress: Callable[[int], object],
) -> list[Trace]:
    """The trace of every rank of a job that is `covered`."""
    scenarios = rank_scenarios(scenario)
    runs = [
        Simulation(mine, rank_seed(seed, rank), samples=samples)
        for rank, mine in enumerate(scenarios)
    ]
    together(scenario, seed, [run.course(progress) for run in runs])
    return [run.trace(meta(mine)) for run, mine in zip(runs, scenarios, strict=True)]


def together(scenario: Scenario, seed: int, courses: list[Course]) -> None:
    """Let all go on from meeting to meeting, until all are over."""
    job = scenario.job
    times = Stream(job.sync_time, "job.sync_time", (SYNC,), seed)
    meets, joins = isinstance(job.sync, int), job.uneven == "join"
    here: dict[int, Meeting] = {rank: next(course) for rank, course in enumerate(courses)}
    met = 0
    while here:
        # Who meets nobody goes on at once; at the end of an epoch only some jobs meet.
        for rank in list(here):
            while rank in here and not _waits(here[rank], scenario):
                go_on(here, courses, rank, here[rank].time)
        stepping = {rank: m for rank, m in here.items() if m.step}
        going = stepping or here
        if not going:
            return
        moment = max(meeting.time for meeting in here.values())
        if stepping or not (meets and joins):
            moment += times.take((met,))[0]
            met += 1
        elif all(meeting.last for meeting in here.values()):
            moment = 0.0  # nobody waits at the end of the last epoch
        for rank in list(going):
            go_on(here, courses, rank, moment)


def _waits(meeting: Meeting, scenario: Scenario) -> bool:
    """Whether a rank waits there for the others, or takes part in what they wait for."""
    job = scenario.job
    if meeting.step:
        return isinstance(job.sync, int)
    if job.sync == "epoch":
        return not meeting.last
    return isinstance(job.sync, int) and job.uneven == "join"


def go_on(here: dict[int, Meeting], courses: list[Course], rank: int, moment: float) -> None:
    """Let a rank go on from this moment to where it meets others next, or to its end."""
    try:
        here[rank] = courses[rank].send(moment)
    except StopIteration:
        del here[rank]
