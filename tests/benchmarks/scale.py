"""What many and long simulations cost whose metrics alone are asked for; rows for `speed`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dlsim

REPLICATIONS, SINGLES = 30, 300

# Run in a process of its own, whose memory is that of one run. Not `ru_maxrss`: Linux hands on
# to a new program the most that the process which started it ever had.
LONG = """
import json, re, time
import dlsim
from dlsim.engine import outcome
from dlsim.engine.compiled.in_order import tallies
from tests.benchmarks.models import scenario
[tally] = tallies(scenario(1000), [0], lambda batches: None)
began = time.perf_counter()
outcome(scenario({batches}))
taken = time.perf_counter() - began
status = open("/proc/self/status").read()
print(json.dumps([taken, int(re.search("VmHWM:\\s+([0-9]+)", status)[1]) / 1024]))
"""


def long_runs(sizes: list[int]) -> Iterator[tuple[int, float, float]]:
    """For each number of batches: seconds that a batch costs, and the most MiB of memory."""
    for batches in sizes:
        command = [sys.executable, "-c", LONG.format(batches=batches)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        taken, memory = json.loads(done.stdout)
        yield batches, taken / batches, memory


def sweeps(
    plan: dlsim.Scenario, repeats: int, vary: Mapping[str, Sequence[float]]
) -> Iterator[tuple[float, ...]]:
    """For each round: a sweep's time times cores over its single runs', and both in seconds.

    The sweep starts its processes and writes its journal and table; a single run is one call of
    `simulate`, the mean of `SINGLES` of them just before.
    """
    runs = REPLICATIONS * math.prod(map(len, vary.values()))
    for _ in range(repeats):
        began = time.perf_counter()
        for seed in range(SINGLES):
            dlsim.simulate(plan, seed, engine="compiled")
        single = (time.perf_counter() - began) / SINGLES
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            dlsim.sweep(plan, vary, REPLICATIONS, out=Path(folder) / "sweep.csv")
            taken = time.perf_counter() - began
        yield taken * (os.cpu_count() or 1) / (runs * single), taken, single
