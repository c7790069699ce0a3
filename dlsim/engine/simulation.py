"""Building the parts of a scenario, running them, and returning the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Literal, TypeAlias, get_args

from dlsim.engine.compiled import installed
from dlsim.engine.effort import announcing, kernel, seconds_of, spend, telling, worth_compiling
from dlsim.engine.facts import batches_to_simulate, only_processes
from dlsim.engine.ranks import rank_seed
from dlsim.scenario import Scenario, ScenarioError
from dlsim.scenario.errors import is_integer, require
from dlsim.trace.job import JobTrace
from dlsim.trace.tally import KEPT, JobTally, Tally
from dlsim.trace.trace import Meta, Problem, Trace

Engine: TypeAlias = Literal["auto", "simpy", "compiled"]
Outcome: TypeAlias = Trace | JobTrace | Tally | JobTally


def simulate(
    scenario: Scenario,
    seed: int = 0,
    *,
    engine: Engine = "auto",
    samples: bool = False,
    progress: Callable[[int], object] = lambda batches: None,
) -> Trace:
    """The trace of `scenario` under `seed`, an integer of at least 0.

    `engine`: `"simpy"`, the processes to read; `"compiled"`, the same faster, with llvmlite,
    for most of it; or `"auto"`, whichever can and is done sooner (see `dlsim.engine.effort`).
    `trace.meta.engine` says which ran, and `trace.meta.notes` why not the compiled one.
    `samples`: keep the times of every sample too. `progress` is called with the number of
    batches finished since it was last called.

    An exception in simulated user code, or a timeout, ends the trace and is found in
    `trace.meta.problem`. Raises `ScenarioError` for a bad seed or engine, for what an engine does
    not cover, and for a recorded distribution that turns out too short.

    Assumptions: user code behaves the same in every process; what `Machine` does not limit is
    unlimited, and what `Costs` does not name is free; the garbage collector, going from one
    process to another, and clocks cost nothing.
    """
    check(scenario, seed, engine)
    require(
        not scenario.is_job or scenario.job.rank is not None,
        "job",
        "one rank (dlsim.simulate_job is for jobs)",
        scenario.job.world,
    )
    seed, seconds = rank_seed(seed, scenario.job.rank or 0), seconds_of(scenario)
    tell = telling(scenario)

    def advance(batches: int) -> None:
        progress(batches)
        tell(batches)

    with announcing(seconds, scenario, jobs=1):
        if engine == "simpy":
            return processes(scenario, seed, samples, advance)
        if engine == "compiled" or _compiles(scenario, seconds):
            return compiled(scenario, seed, samples, advance)
        if only_processes(scenario) is None:
            spend(seconds)
        why = {"engine": f"simpy, {_why(scenario)}"}
        return processes(scenario, seed, samples, advance, why)


def check(scenario: Scenario, seed: int, engine: Engine) -> None:
    """Raise `ScenarioError` unless these can be simulated."""
    require(isinstance(scenario, Scenario), "scenario", "a Scenario", scenario)
    require(is_integer(seed) and seed >= 0, "seed", "an integer of at least 0", seed)
    if engine not in get_args(Engine):
        raise ScenarioError(f"engine: expected auto, simpy or compiled, got {engine!r}")
    if engine == "compiled" and not installed():
        raise ScenarioError(
            "engine: compiled needs llvmlite, which is not installed (pip install llvmlite)"
        )
    beyond = only_processes(scenario)
    if engine == "compiled" and beyond is not None:
        raise ScenarioError(f"engine: expected simpy or auto for {beyond}, got compiled")


def outcome(scenario: Scenario, seed: int = 0) -> Outcome:
    """What the metrics of `simulate(scenario, seed)` follow from; see `outcomes`."""
    return next(outcomes(scenario, [seed]))


def outcomes(scenario: Scenario, seeds: Sequence[int], traced: int = 0) -> Iterator[Outcome]:
    """For each of `seeds`, what the metrics follow from, as little of it as possible.

    Of the first `traced` ones it is the trace. Of others a tally, in memory that does not grow with
    the number of batches, where the compiled engine can make one: of batches in order of a
    map-style dataset on the ideal machine, and of every long run or job that nothing ends early;
    else the trace.
    """
    if scenario.is_job:
        from dlsim.engine.job import outcome_of_job, simulate_job

        whole = (simulate_job(scenario, seed) for seed in seeds[:traced])
        return chain(whole, (outcome_of_job(scenario, seed) for seed in seeds[traced:]))
    if not _compiles(scenario, _seconds(scenario, len(seeds))):
        return replications(scenario, seeds)
    first = (simulate(scenario, seed, engine="compiled") for seed in seeds[:traced])
    return chain(first, _tallies(scenario, seeds[traced:]))


def _tallies(scenario: Scenario, seeds: Sequence[int]) -> Iterator[Trace | Tally]:
    """The same by the compiled engine: traces only where it makes no tallies."""
    from dlsim.engine.in_order import suits

    if suits(scenario):
        from dlsim.engine.compiled.in_order import tallies

        return tallies(scenario, seeds, telling(scenario))
    from dlsim.engine.compiled import simulation
    from dlsim.engine.compiled.counting import goes_on

    if goes_on(scenario) and batches_to_simulate(scenario) > KEPT:
        tell = telling(scenario)
        return (simulation.tally(scenario, seed, progress=tell) for seed in seeds)
    return (simulate(scenario, seed, engine="compiled") for seed in seeds)


def replications(scenario: Scenario, seeds: Sequence[int]) -> Iterator[Trace | JobTrace]:
    """The trace of `scenario` under each of `seeds`, as `simulate` or `simulate_job` has it.

    Without the compiled engine, replications in order of a map-style dataset on the ideal machine
    are simulated by NumPy, many at once; their `meta.engine` is numpy.
    """
    from dlsim.engine.in_order import suits, traces

    if scenario.is_job:
        from dlsim.engine.job import simulate_job

        return (simulate_job(scenario, seed) for seed in seeds)
    if _compiles(scenario, _seconds(scenario, len(seeds))):
        return (simulate(scenario, seed, engine="compiled") for seed in seeds)
    if not suits(scenario):
        return (simulate(scenario, seed) for seed in seeds)
    notes, found = {"engine": f"numpy, {_why(scenario)}"}, versions()
    metas = [
        Meta(engine="numpy", scenario=scenario, seed=seed, versions=found, notes=notes)
        for seed in seeds
    ]
    return traces(scenario, metas, telling(scenario))


def _seconds(scenario: Scenario, runs: int) -> float:
    """About how long `runs` of `scenario` take without compiled code; NumPy makes many at once."""
    from dlsim.engine.in_order import AT_ONCE, suits

    times = max(runs / AT_ONCE, 1) if suits(scenario) else runs
    return seconds_of(scenario) * times


def _compiles(scenario: Scenario, seconds: float) -> bool:
    """Whether the compiled engine has it all, and is worth it where others take `seconds`."""
    return only_processes(scenario) is None and worth_compiling(seconds, kernel(scenario))


def _why(scenario: Scenario) -> str:
    """Why it was not the compiled engine that simulated."""
    beyond = only_processes(scenario)
    if beyond is not None:
        return f"as the compiled engine does not have {beyond}"
    if installed():
        return "as it is done before the compiled engine would be loaded"
    return "as the compiled engine needs llvmlite, which is not installed"


def processes(
    scenario: Scenario,
    seed: int,
    samples: bool,
    progress: Callable[[int], object],
    notes: dict[str, str] | None = None,
) -> Trace:
    """The trace from the SimPy processes, which are not loaded before they are wanted."""
    from simpy import Environment

    from dlsim.engine.processes.clock import settle
    from dlsim.engine.processes.epochs import loop_of, training_loop
    from dlsim.engine.processes.record import Recorder
    from dlsim.engine.processes.run import Node, Run
    from dlsim.engine.processes.storage import remote

    env, job = Environment(), scenario.job
    source = None if not job.remote else remote(env, job.storage, job.ranks, job.nodes)
    run = Run(scenario, seed, Recorder(samples=samples), Node(env, scenario, source))
    loop = loop_of(run, progress)
    env.run(env.process(training_loop(loop)))
    # What happens at the very moment the training loop ends happens, too.
    env.run(env.process(settle(env, run.turns.last)))

    def meta(mine: Scenario, problem: Problem | None, caught: Sequence[Problem]) -> Meta:
        return Meta(
            engine="simpy",
            scenario=mine,
            seed=seed,
            versions=versions("simpy"),
            problem=problem,
            caught=tuple(caught),
            notes=notes or {},
        )

    return loop.trace(meta, run.recorder.problem, env.now)


def compiled(
    scenario: Scenario, seed: int, samples: bool, progress: Callable[[int], object]
) -> Trace:
    """The trace from the compiled engine, of which nothing is loaded that is not wanted."""
    from dlsim.engine.in_order import suits

    meta = Meta(engine="compiled", scenario=scenario, seed=seed, versions=versions("llvmlite"))
    if suits(scenario) and not samples:
        from dlsim.engine.compiled.in_order import simulate_in_order

        return simulate_in_order(scenario, seed, meta, progress)
    from dlsim.engine.compiled.simulation import simulate

    return simulate(scenario, seed, meta, samples=samples, progress=progress)


@cache
def _version(package: str) -> str:
    """Reading a package's metadata takes longer than a small simulation."""
    from importlib.metadata import version

    return version(package)


def versions(*packages: str) -> dict[str, str]:
    """The versions of dlsim, Python, NumPy and `packages`."""
    import platform

    found = {name: _version(name) for name in ("dlsim", "numpy", *packages)}
    return {**found, "python": platform.python_version()}
