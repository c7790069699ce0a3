"""A user's own loader under other settings, run to be held against predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data import DataLoader

from dlsim.engine.usable import usable_cores
from dlsim.validation.fidelity.campaign import Rows, Step, afresh, run, run_all
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.trials import with_settings
from dlsim.validation.fidelity.workloads import SEED
from dlsim.validation.observing.target import load_step, load_target

Load: TypeAlias = Callable[[], tuple[DataLoader[Any], Step | None]]


def usual_workers() -> tuple[int, ...]:
    """Numbers of workers worth trying here: none, few, one for each core, and twice as many."""
    cores = max(1, round(usable_cores()))
    return tuple(sorted({0, 1, 2, cores, 2 * cores}))


def plan_of(
    workers: Sequence[int],
    prefetch: Sequence[int | None],
    *,
    observed: Sequence[int] = (2, 1, 0),
    step: float = 0.0,
    rounds: int = 3,
) -> list[tuple[Configuration, int]]:
    """Configurations and rounds in the order in which they are run; each round another one.

    `observed`: the workers of the runs to calibrate on, which begin every round.
    """
    first = [Configuration("", None, number, step=step, observed=True) for number in observed]
    chosen = [
        Configuration("", None, number, factor, step)
        for number in workers
        for factor in (prefetch if number else (None,))
    ]
    runs = []
    for number in range(rounds):
        order = np.random.default_rng([SEED, number]).permutation(len(chosen))
        runs += [(one, number) for one in [*first, *(chosen[i] for i in order)]]
    return runs


def loaded(target: str, step: str | None) -> tuple[DataLoader[Any], Step | None]:
    """The loader that `target` names, and the `step`, if one is named."""
    return load_target(target), None if step is None else load_step(step)


def run_own(
    folder: Path,
    target: str,
    load: Load,
    runs: Sequence[tuple[Configuration, int]],
    *,
    batches: int | None,
    seconds: float = float("inf"),
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs` of a loader that `folder` does not have; whether all are there.

    Each is made in a process of its own, in which `load` gives the loader, and what is called with
    each batch, if no pause is asked for: so what a first sample imports, or opens, no other run is
    spared. `load` can be pickled. See `dlsim.validation.fidelity.campaign.run_all`, of which
    `target` is the name of the loader.
    """

    def carry_out(configuration: Configuration, name: str, known: frozenset[str]) -> Rows:
        one = folder, target, load, configuration, name, known, batches
        return afresh(f"{target}: {configuration.key}", run_one, *one)

    return run_all(folder, target, runs, carry_out, seconds=seconds, progress=progress)


def run_one(
    folder: Path,
    target: str,
    load: Load,
    configuration: Configuration,
    name: str,
    known: frozenset[str],
    batches: int | None,
) -> Rows:
    """One run, as `campaign.run` makes it."""
    loader, step = load()

    def make(configuration: Configuration) -> tuple[DataLoader[Any], Step | None]:
        changed = with_settings(loader, **configuration.settings)
        if not configuration.step:
            return changed, step
        return changed, lambda batch: time.sleep(configuration.step)

    return run(folder, target, make, configuration, name, known, batches)
