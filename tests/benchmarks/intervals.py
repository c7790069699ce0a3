"""How wide intervals should be: the constants with which those of real runs score best.

dlsim validate -o DEVELOPMENT
python -m tests.benchmarks.intervals DEVELOPMENT

The mean interval score is least for true 95 % intervals (Gneiting and Raftery 2007). What is chosen
so on the development suite is judged on the one that is held out (tests/benchmarks/fidelity.py).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

from dlsim.trace.summary import aligned, percent
from dlsim.validation.calibrating import cost_errors
from dlsim.validation.fidelity import errors
from dlsim.validation.fidelity.tables import foreseen

PACES = (0.06, 0.09, 0.12)
PLACINGS = (0.1, 0.15, 0.2)
UNEXPLAINED = (0.015, 0.02, 0.03)


@contextmanager
def constants(pace: float, placing: float, unexplained: float) -> Iterator[None]:
    """Predictions with these, in this process."""
    with (
        patch.object(cost_errors, "PACE", pace),
        patch.object(cost_errors, "PLACING", placing),
        patch.object(cost_errors, "UNEXPLAINED", unexplained),
    ):
        yield


def scored(folder: Path, task: tuple[float, float, float]) -> tuple[float, float, float]:
    """With such constants: the mean score, the share of runs held, and the median half-width."""
    with constants(*task), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = foreseen(list(errors.cases(folder)))
    held = sum(case.held for case in cases) / sum(len(case.measured) for case in cases)
    score = float(np.mean([case.interval_score for case in cases]))
    return score, held, float(np.median([case.half_width for case in cases]))


def main() -> None:
    """Print the constants that score best, and what the present ones score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    now = cost_errors.PACE, cost_errors.PLACING, cost_errors.UNEXPLAINED
    tasks = sorted({now, *product(PACES, PLACINGS, UNEXPLAINED)})
    found = {}
    for number, task in enumerate(tasks):
        found[task] = scored(options.folder, task)
        print(f"{number + 1} of {len(tasks)}", end="\r", flush=True)
    lines = [("PACE", "PLACING", "UNEXPLAINED", "score", "held", "half-width", "")]
    for task in sorted(found, key=lambda task: found[task][0]):
        said = "as it is" if task == now else ""
        lines.append((*(f"{value:g}" for value in task), *map(percent, found[task]), said))
    print(aligned(lines))


if __name__ == "__main__":
    main()
