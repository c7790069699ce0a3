"""Whether a calibrated scenario gives back the very runs it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import Consumer, IterableDataset, Scenario
from dlsim.trace.job import JobTrace, ranks_of
from dlsim.trace.summary import number
from dlsim.trace.trace import Trace
from dlsim.validation.calibrating.running import rate, simulated

CLOSE = 0.03  # relative; a miss beyond it is said, and predictions are less sure by it
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Check:
    """Samples a second of a watched run with so many `workers`, and of its simulation.

    Of a job with `ranks`, all of them together.
    """

    workers: int
    seen: float
    simulated: float
    ranks: int = 1

    @property
    def off(self) -> float:
        """How much longer the simulation takes, relative."""
        return self.seen / self.simulated - 1

    @property
    def close(self) -> bool:
        """Whether what is missed is too little to say so."""
        return abs(self.off) <= CLOSE

    def __str__(self) -> str:
        of_each = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
        said = (
            f"watched with num_workers={self.workers}{of_each}: {number(self.seen)} samples/s, "
            f"simulated {number(self.simulated)} ({self.off:+.1%} of its time)"
        )
        if self.close:
            return said
        return f"{said}: something is not understood, and predictions are less sure by that"


def checks(scenario: Scenario, watched: Iterable[tuple[Any, Consumer]]) -> tuple[Check, ...]:
    """One for each watched run and job, and its steps: `scenario` with their settings, simulated.

    Runs may have been watched with other steps than the scenario's, or with none.
    """
    found = []
    for seen, consumer in watched:
        with_steps = msgspec.structs.replace(scenario, consumer=consumer)
        again = with_settings_of(with_steps, seen)
        rates = [rate(simulated(again, seed)) for seed in range(SEEDS)]
        found.append(
            Check(
                workers=again.loader.num_workers,
                seen=rate(seen),
                simulated=float(np.mean(rates)),
                ranks=again.job.world,
            )
        )
    return tuple(found)


def missed(found: Iterable[Check]) -> float:
    """The greatest miss, as a logarithm; 0 where none is beyond `CLOSE`."""
    worst = max((abs(float(np.log1p(check.off))) for check in found), default=0.0)
    return worst if worst > np.log1p(CLOSE) else 0.0


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
