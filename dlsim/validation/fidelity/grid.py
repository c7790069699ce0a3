"""The settings that a suite is run with: a seeded selection of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from dlsim.validation.fidelity.workloads import SEED, Workload

WORKERS = (0, 1, 2, 4, 8)
PREFETCH = (1, 2, 4)
OBSERVED = (2, 1, 0)  # numbers of workers of the runs that are observed in every round
MORE = 4  # and once besides


@dataclass(frozen=True)
class Configuration:
    """How a loader is run: its settings (None: as they are), and seconds of a step.

    `observed`: the run is watched, and can be calibrated on; else it runs as it would anyhow.
    `ranks`: so many processes of one job, each with a loader of these settings.
    """

    workload: str
    batch_size: int | None
    num_workers: int
    prefetch_factor: int | None = None
    step: float = 0.0
    observed: bool = False
    ranks: int = 1

    @property
    def key(self) -> str:
        """The configuration in a few words, as files and journals name it."""
        words = [self.workload] if self.workload else []
        if self.ranks > 1:
            words.append(f"ranks {self.ranks}")
        words.append(f"workers {self.num_workers}")
        if self.prefetch_factor is not None:
            words.append(f"prefetch {self.prefetch_factor}")
        if self.batch_size is not None:
            words.append(f"batch {self.batch_size}")
        if self.step:
            words.append(f"step {1000 * self.step:g} ms")
        return ", ".join([*words, "observed"] if self.observed else words)

    @property
    def settings(self) -> dict[str, int]:
        """The keyword arguments of the DataLoader that it sets."""
        given = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "prefetch_factor": self.prefetch_factor,
        }
        return {key: value for key, value in given.items() if value is not None}


def grid(workload: Workload) -> list[Configuration]:
    """All configurations of a workload: workers, prefetch, batch sizes, and steps."""
    steps = (0.0,) if workload.trains else (0.0, workload.step)
    return [
        Configuration(workload.name, size, workers, prefetch, step)
        for workers, size, step in product(WORKERS, workload.sizes, steps)
        for prefetch in (PREFETCH if workers else (None,))
    ]


def selection(workload: Workload, count: int) -> list[Configuration]:
    """The first `count` configurations of the workload in an order that its name and SEED decide.

    Every number of workers comes up once before any comes up again.
    """
    rng = np.random.default_rng([SEED, *workload.name.encode()])
    found = grid(workload)
    shuffled = [found[i] for i in rng.permutation(len(found))]
    seen: dict[int, int] = {}
    turns = []
    for configuration in shuffled:
        turns.append(seen.setdefault(configuration.num_workers, 0))
        seen[configuration.num_workers] += 1
    order = sorted(range(len(shuffled)), key=lambda i: turns[i])
    return [shuffled[i] for i in order[:count]]


def observed(workload: Workload, *, all_of_them: bool) -> list[Configuration]:
    """The runs of a workload to calibrate on; with steps, too, which let the main process rest."""
    small, large = workload.sizes
    runs = [Configuration(workload.name, small, n, observed=True) for n in OBSERVED]
    if not workload.trains:
        runs.append(replace(runs[0], step=workload.step))
    if all_of_them:
        runs.append(replace(runs[0], num_workers=MORE))
        runs += [replace(runs[0], batch_size=large)] if workload.trains else []
    return runs


def plan(
    workloads: Sequence[Workload], count: int, rounds: int, *, all_observed: bool = True
) -> list[tuple[Configuration, int]]:
    """Configurations and rounds in the order in which they are run: workload by workload.

    A round runs all configurations of a workload once, in another order each time, so that what
    slowly changes on the machine changes for all. The usual observed runs begin every round.
    """
    runs = []
    for workload in workloads:
        chosen = selection(workload, count)
        for number in range(rounds):
            rng = np.random.default_rng([SEED, number, *workload.name.encode()])
            first = observed(workload, all_of_them=all_observed and number == 0)
            runs += [(configuration, number) for configuration in first]
            runs += [(chosen[i], number) for i in rng.permutation(len(chosen))]
    return runs
