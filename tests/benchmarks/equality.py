"""Simulate and run torch's own code on many random scenarios; print every difference.

    python -m tests.benchmarks.equality --scenarios 20000 --seed 1
    python -m tests.benchmarks.equality --engine compiled --scenarios 10000
    python -m tests.benchmarks.equality --jobs --scenarios 2000 --seed 2
    python -m tests.benchmarks.equality --validation --scenarios 2000 --seed 3

With `--engine compiled` it is the compiled engine that is compared, with the SimPy engine (on any
machine, and under older rules and policies too) or, with `--against torch`, with torch's code.

Exit status 0 when there is none. The scenarios come from `tests/strategies.py`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

import dlsim
from dlsim.engine.facts import lingers, uncovered
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference, job_difference
from dlsim.validation import run_virtual
from dlsim.validation.virtual.job import run_virtual_job
from tests.benchmarks.drawing import drawn
from tests.strategies import jobs, on_machines, scenarios, validated


def features(scenario: Scenario, trace: dlsim.Trace) -> list[str]:
    """What a scenario exercised, for the table at the end."""
    loader = scenario.loader
    problem = trace.meta.problem
    found = {
        "iterable": isinstance(scenario.dataset, dlsim.IterableDataset),
        "no workers": loader.num_workers == 0,
        "out of order": not loader.in_order,
        "several epochs": len(trace.epochs.first) > 1,
        "persistent workers": loader.persistent_workers and len(trace.epochs.first) > 1,
        "loop left early": scenario.consumer.stop_after is not None,
        "iterator rebound while it lives": scenario.consumer.loop == "rebind" and lingers(scenario),
        "a worker's iterator ended": bool((trace.status == 2).any()),
        "batches skipped": bool((trace.status == 3).any()),
        "batches discarded": bool((trace.status == 5).any()),
        "limited cores": scenario.machine.cores is not None,
        "shared storage": any(stage.read_bytes is not None for stage in scenario.dataset.fetch),
        "page cache": scenario.machine.storage.cache > 0,
        "pinned memory": loader.pin_memory,
        "costs of transport": scenario.costs.hand_over != dlsim.Cost(),
        "batches through the pipe": not scenario.ideal and scenario.dataset.path == "pipe",
        "steps on the CPU": scenario.consumer.device == "cpu",
        "pinning without an accelerator": loader.pin_memory and not scenario.pins,
        **of_validation(scenario, trace),
        **{f"caught {error.kind}": True for error in trace.meta.caught},
        f"ended by {problem.kind if problem else ''}": problem is not None,
    }
    return [name for name, present in found.items() if present]


def of_validation(scenario: Scenario, trace: dlsim.Trace) -> dict[str, bool]:
    """The same of validation."""
    own, seen = scenario.validation, trace.validation
    if own is None or seen is None:
        return {}
    loader, times = own.loader, len(seen.epochs.first)
    return {
        "validation never came": times == 0,
        "validation in mid-epoch": own.every is not None and times > 0,
        "validation at epochs' ends": own.every is None and times > 0,
        "validation several times": times > 1,
        "validation without workers": loader.num_workers == 0,
        "validation's workers stay": loader.persistent_workers and times > 1,
        "validation left early": own.stop_after is not None,
        "validation of an iterable-style dataset": isinstance(own.dataset, dlsim.IterableDataset),
        "validation failed": seen.meta.problem is not None,
    }


def of_jobs(scenario: Scenario, found: dlsim.JobTrace) -> list[str]:
    """The same of a job."""
    job, problem = scenario.job, found.meta.problem
    seen = {feature for trace in found.ranks for feature in features(scenario, trace)}
    seen.add(f"{job.world} ranks")
    seen.add(f"dealt {job.deal}")
    seen.add(f"sync {job.sync}")
    seen.add(f"uneven ends: {job.uneven}")
    if job.storage.bandwidth is not None and job.nodes > 1:
        seen.add("nodes share a bandwidth")
    if job.storage.requests_per_second is not None and job.nodes > 1:
        seen.add("nodes share a line of requests")
    seen.add(f"job ended by {problem.kind}" if problem else "job came to its end")
    return sorted(seen)


def simpy_job(scenario: Scenario, seed: int, *, samples: bool) -> dlsim.JobTrace:
    """The job on the SimPy engine."""
    return dlsim.simulate_job(scenario, seed, engine="simpy", samples=samples)


def kinds_of_scenarios(
    against: str, *, jobs_of: bool, validation: bool
) -> st.SearchStrategy[Scenario]:
    """What is drawn: what torch can run, or any machine, too."""
    if validation:
        return jobs(validated(scenarios())) if jobs_of else validated(scenarios())
    if jobs_of:
        alone = scenarios(torch_only=against == "torch")
        return jobs(alone if against == "torch" else alone | on_machines())
    return scenarios() if against == "torch" else scenarios(torch_only=False) | on_machines()


def main() -> int:
    """Run, and say what was compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["simpy", "compiled"], default="simpy")
    parser.add_argument("--jobs", action="store_true", help="of several ranks each")
    parser.add_argument("--validation", action="store_true", help="beside training")
    parser.add_argument("--against", choices=["torch", "simpy"])
    options = parser.parse_args()
    if options.validation and options.engine == "compiled":
        parser.error("--validation: the compiled engine has none; expected --engine simpy")
    against = options.against or ("torch" if options.engine == "simpy" else "simpy")
    seen: Counter[str] = Counter()
    batches = samples = differences = runs = 0
    began = time.perf_counter()

    def tell() -> None:
        if runs % 1000 == 0:
            print(f"{runs} scenarios, {differences} different", flush=True)

    @drawn(options.scenarios, options.seed)
    @given(
        kinds_of_scenarios(against, jobs_of=options.jobs, validation=options.validation),
        st.integers(0, 2**32),
    )
    def compare(scenario: Scenario, seed: int) -> None:
        nonlocal batches, samples, differences, runs
        if options.jobs and options.engine == "compiled" and uncovered(scenario):
            seen["not covered by the compiled engine"] += 1
            return
        if options.jobs:
            ours = dlsim.simulate_job(scenario, seed, engine=options.engine, samples=True)
            made = run_virtual_job if against == "torch" else simpy_job
            found = job_difference(ours, made(scenario, seed, samples=True))
            if found is not None:
                differences += 1
                print(f"DIFFERENT: {found}\n  {scenario}\n  seed {seed}", flush=True)
            runs += 1
            for trace in ours.ranks:
                batches += len(trace)
                samples += 0 if trace.samples is None else len(trace.samples.index)
            seen.update(of_jobs(scenario, ours))
            tell()
            return
        ours = dlsim.simulate(scenario, seed, engine=options.engine, samples=True)
        if against == "torch":
            theirs = run_virtual(scenario, seed, samples=True)
        else:
            theirs = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
        found = difference(ours, theirs)
        if found is None and options.engine == "compiled":
            # which without samples takes another path where it can
            found = difference(dlsim.simulate(scenario, seed, engine="compiled"), theirs)
        if found is not None:
            differences += 1
            print(f"DIFFERENT: {found}\n  {scenario}\n  seed {seed}", flush=True)
        runs += 1
        batches += len(ours)
        samples += 0 if ours.samples is None else len(ours.samples.index)
        seen.update(features(scenario, ours))
        tell()

    compare()
    took = time.perf_counter() - began
    print(f"{runs} scenarios, {batches} batches, {samples} samples in {took:.0f} s:")
    for name, count in seen.most_common():
        print(f"  {count:6}  {name}")
    print(f"{differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
