"""Predictions from one observed run of each workload, beside real runs of other settings.

python -m tests.benchmarks.prediction
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from time import monotonic

import numpy as np

import dlsim
from dlsim.validation import calibrate, machine, observe
from dlsim.validation.workloads import WORKLOADS, Workload

CONTAMINATED = 0.1  # cores that others used, from which on a run says nothing


def epoch(workload: Workload, folder: Path, workers: int) -> tuple[float, float]:
    """Seconds of an epoch of the real loader, unobserved, without steps; cores others used."""
    loader = workload.loader(folder, batch_size=workload.sizes[0], num_workers=workers)
    before = machine.load()
    began = monotonic()
    for _ in loader:
        pass
    seconds, after = monotonic() - began, machine.load()
    taken = sum(machine.others(before, after)) if before and after else 0.0
    return seconds, taken / seconds


def main() -> None:
    """Print one line for each workload and number of workers, and the errors of all."""
    warnings.simplefilter("ignore")
    errors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workload in WORKLOADS:
            if workload.trains:
                continue
            loader = workload.loader(folder, batch_size=workload.sizes[0], num_workers=2)
            scenario = calibrate(observe(loader))
            for workers in (1, 4, 8):
                measured, taken = epoch(workload, folder, workers)
                if workload.name == "shards":
                    length = -(-scenario.dataset.length // workers)
                    changes = {"dataset.sharding": (length,) * workers}
                else:
                    changes = {}
                changed = dlsim.replace(scenario, {"loader.num_workers": workers, **changes})
                predicted = dlsim.simulate(changed).end
                if taken < CONTAMINATED:
                    errors.append(abs(predicted / measured - 1))
                print(
                    f"{workload.name:<16}{workers:>3}{measured:>9.3f}{predicted:>9.3f}"
                    f"{predicted / measured - 1:>+9.1%}  others used {taken:.2f} cores",
                    flush=True,
                )
    if not errors:
        print("every run was contaminated: others used the machine")
        return
    print(
        f"uncontaminated {len(errors)}, median {np.median(errors):.1%}, "
        f"p90 {np.quantile(errors, 0.9):.1%}, worst {max(errors):.1%}"
    )


if __name__ == "__main__":
    main()
