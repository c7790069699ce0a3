"""Killing a sweep at random moments, and starting it again, until it is done."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import dlsim
from dlsim.engine.effort import decided
from dlsim.whatif import sweep

BASE = dlsim.Scenario(
    loader=dlsim.Loader(batch_size=2, num_workers=2),
    dataset=dlsim.MapDataset(24, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]),
    consumer=dlsim.Consumer(step=dlsim.Gamma(0.5, 0.5)),
)
ROW = 2500  # bytes of a row in the journal, about
MOMENT = 0.02  # seconds until the kill, at most, so that it comes between writing, too
PROGRAM = """
import sys
from tests.benchmarks.kills import interrupted
interrupted(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def interrupted(out: str | None, rows: int, jobs: int) -> dict[str, np.ndarray]:
    """The sweep that is killed, of so many rows, on one engine: the same to the last bit."""
    with decided(False):
        return sweep(BASE, {"loader.num_workers": range(1, rows + 1)}, 20, jobs=jobs, out=out)


def killed(folder: Path, rows: int, jobs: int, kills: int) -> int:
    """Kill the sweep about so often, go on until it is done, and say how often it was killed.

    Raises `AssertionError` if a row is lost or computed twice, or a number differs from those of
    a sweep that was left alone.
    """
    out = folder / "sweep.csv"
    journal = folder / "sweep.csv.journal"
    rng = random.Random(jobs)
    made = 0
    while not out.exists():
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out), str(rows), str(jobs)])
        enough = length(journal) + rng.randrange(max(rows * ROW // (8 * max(kills, 1)), 1))
        moment = rng.uniform(0, MOMENT)
        while process.poll() is None:
            if made < kills and length(journal) > enough:
                time.sleep(moment)
                process.send_signal(signal.SIGKILL)
                process.wait()
                made += 1
                break
            time.sleep(0.001)
        assert process.returncode in (0, -signal.SIGKILL)
    numbers = []
    for line in journal.read_text().splitlines()[1:]:
        try:
            numbers.append(json.loads(line)["number"])
        except ValueError:
            continue  # the line it was killed at
    assert sorted(numbers) == list(range(rows))
    whole, again = interrupted(None, rows, 1), interrupted(str(out), rows, 1)
    assert list(whole) == list(again)
    for name, column in whole.items():
        assert np.array_equal(column, again[name], equal_nan=column.dtype.kind == "f"), name
    return made


def length(path: Path) -> int:
    """Bytes of the file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def pieces(kills: int) -> dict[str, Callable[[], dict[str, int]]]:
    """A sweep in one process, and one in two, each killed half as often as that."""

    def kill(jobs: int) -> dict[str, int]:
        rows = 20 * kills
        with tempfile.TemporaryDirectory() as folder:
            made = killed(Path(folder), rows, jobs, -(-kills // 2))
        return {"jobs": jobs, "rows": rows, "killed": made}

    return {f"{jobs} at a time": partial(kill, jobs) for jobs in (1, 2)}


def lines(kills: int, rows: dict[str, dict[str, int]]) -> Iterator[str]:
    """How often it was killed, and what was lost."""
    for row in rows.values():
        yield (
            f"- A sweep of {row['rows']} rows in {row['jobs']} "
            f"process{'es' if row['jobs'] > 1 else ''} was killed (SIGKILL) {row['killed']} times "
            "at random moments and started again: no row lost, none computed twice, every number "
            "the same."
        )
    made = sum(row["killed"] for row in rows.values())
    verdict = " **missed**" if made < kills and len(rows) == 2 else ""
    yield f"\nGoal: {kills} kills.{verdict}"
