"""What `diagnose` promises of real loaders, and what its advice gives when it is applied for real.

    python -m tests.benchmarks.diagnosis -o rows.json --only jpeg
    python -m tests.benchmarks.diagnosis -o rows.json --write docs/diagnosis.md

Each loader is diagnosed as `dlsim diagnose` does it; then it runs with its own settings and with
those advised, alternately. A fixed piece of work is timed before and after every run: a run that
met a machine slower than it was is told apart, and does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

from torch.utils.data import DataLoader

from dlsim.trace.metrics import samples_per_second
from dlsim.validation import diagnose
from dlsim.validation.diagnosis import keywords, settings_of
from dlsim.validation.machine import pace
from dlsim.validation.trials import timed, with_settings
from dlsim.validation.workloads import WORKLOADS

LOADERS = {"jpeg": 1, "mixed": 1, "arrays": 1}  # workers they begin with
PAIRS = 7
SLOW = 1.35  # a piece of work that takes so many times as long as it can meets a slow machine
PAGE = """# What a diagnosis promises, and what comes of it

Real loaders ({machine}), diagnosed; then run with their own settings and with those advised,
alternately, {pairs} times. *Promised* is the 95 % interval for one run of each. Runs that met the
machine slower than it was (a fixed piece of work took more than {slow} times its best) are not
counted. This page is written by

    python -m tests.benchmarks.diagnosis -o rows.json --write docs/diagnosis.md

{table}
"""


def diagnosed(name: str, folder: Path, pairs: int) -> dict[str, Any]:
    """A loader diagnosed, and the gains of its advice in so many pairs of real runs."""
    work = next(work for work in WORKLOADS if work.name == name)
    loader = work.loader(folder, batch_size=work.sizes[0], num_workers=LOADERS[name], shuffle=True)

    def step(_: Any) -> None:
        time.sleep(work.step)

    before, began = pace(), time.perf_counter()
    found = diagnose(loader, step=step)
    row: dict[str, Any] = {
        "name": name,
        "seconds": time.perf_counter() - began,
        "now": keywords(settings_of(found.scenario)),
        "advised": keywords(found.advised),
        "promised": [found.gain_as_watched.low, found.gain_as_watched.high],
        "off": found.off,
        "paces": [before, pace()],
        "watched": len(found.seen.order) / max(samples_per_second(found.seen), 1e-9),
        "said": str(found).splitlines()[:2],
        "pairs": [],
    }
    for _ in range(pairs):
        row["pairs"].append(pair(loader, found.advised, step, len(found.seen.order)))
    return row


def pair(loader: DataLoader[Any], advised: Any, step: Any, batches: int) -> list[dict[str, float]]:
    """A run as it is, and one as advised: seconds, and the machine's pace around them."""
    runs = []
    for settings in ({}, advised):
        before = pace()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = timed(with_settings(loader, **settings), step, batches)
        others = run.foreign + run.stolen
        runs.append({"epoch": run.epoch, "pace": max(before, pace()), "others": others})
    return runs


def counted(row: dict[str, Any], best: float) -> list[float]:
    """The gains of the pairs that met the machine as fast as it can be."""
    return [
        base["epoch"] / changed["epoch"] - 1
        for base, changed in row["pairs"]
        if max(base["pace"], changed["pace"]) <= SLOW * best
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each loader."""
    paces = [run["pace"] for row in rows for pair in row["pairs"] for run in pair]
    best = min([*paces, *(p for row in rows for p in row["paces"])])
    lines = [
        "| loader | now | advised | promised | measured | runs within | slow | diagnosed in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["promised"]
        gains = counted(row, best)
        within = sum(low <= gain <= high for gain in gains)
        measured = (
            f"{100 * median(gains):+.0f} % ({100 * min(gains):+.0f} to {100 * max(gains):+.0f})"
            if gains
            else "-"
        )
        slow = "itself" if max(row["paces"]) > SLOW * best else ""
        lines.append(
            f"| {row['name']} | {row['now']} | {row['advised']} "
            f"| {100 * low:+.0f} to {100 * high:+.0f} % | {measured} "
            f"| {within} of {len(gains)} | {len(row['pairs']) - len(gains)} {slow} "
            f"| {row['seconds']:.0f} s |"
        )
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


if __name__ == "__main__":
    main()
