"""How far predictions are off, in docs/fidelity.md and the README, from folders of real runs.

dlsim validate --suite held-out -o HELD_OUT
dlsim validate -o DEVELOPMENT
python -m tests.benchmarks.fidelity HELD_OUT DEVELOPMENT

dlsim validate --suite ranks -o RANKS
python -m tests.benchmarks.fidelity --ranks RANKS

The latter writes docs/fidelity-ranks.md. These commands make no runs: a better prediction is held
against the same ones.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlsim.cli.validation import picture
from dlsim.scenario.units import duration
from dlsim.trace.observation import Observation
from dlsim.trace.summary import percent
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.lock import held_up
from dlsim.validation.fidelity import errors
from dlsim.validation.fidelity.campaign import OFF, RUNS, exchange_of, typical_paces
from dlsim.validation.fidelity.tables import (
    Line,
    aim_lines,
    aims,
    case_lines,
    foreseen,
    legend,
    markdown,
    replay_lines,
    workload_lines,
)
from dlsim.validation.observing.machine import PAGES

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- fidelity -->", "<!-- /fidelity -->"

PAGE = """# How far to trust a prediction

Real runs, each under several settings, were predicted from {calibrated}
of the same work, and measured: of twelve kinds of work on which the models of costs were
**developed**, and of eight unlike them, **held out**: they were written before anything was mended
for them, with libraries of their own, and are what to judge by. Three faults that they showed
are mended since: what threads of OpenCV and of the video decoder compute was taken for pickling,
what the main process imports to rebuild a first graph for a part of its first `next()`, and while
they were watched, workers imported at the end of a piece of Python's stack of frames, where each
call maps a page. Of **opencv**, **frames**, **graphs** and **audio** the figures are no longer of
work that nothing was mended for.
{machine}.
This page is written by

    dlsim validate --suite held-out{quick} -o HELD_OUT
    dlsim validate{quick} -o DEVELOPMENT
    python -m tests.benchmarks.fidelity{quick} HELD_OUT DEVELOPMENT

[Jobs of two ranks](fidelity-ranks.md) are on a page of their own.

![Predicted against measured, held out](fidelity.png)

## What was aimed at

{aims}

{pace}

n: configurations, each run {times}. Errors are those of an epoch's time, relative to the
median of the real runs; of wait p95, the median of those from a millisecond on. held: real runs
within the predicted 95 % interval; half-width: of that interval; score: its width and 40 times by
how far runs lie outside, relative to the measured time, on average. spread: the range of the runs
of one configuration, relative to their median. choice: by how much the configuration that
prediction would choose is slower than the best one measured.

{constants}

## Held out

{held_out}

## Development

{causes}{development}
"""

PACE = """The same short computation was timed before and after each run: nine in ten times it took
from {low} to {high} of its median. By as much runs differ from their like, whatever is known of
them; runs beside which it took {off:g} times the median, or the median {off:g} times as long, are
repeated, twice at most."""

CONSTANTS = """How much a machine's pace differs from run to run (`PACE`), how much it matters where
processes are placed (`PLACING`), and how much runs differ besides (`UNEXPLAINED`, all three in
dlsim/validation/calibrating/cost_errors.py), was chosen on the development suite's runs, as
intervals score best, or within a hundredth of it (`python -m tests.benchmarks.intervals`)."""

RANKS = """# How far to trust a prediction of two ranks

Real jobs of two processes on one machine, to which torch's `DistributedSampler` deals and which
meet after every step through gloo (where they train, by `DistributedDataParallel`), were predicted
from {calibrated} of one process with the same work, and measured. How long
meetings take was found out by themselves, of ranks that come to them as those of the job do: they
have computed or slept before, and others fetch samples meanwhile, or do not. Most meetings take
{usual}; but who waits there is woken by the system, on busy cores perhaps not before its clock
ticks, so that one in twenty takes {long} or more.
{machine}.
This page is written by

    dlsim validate --suite ranks -o RANKS
    python -m tests.benchmarks.fidelity --ranks RANKS

Wanted is a median error of at most 5 %, a 90th percentile of at most 12 %, and nine of ten runs
within the predicted intervals.

{section}
"""

SUITE = """{workloads}

Observed runs, simulated with their own costs as they were recorded (timeline: the furthest that the
two times of a return are apart, as a share of the epoch):

{replays}

Every configuration:

{cases}

{legend}"""

CAUSES = """Where predictions of these miss, what was watched shows why:

- **training**: the threads of a step spin while they wait for each other, on one core or on two, as
  the system places them. A step computes {step_alone} by itself, {step_one} beside one worker and
  {step_two} beside two; runs of one configuration differ by up to {spread}.
- **dictionaries**: giving out and rebuilding the twenty tensors of a batch takes {rebuilt_rested}
  where the main process has slept in a step before, and {rebuilt} where it has not: the system
  then wakes the two processes on different cores. Which it is, settings do not say.
- **files, warm**: with steps of 5 ms, the main process stands in line for a core for {queued} of
  the {waited} that a `next()` takes, though {idle} of the cores' time nobody uses: a worker that it
  wakes takes its core until the next tick of the clock. A simulated one does so only where no core
  is left.
- **arrays**, and other large messages: pickling keeps Python's lock, so that it holds up the
  worker's fetching by {held_up} a batch, or the fetching holds it up, whichever came first; a page
  of new memory takes {page} here, and how many a message needs depends on what was freed before:
  with as much of it as is [kept](own-loader.md), a batch takes a third of the time of a core.
- **choice**: what is chosen is the shortest prediction, though others may be as short within their
  intervals. Of two that are predicted alike, the slower one may be chosen.

"""

PART = """{begin}
**Real runs** of {count} configurations of eight kinds of work that nothing was tuned on, though
four of them showed faults that are mended since, predicted
from {calibrated} of the same work ([all of them](docs/fidelity.md)):
{machine}.

{table}
{end}"""


def machine(rows: errors.Rows, cases: list[errors.Case]) -> str:
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


def watched(folder: Path, rows: errors.Rows, key: str) -> list[Observation]:
    """The undisturbed observed runs of a configuration."""
    found = [
        errors.load_trace(folder / RUNS / row["file"])
        for row in rows.values()
        if "file" in row and not row["spoilt"] and errors.configuration_of(row).key == key
    ]
    return [seen for seen in found if isinstance(seen, Observation)]


def times(cases: Sequence[errors.Case]) -> str:
    """How often each configuration was run."""
    counts = [len(case.measured) + case.disturbed for case in cases]
    least, most = min(counts), max(counts)
    words = {1: "once", 2: "twice"}
    low, high = (words.get(count, f"{count} times") for count in (least, most))
    return low if least == most else f"{low} to {high}"


def steadiness(folders: Sequence[errors.Rows]) -> str:
    """How steady the machine was, by the pace that it had before and after each run."""
    paces = [
        pace / typical_paces(rows)["pace"]
        for rows in folders
        for row in rows.values()
        for pace in row.get("pace", ())
    ]
    low, high = np.quantile(paces, [0.05, 0.95])
    return PACE.format(low=percent(float(low)), high=percent(float(high)), off=OFF["pace"])


def causes(folder: Path, rows: errors.Rows, cases: list[errors.Case]) -> str:
    """Where predictions miss and why, in figures of the observed runs: medians over runs."""

    def measured(
        key: str,
        figure: Callable[[Observation], Any],
        show: Callable[[float], str] = duration,
    ) -> str:
        values = [float(figure(seen)) for seen in watched(folder, rows, f"{key}, observed")]
        return show(float(np.median(values))) if values else "-"

    def step(seen: Observation) -> float:
        run = accounts(seen)
        return float(run.step_cpu.mean()) * run.step_threads

    def moving(seen: Observation) -> float:
        return float(np.nanmedian(seen.received - seen.rebuilding))

    spreads = [case.spread for case in cases if case.configuration.workload == "training"]
    files = "files, warm, workers 2, batch 8, step 5 ms"
    return CAUSES.format(
        step_alone=measured("training, workers 0, batch 8", step),
        step_one=measured("training, workers 1, batch 8", step),
        step_two=measured("training, workers 2, batch 8", step),
        spread=percent(float(np.nanmax(spreads)) if spreads else float("nan")),
        rebuilt=measured("dictionaries, workers 2, batch 8", moving),
        rebuilt_rested=measured("dictionaries, workers 2, batch 8, step 5 ms", moving),
        queued=measured(
            files, lambda seen: np.nanmean(seen.queued_returned - seen.queued_requested)
        ),
        waited=measured(files, lambda seen: np.nanmean(seen.returned - seen.requested)),
        idle=measured(files, idle, percent),
        held_up=measured("arrays, workers 1, batch 8", lambda seen: held_up(seen).mean()),
        page=duration(typical_paces(rows)["paging"] / PAGES),
    )


def idle(seen: Observation) -> float:
    """The share of the cores' time that nobody used while a run was watched."""
    machine = json.loads(seen.meta.notes["machine"])
    used = machine["workers_cpu"] + seen.cpu_returned[seen.order[-1]] - seen.cpu_requested[0]
    time = seen.epochs.ended[-1] - seen.epochs.started[0]
    return float(1 - used / (machine["cores"] * time))


class Suite:
    """A folder of real runs, predicted and replayed."""

    def __init__(self, folder: Path, observed: tuple[int, ...], jobs: int) -> None:
        self.folder, self.rows = folder, errors.read(folder)
        found = errors.cases(folder, observed=observed, jobs=jobs)
        self.cases = sorted(found, key=lambda case: errors.order(case.configuration))
        self.replays = list(errors.replays(folder, jobs=jobs))

    def section(self) -> str:
        """Its tables."""
        return SUITE.format(
            workloads=markdown(workload_lines(self.cases)),
            replays=markdown(replay_lines(self.replays)),
            cases=markdown(case_lines(self.cases)),
            legend="\n".join(f"- {line}" for line in legend(self.cases).splitlines()),
        )


def write(held_out: Suite, development: Suite, observed: tuple[int, ...], *, quick: bool) -> None:
    """Write docs/fidelity.md, its picture, and the README's part; of `quick` runs, if they are."""
    where = machine(held_out.rows, held_out.cases)
    suites = {"held out": held_out, "development": development}
    page = PAGE.format(
        quick=" --quick" if quick else "",
        calibrated=words(observed),
        machine=where,
        aims=markdown(aim_lines({name: aims(s.cases, s.replays) for name, s in suites.items()})),
        pace=steadiness([held_out.rows, development.rows]),
        times=times([*held_out.cases, *development.cases]),
        constants=CONSTANTS,
        causes=causes(development.folder, development.rows, development.cases),
        held_out=held_out.section(),
        development=development.section(),
    )
    (ROOT / "docs/fidelity.md").write_text(page, encoding="utf-8")
    picture(held_out.cases, "Held-out suite").savefig(ROOT / "docs/fidelity.png", dpi=110)
    part = PART.format(
        begin=BEGIN,
        end=END,
        machine=where,
        count=len(foreseen(held_out.cases)),
        calibrated=words(observed),
        table=markdown(short(workload_lines(held_out.cases))),
    )
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(before + part + after, encoding="utf-8")


def write_ranks(suite: Suite, observed: tuple[int, ...]) -> None:
    """Write docs/fidelity-ranks.md."""
    names = {exchange_of(case.configuration) for case in suite.cases}
    meetings = np.concatenate([suite.rows[name]["seconds"] for name in names])
    page = RANKS.format(
        usual=duration(float(np.median(meetings))),
        long=duration(float(np.quantile(meetings, 0.95))),
        calibrated=words(observed),
        machine=machine(suite.rows, suite.cases),
        section=suite.section(),
    )
    (ROOT / "docs/fidelity-ranks.md").write_text(page, encoding="utf-8")


def short(lines: list[Line]) -> list[Line]:
    """The columns that the README has room for."""
    wanted = ("workload", "n", "median", "90th pct.", "worst", "held", "half-width", "spread")
    at = [lines[0].index(name) for name in wanted]
    return [tuple(line[i] for i in at) for line in lines]


def main() -> None:
    """Write the tables from the runs in two folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", metavar="HELD_OUT DEVELOPMENT")
    parser.add_argument("--quick", action="store_true", help="the runs are of validate --quick")
    parser.add_argument("--ranks", type=Path)
    parser.add_argument("--observed", type=int, nargs="+", default=[2, 1, 0])
    parser.add_argument("--jobs", type=int, default=-1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    observed = tuple(options.observed)
    if options.ranks is not None:
        write_ranks(Suite(options.ranks, observed, options.jobs), observed)
    if len(options.folders) == 2:
        held_out, development = (
            Suite(folder, observed, options.jobs) for folder in options.folders
        )
        write(held_out, development, observed, quick=options.quick)
    elif options.folders or options.ranks is None:
        parser.error("expected HELD_OUT and DEVELOPMENT, or --ranks RANKS")


if __name__ == "__main__":
    main()
