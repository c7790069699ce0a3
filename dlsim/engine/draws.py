"""Randomness by role and by index, never in the order in which events happen.

Each role (a stage's waits, the collate times, the steps, ...) has its own child of the seed for
every epoch, and for every worker of an iterable-style dataset. The n-th sample or batch that is
sent gets the n-th number of its role. So every engine sees the same numbers, two scenarios share
them as far as they ask for the same things, and no backend changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain, repeat
from operator import add
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.kept import in_use
from dlsim.engine.sums import after_equal_ones
from dlsim.scenario import Constant, Distribution, Mixture, Recorded, Scenario, ScenarioError, Stage

# The roles: first element of every spawn key. A number once given is never reused.
SAMPLER, WAIT, CPU, COLLATE, STEP, READ, LATENCY, SIZE, JITTER = range(9)
SYNC, BROADCAST = 64, 65

# Who takes few at a time has them drawn ahead in blocks that grow from 64 to 4096. A mixture is
# always drawn so: its numbers depend on the sizes of blocks, which are part of the definition.
FIRST_BLOCK, LARGEST_BLOCK = 64, 4096

Floats: TypeAlias = NDArray[np.float64]
Demand: TypeAlias = tuple[int, int, tuple[float, ...]]
Indices: TypeAlias = Sequence[int] | NDArray[np.int64]
Sample: TypeAlias = Callable[[Distribution, np.random.Generator, int], Floats]

NOTHING: Floats = np.empty(0)
FEW = 8  # numbers that are sooner added by Python
TOGETHER = 16  # batches whose numbers are drawn and added at once


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


@dataclass(frozen=True, slots=True)
class Alike:
    """The same number, `count` times: no list of them is made."""

    value: float
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[float]:
        return repeat(self.value, self.count)

    def __getitem__(self, place: int) -> float:
        return self.value


NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True)
class Work:
    """What fetching some samples takes, and the bytes that come of it.

    On the ideal machine `seconds` of each sample (with `batched`, of the one call). Elsewhere
    `demands`: for each, what it asks for in turn, as READ, WAIT or CPU, the stage, and amounts:
    seconds, but for READ the bytes and the seconds of latency. Where all of them only compute, one
    after another, that is `computing` for so many seconds, and there are no demands.
    """

    seconds: Floats | Alike
    demands: Sequence[Sequence[Demand]]
    size: float
    computing: float | None = None


class SampleDraws:
    """The work of the samples of a dataset, in the order in which they are fetched.

    `place` tells the epoch, and the worker if it has an iterator of its own. `at_once`: samples do
    nothing but compute, and nobody asks which of them does for how long. `ideal`: whether nothing
    is shared where they are fetched; by default, as the scenario says.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *place: int,
        at_once: bool = False,
        ideal: bool | None = None,
    ) -> None:
        self.ideal, self.at_once = scenario.ideal if ideal is None else ideal, at_once
        self.sized = not self.ideal and scenario.dataset.sample_bytes != Constant(0.0)
        self.service = ServiceTimes(scenario.dataset.fetch, seed, *place)
        self._reads = [] if self.ideal else _reads(scenario, seed, *place)
        self._sizes = Stream(
            scenario.dataset.sample_bytes, "dataset.sample_bytes", (SIZE,), seed, *place
        )
        # Calls that nobody has taken; and what as many of them as make a batch take, the last first
        self._ahead, self._sums, self._each = np.empty((0, self.width)), list[float](), 0

    def begin(self, seed: int, *place: int) -> None:
        """Begin with the first sample under `seed`, in that place."""
        for stream in self.streams:
            stream.begin(seed, *place)

    @property
    def streams(self) -> list[Stream]:
        """All that is drawn from."""
        reads = chain.from_iterable(filter(None, self._reads))
        return [*self.service.streams, self._sizes, *reads]

    def work(self, indices: Sequence[int], call: Sequence[int] | None = None) -> Work:
        """The work of the samples `indices`; `call`: of one call for them all, by its number."""
        calls = indices if call is None else call
        if self.ideal:
            return Work(self.service.take(calls), (), 0.0)
        size = self._sizes.total(indices) if self.sized else 0.0
        if self.at_once and not self.service.recorded:
            return Work(NOTHING, (), size, self._computing(len(calls)))
        if self.at_once:
            computing = in_turn(self.amounts(calls, few=True).ravel())
            if computing == computing:
                return Work(NOTHING, (), size, computing)
        demands = list(zip(*self._columns(calls), strict=True)) or [()] * len(calls)
        return Work(NOTHING, demands, size)

    def _computing(self, calls: int) -> float:
        """Seconds that so many calls, the next ones, take together.

        As one batch is mostly as long as the next, several are drawn and summed up at once.
        """
        if not calls or not self.width:
            return 0.0
        if len(self._ahead) < calls:
            more = self.amounts(range(max(TOGETHER * calls, FIRST_BLOCK)))
            self._ahead, self._sums = np.concatenate((self._ahead, more)), []
        if calls != self._each or not self._sums:
            batches, self._each = len(self._ahead) // calls, calls
            table = self._ahead[: batches * calls].reshape(batches, -1)
            self._sums = np.add.accumulate(table, axis=1)[::-1, -1].tolist()
        self._ahead = self._ahead[calls:]
        return self._sums.pop()

    @property
    def width(self) -> int:
        """How many amounts there are for each sample in `amounts`."""
        if self.ideal:
            return 1
        return len(self.service.streams) + 2 * sum(reads is not None for reads in self._reads)

    def amounts(self, calls: Indices, *, few: bool = False) -> Floats:
        """What `work` has as `seconds` or `demands`, a row for each call and nothing but amounts.

        NaN for an index that was not recorded. `few`: see `Stream.array`.
        """
        if self.ideal:
            return self.service.array(calls)[:, np.newaxis]
        made = np.empty((len(calls), self.width))
        times, column = iter(self.service.streams), 0
        for reads, kinds in zip(self._reads, self.service.kinds, strict=True):
            for stream in (*(reads or ()), *(next(times) for _ in kinds)):
                made[:, column] = stream.array(calls, few=few)
                column += 1
        return made

    def sizes(self, indices: Indices) -> Floats:
        """Bytes of each of the samples `indices`; empty where samples have none."""
        return self._sizes.array(indices) if self.sized else np.empty(0)

    def _columns(self, calls: Sequence[int]) -> Iterator[list[Demand]]:
        """For each stage its reads, waits and processor times, one for each call."""
        times = iter(self.service.streams)
        for i, (reads, kinds) in enumerate(zip(self._reads, self.service.kinds, strict=True)):
            if reads is not None:
                size, latency = (stream.take(calls) for stream in reads)
                yield [(READ, i, amount) for amount in zip(size, latency, strict=True)]
            for kind in kinds:
                yield [(kind, i, (amount,)) for amount in next(times).take(calls)]


def _reads(scenario: Scenario, seed: int, *place: int) -> list[tuple[Stream, Stream] | None]:
    """For each stage its streams of bytes to read and of latencies, or None."""
    where, storage = "machine.storage", scenario.machine.storage.latency
    if scenario.job.remote:
        where, storage = "job.storage", scenario.job.storage.latency
    latency = storage or Constant(0.0)
    return [
        None
        if stage.read_bytes is None
        else (
            Stream(stage.read_bytes, f"dataset.fetch.{i}.read_bytes", (READ, i), seed, *place),
            Stream(latency, f"{where}.latency", (LATENCY, i), seed, *place),
        )
        for i, stage in enumerate(scenario.dataset.fetch)
    ]


class ServiceTimes:
    """The seconds that each sample takes through all stages of `fetch`, in order.

    `kinds` names for each stage what it takes, WAIT or CPU or both, and `streams` has one
    stream for each.
    """

    def __init__(self, fetch: tuple[Stage, ...], seed: int, *place: int) -> None:
        parts = [
            [
                (role, Stream(distribution, f"dataset.fetch.{i}.{name}", (role, i), seed, *place))
                for role, name, distribution in ((WAIT, "wait", s.wait), (CPU, "cpu", s.cpu))
                if distribution is not None
            ]
            for i, s in enumerate(fetch)
        ]
        self.kinds = [[role for role, _ in stage] for stage in parts]
        self.streams = [stream for stage in parts for _, stream in stage]
        self.recorded = any(isinstance(s.distribution, Recorded) for s in self.streams)
        self._alike = all(isinstance(s.distribution, Constant) for s in self.streams)

    def take(self, indices: Sequence[int]) -> Floats | Alike:
        """Seconds for each of the next samples, whose dataset indices are given."""
        if self._alike:
            return Alike(float(self.array(range(1))[0]), len(indices))
        if not self.recorded:
            return self.array(indices)
        parts = [stream.take(indices) for stream in self.streams]
        # not sum(), which rounds differently from Python 3.12 on
        return np.array([reduce(add, sample) for sample in zip(*parts, strict=True)])

    def array(self, indices: Indices) -> Floats:
        """The same as an array; NaN for an index that was not recorded."""
        parts = [stream.array(indices) for stream in self.streams]
        return reduce(add, parts) if parts else np.zeros(len(indices))
