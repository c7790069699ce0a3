"""Randomness by role and by index, never in the order in which events happen.

Each role (a stage's waits, the collate times, the steps, ...) has its own child of the seed for
every epoch, and for every worker of an iterable-style dataset. The n-th sample or batch that is
sent gets the n-th number of its role. So every engine sees the same numbers, two scenarios share
them as far as they ask for the same things, and no backend changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from operator import add
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.kept import in_use
from dlsim.engine.sums import after_equal_ones
from dlsim.scenario import Constant, Distribution, Mixture, Recorded, ScenarioError

# The roles: first element of every spawn key. A number once given is never reused.
SAMPLER, WAIT, CPU, COLLATE, STEP, READ, LATENCY, SIZE, JITTER = range(9)
SYNC, BROADCAST = 64, 65

# Who takes few at a time has them drawn ahead in blocks that grow from 64 to 4096. A mixture is
# always drawn so: its numbers depend on the sizes of blocks, which are part of the definition.
FIRST_BLOCK, LARGEST_BLOCK = 64, 4096

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = Sequence[int] | NDArray[np.int64]
Sample: TypeAlias = Callable[[Distribution, np.random.Generator, int], Floats]

NOTHING: Floats = np.empty(0)
FEW = 8  # numbers that are sooner added by Python


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator of the role and place that `key` names, under `seed`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


@lru_cache(maxsize=1024)
def times(number: float, count: int) -> float:
    """`number`, added so many times: as it is asked for again, with every batch."""
    return after_equal_ones(0.0, count, 0.0, number)


def in_turn(numbers: Floats, begin: float = 0.0) -> float:
    """`begin` and `numbers`, added one after another: np.sum() rounds differently, in pairs."""
    if len(numbers) > FEW:
        numbers = numbers if begin == 0 else np.concatenate(((begin,), numbers))
        return float(np.add.accumulate(numbers)[-1])
    # nor sum(), from Python 3.12 on
    return reduce(add, numbers.tolist(), begin)


def by_numpy(distribution: Distribution, rng: np.random.Generator, count: int) -> Floats:
    """The next `count` numbers of a distribution."""
    return distribution.sample(rng, count)


class Stream:
    """The numbers of one distribution in one role, in order.

    `role`: with the number of the stage, if it has one; `place`: the epoch, and the worker if it
    has numbers of its own. `sample` draws them; who sets another gets the same ones, sooner.
    """

    def __init__(
        self, distribution: Distribution, name: str, role: tuple[int, ...], seed: int, *place: int
    ) -> None:
        self.distribution = distribution
        self.name = name
        self.sample: Sample = by_numpy
        self._role = role
        self._drawn = NOTHING
        self.begin(seed, *place)

    def begin(self, seed: int, *place: int) -> None:
        """Begin with the first number under `seed`, in that place."""
        self._place = (seed, *self._role, *place)
        self._block = FIRST_BLOCK
        self._used = 0
        if not isinstance(self.distribution, (Constant, Recorded)):  # which are the same anywhere
            self._drawn = NOTHING
        self._kept = in_use()
        self._whole_ones = 0  # numbers drawn whole so far, or kept
        self._skipped = 0  # of which so many were kept, and are not drawn here yet
        self._rng: np.random.Generator | None = None

    def _generator(self) -> np.random.Generator:
        """Made when it is first needed: that takes as long as drawing a thousand numbers."""
        if self._rng is None:
            self._rng = generator(*self._place)
        if self._skipped:
            self.sample(self.distribution, self._rng, self._skipped)
            self._skipped = 0
        return self._rng

    def take(self, indices: Sequence[int]) -> list[float]:
        """The next `len(indices)` numbers; of a `Recorded`, the values at `indices`.

        Raises `ScenarioError` for an index that was not recorded.
        """
        distribution = self.distribution
        if isinstance(distribution, Constant):
            return [distribution.value] * len(indices)
        if isinstance(distribution, Recorded):
            return [self._recorded(distribution.values, index) for index in indices]
        numbers: list[float] = self._draw(len(indices), ahead=True).tolist()
        return numbers

    def array(self, indices: Indices, *, few: bool = False) -> Floats:
        """The same as an array, to be read only; NaN for an index that was not recorded.

        `few`: not many are taken at a time, so that they are drawn ahead.
        """
        distribution = self.distribution
        if isinstance(distribution, Constant):
            if len(indices) > len(self._drawn):
                self._drawn = np.full(len(indices), distribution.value)
            return self._drawn[: len(indices)]
        if isinstance(distribution, Recorded):
            if not len(self._drawn):
                self._drawn = np.append(distribution.values, np.nan)
            at = np.asarray(indices, np.int64)
            return self._drawn[np.minimum(at, len(self._drawn) - 1)]
        return self._draw(len(indices), ahead=few or isinstance(distribution, Mixture))

    def total(self, indices: Sequence[int]) -> float:
        """The sum of the next `len(indices)` numbers. Raises `ScenarioError` as `take` does."""
        distribution = self.distribution
        if isinstance(distribution, Constant):
            return times(distribution.value, len(indices))
        if isinstance(distribution, Recorded):
            return in_turn(np.array(self.take(indices)))
        return in_turn(self._draw(len(indices), ahead=True))

    def _draw(self, count: int, *, ahead: bool) -> Floats:
        """The next `count` numbers; `ahead`: more are drawn than that, in whole blocks."""
        if self._used + count <= len(self._drawn):
            self._used += count
            return self._drawn[self._used - count : self._used]
        parts = [self._drawn[self._used :]]
        missing = count - len(parts[0])
        while missing > 0:
            self._drawn = self._sample(self._block) if ahead else self._whole(missing)
            self._block = min(2 * self._block, LARGEST_BLOCK)
            self._used = min(missing, len(self._drawn))
            parts.append(self._drawn[: self._used])
            missing -= self._used
        return parts[1] if len(parts) == 2 and not len(parts[0]) else np.concatenate(parts)

    def _sample(self, count: int) -> Floats:
        self._kept = None
        return self.sample(self.distribution, self._generator(), count)

    def _whole(self, count: int) -> Floats:
        """The next `count` numbers, which may be kept; who takes them so takes all so."""
        kept = self._kept
        if kept is None:
            return self._sample(count)
        key = (self.distribution, self._whole_ones, count, *self._place)
        found = kept.get(key)
        if found is None:
            found = self.sample(self.distribution, self._generator(), count)
            kept.keep(key, found)
        else:
            self._skipped += count
        self._whole_ones += count
        return found

    def _recorded(self, values: tuple[float, ...], index: int) -> float:
        if index >= len(values):
            raise ScenarioError(
                f"{self.name}: expected a record of at least {index + 1} values, "
                f"got {len(values)} values"
            )
        return values[index]
