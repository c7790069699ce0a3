"""`dlsim compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from dlsim.cli.checking import held
from dlsim.cli.files import (
    check_drawable,
    draw,
    located,
    scenario_from,
    simulated,
    simulated_job,
    trace_from,
)
from dlsim.cli.parsing import NO_CHANGES, Changes, Count, File, Flag, Text, UsageError
from dlsim.cli.progress import working
from dlsim.cli.whatif import share_of
from dlsim.scenario import Scenario

if TYPE_CHECKING:
    from dlsim.trace import JobTrace, Trace
    from dlsim.whatif import Versus

Other = Annotated[File, arg(metavar="[B]")]


def compare(
    a: Annotated[Positional[Path], arg(metavar="A")],
    b: Positional[Other] = None,
    *,
    replications: Count = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    max_stall: Text = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say whether configuration B is better than A, by how much, and how sure that is.

    Example: dlsim compare scenarios/imagenet_a100.toml --loader.num-workers 6

    Without B, the scenario A as it is stands against itself with the keys given as options. Two
    scenarios are simulated many times under the same random numbers. If either is one run, a trace
    that run or observe wrote or a profile of torch.profiler, the other one is simulated once.

    Args:
        a: A scenario (.toml), a trace (.npz) or a profile (.json, .json.gz).
        b: Another one.
        replications: How often each scenario is simulated; by default 5 to 30, by their length.
        seed: What all random times of scenarios follow from.
        jobs: How many processes simulate; -1 for one on each core.
        plot: Draw both here: where the time of a sample goes, and how long waits are.
            Of scenarios, one run of each, of long ones a part.
        max_stall: The share of the time that training may be idle with B: 0.05 or 5%.
        check: End with status 1 where B misses the target, or its batches do not fit.
    """
    most = share_of("max-stall", max_stall)
    check_drawable(plot)
    from dlsim.trace import stall
    from dlsim.whatif.space import space

    names = named(a, b, changes)
    a, b = located(a), None if b is None else located(b)
    if b is None and (not changes or a.suffix != ".toml"):
        raise UsageError("compare: expected B, or a scenario and what to change in it")
    if a.suffix == ".toml" and (b is None or b.suffix == ".toml"):
        one = scenario_from(a, NO_CHANGES if b is None else changes)
        other = scenario_from(b or a, changes)
        with working():
            found = versus(one, other, replications, seed, jobs)
            said = str(found)
        stalled, fits = found.b.interval("stall").mean, space(other).fits
        runs = [one_run(each, seed) for each in (one, other)] if plot is not None else []
    else:
        assert b is not None
        traces = [trace_from(path, seed, changes) for path in (a, b)]
        said = two_runs(*traces)
        stalled, fits, runs = stall(traces[1]), None, [*traces]
    if plot is not None:
        from dlsim.report.why_plots import comparison_picture

        draw(comparison_picture(runs[0], runs[1], names, said.splitlines()[0]), plot)
    print(said)
    print(f"\nA  {names[0]}\nB  {names[1]}")
    held(check, fits=fits, stall=stalled, max_stall=most)


def one_run(scenario: Scenario, seed: int) -> Trace | JobTrace:
    """A run of a scenario for a picture, or of all ranks of a job: of a long one, a part."""
    from dlsim.whatif.extent import shortened

    if scenario.is_job and scenario.job.rank is None:
        return simulated_job(scenario, seed, "auto", samples=False)
    return simulated(shortened(scenario), seed, "auto", samples=False)


def named(a: Path, b: Path | None, changes: Mapping[str, str]) -> tuple[str, str]:
    """What A and B are; options change both of two scenarios, and B where there is one."""
    given = ", ".join(f"{key}={text}" for key, text in changes.items())
    one, other = (
        f"{path} with {given}" if given and path.suffix in ("", ".toml") else str(path)
        for path in (a, b or a)
    )
    return str(a) if b is None else one, other


def versus(a: Scenario, b: Scenario, replications: int | None, seed: int, jobs: int) -> Versus:
    """Two scenarios beside each other."""
    from dlsim.whatif import compare

    return compare(a, b, replications, seed, jobs=jobs)


def two_runs(one: Trace, other: Trace) -> str:
    """Two runs beside each other: which was faster, in what they agree, their metrics."""
    from dlsim.report import faster, side_by_side
    from dlsim.trace import account

    table, accounts = side_by_side("A", one, "B", other), (account(one), account(other))
    idle = [f"{name}: {found.sentence}." for name, found in zip("AB", accounts, strict=True)]
    return "\n".join([faster(one, other), *idle, agreement(one, other), "", table])


def agreement(one: Trace, other: Trace) -> str:
    """In what two runs agree, in words; a real one is what the other is held against."""
    from dlsim.trace import difference
    from dlsim.trace.profiler import ENGINE as PROFILER

    engines = (one.meta.engine, other.meta.engine)
    if PROFILER in engines:
        return "A profile tells waits and steps, and nothing else that could be compared."
    if set(engines) == {"observed"}:
        return "Both are real runs: what the machine did besides has a part in each."
    if "observed" not in engines:
        found = difference(one, other)
        return f"First difference: {found}." if found else "Every moment of both is the same."
    from dlsim import validation

    if other.meta.engine != "observed":
        one, other = other, one
    return str(validation.compare(one, other))
