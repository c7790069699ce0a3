"""What is not sure of a run's figures, part by part: what the error of each cost makes of them.

Each is tried by itself, as far as a 95 % interval reaches; for errors that are small, what they
make of a figure adds up by squares (the delta method). A cost that is higher need not lengthen a
run as much as a lower one shortens it, or at all where other work hides it: so below and above are
kept apart, as in two-piece distributions (Wallis, Statistical Science 29, 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, inf
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np

from dlsim.scenario.distributions import Floats, times
from dlsim.trace.job import JobTrace
from dlsim.trace.trace import Trace
from dlsim.validation.calibrating.running import simulated

if TYPE_CHECKING:
    from dlsim.validation.calibrating.scenario import Calibration

Run: TypeAlias = Trace | JobTrace
CONFIDENCE = 0.95
REACH = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # standard deviations, to either side
TOGETHER = "together"  # whether threads that wait for one another are on cores at the same time
# The standard deviation, as a logarithm, of what such threads take in a real run: the same runs of
# eigenvalues (OpenBLAS 0.3.31) and of small loops (libgomp), of 2, 4 and 8 workers on two cores of
# Linux 6.18, took 0.6 and 1.6 s, 1.6 and 2.4, 3.6 and 5.6, 2.2 and 4.4, 6.2 and 7.0.
BY_CHANCE = 0.35
LITTLE = 0.005  # relative; so small an error of a cost is none
NOTHING = 1e-9  # relative; less is as much


def both_ways(found: Calibration, errors: Mapping[str, float], seed: int) -> dict[str, list[Run]]:
    """Runs under `seed` with each cost by itself as low, and as high, as its error lets it be.

    `errors`: standard deviations of the costs' logarithms, by the keys of `Calibration.errors`.
    """
    return {
        key: [simulated(found.with_factors({key: exp(by)}), seed) for by in (-reach, reach)]
        for key, error in errors.items()
        if error > LITTLE and (reach := REACH * error)
    }


def seldom_together(found: Calibration, seed: int) -> dict[str, list[Run]]:
    """Runs under `seed` in which threads that spin are more or less often on cores together.

    How often those that linger are, is simulated, on average: real runs take by `BY_CHANCE` longer
    or less. Of others, of which there are n for each core, one that is chosen by chance is there
    for 1 / n of the time, and as seldom the others are that it waits for: all may take n times as
    long as if they took turns together. None where there is a core for each, or no thread spins.
    """
    scenario = found.scenario
    some = [stage for stage in scenario.dataset.fetch if stage.spin or stage.linger]
    threads = max((stage.threads for stage in some), default=1)
    wanted = threads * max(scenario.loader.num_workers, 1) / (scenario.machine.cores or inf)
    if threads == 1 or wanted <= 1:
        return {}
    reach = exp(REACH * BY_CHANCE)
    shifts = (1 / reach, reach) if any(stage.linger for stage in some) else (wanted,)
    runs = []
    for factor in shifts:
        fetch = tuple(
            msgspec.structs.replace(stage, cpu=times(stage.cpu, factor)) if stage in some else stage
            for stage in scenario.dataset.fetch
        )
        dataset = msgspec.structs.replace(scenario.dataset, fetch=fetch)
        runs.append(simulated(msgspec.structs.replace(scenario, dataset=dataset), seed))
    return {TOGETHER: runs}


def parts(
    usual: float, shifted: Mapping[str, Sequence[Run]], figure: Callable[[Run], float], mean: float
) -> dict[str, Floats]:
    """How far a figure of the `shifted` runs reaches below and above the `usual` one of that seed.

    Both as logarithms, none below 0, of what the difference makes of the figure's `mean`.
    """
    return {
        key: outside(np.array([1 + (figure(run) - usual) / mean for run in runs]))
        for key, runs in shifted.items()
    }


def outside(ratios: Floats) -> Floats:
    """How far the lowest of some ratios lies below 1, and the highest above, as logarithms."""
    found = np.log(np.maximum(ratios, NOTHING))
    return np.array([max(-found.min(), 0.0), max(found.max(), 0.0)])


def even(deviation: float) -> Floats:
    """What reaches as far below as above, of such a standard deviation."""
    return np.full(2, REACH * deviation)


def added(found: Iterable[Floats]) -> Floats:
    """All of some parts together, by squares."""
    total: Floats = np.sqrt(sum((part**2 for part in found), np.zeros(2)))
    return total
