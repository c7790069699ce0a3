"""What may have made a table of throughputs: scenarios of a few numbers, which are fitted to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from typing import Any, TypeAlias

import numpy as np

from dlsim.engine import simulate
from dlsim.scenario import (
    Constant,
    Consumer,
    Cost,
    Costs,
    Gamma,
    Loader,
    Machine,
    MapDataset,
    Scenario,
    Stage,
    replace,
)
from dlsim.scenario.distributions import Floats
from dlsim.trace.metrics import samples_per_second

# How much the service times of batches vary. Throughputs do not tell; of 0 to 0.5, this predicts
# golden/imread_dataloader.csv best.
IRREGULARITY = 0.3
BATCHES = 300
ROUNDS = 12
NOISE = 0.02  # by which two measurements of one throughput differ, about
LITTLE = 1e-3  # of a batch's time; less is nothing
SECONDS = ("fetch", "beside", "receive", "step", "growing")
Shape: TypeAlias = tuple[str, ...]  # what is fitted; all else is nothing
Numbers: TypeAlias = dict[str, float]
Setting: TypeAlias = tuple[int, int]  # workers, and the batch size
Rates: TypeAlias = Mapping[Setting, float]  # samples a second


def sizes(given: Rates) -> list[int]:
    """The batch sizes of a table, the first one first."""
    return list(dict.fromkeys(size for _, size in given))


def alone(given: Rates) -> bool:
    """Whether a throughput without workers is known."""
    return any(workers == 0 for workers, _ in given)


def shapes(given: Rates, step: float | None, *, crosstalk: bool = False) -> Iterator[Shape]:
    """What may be at work, the simplest first; no more than there are throughputs to tell it.

    A step shows in a throughput without workers; that it grows, in those of other batch sizes.
    """
    bases: list[Shape] = [("fetch", "receive")]
    if alone(given):
        bases = [("fetch", "beside", "receive")]
        if step is None:
            bases += [("fetch", "step"), ("fetch", "beside", "step"), (*bases[0], "step")]
    if len(sizes(given)) > 1:
        steps = [base for base in bases if "step" in base]
        bases += [(*base[:-1], "growing") for base in steps] + [(*b, "growing") for b in steps]
    if crosstalk:
        more = [("crosstalk",), ("crosstalk", "crosstalk_power")]
        bases = [(*base, *m) for base in [("fetch",), *bases] for m in more]
    return (base for base in bases if len(base) <= len(given))


class Fitting:
    """A table of throughputs, and scenarios that might have made it.

    Numbers are seconds of a batch of the first size of the table; `growing` is what of the step
    grows with the batch, as all but the rest of the step does.
    """

    def __init__(
        self, given: Rates, cores: float | None, sample_bytes: float, step: float | None
    ) -> None:
        self.given, self.batch_size, self.cores = given, sizes(given)[0], cores
        self.sample_bytes, self.step = sample_bytes, step

    def scenario(self, numbers: Numbers) -> Scenario:
        """The scenario in which a batch takes these seconds."""
        size, batch = self.batch_size * self.sample_bytes, self.batch_size
        irregular = Gamma(numbers["fetch"] / batch, IRREGULARITY * float(np.sqrt(batch)))
        machine = Machine(
            cores=self.cores,
            crosstalk=numbers.get("crosstalk", 0.0),
            crosstalk_power=numbers.get("crosstalk_power", 2.0),
        )
        serialise, receive = (numbers.get(name, 0.0) / size for name in ("beside", "receive"))
        each = numbers.get("growing", 0.0) / batch
        return replace(
            Scenario(
                loader=Loader(batch_size=batch),
                dataset=MapDataset(BATCHES * batch, fetch=(Stage("fetch", cpu=irregular),)),
                consumer=Consumer(Constant(numbers.get("step", 0.0)), step_per_sample=each),
                machine=machine,
                costs=Costs(serialise=Cost(byte=serialise), receive=Cost(byte=receive)),
            ),
            {"dataset.sample_bytes": Constant(self.sample_bytes)},
        )

    def throughputs(self, numbers: Numbers) -> dict[Setting, float]:
        """Samples a second with each setting of the table."""
        scenario = self.scenario(numbers)
        return {setting: simulated(scenario, *setting) for setting in self.given}

    def errors(self, numbers: Numbers) -> Floats:
        """The logarithm of what is simulated over what was measured, for each."""
        found = self.throughputs(numbers)
        return np.log([found[setting] / rate for setting, rate in self.given.items()])

    def off(self, numbers: Numbers) -> float:
        """The greatest error, relative."""
        return float(np.expm1(np.abs(self.errors(numbers)).max()))

    def criterion(self, numbers: Numbers) -> float:
        """Akaike's: how unlikely the table is, and how much was fitted to it."""
        free = len(numbers.keys() - ({"step"} if self.step is not None else set()))
        square = float(np.mean(self.errors(numbers) ** 2)) + NOISE**2
        return len(self.given) * log(square) + 2 * free

    def best(self, shape: Shape) -> Numbers:
        """The numbers of this shape that give the table back best."""
        from scipy.optimize import least_squares

        begin = self.guess(shape)
        whole = begin["fetch"] + begin.get("step", 0.0)

        def of(logs: Sequence[float]) -> Numbers:
            found = {name: exp(value) for name, value in zip(shape, logs, strict=True)}
            return found if self.step is None else {**found, "step": self.step}

        lowest = {name: log(LITTLE * whole / 10) for name in SECONDS}
        lowest |= {"crosstalk": log(1e-7), "crosstalk_power": log(0.5)}
        highest = {name: log(10 * whole) for name in SECONDS}
        highest |= {"crosstalk": log(1e3), "crosstalk_power": log(6.0)}
        found: Any = least_squares(
            lambda logs: self.errors(of(logs)),
            [min(max(log(begin[name]), lowest[name]), highest[name]) for name in shape],
            bounds=([lowest[name] for name in shape], [highest[name] for name in shape]),
            diff_step=0.01 / abs(log(whole) or 1.0),
            max_nfev=ROUNDS,
        )
        numbers = of(found.x)
        some = LITTLE * max(numbers[name] for name in SECONDS if name in numbers)
        return {n: 0.0 if n in SECONDS and value < some else value for n, value in numbers.items()}

    def guess(self, shape: Shape) -> Numbers:
        """Where to begin: each batch as long as the fewest workers and the fastest make it."""
        given = dict(sorted((workers, rate) for (workers, _), rate in self.given.items()))
        counts = [count for count in given if count]
        few, many, size = counts[0], counts[-1], self.batch_size
        worker = few * size / given[few]
        fastest = size / max(given.values())
        alone = size / given[0] if 0 in given else worker
        step = min(0.8 * fastest, 0.8 * alone)
        slower = many / given[many] / (few / given[few]) - 1
        begin = {
            "fetch": min(alone, worker),
            "beside": max(worker - alone, 0.02 * worker),
            "receive": 0.5 * fastest,
            "step": step,
            "growing": step,
            "crosstalk": max(slower, 0.01) / (many - 1) ** 2,
            "crosstalk_power": 2.0,
        }
        if {"step", "growing"} & {*shape}:
            begin |= {"fetch": alone - step, "receive": 0.1 * fastest, "beside": 0.02 * worker}
            if {"step", "growing"} <= {*shape}:
                begin |= {"step": 0.5 * step, "growing": 0.5 * step}
        elif self.step is not None:
            begin["fetch"] = max(begin["fetch"] - self.step, 0.1 * begin["fetch"])
        if "crosstalk" in shape:
            begin["receive"] = 0.05 * fastest
        return {name: begin[name] for name in shape}


def simulated(scenario: Scenario, workers: int, batch_size: int) -> float:
    """Samples a second with so many workers and batches of that size."""
    changes = {
        "loader.num_workers": workers,
        "loader.batch_size": batch_size,
        "dataset.length": BATCHES * batch_size,
    }
    return samples_per_second(simulate(replace(scenario, changes), seed=0))
