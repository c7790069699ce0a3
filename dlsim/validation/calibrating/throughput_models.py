"""What may have made a table of throughputs: scenarios of a few numbers, which are fitted to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, inf, log
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
from dlsim.whatif.bounds import bounds

# How much the service times of batches vary. Throughputs do not tell; of 0 to 0.5, this predicts
# golden/imread_dataloader.csv best.
IRREGULARITY = 0.3
BATCHES = 300
ROUNDS = 12
NOISE = 0.02  # by which two measurements of one throughput differ, about
STEP = 0.01  # of a number's logarithm, to see what it changes
FINE = 1e-3  # relative; steps and gains that are smaller are none
TURNS = 6  # of closed forms that are corrected by simulations
CLOSE = 3.0  # of the criterion: who is further behind the best is not fitted to the end
GAIN = 0.3  # of the criterion: what gains less is no gain
LITTLE = 1e-3  # of a batch's time; less is nothing
SECONDS = ("fetch", "beside", "receive", "step", "growing")
ALONE = ("fetch", "step", "growing")  # what there is without workers
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


def shapes(given: Rates, step: float | None) -> list[Shape]:
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
    return [base for base in bases if len(base) <= len(given)]


def crowded(bases: Iterable[Shape], given: Rates) -> list[Shape]:
    """Fetching alone, and these shapes, with crosstalk besides."""
    more: list[Shape] = [("crosstalk",), ("crosstalk", "crosstalk_power")]
    made = [(*base, *m) for base in [("fetch",), *bases] for m in more]
    return [shape for shape in made if len(shape) <= len(given)]


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
        self._known: dict[tuple[Setting, tuple[tuple[str, float], ...]], float] = {}

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
        """Samples a second with each setting of the table; each is simulated once."""
        return {setting: self._throughput(setting, numbers) for setting in self.given}

    def _throughput(self, setting: Setting, numbers: Numbers) -> float:
        seen = ALONE if setting[0] == 0 else numbers.keys()
        felt = {name: value for name, value in numbers.items() if name in seen and value}
        key = setting, tuple(sorted(felt.items()))
        if key not in self._known:
            self._known[key] = simulated(self.scenario(numbers), *setting)
        return self._known[key]

    def closed(self, numbers: Numbers) -> Floats:
        """The logarithm of what closed forms give for each setting."""
        scenario = self.scenario(numbers)
        made = (replace(scenario, changes(*setting)) for setting in self.given)
        return np.log([bounds(each).samples_per_s for each in made])

    def errors(self, numbers: Numbers) -> Floats:
        """The logarithm of what is simulated over what was measured, for each."""
        found = self.throughputs(numbers)
        return np.log([found[setting] / rate for setting, rate in self.given.items()])

    def off(self, numbers: Numbers) -> float:
        """The greatest error, relative."""
        return float(np.expm1(np.abs(self.errors(numbers)).max()))

    def criterion(self, numbers: Numbers) -> float:
        """Akaike's: how unlikely the table is, and how much was fitted to it."""
        square = float(np.mean(self.errors(numbers) ** 2))
        return self._criterion(square, len(self.shape(numbers)))

    def _criterion(self, square: float, free: int) -> float:
        return len(self.given) * log(square + NOISE**2) + 2 * free

    def shape(self, numbers: Numbers) -> Shape:
        """Which of the numbers are fitted: all but a step that is known."""
        return tuple(name for name in numbers if name != "step" or self.step is None)

    def tried(self, shapes: Iterable[Shape], before: Sequence[Numbers] = ()) -> list[Numbers]:
        """Numbers of these shapes, and those of `before`: what explains the table best comes first.

        A shape is not tried that could not, even if it gave the table back exactly.
        """
        found = [*before]
        for shape in sorted(shapes, key=len):
            least = min(map(self.criterion, found), default=inf)
            if self._criterion(0.0, len(shape)) < least:
                found.append(self.best(shape, found))
        return sorted(found, key=self.criterion)

    def best(self, shape: Shape, found: Sequence[Numbers] = ()) -> Numbers:
        """The numbers of this shape that give the table back best.

        Nearly so, if it is far behind those that were `found` of other shapes.
        """
        first = self.guess(shape)
        ranges = Ranges(first, self.step)
        begin = ranges.numbers(ranges.logs(first))
        if "crosstalk" in shape:  # of which closed forms know nothing
            parts = [numbers for numbers in found if {*self.shape(numbers)} < {*shape}]
            parts = sorted(parts, key=self.criterion)[:1]
            begin = min([begin, *({**begin, **part} for part in parts)], key=self.criterion)
        else:
            begin = self.nearly(begin, ranges)
            least = min(map(self.criterion, found), default=inf)
            if self.criterion(begin) > least + CLOSE:
                return begin
        while True:
            before, begin = begin, self.sized(ranges.least(self.errors, begin, dear=True))
            if self.criterion(begin) > self.criterion(before) - GAIN:
                return min(before, begin, key=self.criterion)

    def nearly(self, begin: Numbers, ranges: Ranges) -> Numbers:
        """Numbers that give the table back about as well as any, from few simulations.

        Closed forms say what to change; the simulations, by how much those are off.
        """
        found = [begin]
        for _ in range(TURNS):
            found.append(ranges.least(self.corrected(found[-1]), found[-1]))
            *others, last = map(self.criterion, found)
            if last > min(others) - GAIN:
                break
        return self.sized(min(found, key=self.criterion))

    def corrected(self, at: Numbers) -> Callable[[Numbers], Floats]:
        """The errors near these numbers, as closed forms have them that are exact there."""
        off = self.errors(at) - self.closed(at)
        return lambda numbers: self.closed(numbers) + off

    def sized(self, numbers: Numbers) -> Numbers:
        """The numbers, without what takes next to no time."""
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
            "receive": 0.9 * fastest,
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


class Ranges:
    """Numbers as logarithms, within what they may be: a few powers of ten around the first ones."""

    def __init__(self, first: Numbers, step: float | None) -> None:
        self.names, self.step = tuple(first), step
        whole = first["fetch"] + first.get("step", 0.0)
        lowest = dict.fromkeys(SECONDS, LITTLE * whole / 10)
        highest = dict.fromkeys(SECONDS, 10 * whole)
        lowest |= {"crosstalk": 1e-7, "crosstalk_power": 0.5}
        highest |= {"crosstalk": 1e3, "crosstalk_power": 6.0}
        limits = [[log(each[name]) for name in self.names] for each in (lowest, highest)]
        self.lowest, self.highest = np.array(limits)

    def logs(self, numbers: Numbers) -> Floats:
        """The logarithms of the numbers, or what comes nearest."""
        values = np.array([numbers[name] for name in self.names])
        with np.errstate(divide="ignore"):
            found: Floats = np.log(values).clip(self.lowest, self.highest)
        return found

    def numbers(self, logs: Floats) -> Numbers:
        """The numbers with these logarithms, and the step that is known."""
        found = {name: exp(value) for name, value in zip(self.names, logs, strict=True)}
        return found if self.step is None else {**found, "step": self.step}

    def least(
        self, errors: Callable[[Numbers], Floats], begin: Numbers, *, dear: bool = False
    ) -> Numbers:
        """Where, from `begin` on, the squares of `errors` are least.

        `dear`: they are not to be found more often than need be.
        """
        from scipy.optimize import least_squares

        slopes = Slopes(lambda logs: errors(self.numbers(logs)), self.highest)
        found: Any = least_squares(
            slopes.errors,
            self.logs(begin),
            slopes.at if dear else "2-point",
            bounds=(self.lowest, self.highest),
            xtol=FINE,
            ftol=FINE,
            max_nfev=ROUNDS,
        )
        return self.numbers(found.x)


class Slopes:
    """Errors of a fit, and their derivative at points where they were found, by Broyden's rule.

    By differences at the first point, then brought up to date with all that is found: a simulation
    for each number at each point would be the better part of a fit. C. G. Broyden, A class of
    methods for solving nonlinear simultaneous equations, Mathematics of Computation 19, 1965.
    """

    def __init__(self, errors: Callable[[Floats], Floats], highest: Floats) -> None:
        self._errors, self._highest = errors, highest
        self._met = list[tuple[Floats, Floats]]()
        self._slopes: Floats | None = None

    def errors(self, logs: Floats) -> Floats:
        """The errors at a point."""
        found = self._errors(logs)
        self._met.append((logs.copy(), found))
        return found

    def at(self, logs: Floats) -> Floats:
        """The derivative there, where errors were the last to be found."""
        if self._slopes is None:
            steps = np.diag(np.where(logs + STEP > self._highest, -STEP, STEP))
            ahead = [self._errors(logs + step) - self._met[-1][1] for step in steps]
            self._slopes = np.stack(ahead, axis=1) / steps.diagonal()
        (base, before), *others = self._met
        for other, found in others:
            step = other - base
            missed = found - before - self._slopes @ step
            self._slopes = self._slopes + np.outer(missed, step / (step @ step))
        self._met = self._met[-1:]
        return self._slopes


def simulated(scenario: Scenario, workers: int, batch_size: int) -> float:
    """Samples a second with so many workers and batches of that size."""
    return samples_per_second(simulate(replace(scenario, changes(workers, batch_size)), seed=0))


def changes(workers: int, batch_size: int) -> dict[str, Any]:
    """What of a scenario goes with a setting of a table."""
    return {
        "loader.num_workers": workers,
        "loader.batch_size": batch_size,
        "dataset.length": BATCHES * batch_size,
    }
