"""The suite: real work under many settings, run on this machine to be held against predictions."""

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
from dlsim.validation.fidelity.grid import Configuration, plan
from dlsim.validation.fidelity.training_step import TrainingStep
from dlsim.validation.fidelity.workloads import WORKLOADS

__all__ = ["QUICK", "WHOLE", "plan", "run_suite"]

SUITE = "suite"  # what its journal calls it
QUICK = (3, 1)  # configurations of each workload, and rounds: about three minutes
WHOLE = (10, 3)  # about half an hour


def run_suite(
    folder: Path,
    runs: Sequence[tuple[Configuration, int]],
    *,
    seconds: float = float("inf"),
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs` of the suite that `folder` does not have; whether all are there.

    See `dlsim.validation.fidelity.campaign.run_all`; the runs are those of `plan`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="files-", dir=folder) as files:

        def carry_out(configuration: Configuration, name: str, known: frozenset[str]) -> Rows:
            # What ran before in a process decides how its memory is had, and so how long a run
            # takes: each one gets a process that did nothing yet.
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as fresh:
                return fresh.submit(
                    run_one, folder, Path(files), configuration, name, known
                ).result()

        return run_all(folder, SUITE, runs, carry_out, seconds=seconds, progress=progress)


def run_one(
    folder: Path,
    files: Path,
    configuration: Configuration,
    name: str,
    known: frozenset[str],
) -> Rows:
    """One run of the suite, as `campaign.run` makes it; data is put into `files`."""
    workload = {workload.name: workload for workload in WORKLOADS}[configuration.workload]

    def make(configuration: Configuration) -> tuple[DataLoader[Any], Step | None]:
        loader = workload.loader(files, **configuration.settings)
        if workload.trains:
            return loader, TrainingStep()
        if not configuration.step:
            return loader, None
        return loader, lambda batch: time.sleep(configuration.step)

    return run(folder, SUITE, make, configuration, name, known)
