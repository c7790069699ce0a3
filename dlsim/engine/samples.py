"""What fetching samples takes: the numbers that are drawn for them, put together.

Each number is that of its stream (`dlsim.engine.draws`), whichever of these asks for it: one sample
after another, a batch in one sum, or the rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, repeat
from operator import add
from typing import TypeAlias

import numpy as np

from dlsim.engine.draws import (
    CPU,
    FIRST_BLOCK,
    LATENCY,
    NOTHING,
    READ,
    SIZE,
    WAIT,
    Floats,
    Indices,
    Stream,
    in_turn,
)
from dlsim.scenario import Constant, Recorded, Scenario, Stage

TOGETHER = 16  # batches whose numbers are drawn and added at once

Demand: TypeAlias = tuple[int, int, tuple[float, ...]]


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
