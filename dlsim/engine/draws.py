"""Randomness by role and by index, never in the order in which events happen.

Each role (a stage's waits, the collate times, the steps, ...) has its own child of the seed for
every epoch, and for every worker of an iterable-style dataset. The n-th sample or batch that is
sent gets the n-th number of its role. So every engine sees the same numbers, two scenarios share
them as far as they ask for the same things, and no backend changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlsim.scenario import Constant, Distribution, Recorded, ScenarioError, Stage

# The roles: first element of every spawn key. A number once given is never reused.
SAMPLER, WAIT, CPU, COLLATE, STEP = range(5)

# Numbers are drawn ahead in blocks that grow from 64 to 4096. The sizes are part of the
# definition, since a mixture's numbers depend on them.
FIRST_BLOCK, LARGEST_BLOCK = 64, 4096


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator of the role and place that `key` names, under `seed`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


class Stream:
    """The numbers of one distribution in one role, in order."""

    def __init__(self, distribution: Distribution, name: str, seed: int, *key: int) -> None:
        self.distribution = distribution
        self.name = name
        self._rng = generator(seed, *key)
        self._block = FIRST_BLOCK
        self._drawn: list[float] = []
        self._used = 0

    def take(self, indices: Sequence[int]) -> list[float]:
        """The next `len(indices)` numbers; of a `Recorded`, the values at `indices`."""
        distribution = self.distribution
        if isinstance(distribution, Constant):
            return [distribution.value] * len(indices)
        if isinstance(distribution, Recorded):
            return [self._recorded(distribution.values, index) for index in indices]
        end = self._used + len(indices)
        while end > len(self._drawn):
            self._drawn = self._drawn[self._used :]
            end -= self._used
            self._used = 0
            self._drawn += distribution.sample(self._rng, self._block).tolist()
            self._block = min(2 * self._block, LARGEST_BLOCK)
        taken = self._drawn[self._used : end]
        self._used = end
        return taken

    def _recorded(self, values: tuple[float, ...], index: int) -> float:
        if index >= len(values):
            raise ScenarioError(
                f"{self.name}: expected a record of at least {index + 1} values, "
                f"got {len(values)} values"
            )
        return values[index]


class ServiceTimes:
    """The seconds that each sample takes through all stages of `fetch`, in order."""

    def __init__(self, fetch: tuple[Stage, ...], seed: int, *place: int) -> None:
        self._streams = [
            Stream(distribution, f"dataset.fetch.{i}.{name}", seed, role, i, *place)
            for i, stage in enumerate(fetch)
            for role, name, distribution in ((WAIT, "wait", stage.wait), (CPU, "cpu", stage.cpu))
            if distribution is not None
        ]

    def take(self, indices: Sequence[int]) -> list[float]:
        """Seconds for each of the next samples, whose dataset indices are given."""
        parts = [stream.take(indices) for stream in self._streams]
        if len(parts) == 1:
            return parts[0]
        return [sum(sample) for sample in zip(*parts, strict=True)] or [0.0] * len(indices)
