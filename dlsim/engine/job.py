"""Simulating a job: a trace for each rank, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from dlsim.engine.compiled import installed
from dlsim.engine.effort import announcing, seconds_of, telling, worth_compiling
from dlsim.engine.facts import batches_to_simulate, may_end_early, stopped_by_others, uncovered
from dlsim.engine.simulation import Engine, check, versions
from dlsim.scenario import Scenario, ScenarioError
from dlsim.trace.job import JobTrace
from dlsim.trace.tally import KEPT, JobTally
from dlsim.trace.trace import Meta, Problem, Trace


def simulate_job(
    scenario: Scenario,
    seed: int = 0,
    *,
    engine: Engine = "auto",
    samples: bool = False,
    progress: Callable[[int], object] = lambda batches: None,
) -> JobTrace:
    """The traces of all ranks of `scenario.job` under `seed`; arguments are those of `simulate`.

    Rank r draws its numbers under a seed of its own, which for rank 0 is `seed`; the order that
    data are dealt from is that of `seed`. The first rank that raises anything ends the job, as
    torchrun does; so does, where ranks wait for one that has left for good, the last of them to
    come. Either is found in `meta.problem`, of the job and of each rank that did not come to its
    end. Raises `ScenarioError` as `simulate` does.
    """
    check(scenario, seed, engine)
    scenario = structs.replace(scenario, job=structs.replace(scenario.job, rank=None))
    tell = telling(scenario)

    def advance(batches: int) -> None:
        progress(batches)
        tell(batches)

    with announcing(seconds_of(scenario), scenario):
        return _simulated(scenario, seed, engine, samples, advance)


def outcome_of_job(scenario: Scenario, seed: int) -> JobTrace | JobTally:
    """What the metrics of `simulate_job(scenario, seed)` follow from, as little as possible.

    A tally of a long job that the compiled engine simulates and nothing ends early; else the trace.
    """
    if batches_to_simulate(scenario) <= KEPT or not _compiles(scenario):
        return simulate_job(scenario, seed)
    from dlsim.engine.compiled.counting import goes_on

    if not goes_on(scenario) or stopped_by_others(scenario) or may_end_early(scenario):
        return simulate_job(scenario, seed)
    from dlsim.engine.compiled.job import tally_ranks

    check(scenario, seed, "auto")
    scenario = structs.replace(scenario, job=structs.replace(scenario.job, rank=None))
    with announcing(seconds_of(scenario), scenario):
        return tally_ranks(scenario, seed, telling(scenario))


def _compiles(scenario: Scenario) -> bool:
    """Whether the compiled engine has all of a job, and is worth it."""
    return not uncovered(scenario) and worth_compiling(seconds_of(scenario))


def _simulated(
    scenario: Scenario,
    seed: int,
    engine: Engine,
    samples: bool,
    progress: Callable[[int], object],
) -> JobTrace:
    notes: dict[str, str] = {}
    lacks = uncovered(scenario)
    if engine == "compiled" and lacks:
        raise ScenarioError(f"engine: compiled does not have {lacks}")
    if engine == "compiled" or (engine == "auto" and _compiles(scenario)):
        return compiled(scenario, seed, samples, progress)
    if engine == "auto":
        if lacks:
            why = f"as the compiled engine does not have {lacks}"
        else:
            why = "which is sooner done" if installed() else "as llvmlite is not installed"
        notes["engine"] = f"simpy, {why}"

    def meta(mine: Scenario, problem: Problem | None, caught: Sequence[Problem] = ()) -> Meta:
        return Meta(
            engine="simpy",
            scenario=mine,
            seed=seed,
            versions=versions("simpy"),
            problem=problem,
            caught=tuple(caught),
            notes=notes,
        )

    from dlsim.engine.processes.job import simulate_ranks

    ranks = simulate_ranks(scenario, seed, meta, samples=samples, progress=progress)
    return JobTrace(ranks=tuple(ranks), meta=meta(scenario, first_problem(ranks)))


def compiled(
    scenario: Scenario, seed: int, samples: bool, progress: Callable[[int], object]
) -> JobTrace:
    """The job from the compiled engine, which is not loaded before it is wanted."""
    from dlsim.engine.compiled.job import simulate_ranks

    found = versions("llvmlite")

    def meta(mine: Scenario) -> Meta:
        return Meta(engine="compiled", scenario=mine, seed=seed, versions=found)

    ranks = simulate_ranks(scenario, seed, meta, samples=samples, progress=progress)
    return JobTrace(
        ranks=tuple(ranks), meta=structs.replace(meta(scenario), problem=first_problem(ranks))
    )


def first_problem(ranks: Sequence[Trace]) -> Problem | None:
    """What ended a job: what a rank raised itself, before what others have of it."""
    problems = [trace.meta.problem for trace in ranks if trace.meta.problem is not None]
    return min(problems, key=lambda problem: problem.kind == "job", default=None)
