"""Clusters of more and more nodes, and MosaicML's simulator of the same; a Markdown table.

    python -m tests.benchmarks.clusters

Each node has a network of its own, which is enough for three quarters of the steps that its ranks
could do, and each rank reads a sample for every step: a step takes four thirds of its time. Both
simulators are told the same, and have to say so. Steps are minutes long: streaming's simulator
keeps the seconds that nodes wait as whole numbers, so that shorter waits would not count.
`mosaicml-streaming` is measured where it is installed; processor time, traces and all.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec

import dlsim
from dlsim.scenario import RemoteStorage, Scenario
from dlsim.trace.job import meetings

RANKS = WORKERS = 8
SAMPLE, STEP = 1_000_000, 120.0  # bytes, seconds
BANDWIDTH = RANKS * SAMPLE * 0.75 / STEP


def scenario(nodes: int, steps: int) -> Scenario:
    """So many nodes, each with eight ranks that have a sample in each batch."""
    return Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=WORKERS),
        dataset=dlsim.MapDataset(
            steps * nodes * RANKS,
            fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(float(SAMPLE)))],
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(STEP)),
        job=dlsim.Job(ranks=RANKS, nodes=nodes, storage=RemoteStorage(node_bandwidth=BANDWIDTH)),
    )


def by_dlsim(nodes: int, steps: int) -> float:
    """Seconds that a step takes in the middle, when workers neither begin nor run out of work."""
    met = meetings(dlsim.simulate_job(scenario(nodes, steps), engine="compiled"))
    some = met.released[3 * WORKERS : -3 * WORKERS][:: 2 * WORKERS]
    return float(some[-1] - some[0]) / (len(some) - 1) / (2 * WORKERS)


def by_streaming(nodes: int, steps: int) -> float:
    """The same as streaming's simulator has it, with a sample in each shard."""
    from simulation.core.create_index import create_stream_index
    from simulation.core.main import simulate
    from simulation.core.sim_dataset import SimulationDataset
    from simulation.core.sim_time import Time, TimeUnit
    from streaming.base import Stream

    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        index = create_stream_index(steps * nodes * RANKS, 1, SAMPLE, None)
        dataset = SimulationDataset(
            nodes,
            RANKS,
            WORKERS,
            streams=[Stream(local=os.path.dirname(index))],
            batch_size=1,
            predownload=2,  # samples of each worker, as prefetch_factor
            shuffle=True,
        )
        times, *_ = next(simulate(dataset, STEP, int(BANDWIDTH), Time(steps, TimeUnit.BATCH)))
    return float(times[steps // 2 :].mean())


def measured(case: Callable[[int, int], float], nodes: int, steps: int) -> tuple[float, float]:
    """Microseconds that a batch costs, and seconds that a step takes."""
    began = time.process_time()
    found = case(nodes, steps)
    return 1e6 * (time.process_time() - began) / (nodes * RANKS * steps), found


def main() -> None:
    """Measure, and print a row for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16, 128])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    there = find_spec("simulation") is not None and find_spec("streaming") is not None
    by_dlsim(2, 100)  # what is imported and compiled is not measured
    if there:
        by_streaming(1, 10)
    print("| nodes | ranks | dlsim: a batch | a step | streaming: a batch | a step | ratio |")
    print("|---|---|---|---|---|---|---|")
    for nodes in options.nodes:
        ours, said = min(measured(by_dlsim, nodes, options.steps) for _ in range(3))
        theirs = "| - | - | - |"
        if there:
            cost, other = measured(by_streaming, nodes, options.steps)
            theirs = f"| {cost:,.0f} µs | {other:.1f} s | {cost / ours:,.0f} |"
        print(f"| {nodes} | {nodes * RANKS:,} | {ours:.2f} µs | {said:.1f} s {theirs}", flush=True)


if __name__ == "__main__":
    main()
