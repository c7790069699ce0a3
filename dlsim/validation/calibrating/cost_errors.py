"""How sure the costs of observed runs are, and how much they differ from run to run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dlsim.scenario.distributions import Floats
from dlsim.validation.calibrating.accounts import Accounts, by_start_method, of_batches, together
from dlsim.validation.calibrating.moving import without_cold

# The standard deviation, relative, of what the same work costs in another run, as if PRIOR runs had
# told it; what is measured of the runs at hand counts beside it. With it and the two below, the
# intervals of the development suite's runs score within a hundredth of the best
# (tests/benchmarks/intervals.py), on two cores of a shared machine (docs/fidelity.md).
PACE, PRIOR = 0.06, 2
# Likewise of what moving a batch costs, beside: the system places the two processes on one core or
# on two, and a message of 2.4 MB took from 2.8 to 5.7 ms in runs of the same settings.
PLACING = 0.1
# Likewise what a real run differs by from the mean of its like though nothing is changed and all
# else is known: how long the machine takes to wake a process, where memory lies, ...
UNEXPLAINED = 0.02
# What differs from run to run, not from batch to batch.
BETWEEN_RUNS = ("pace", "placing", "begin")


def errors_of(runs: Sequence[Accounts]) -> dict[str, float]:
    """The relative standard error of the mean of each account, from the means of its batches."""
    of_batches = {"wait": [], "cpu": []}  # type: dict[str, list[float]]
    for run in runs:
        for name, means in of_batches.items():
            _, group = np.unique(run.batch, return_inverse=True)
            if len(group):
                means += (np.bincount(group, getattr(run, name)) / np.bincount(group)).tolist()
    found = {name: error(np.array(means)) for name, means in of_batches.items()}
    for name in ("take", "serialise", "hand_over", "receive", "pin"):
        found[name] = error(together(runs, name))
    among = (1 + 1 / len(runs)) ** 0.5
    found["pace"] = unsteadiness(runs) * among
    found["begin"] = deviation([beginnings(runs)]) * among
    found["placing"] = PLACING * among
    found["worker_start"] = error(together(by_start_method(runs)[0], "start"))
    return found


def step_times(runs: Sequence[Accounts]) -> Floats:
    """Seconds of each step: on the accelerator, where it was seen there."""
    if all(len(run.device) for run in runs):
        return together(runs, "device" if any(run.ahead for run in runs) else "host")
    return together(runs, "step_wait") + together(runs, "step_cpu")


def unsteadiness(runs: Sequence[Accounts]) -> float:
    """The relative standard deviation between runs of what a sample costs the processor."""
    alike: dict[tuple[object, ...], list[float]] = {}
    for run in runs:
        loader, costs = run.scenario.loader, of_batches(run)
        if len(costs) and costs.mean() > 0:
            settings = loader.num_workers, loader.batch_size
            alike.setdefault(settings, []).append(float(np.log(costs.mean())))
    return deviation(alike.values())


def beginnings(runs: Sequence[Accounts]) -> list[float]:
    """Of each run what a first sample takes beyond others, waiting and computing: logarithms.

    Modules are imported then, and files opened, about which no other sample tells anything.
    """
    both = [(run.begin_wait, run.begin_cpu) for run in without_cold(runs)]
    took = [sum(float(part.mean()) for part in parts if len(part)) for parts in both]
    return [float(np.log(seconds)) for seconds in took if seconds > 0]


def deviation(alike: Iterable[Sequence[float]]) -> float:
    """The standard deviation in groups of logarithms of what was the same, but for `PACE`."""
    groups = [logs for logs in alike if len(logs)]
    squares = sum(len(logs) * float(np.var(logs)) for logs in groups)
    differences = sum(len(logs) - 1 for logs in groups)
    return float(((squares + PRIOR * PACE**2) / (differences + PRIOR)) ** 0.5)


def error(values: Floats) -> float:
    """The standard error of the mean, relative to it; 0 where nothing is known of it."""
    if len(values) < 2 or values.mean() <= 0:
        return 0.0
    return float(values.std(ddof=1) / len(values) ** 0.5 / values.mean())
