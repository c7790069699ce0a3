"""Whether a calibrated scenario gives back the very runs it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log1p
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from dlsim.scenario import Consumer, IterableDataset, Scenario
from dlsim.trace.job import JobTrace, ranks_of
from dlsim.trace.summary import number
from dlsim.trace.trace import Trace
from dlsim.validation.calibrating import cost_errors
from dlsim.validation.calibrating.parts import REACH, Run, added, both_ways, even, parts
from dlsim.validation.calibrating.running import rate, simulated

if TYPE_CHECKING:
    from dlsim.validation.calibrating.scenario import Calibration

CLOSE = 0.03  # relative; of a miss beyond it, it is said what it is
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Check:
    """Samples a second of a watched run with so many `workers`, and of its simulation.

    Of a job with `ranks`, all of them together. `chance`: the standard deviation by which such a
    run's time differs from that of its like, relative. `alike`: whether its main process is blocked
    between batches if the scenario's is; if not, what moves batches there took other times, which
    the scenario does not claim to know. Nor does it those of a `cold` run, whose workers began with
    what others were spared.
    """

    workers: int
    seen: float
    simulated: float
    chance: float
    ranks: int = 1
    alike: bool = True
    cold: bool = False

    @property
    def off(self) -> float:
        """How much longer the simulation takes, relative."""
        return self.seen / self.simulated - 1

    @property
    def close(self) -> bool:
        """Whether no more is missed than such runs differ by."""
        return abs(log1p(self.off)) <= max(log1p(CLOSE), self.chance)

    def __str__(self) -> str:
        of_each = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
        said = (
            f"watched with num_workers={self.workers}{of_each}: {number(self.seen)} samples/s, "
            f"simulated {number(self.simulated)} ({100 * self.off:+z.1f} % of its time)"
        )
        if abs(self.off) <= CLOSE:
            return said
        if self.close:
            return f"{said}: such runs differ by as much"
        if not self.alike:
            return f"{said}: its main process is blocked otherwise between batches"
        if self.cold:
            return f"{said}: its first samples took longer, as of what is read for the first time"
        return f"{said}: something is not understood, and predictions are less sure by that"


def checks(found: Calibration, watched: Iterable[tuple[Any, Consumer]]) -> tuple[Check, ...]:
    """One for each watched run and job, and its steps: what was `found`, with their settings.

    Runs may have been watched with other steps than the scenario's, or with none.
    """
    made = []
    for seen, consumer in watched:
        with_steps = msgspec.structs.replace(found.scenario, consumer=consumer)
        again = replace(found, scenario=with_settings_of(with_steps, seen))
        runs = [simulated(again.scenario, seed) for seed in range(SEEDS)]
        made.append(
            Check(
                workers=again.scenario.loader.num_workers,
                seen=rate(seen),
                simulated=float(np.mean([rate(run) for run in runs])),
                chance=chance(again, runs),
                ranks=again.scenario.job.world,
            )
        )
    return tuple(made)


def chance(found: Calibration, runs: Sequence[Run]) -> float:
    """By how much a watched run's time differs from its like's, relative, if all is understood.

    It is one of those that the costs were found by, so that it differs less from their mean than
    one more run would, for which `errors` are. `runs`: its simulations, by seed.
    """
    among = ((found.runs - 1) / (found.runs + 1)) ** 0.5  # (1 - 1 / n) in place of (1 + 1 / n)
    errors = {key: among * found.errors[key] for key in cost_errors.BETWEEN_RUNS}
    shifted, rates = both_ways(found, errors, seed=0), np.array([rate(run) for run in runs])
    mean = float(rates.mean())
    of_costs = parts(rates[0], shifted, rate, mean)
    rest = cost_errors.UNEXPLAINED, float(np.std(rates, ddof=1)) / mean
    return float(added([*of_costs.values(), *map(even, rest)]).mean() / REACH)


def missed(found: Iterable[Check]) -> float:
    """By how much runs are missed beyond chance: a standard deviation, as a logarithm.

    By the squares of the misses, less what chance makes of them, if more is left than nothing
    (DerSimonian and Laird, Controlled Clinical Trials 7, 1986): what runs of the same settings
    differ by, an interval allows for already. Only runs alike tell, and no cold ones.
    """
    known = [check for check in found if check.alike and not check.cold]
    beyond = [log1p(check.off) ** 2 - check.chance**2 for check in known]
    return max(float(np.mean(beyond)), 0.0) ** 0.5 if beyond else 0.0


def with_settings_of(scenario: Scenario, seen: Trace | JobTrace) -> Scenario:
    """`scenario` with the loader, and the job, of a watched run, left as early as that was."""
    run = seen.meta.scenario
    assert run is not None
    one = ranks_of(seen)[0]
    epochs, stop_after = len(one.epochs.first), run.consumer.stop_after
    if seen.meta.problem is not None:
        stop_after = max(len(one.order) // epochs, 1)
    dataset: Any = scenario.dataset
    if isinstance(dataset, IterableDataset) and isinstance(run.dataset, IterableDataset):
        shape = {key: getattr(run.dataset, key) for key in ("length", "sharding", "shards")}
        dataset = msgspec.structs.replace(dataset, **shape)
    return msgspec.structs.replace(
        scenario,
        loader=run.loader,
        dataset=dataset,
        consumer=msgspec.structs.replace(scenario.consumer, stop_after=stop_after),
        epochs=epochs,
        job=msgspec.structs.replace(run.job, sync_time=scenario.job.sync_time),
    )
