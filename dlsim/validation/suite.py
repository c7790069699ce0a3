"""The suite: real work under many settings, run on this machine to be held against predictions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from dlsim.validation.campaign import Step, run_all
from dlsim.validation.grid import Configuration, plan
from dlsim.validation.training import TrainingStep
from dlsim.validation.workloads import WORKLOADS

__all__ = ["QUICK", "WHOLE", "plan", "run_suite"]

SUITE = "suite"  # what its journal calls it
QUICK = (3, 2)  # configurations of each workload, and rounds: about three minutes
WHOLE = (10, 3)  # about a quarter of an hour


def run_suite(
    folder: Path,
    runs: Sequence[tuple[Configuration, int]],
    *,
    seconds: float = float("inf"),
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs` of the suite that `folder` does not have; whether all are there.

    See `dlsim.validation.campaign.run_all`; the runs are those of `plan`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {workload.name: workload for workload in WORKLOADS}
    training = cache(TrainingStep)
    with tempfile.TemporaryDirectory(prefix="files-", dir=folder) as files:

        def make(configuration: Configuration) -> tuple[DataLoader[Any], Step | None]:
            workload = named[configuration.workload]
            loader = workload.loader(Path(files), **configuration.settings)
            if workload.trains:
                return loader, training()
            if not configuration.step:
                return loader, None
            return loader, lambda batch: time.sleep(configuration.step)

        return run_all(folder, SUITE, runs, make, seconds=seconds, progress=progress)
