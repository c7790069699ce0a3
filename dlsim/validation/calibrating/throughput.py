"""A scenario from nothing but throughputs at a few worker counts: `calibrate_throughput`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as with_fields
from itertools import pairwise
from typing import TypeAlias

from dlsim.scenario import Scenario, replace
from dlsim.scenario.errors import is_integer, is_number, is_positive
from dlsim.scenario.units import duration
from dlsim.validation.calibrating.accounts import CalibrateError
from dlsim.validation.calibrating.throughput_models import (
    SECONDS,
    Fitting,
    Rates,
    Setting,
    alone,
    crowded,
    shapes,
    sizes,
)
from dlsim.whatif.bounds import bounds
from dlsim.whatif.space import UNSTATED

MOST = 1_000_000  # samples in a batch; many batches of many settings are simulated
NEAREST = 4  # shapes that crosstalk is tried with
GOOD = 0.05  # a fit that is off by more is said to be
Given: TypeAlias = Mapping[int | Setting, float]  # by workers, or by workers and batch size
NAMES = {
    "fetch": "fetching",
    "beside": "what a worker does besides",
    "receive": "receiving",
    "step": "step",
    "growing": "what of the step grows with the batch",
}


@dataclass(frozen=True, kw_only=True)
class ThroughputFit:
    """The `scenario` of a table of throughputs, and how well it gives them back.

    `given`, `fitted`: samples a second by workers and batch size, as measured and as simulated.
    `seconds`: of a batch of the scenario's size, by what they go into. `remarks`: what is strange
    about the table, a line each. `step_given`: whether the step was stated. `str()` says it all.
    """

    scenario: Scenario
    given: Rates
    fitted: Rates
    seconds: Mapping[str, float]
    remarks: tuple[str, ...]
    step_given: bool = False

    @property
    def worst(self) -> float:
        """By how much the fit is off where it is off most, relative."""
        return max((abs(self.fitted[s] / rate - 1) for s, rate in self.given.items()), default=0.0)

    def __str__(self) -> str:
        several = len(sizes(self.given)) > 1
        rows = [f"{'batch  ' * several}workers      given     fitted      off"]
        for (workers, size), rate in self.given.items():
            found, batch = self.fitted[workers, size], f"{size:>5}  " if several else ""
            rows.append(
                f"{batch}{workers:>7} {rate:>10.4g} {found:>10.4g} {found / rate - 1:>+z8.1%}"
            )
        return "\n".join([*rows, "", self.made_of, *self.remarks])

    @property
    def made_of(self) -> str:
        """What a batch takes, in one line."""
        parts = [f"{NAMES[name]} {duration(s)}" for name, s in self.seconds.items() if s > 0]
        machine = self.scenario.machine
        if machine.crosstalk:
            law = f"{machine.crosstalk:.2g} * (n - 1) ** {machine.crosstalk_power:.2g}"
            parts.append(f"1 + {law} times as long while n processes are busy")
        most = max(workers for workers, _ in self.given)
        limit = bounds(replace(self.scenario, {"loader.num_workers": most})).binds
        told = alone(self.given) or self.step_given or not self.seconds["receive"]
        unsure = "" if told else "; what is called receiving may be the step: 0 workers would tell"
        of = f" of {self.scenario.loader.batch_size}" if len(sizes(self.given)) > 1 else ""
        return f"a batch{of}: {', '.join(parts)}; with {most} workers it is {limit}-bound{unsure}"


def calibrate_throughput(
    throughputs: Given,
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
    throughputs: Given,
    *,
    batch_size: int,
    cores: float | None = None,
    sample_bytes: float = UNSTATED,
    step: float | None = None,
) -> ThroughputFit:
    """The scenario whose throughputs are nearest to those measured, beside them.

    `throughputs`: samples a second by `num_workers`, with at least two different numbers of them
    above 0; or by `(num_workers, batch_size)`, where that is not `batch_size`. Without workers,
    fetching and the training step follow one another; with workers, they do not: so a table with 0
    workers tells the two apart, and one of several batch sizes, how the step grows. `step`: seconds
    of the training step of a batch that was measured along, of tables of one size; None: one is
    fitted if the table asks for it. Receiving grows
    with the bytes of a batch: `sample_bytes` are those of a sample; the default of one byte stands
    for a size that nobody stated. Where more workers make it slower, `machine.crosstalk` is fitted.

    Of what could be at work, the fewest things are taken that explain the table (Akaike's
    criterion, with measurements good to 2 %). Raises `CalibrateError` for too few or bad numbers.
    """
    given = checked(throughputs, batch_size, sample_bytes, step)
    fitting = Fitting(given, cores, sample_bytes, step)
    tried = fitting.tried(shapes(given, step))
    if fitting.off(tried[0]) > GOOD:
        near = [fitting.shape(numbers) for numbers in tried[:NEAREST]]
        tried = fitting.tried(crowded(near, given), tried)
    numbers = tried[0]
    found = ThroughputFit(
        scenario=fitting.scenario(numbers),
        given=given,
        fitted=fitting.throughputs(numbers),
        seconds={name: numbers.get(name, 0.0) for name in SECONDS},
        remarks=(),
        step_given=step is not None,
    )
    return with_fields(found, remarks=tuple(strange(given, found.worst)))


def strange(given: Rates, worst: float) -> Iterator[str]:
    """What is to be said about a table and its fit, a line each."""
    for (few, size), (many, other) in pairwise(given):
        times = given[many, other] / given[few, size]
        if few and size == other and times > (1 + GOOD) * many / few:
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


def checked(throughputs: Given, batch_size: int, sample_bytes: float, step: float | None) -> Rates:
    """The throughputs by workers and batch size, those of `batch_size` first.

    Raises `CalibrateError` unless the numbers can be calibrated on.
    """
    if not is_integer(batch_size) or batch_size < 1:
        raise CalibrateError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    found: dict[Setting, float] = {}
    for key, rate in throughputs.items():
        count, size = setting = key if isinstance(key, tuple) else (key, batch_size)
        if is_integer(size) and size > MOST:
            raise CalibrateError(f"batch_size: expected at most {MOST:,}, got {size:,}")
        sound = is_integer(count) and count >= 0 and is_integer(size) and size >= 1
        if not sound or not is_positive(rate):
            raise CalibrateError(
                f"throughput: expected samples a second by workers, got {key}={rate}"
            )
        if setting in found:
            raise CalibrateError(
                f"throughput: expected each number of workers once for a batch size, got {count} "
                f"twice for {size}"
            )
        found[setting] = rate
    counts = {count for count, _ in found}
    if len(counts - {0}) < 2:
        given = ", ".join(map(str, sorted(counts))) or "none"
        raise CalibrateError(
            f"throughput: expected at least two numbers of workers above 0, got {given}"
        )
    if step is not None and len(sizes(found)) > 1:
        raise CalibrateError("step: expected none, as it is fitted to several batch sizes, got one")
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

    def order(item: tuple[Setting, float]) -> tuple[bool, int, int]:
        (count, size), _ = item
        return size != batch_size, size, count

    return dict(sorted(found.items(), key=order))
