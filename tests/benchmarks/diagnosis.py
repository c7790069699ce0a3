"""What `diagnose` promises of real loaders, and what its advice gives when it is applied for real.

    python -m tests.benchmarks.diagnosis -o rows.json --only jpeg
    python -m tests.benchmarks.diagnosis -o rows.json --write docs/diagnosis.md

Steps last half as long as a batch takes without them, so that the loader limits. Each loader is
diagnosed as `dlsim diagnose` does it; then it runs with its own settings and with the best found,
alternately. A fixed piece of work is timed before and after every run: a run that met a machine
slower than it was is told apart, and does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from torch.utils.data import DataLoader

from dlsim.engine.usable import usable_cores
from dlsim.trace.metrics import samples_per_second
from dlsim.validation import diagnose
from dlsim.validation.diagnosing.present import keywords, settings_of
from dlsim.validation.fidelity.trials import timed, with_settings
from dlsim.validation.fidelity.workloads import WORKLOADS
from dlsim.validation.observing.machine import pace

LOADERS = {"jpeg": 1, "mixed": 1, "arrays": 1}  # workers they begin with
PAIRS = 7
REHEARSED = 40  # batches without steps
OTHERS = 0.15  # cores that others may use
SLOW = 1.35  # a piece of work that takes so many times as long as it can meets a slow machine
PAGE = """# What a diagnosis promises, and what comes of it

Real loaders ({machine}), with steps that last half as long as a batch takes without them,
diagnosed; then run with their own settings and with the best found, alternately. *Promised* is
the 95 % interval for one run of each. Pairs in which the machine was slower than it had been (a
fixed piece of work took {slow} times as long), or others used it, are not counted. *Off*: the root
mean square of the logarithms of measured over predicted gains, what runs differ by included. This
page is written by

    python -m tests.benchmarks.diagnosis -o rows.json --write docs/diagnosis.md

{table}
"""


def diagnosed(name: str, folder: Path, pairs: int) -> dict[str, Any]:
    """A loader diagnosed, and the gains of its advice in so many pairs of real runs."""
    work = next(work for work in WORKLOADS if work.name == name)
    loader = work.loader(folder, batch_size=work.sizes[0], num_workers=LOADERS[name], shuffle=True)

    seconds = timed(loader, None, REHEARSED).epoch / REHEARSED / 2

    def step(_: Any) -> None:
        time.sleep(seconds)

    before, began = pace(), time.perf_counter()
    found = diagnose(loader, step=step)
    row: dict[str, Any] = {
        "name": name,
        "seconds": time.perf_counter() - began,
        "now": keywords(settings_of(found.scenario)),
        "advised": keywords(found.settings) + ("" if found.changes else " (not sure to help)"),
        "promised": [found.gain_as_watched.low, found.gain_as_watched.high],
        "off": found.off,
        "paces": [before, pace()],
        "watched": len(found.seen.order) / max(samples_per_second(found.seen), 1e-9),
        "said": str(found).splitlines()[:2],
        "pairs": [],
    }
    for _ in range(2 * pairs):
        row["pairs"].append(pair(loader, found.settings, step, len(found.seen.order)))
        if len(counted(row)) == pairs:
            break
    return row


def pair(loader: DataLoader[Any], advised: Any, step: Any, batches: int) -> list[dict[str, float]]:
    """A run as it is, and one as advised: seconds, and the machine's pace around them."""
    runs = []
    for settings in ({}, advised):
        before = pace()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = timed(with_settings(loader, **settings), step, batches)
        spoilt = run.foreign + run.stolen > OTHERS
        runs.append({"epoch": run.epoch, "pace": max(before, pace()), "spoilt": spoilt})
    return runs


def counted(row: dict[str, Any]) -> list[float]:
    """The gains of the pairs that met the machine as fast as it had been, and alone."""
    best = min(row["paces"] + [run["pace"] for pair in row["pairs"] for run in pair])
    return [
        base["epoch"] / changed["epoch"] - 1
        for base, changed in row["pairs"]
        if max(base["pace"], changed["pace"]) <= SLOW * best
        and not (base["spoilt"] or changed["spoilt"])
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each loader."""
    lines = [
        "| loader | now | found best | promised | measured | within | off | diagnosed in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["promised"]
        gains = counted(row)
        within = sum(low <= gain <= high for gain in gains)
        measured = (
            f"{100 * median(gains):+.0f} % ({100 * min(gains):+.0f} to {100 * max(gains):+.0f})"
            if gains
            else "-"
        )
        middle = 1 + (low + high) / 2
        off = [math.log((1 + gain) / middle) for gain in gains]
        missed = f"{math.sqrt(sum(x * x for x in off) / len(off)):.2f}" if off else "-"
        lines.append(
            f"| {row['name']} | {row['now']} | {row['advised']} "
            f"| {100 * low:+.0f} to {100 * high:+.0f} % | {measured} "
            f"| {within} of {len(gains)} | {missed} | {row['seconds']:.0f} s |"
        )
    missing = set(LOADERS) - {row["name"] for row in rows}
    lines += [f"| {name} | not measured on a quiet machine | | | | | | |" for name in missing]
    return "\n".join(lines)


def main() -> None:
    """Diagnose, run, and print; what was measured before is kept in a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", dest="kept", type=Path, required=True)
    parser.add_argument("--only", choices=[*LOADERS, "none"], help="measure this loader alone")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.kept.read_text()) if options.kept.exists() else []
    wanted = [options.only] if options.only else list(LOADERS)
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            if name != "none":
                rows = [row for row in rows if row["name"] != name]
                rows.append(diagnosed(name, Path(folder), options.pairs))
                options.kept.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    if options.write:
        where = f"{usable_cores():g} cores, torch {version('torch')}"
        text = PAGE.format(machine=where, slow=SLOW, table=table(rows))
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
