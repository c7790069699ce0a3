"""Ctrl-C at random moments: one line, status 130, and soon.

    python -m tests.benchmarks.interrupts --count 100 --seed 1

Each command is run, in one process and in two, and interrupted as a terminal does it: the signal
goes to all processes of the group. What it was about to write must not be there in part.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dlsim
from tests.benchmarks.fuzz import PROGRESS

SCENARIO = dlsim.Scenario(
    name="to be interrupted",
    loader=dlsim.Loader(batch_size=4, num_workers=2, in_order=False),
    dataset=dlsim.MapDataset(
        40_000, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0), cpu=dlsim.Constant(0.1))]
    ),
    consumer=dlsim.Consumer(step=dlsim.Gamma(0.5, 0.5)),
    machine=dlsim.Machine(cores=2),
)
COMMANDS = (
    ["run", "--plot", "run.png", "--csv", "run.csv"],
    ["run", "-v"],
    ["run", "--engine", "simpy"],
    ["sweep", "--vary", "loader.num_workers=1:8", "--out", "sweep.csv", "--jobs", "1"],
    ["sweep", "--vary", "loader.num_workers=1:8", "--out", "sweep.csv", "--jobs", "2"],
    ["explain"],
    ["explain", "--jobs", "2"],
    ["advise"],
    ["advise", "--max-stall", "5%", "--jobs", "2"],
    ["compare", "--loader.num-workers", "4"],
    ["compare", "--loader.num-workers", "4", "--jobs", "2"],
    ["report", "--html", "report.html"],
)
EARLIEST, LATEST = 0.4, 8.0  # seconds after a command begins; before, Python itself is starting
KEPT = ".journal keeps what is finished"
SOON = 3.0  # seconds; on a machine that is otherwise idle it is less than one


def fault(command: list[str], moment: float, folder: Path) -> tuple[str | None, float]:
    """What is wrong with how the command ends when interrupted then, and how long that takes."""
    name, *options = command
    words = [sys.executable, "-m", "dlsim", name, "case.toml", *options]
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    time.sleep(moment)
    done = process.poll() is not None
    began = time.monotonic()
    if not done:
        os.killpg(process.pid, signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return "does not end", 60.0
    took = time.monotonic() - began
    said = [line for line in err.splitlines() if not PROGRESS.match(line)]
    left = [path.name for path in folder.iterdir() if ".tmp" in path.name or path.name[0] == "."]
    if left:
        return f"half-written: {left}", took
    if process.returncode == 0:
        return (f"says {said[0]!r} beside an answer" if said else None), took
    if process.returncode != 130:
        return f"status {process.returncode}: {said[-1:]}", took
    if said[-1:] != ["dlsim: interrupted"] or not all(KEPT in line for line in said[:-1]):
        return f"says {said[:1]} ... {said[-1:]} ({len(said)} lines)", took
    return None, took


def main() -> None:
    """Print each fault once, how often there was any, and how long it took to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    found: collections.Counter[str] = collections.Counter()
    times = []
    for _ in range(options.count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            dlsim.dump(SCENARIO, folder / "case.toml")
            command, moment = rng.choice(COMMANDS), rng.uniform(EARLIEST, LATEST)
            wrong, took = fault(command, moment, folder)
        times.append(took)
        if wrong or took > SOON:
            wrong = wrong or f"ends after {took:.1f} s"
            print(f"{' '.join(command)} after {moment:.2f} s: {wrong}", flush=True)
            found[wrong] += 1
    print(f"{sum(found.values())} of {options.count} ended badly; {max(times):.2f} s at most")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
