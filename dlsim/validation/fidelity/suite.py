"""Suites: real work under many settings, run on this machine to be held against predictions.

On the one the models of costs are developed; the other is held out, to judge them by.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from dlsim.validation.fidelity.campaign import Rows, Step, run, run_all
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.held_out import HELD_OUT
from dlsim.validation.fidelity.training_step import TrainingStep
from dlsim.validation.fidelity.workloads import WORKLOADS

SUITES = {"development": WORKLOADS, "held-out": HELD_OUT}
QUICK = (3, 1)  # configurations of each workload, and rounds: about three minutes
WHOLE = (10, 3)  # about half an hour


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
            # What ran before in a process decides how its memory is had, and so how long a run
            # takes: each one gets a process that did nothing yet.
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as fresh:
                return fresh.submit(
                    run_one, folder, Path(files), suite, configuration, name, known
                ).result()

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

    def make(configuration: Configuration) -> tuple[DataLoader[Any], Step | None]:
        loader = workload.loader(files, **configuration.settings)
        if workload.trains:
            return loader, TrainingStep()
        if not configuration.step:
            return loader, None
        return loader, lambda batch: time.sleep(configuration.step)

    return run(folder, suite, make, configuration, name, known)
