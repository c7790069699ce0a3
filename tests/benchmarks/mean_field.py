"""How far a job of many nodes is known from few of them; a Markdown table for docs/node.md.

    python -m tests.benchmarks.mean_field --steps 200
    python -m tests.benchmarks.mean_field --parts

Nodes meet in two places: at the barrier, and at a storage of all of them. All else is exact in the
few that are simulated. The others are a crowd of the same kind: at each meeting the last of them
comes as late as the greatest of so many independent draws from what the few took, and the few have
their share of the storage. A crowd that comes late gives the few more time, so this is done again.
Two bounds, where nodes meet at the barrier alone: the few alone are never later; and the crowd of
the first round is never earlier, if nobody takes longer for having had more time.

With `--parts`, what simulating all of them takes: processor time and memory of a rank and a batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

import dlsim
from dlsim.engine.compiled.job import Job
from dlsim.engine.compiled.state import COLUMNS, COMMON, SHARED
from dlsim.scenario import Recorded, RemoteStorage, Scenario
from dlsim.trace.job import JobTrace, meetings
from dlsim.trace.job_metrics import own_times
from dlsim.trace.trace import Floats
from tests.benchmarks import jobs

RANKS = 8  # of a node
ROUNDS = 8


def cases(nodes: int, steps: int) -> Iterator[tuple[str, Scenario]]:
    """Jobs of so many nodes, each limited by something else, and named by it."""
    cores = jobs.scenario(RANKS, nodes, steps)
    yield "exponential steps, cores of a node shared", cores
    fast = {"dataset.fetch": [{"name": "read", "wait": "1 ms"}]}
    yield (
        "steps vary by 10 %, the loader is fast",
        dlsim.replace(cores, {**fast, "consumer.step": dlsim.Gamma(jobs.STEP, 0.1)}),
    )
    late = dlsim.Stage("read", wait=dlsim.Lognormal(0.09, 2.0))
    yield (
        "constant steps, samples late at times (lognormal, cv 2)",
        dlsim.replace(cores, {"dataset.fetch": [late], "consumer.step": dlsim.Constant(jobs.STEP)}),
    )
    read = dlsim.Stage("read", read_bytes=dlsim.Gamma(1e6, 0.5))
    wanted = 1e6 * RANKS * nodes / jobs.STEP
    for share, what in ((1.25, "enough for 1.25 times"), (0.8, "enough for 0.8 of")):
        yield (
            f"storage of all nodes, {what} the steps",
            dlsim.replace(
                jobs.scenario(RANKS, nodes, steps),
                {
                    "dataset.fetch": [read],
                    "consumer.step": dlsim.Constant(jobs.STEP),
                    "job.storage": RemoteStorage(bandwidth=share * wanted),
                    "machine.cores": None,
                },
            ),
        )


def of_few(scenario: Scenario, few: int) -> Scenario:
    """The same job of few of its nodes, with their share of the data and of the storage."""
    job, part = scenario.job, few / scenario.job.nodes
    changes: dict[str, object] = {
        "job.nodes": few,
        "dataset.length": int(scenario.dataset.length * part),
    }
    if job.storage.bandwidth is not None:
        changes["job.storage.bandwidth"] = job.storage.bandwidth * part
    return dlsim.replace(scenario, changes)


def took(found: JobTrace, ranks: int) -> Floats:
    """Seconds that each node took for each meeting, from when all went on until its last came."""
    met = meetings(found)
    times: Floats = own_times(found, met).reshape(len(met), -1, ranks).max(axis=2)
    return times


def crowd(times: Floats, others: int, seed: int) -> Floats:
    """For each meeting, how late the last of the others is, if they are like these.

    The first meeting, to which all come with empty buffers, is one of its own.
    """
    chance = np.random.default_rng(seed).random(len(times)) ** (1 / others)
    found = np.empty(len(times))
    for meet in (slice(0, 1), slice(1, None)):
        pooled = np.sort(times[meet], axis=None)
        found[meet] = pooled[(chance[meet] * len(pooled)).astype(int)]
    return found


def mean_field(scenario: Scenario, few: int, seed: int = 0) -> tuple[float, float, float]:
    """Seconds of the job by mean field, and its bounds: the few alone, and the first crowd."""
    small, others = of_few(scenario, few), scenario.job.nodes - few
    more = np.zeros(scenario.dataset.length // scenario.job.world)
    for number in range(ROUNDS):
        waits = Recorded([*more, 0.0])  # the engine draws one more
        found = dlsim.simulate_job(dlsim.replace(small, {"job.sync_time": waits}), seed)
        times = took(found, scenario.job.ranks)
        last, crowded = times.max(axis=1), crowd(times, others, seed)
        if number == 0:
            least, most = found.end, float(np.maximum(last, crowded).sum())
        more += (np.maximum(crowded - last, 0.0) - more) / 2  # half of it, lest it overshoots
    return found.end, least, most


def parts(nodes: int, steps: int) -> None:
    """Print what a rank and a batch take where all are simulated."""
    began = time.process_time()
    made = Job(next(cases(nodes, steps))[1], 0, samples=False)
    between = time.process_time()
    made.run(lambda batches: None)
    spent = between - began, time.process_time() - between
    arrays = made.ranks[-1].state._asdict()
    batch = sum(arrays[name].nbytes for name in COLUMNS) / steps
    theirs = (*COLUMNS, *SHARED, *COMMON)
    own = sum(array.nbytes for name, array in arrays.items() if name not in theirs)
    ranks = RANKS * nodes
    print(
        f"| {ranks:,} | {1e3 * spent[0] / ranks:.2f} ms | {own / 1024:.0f} KiB "
        f"| {1e6 * spent[1] / (ranks * steps):.1f} µs | {batch:.0f} B |",
        flush=True,
    )


def main() -> None:
    """Simulate each job in full and from few nodes, and print how far that is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=128)
    parser.add_argument("--few", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--parts", action="store_true", help="what simulating all takes")
    options = parser.parse_args()
    if options.parts:
        print("| ranks | a rank takes | its memory | a batch takes | its memory |")
        print("|---|---|---|---|---|")
        for nodes in (1, options.nodes // 4, options.nodes):
            parts(nodes, options.steps)
        return
    print("| a step of | all nodes | few, with a crowd | off | bounds |")
    print("|---|---|---|---|---|")
    for name, scenario in cases(options.nodes, options.steps):
        whole = dlsim.simulate_job(scenario)
        found, least, most = mean_field(scenario, options.few)
        steps = scenario.dataset.length / scenario.job.world
        each = [1e3 * seconds / steps for seconds in (whole.end, found, least, most)]
        off = 100 * (found / whole.end - 1)
        bounds = "" if scenario.job.remote else f"{each[2]:.2f} to {each[3]:.2f} ms"
        print(
            f"| {name} | {each[0]:.2f} ms | {each[1]:.2f} ms | {off:+.1f} % | {bounds} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
