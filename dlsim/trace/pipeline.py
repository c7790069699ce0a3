"""What happened in a run of a pipeline, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.scenario.pipeline import Pipeline
from dlsim.trace.trace import Floats, Integers


@dataclass(frozen=True)
class Moments:
    """When a stage began and ended with each item, in the order of beginning.

    Those that it has not ended with are NaN.
    """

    item: Integers
    began: Floats
    ended: Floats


@dataclass(frozen=True)
class PipelineTrace:
    """A run: for each item that training got, in order, when it was asked for, came, was done.

    `item`: which (of an aggregate: the first of its items). `stages`: the moments of the source,
    and then of each link of the pipeline. All times are seconds from the beginning.
    """

    pipeline: Pipeline
    seed: int
    item: Integers
    requested: Floats
    returned: Floats
    finished: Floats
    stages: tuple[Moments, ...]

    @property
    def elapsed(self) -> float:
        """Seconds until the last step has ended."""
        return float(self.finished[-1]) if len(self.finished) else 0.0

    @property
    def items_per_s(self) -> float:
        """Items a second that training got; NaN if no time passes."""
        return len(self.item) / self.elapsed if self.elapsed else float("nan")

    @property
    def rate(self) -> float:
        """Items a second between the first and the last of them: the beginning left out."""
        took = float(np.ptp(self.finished)) if len(self.finished) > 1 else 0.0
        return (len(self.item) - 1) / took if took else float("nan")

    @property
    def stall(self) -> float:
        """The share of the time for which training waits."""
        waited = float(np.sum(self.returned - self.requested))
        return waited / self.elapsed if self.elapsed else float("nan")
