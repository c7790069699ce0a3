"""Suites: real work under many settings, run on this machine to be held against predictions.

On one the models of costs are developed; another is held out, to judge them by. That of ranks has
jobs of two, predicted from runs of one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from dlsim.validation.fidelity.campaign import Rows, Step, afresh, exchange_of, run, run_all
from dlsim.validation.fidelity.grid import Configuration, plan
from dlsim.validation.fidelity.held_out import HELD_OUT
from dlsim.validation.fidelity.ranks import OF_JOBS, exchange, group_of, timed_job
from dlsim.validation.fidelity.training_step import TrainingStep
from dlsim.validation.fidelity.trials import pause
from dlsim.validation.fidelity.workloads import WORKLOADS

RANKS = "ranks"
SUITES = {
    "development": WORKLOADS,
    "held-out": HELD_OUT,
    RANKS: OF_JOBS,
}
JOB = 2  # ranks of a job
QUICK = (3, 1)  # configurations of each workload, and rounds: about three minutes
WHOLE = (10, 3)  # about half an hour


def plan_of(
    suite: str, count: int, rounds: int, *, all_observed: bool = True
) -> list[tuple[Configuration, int]]:
    """The runs of a suite, as `grid.plan` has them; of ranks, what is not observed is a job."""
    runs = plan(SUITES[suite], count, rounds, all_observed=all_observed)
    if suite != RANKS:
        return runs
    return [(one if one.observed else replace(one, ranks=JOB), number) for one, number in runs]


def run_suite(
    folder: Path,
    suite: str,
    runs: Sequence[tuple[Configuration, int]],
    *,
    seconds: float = float("inf"),
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs` of a suite that `folder` does not have; whether all are there.

    `suite` is one of `SUITES`, the runs those of `plan`. See
    `dlsim.validation.fidelity.campaign.run_all`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="files-", dir=folder) as files:

        def carry_out(configuration: Configuration, name: str, known: frozenset[str]) -> Rows:
            one = folder, Path(files), suite, configuration, name, known
            return afresh(f"{suite}: {configuration.key}", run_one, *one)

        return run_all(folder, suite, runs, carry_out, seconds=seconds, progress=progress)


def run_one(
    folder: Path,
    files: Path,
    suite: str,
    configuration: Configuration,
    name: str,
    known: frozenset[str],
) -> Rows:
    """One run of a suite, as `campaign.run` makes it; data is put into `files`."""
    workload = {workload.name: workload for workload in SUITES[suite]}[configuration.workload]
    if configuration.ranks > 1:
        rows = {name: timed_job(files, configuration).row()}
        if configuration.step and (slept := f"step {configuration.step}") not in known:
            rows[slept] = {"seconds": pause(configuration.step)}
        if (meeting := exchange_of(configuration)) not in known:
            rows[meeting] = {"seconds": exchange(files, configuration)}
        return rows

    def make(configuration: Configuration) -> tuple[DataLoader[Any], Step | None]:
        loader = workload.loader(files, **configuration.settings)
        if workload.trains:
            return loader, TrainingStep(parallel=suite == RANKS)
        if not configuration.step:
            return loader, None
        return loader, lambda batch: time.sleep(configuration.step)

    if suite != RANKS:
        return run(folder, suite, make, configuration, name, known)
    with (
        tempfile.TemporaryDirectory(prefix="dlsim-") as store,
        group_of(0, 1, Path(store) / "store"),
    ):
        return run(folder, suite, make, configuration, name, known)
