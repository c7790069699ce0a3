"""A scenario from nothing but throughputs at a few worker counts: `calibrate_throughput`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from itertools import pairwise
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
from dlsim.scenario.errors import is_integer, is_number
from dlsim.scenario.units import duration
from dlsim.trace.metrics import samples_per_second
from dlsim.validation.calibrating.costs import CalibrateError
from dlsim.whatif.bounds import bounds
from dlsim.whatif.space import UNSTATED

# How much the service times of batches vary. Throughputs do not tell; of 0 to 0.5, this predicts
# golden/imread_dataloader.csv best.
IRREGULARITY = 0.3
BATCHES = 300
ROUNDS = 12
NOISE = 0.02  # by which two measurements of one throughput differ, about
GOOD = 0.05  # a fit that is off by more is said to be
LITTLE = 1e-3  # of a batch's time; less is nothing
SECONDS = ("fetch", "beside", "receive", "step")
Shape: TypeAlias = tuple[str, ...]  # what is fitted; all else is nothing
Numbers: TypeAlias = dict[str, float]
NAMES = {
    "fetch": "fetching",
    "beside": "what a worker does besides",
    "receive": "receiving",
    "step": "step",
}


@dataclass(frozen=True, kw_only=True)
class ThroughputFit:
    """The `scenario` of a table of throughputs, and how well it gives them back.

    `given`, `fitted`: samples a second by number of workers, as measured and as simulated.
    `seconds`: of a batch, by what they go into. `remarks`: what is strange about the table, a line
    each. `step_given`: whether the step was stated. `str()` says it all.
    """

    scenario: Scenario
    given: Mapping[int, float]
    fitted: Mapping[int, float]
    seconds: Mapping[str, float]
    remarks: tuple[str, ...]
    step_given: bool = False

    @property
    def worst(self) -> float:
        """By how much the fit is off where it is off most, relative."""
        return max((abs(self.fitted[w] / rate - 1) for w, rate in self.given.items()), default=0.0)

    def __str__(self) -> str:
        rows = ["workers      given     fitted      off"]
        for workers, rate in self.given.items():
            found = self.fitted[workers]
            rows.append(f"{workers:>7} {rate:>10.4g} {found:>10.4g} {found / rate - 1:>+8.1%}")
        return "\n".join([*rows, "", self.made_of, *self.remarks])

    @property
    def made_of(self) -> str:
        """What a batch takes, in one line."""
        parts = [f"{NAMES[name]} {duration(s)}" for name, s in self.seconds.items() if s > 0]
        machine = self.scenario.machine
        if machine.crosstalk:
            law = f"{machine.crosstalk:.2g} * (n - 1) ** {machine.crosstalk_power:.2g}"
            parts.append(f"1 + {law} times as long while n processes are busy")
        most = max(self.given)
        limit = bounds(replace(self.scenario, {"loader.num_workers": most})).binds
        told = 0 in self.given or self.step_given or not self.seconds["receive"]
        unsure = "" if told else "; what is called receiving may be the step: 0 workers would tell"
        return f"a batch: {', '.join(parts)}; with {most} workers it is {limit}-bound{unsure}"


def calibrate_throughput(
    throughputs: Mapping[int, float],
    *,
    batch_size: int,
    cores: float | None = None,
    sample_bytes: float = UNSTATED,
    step: float | None = None,
) -> Scenario:
    """The scenario whose throughput at each number of workers is nearest to those measured.

    As `fit_throughput` finds it; what it remarks on is a warning here.
    """
    found = fit_throughput(
        throughputs, batch_size=batch_size, cores=cores, sample_bytes=sample_bytes, step=step
    )
    if found.remarks:
        warnings.warn("\n".join(found.remarks), stacklevel=2)
    return found.scenario


def fit_throughput(
    throughputs: Mapping[int, float],
    *,
    batch_size: int,
    cores: float | None = None,
    sample_bytes: float = UNSTATED,
    step: float | None = None,
) -> ThroughputFit:
    """The scenario whose throughputs are nearest to those measured, beside them.

    `throughputs`: samples a second by `num_workers`, with at least two different numbers of them
    above 0. Without workers, fetching and the training step follow one another; with workers, they
    do not: so a table with 0 workers tells the two apart. `step`: seconds of the training step of a
    batch that was measured along; None: one is fitted if the table asks for it. Receiving grows
    with the bytes of a batch: `sample_bytes` are those of a sample; the default of one byte stands
    for a size that nobody stated. Where more workers make it slower, `machine.crosstalk` is fitted.

    Of what could be at work, the fewest things are taken that explain the table (Akaike's
    criterion, with measurements good to 2 %). Raises `CalibrateError` for too few or bad numbers.
    """
    checked(throughputs, batch_size, sample_bytes, step)
    given = dict(sorted(throughputs.items()))
    fitting = Fitting(given, batch_size, cores, sample_bytes, step)
    tried = [fitting.best(shape) for shape in shapes(given, step)]
    if min(fitting.off(numbers) for numbers in tried) > GOOD:
        tried += [fitting.best(shape) for shape in shapes(given, step, crosstalk=True)]
    numbers = min(tried, key=fitting.criterion)
    found = ThroughputFit(
        scenario=fitting.scenario(numbers),
        given=given,
        fitted=fitting.throughputs(numbers),
        seconds={name: numbers.get(name, 0.0) for name in SECONDS},
        remarks=(),
        step_given=step is not None,
    )
    return with_fields(found, remarks=tuple(strange(given, found.worst)))


def shapes(
    given: Mapping[int, float], step: float | None, *, crosstalk: bool = False
) -> Iterator[Shape]:
    """What may be at work, the simplest first; no more than there are throughputs to tell it."""
    bases: list[Shape] = [("fetch", "receive")]
    if 0 in given:
        bases = [("fetch", "beside", "receive")]
        if step is None:
            bases += [("fetch", "step"), ("fetch", "beside", "step"), (*bases[0], "step")]
    if crosstalk:
        more = [("crosstalk",), ("crosstalk", "crosstalk_power")]
        bases = [(*base, *m) for base in [("fetch",), *bases] for m in more]
    return (base for base in bases if len(base) <= len(given))


class Fitting:
    """A table of throughputs, and scenarios that might have made it."""

    def __init__(
        self,
        given: Mapping[int, float],
        batch_size: int,
        cores: float | None,
        sample_bytes: float,
        step: float | None,
    ) -> None:
        self.given, self.batch_size, self.cores = given, batch_size, cores
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
        return replace(
            Scenario(
                loader=Loader(batch_size=batch),
                dataset=MapDataset(BATCHES * batch, fetch=(Stage("fetch", cpu=irregular),)),
                consumer=Consumer(Constant(numbers.get("step", 0.0))),
                machine=machine,
                costs=Costs(serialise=Cost(byte=serialise), receive=Cost(byte=receive)),
            ),
            {"dataset.sample_bytes": Constant(self.sample_bytes)},
        )

    def throughputs(self, numbers: Numbers) -> dict[int, float]:
        """Samples a second at each number of workers of the table."""
        scenario = self.scenario(numbers)
        return {workers: simulated(scenario, workers) for workers in self.given}

    def errors(self, numbers: Numbers) -> Floats:
        """The logarithm of what is simulated over what was measured, for each."""
        found = self.throughputs(numbers)
        return np.log([found[workers] / rate for workers, rate in self.given.items()])

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
            [log(begin[name]) for name in shape],
            bounds=([lowest[name] for name in shape], [highest[name] for name in shape]),
            diff_step=0.01 / abs(log(whole) or 1.0),
            max_nfev=ROUNDS,
        )
        numbers = of(found.x)
        some = LITTLE * max(numbers[name] for name in SECONDS if name in numbers)
        return {n: 0.0 if n in SECONDS and value < some else value for n, value in numbers.items()}

    def guess(self, shape: Shape) -> Numbers:
        """Where to begin: each batch as long as the fewest workers and the fastest make it."""
        counts = [count for count in self.given if count]
        few, many, size = counts[0], counts[-1], self.batch_size
        worker = few * size / self.given[few]
        fastest = size / max(self.given.values())
        alone = size / self.given[0] if 0 in self.given else worker
        step = min(0.8 * fastest, 0.8 * alone)
        slower = many / self.given[many] / (few / self.given[few]) - 1
        begin = {
            "fetch": min(alone, worker),
            "beside": max(worker - alone, 0.02 * worker),
            "receive": 0.5 * fastest,
            "step": step,
            "crosstalk": max(slower, 0.01) / (many - 1) ** 2,
            "crosstalk_power": 2.0,
        }
        if "step" in shape:
            begin |= {"fetch": alone - step, "receive": 0.1 * fastest, "beside": 0.02 * worker}
        elif self.step is not None:
            begin["fetch"] = max(begin["fetch"] - self.step, 0.1 * begin["fetch"])
        if "crosstalk" in shape:
            begin["receive"] = 0.05 * fastest
        return {name: begin[name] for name in shape}


def simulated(scenario: Scenario, workers: int) -> float:
    """Samples a second with so many workers."""
    return samples_per_second(simulate(replace(scenario, {"loader.num_workers": workers}), seed=0))


def strange(given: Mapping[int, float], worst: float) -> Iterator[str]:
    """What is to be said about a table and its fit, a line each."""
    counts = [count for count in given if count]
    for few, many in pairwise(counts):
        times = given[many] / given[few]
        if times > (1 + GOOD) * many / few:
            yield (
                f"throughput: {many} workers make {times:.2g} times as much as {few}, which are "
                f"{many / few:.2g} times as many: no loader does that; were the files cached, or "
                "something else changed between the two?"
            )
    if worst > GOOD:
        yield (
            f"throughput: the fit is off by up to {worst:.0%}: so much will predictions be; "
            "measure again what is off"
        )


def checked(
    throughputs: Mapping[int, float], batch_size: int, sample_bytes: float, step: float | None
) -> None:
    """Raise `CalibrateError` unless the numbers can be calibrated on."""
    for count, rate in throughputs.items():
        if not is_integer(count) or count < 0 or not is_number(rate) or rate <= 0:
            raise CalibrateError(
                f"throughput: expected samples a second by workers, got {count}={rate}"
            )
    if len([count for count in throughputs if count]) < 2:
        given = ", ".join(map(str, sorted(throughputs))) or "none"
        raise CalibrateError(
            f"throughput: expected at least two numbers of workers above 0, got {given}"
        )
    if not is_integer(batch_size) or batch_size < 1:
        raise CalibrateError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    if not is_number(sample_bytes) or sample_bytes <= 0:
        raise CalibrateError(f"sample_bytes: expected a number above 0, got {sample_bytes!r}")
    if step is not None and (not is_number(step) or step < 0):
        raise CalibrateError(f"step: expected seconds of at least 0, got {step!r}")
    fastest = max(throughputs.values())
    if step is not None and step * fastest > (1 + GOOD) * batch_size:
        raise CalibrateError(
            f"step: expected at most {duration(batch_size / fastest)}, in which the fastest loader "
            f"of the table makes a batch, got {duration(step)}"
        )
