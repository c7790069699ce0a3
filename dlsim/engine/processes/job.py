"""A job: the processes of all ranks on one clock, and what ends it."""

from __future__ import annotations

import simpy

from dlsim.engine.processes.barrier import Barrier
from dlsim.engine.processes.clock import Steps, settle, sleep
from dlsim.engine.processes.dispatching import Broadcasts
from dlsim.engine.processes.epochs import Loop, Metas, Progress, loop_of, training_loop
from dlsim.engine.processes.record import Recorder
from dlsim.engine.processes.run import Node, Run
from dlsim.engine.processes.storage import remote
from dlsim.engine.ranks import rank_scenarios, rank_seed, why_not
from dlsim.scenario import Scenario
from dlsim.trace.trace import Trace


def simulate_ranks(
    scenario: Scenario,
    seed: int,
    metas: Metas,
    *,
    samples: bool,
    progress: Progress,
) -> list[Trace]:
    """The trace of every rank; `metas` makes what a trace tells about itself.

    The job ends with its last rank; or, as torchrun does it, with the first that raises anything;
    or when those left wait for ranks that are gone.
    """
    env, job = simpy.Environment(), scenario.job
    source = None if not job.remote else remote(env, job.storage, job.ranks, job.nodes)
    scenarios = rank_scenarios(scenario)
    nodes = [Node(env, mine, source) for mine in scenarios[:: job.ranks]]
    barrier = None if job.sync == "never" else Barrier(env, scenario, seed)
    meets = isinstance(job.sync, int)
    broadcasts = Broadcasts(env, scenario, seed) if job.dispatches else None
    runs = [
        Run(
            mine,
            rank_seed(seed, rank),
            Recorder(samples=samples, meets=meets),
            nodes[job.node_of(rank)],
            barrier,
            broadcasts,
        )
        for rank, mine in enumerate(scenarios)
    ]
    failed = env.event()
    loops = [loop_of(run, progress) for run in runs]
    mains = [env.process(one_rank(loop, failed)) for loop in loops]
    stuck = env.event() if barrier is None else barrier.stuck
    env.run(env.all_of(mains) | failed | stuck)
    while env.peek() <= env.now:  # what happens at the very moment the job ends
        env.step()
    raised = [run.recorder.problem for run in runs]
    steps = [len(run.recorder.order) for run in runs]
    gone = set() if barrier is None else barrier.gone
    left = {rank: runs[rank].recorder.epoch_ended[-1] for rank in gone}
    problems = [
        why_not(rank, raised, steps, left, env.now) if main.is_alive else raised[rank]
        for rank, main in enumerate(mains)
    ]
    return [
        loop.trace(metas, problem, loop.run.recorder.over or env.now)
        for loop, problem in zip(loops, problems, strict=True)
    ]


def one_rank(loop: Loop, failed: simpy.Event) -> Steps:
    """A rank from its start to its end."""
    run = loop.run
    yield sleep(run.env, 0.0, run.turns.last)  # who of all begins first, is their turn, too
    yield from training_loop(loop)
    yield from settle(run.env, run.turns.last)  # what happens at the very moment its loop ends
    run.recorder.over = run.env.now
    loop.end()
    if run.recorder.problem is not None:
        if not failed.triggered:
            failed.succeed()
    elif run.barrier is not None:
        run.barrier.leave(run.rank)
