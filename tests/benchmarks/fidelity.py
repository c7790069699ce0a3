"""How far predictions are off, in docs/fidelity.md and the README, from a folder of real runs.

dlsim validate -o FOLDER
python -m tests.benchmarks.fidelity FOLDER

The second command makes no runs: a better prediction is held against the same ones.
"""

from __future__ import annotations

import argparse
import warnings
from datetime import UTC, datetime
from pathlib import Path

from dlsim.cli.validation import picture
from dlsim.scenario.units import duration
from dlsim.validation import fidelity
from dlsim.validation.campaign import typical_paces
from dlsim.validation.machine import PAGES
from dlsim.validation.tables import (
    Line,
    aims,
    case_lines,
    foreseen,
    legend,
    markdown,
    replay_lines,
    workload_lines,
)

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- fidelity -->", "<!-- /fidelity -->"

PAGE = """# How far to trust a prediction

Real runs of twelve kinds of work, each under several settings, were predicted from
{calibrated} of the same work, and measured.
{machine}.
This page is written by

    dlsim validate -o FOLDER
    python -m tests.benchmarks.fidelity FOLDER

![Predicted against measured](fidelity.png)

## What was aimed at

{aims}

What is missed is work that fills new memory: arrays and large tensors, files. A page of it takes
{page} here, and how many a process has to ask for depends on what it freed before: the C library
keeps the memory of messages once it has seen their size, so that a run can become twice as fast
half way through, as the picture shows. Costs seen at one size of batch do not tell that of another.

## Predictions

n: configurations, each run several times. Errors are those of an epoch's time, relative to the
median of the real runs; of wait p95, the median of those from a millisecond on. held: real runs
within the predicted 95 % interval. spread: the range of the runs of one configuration, relative to
their median. choice: by how much the configuration that prediction would choose is slower than the
best one measured.

How much the machine's pace differs from run to run is taken so that the intervals hold nine of ten
of these very runs (`PACE` in dlsim/validation/calibrating.py); all else is foreseen.

{workloads}

## Replays

Observed runs, simulated with their own costs as they were recorded. timeline: the furthest that the
two times of a return are apart, as a share of the epoch.

{replays}

## Every configuration

{cases}

{legend}
"""

PART = """{begin}
**Real runs** of {count} configurations of twelve kinds of work, predicted from
{calibrated} of the same work ([all of them](docs/fidelity.md)):
{machine}.

{table}
{end}"""


def machine(rows: fidelity.Rows, cases: list[fidelity.Case]) -> str:
    """Where and when it was measured, and with what."""
    found = rows["machine"]
    versions = found["versions"]
    latest = max(trial.at for case in cases for trial in case.measured)
    day = datetime.fromtimestamp(latest, UTC).date()
    names = {"python": "Python", "torch": "torch", "dlsim": "dlsim"}
    programs = ", ".join(f"{names[name]} {versions[name]}" for name in names)
    return f"{found['cores']:g} cores, {programs}, {day}"


def words(observed: tuple[int, ...]) -> str:
    """What was calibrated on."""
    if len(observed) == 1:
        return f"one observed run with {observed[0]} workers"
    *most, last = map(str, sorted(observed))
    return f"observed runs with {', '.join(most)} and {last} workers"


def write(folder: Path, observed: tuple[int, ...], jobs: int) -> None:
    """Write docs/fidelity.md, its picture, and the README's part."""
    rows = fidelity.read(folder)
    found = fidelity.cases(folder, observed=observed, jobs=jobs)
    cases = sorted(found, key=lambda case: fidelity.order(case.configuration))
    replays = list(fidelity.replays(folder, jobs=jobs))
    where = machine(rows, cases)
    page = PAGE.format(
        calibrated=words(observed),
        machine=where,
        page=duration(typical_paces(rows)["paging"] / PAGES),
        aims=markdown(aims(cases, replays)),
        workloads=markdown(workload_lines(cases)),
        replays=markdown(replay_lines(replays)),
        cases=markdown(case_lines(cases)),
        legend="\n".join(f"- {line}" for line in legend(cases).splitlines()),
    )
    (ROOT / "docs/fidelity.md").write_text(page, encoding="utf-8")
    picture(cases).savefig(ROOT / "docs/fidelity.png", dpi=110)
    part = PART.format(
        begin=BEGIN,
        end=END,
        machine=where,
        count=len(foreseen(cases)),
        calibrated=words(observed),
        table=markdown(short(workload_lines(cases))),
    )
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(before + part + after, encoding="utf-8")


def short(lines: list[Line]) -> list[Line]:
    """The columns that the README has room for."""
    wanted = ("workload", "n", "median", "90th pct.", "worst", "held", "spread")
    at = [lines[0].index(name) for name in wanted]
    return [tuple(line[i] for i in at) for line in lines]


def main() -> None:
    """Write the table from the runs in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--observed", type=int, nargs="+", default=[2, 1, 0])
    parser.add_argument("--jobs", type=int, default=-1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    write(options.folder, tuple(options.observed), options.jobs)


if __name__ == "__main__":
    main()
