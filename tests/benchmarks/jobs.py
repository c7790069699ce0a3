"""How fast jobs are simulated: time for each batch and memory, by ranks and nodes, as ratios.

    python -m tests.benchmarks.jobs
    python -m tests.benchmarks.jobs --ranks 1024 --steps 1000 --memory

Compiled code is loaded before anything is measured. All rows are measured in turns, several times
over, and the least processor time counts; ratios are to one rank, with as many cores as each has.
With `--memory`, what a process needs that does nothing else.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import dlsim
from dlsim.scenario import Scenario
from dlsim.whatif import replicate

WORKERS, CORES = 8, 4.0  # of each rank
STEP = 0.012  # seconds, about as much as the workers of a rank need for a batch
READ = 1e6  # bytes of a sample, where it is read from storage
ENOUGH = 1.25  # times as much bandwidth as all steps need, and what a node can take of its share


def scenario(ranks: int, nodes: int, steps: int, *, reads: bool = False) -> Scenario:
    """So many steps of ranks that decode on the cores of their node, and meet after each.

    With `reads`, samples are read before, from one storage of all nodes.
    """
    world = ranks * nodes
    made = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=WORKERS),
        dataset=dlsim.MapDataset(
            steps * world, fetch=[dlsim.Stage("decode", cpu=dlsim.Exponential(0.04))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Exponential(STEP)),
        machine=dlsim.Machine(cores=CORES * ranks),
    )
    changes: dict[str, object] = {"job.ranks": ranks, "job.nodes": nodes}
    if reads:
        read = dlsim.Stage("read", read_bytes=dlsim.Exponential(READ))
        changes["dataset.fetch"] = [read, *made.dataset.fetch]
        wanted = ENOUGH * READ / STEP
        changes["job.storage.bandwidth"] = wanted * world
        changes["job.storage.node_bandwidth"] = ENOUGH * wanted * ranks
    return dlsim.replace(made, changes)


def seconds(found: Scenario) -> float:
    """Processor time that one simulation takes, traces and all."""
    began = time.process_time()
    if found.is_job:
        dlsim.simulate_job(found, engine="compiled")
    else:
        dlsim.simulate(found, engine="compiled")
    return time.process_time() - began


def memory(ranks: int, nodes: int, steps: int, *, traces: bool) -> float:
    """Bytes that a process takes at most in which the job is simulated once."""
    code = (
        "from tests.benchmarks.jobs import measured; import sys;"
        f"print(measured({ranks}, {nodes}, {steps}, {traces}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured(ranks: int, nodes: int, steps: int, traces: bool) -> float:
    """Bytes that this process has taken at most, after the job was simulated in it."""
    found = scenario(ranks, nodes, steps)
    if traces:
        dlsim.simulate_job(found, engine="compiled")
    else:
        replicate(found, 1)
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure, and print a row for each size of job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of each rank")
    parser.add_argument("--ranks", type=int, default=1024, help="of the largest job")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    sizes = [(1, 1), (2, 1), (8, 1), (8, 4), (8, 16), (8, options.ranks // 8)]
    for reads in (False, True):
        made = {s: scenario(*s, options.steps, reads=reads) for s in dict.fromkeys(sizes)}
        seconds(made[1, 1])
        seconds(made[2, 1])
        best = dict.fromkeys(made, float("inf"))
        for _ in range(options.rounds):
            for size, each in made.items():
                best[size] = min(best[size], seconds(each))
        each_batch = {(r, n): best[r, n] / (r * n * options.steps) for r, n in made}
        print("one storage of all nodes" if reads else "nodes share nothing")
        print("ranks  nodes  ns a batch  times one rank")
        for (ranks, nodes), took in each_batch.items():
            ratio = took / each_batch[1, 1]
            print(f"{ranks * nodes:5}  {nodes:5}  {1e9 * took:10.0f}  {ratio:14.2f}")
    if options.memory:
        nodes = options.ranks // 8
        for name, traces in (("traces", True), ("metrics alone", False)):
            took = memory(8, nodes, options.steps, traces=traces)
            print(f"{options.ranks} ranks, {options.steps} steps, {name}: {took / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
