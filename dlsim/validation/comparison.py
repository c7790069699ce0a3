"""A simulated run beside a real one: `compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlsim.scenario.units import duration
from dlsim.trace.metrics import elapsed, epoch_times, known, mean, samples_per_second, span, waits
from dlsim.trace.summary import number, percent
from dlsim.trace.trace import Floats, Integers, Samples, Trace

NAN = float("nan")


@dataclass(frozen=True)
class Figure:
    """One metric of both runs: seconds, or samples a second."""

    name: str
    simulated: float
    seen: float

    @property
    def error(self) -> float:
        """`simulated / seen - 1`; NaN where nothing was seen."""
        return self.simulated / self.seen - 1 if self.seen else NAN


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a simulated run agrees with one that was seen; `str()` is a report for people.

    `batches`: returned in each. `differences`: the first difference in the order of return, in
    the workers of the batches, and in their samples, in words, for each that differs.
    `other_workers`: how many batches returned in both came from another worker. `same_samples`:
    None where the samples of either are not known. `figures`: throughput and times. `wasserstein`:
    the distance in seconds between the distributions of waits. `drift`: the largest difference
    between the moments at which the n-th batch was returned, as a share of the mean epoch time
    seen; `drift_at`: that n, from 0.
    """

    batches: tuple[int, int]
    same_order: bool
    same_workers: bool
    same_samples: bool | None
    other_workers: int
    differences: tuple[str, ...]
    figures: tuple[Figure, ...]
    wasserstein: float
    drift: float
    drift_at: int

    @property
    def agrees(self) -> bool:
        """Whether order, workers and (as far as known) samples are the same."""
        return self.same_order and self.same_workers and self.same_samples is not False

    def __getitem__(self, name: str) -> Figure:
        """The figure called `name`; KeyError if there is none."""
        return {figure.name: figure for figure in self.figures}[name]

    def __str__(self) -> str:
        lines = [self.verdict(), ""]
        lines += [f"  {difference}" for difference in self.differences]
        lines += [""] * bool(self.differences)
        lines.append(f"{'':<12}{'simulated':>12}{'seen':>12}{'error':>10}")
        for figure in self.figures:
            show = number if figure.name == "samples/s" else duration
            error = ("+" if figure.error >= 0 else "") + percent(figure.error)
            lines.append(
                f"{figure.name:<12}{show(figure.simulated):>12}{show(figure.seen):>12}{error:>10}"
            )
        lines += ["", f"waits: {duration(self.wasserstein)} apart (Wasserstein distance)"]
        if self.drift == self.drift:
            apart = f"{percent(self.drift)} of an epoch apart"
            lines.append(f"timeline: at most {apart}, at return {self.drift_at}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """The outcome in one line."""
        if 0 in self.batches:
            simulated, seen = self.batches
            return f"Nothing to compare: {simulated} batches returned simulated, {seen} seen."
        same = {
            "order": self.same_order,
            "workers": self.same_workers,
            "samples": self.same_samples,
        }
        parts = []
        for word, outcome in (("same", True), ("different", False)):
            names = [name for name, value in same.items() if value is outcome]
            if names:
                listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
                parts.append(f"{word} {listed}")
        parts.append(off("total time", self["total time"].error))
        schedules = "schedules as seen" if self.agrees else "schedules otherwise than seen"
        return f"The simulation {schedules}: {'; '.join(parts)}."


def off(what: str, error: float) -> str:
    """A relative error in words."""
    if error != error or abs(error) < 0.0005:
        return f"{what} equal" if error == error else f"{what} not known"
    return f"{what} {percent(abs(error))} too {'long' if error > 0 else 'short'}"


def compare(simulated: Trace, seen: Trace) -> Comparison:
    """How `simulated` agrees with `seen`, usually the trace of a real run of the same loader.

    Batches are compared by number and by order of return, times from each run's own beginning.
    Where one run returned fewer batches, that is a difference in order, and workers, samples and
    timelines are compared as far as both go.
    """
    both = np.intersect1d(simulated.order, seen.order)
    workers = both[simulated.worker[both] != seen.worker[both]]
    samples = samples_difference(simulated.samples, seen.samples, both)
    differences = [order_difference(simulated.order, seen.order)]
    if len(workers):
        at = workers[0]
        differences.append(
            f"{len(workers)} of {len(both)} batches came from another worker; the first is batch"
            f" {at}: worker {simulated.worker[at]} simulated, {seen.worker[at]} seen"
        )
    differences.append(samples or "")
    drift, drift_at = timelines(simulated, seen)
    return Comparison(
        batches=(len(simulated.order), len(seen.order)),
        same_order=not differences[0],
        same_workers=not len(workers),
        same_samples=None if samples is None else not samples,
        other_workers=len(workers),
        differences=tuple(filter(None, differences)),
        figures=figures(simulated, seen),
        wasserstein=distance(known(waits(simulated)), known(waits(seen))),
        drift=drift,
        drift_at=drift_at,
    )


def figures(simulated: Trace, seen: Trace) -> tuple[Figure, ...]:
    """Throughput and times of both."""

    def percentile(trace: Trace, rank: float) -> float:
        times = known(waits(trace))
        return float(np.percentile(times, rank)) if len(times) else NAN

    metrics: dict[str, Callable[[Trace], float]] = {
        "samples/s": samples_per_second,
        "total time": elapsed,
        "epoch time": lambda trace: mean(epoch_times(trace)),
        "wait mean": lambda trace: mean(waits(trace)),
        "wait p50": lambda trace: percentile(trace, 50),
        "wait p95": lambda trace: percentile(trace, 95),
    }
    return tuple(Figure(name, f(simulated), f(seen)) for name, f in metrics.items())


def order_difference(simulated: Integers, seen: Integers) -> str:
    """The first difference in the order of return, in words; empty if there is none."""
    shorter = min(len(simulated), len(seen))
    differs = np.flatnonzero(simulated[:shorter] != seen[:shorter])
    if len(differs):
        at = differs[0]
        return f"return {at} is batch {simulated[at]} simulated, batch {seen[at]} seen"
    if len(simulated) != len(seen):
        return f"{len(simulated)} batches were returned simulated, {len(seen)} seen"
    return ""


def samples_difference(
    simulated: Samples | None, seen: Samples | None, both: Integers
) -> str | None:
    """The first difference in the indices of the batches `both` returned, in words.

    Empty if there is none, None if the indices of either (-1) are not known.
    """
    if simulated is None or seen is None or (simulated.index < 0).any() or (seen.index < 0).any():
        return None
    one, other = indices_by_batch(simulated), indices_by_batch(seen)
    for batch in both.tolist():
        if one.get(batch, []) != other.get(batch, []):
            return f"batch {batch} holds other samples simulated than seen"
    return ""


def indices_by_batch(samples: Samples) -> dict[int, list[int]]:
    """The dataset indices of each batch, as fetched."""
    numbers, starts = np.unique(samples.batch, return_index=True)
    parts = np.split(samples.index, starts[1:])
    return {int(n): part.tolist() for n, part in zip(numbers, parts, strict=True)}


def timelines(simulated: Trace, seen: Trace) -> tuple[float, int]:
    """The largest gap between n-th returns as a share of the epoch time seen, and its n."""
    shorter = min(len(simulated.order), len(seen.order))
    if not shorter:
        return NAN, -1
    one, other = (t.returned[t.order[:shorter]] - span(t)[0] for t in (simulated, seen))
    gaps = np.abs(one - other)
    epoch = mean(epoch_times(seen))
    at = int(np.argmax(gaps))
    return float(gaps[at]) / (epoch if epoch > 0 else elapsed(seen)), at


def distance(simulated: Floats, seen: Floats) -> float:
    """The Wasserstein distance of two samples; NaN if either is empty."""
    from scipy.stats import wasserstein_distance

    if not len(simulated) or not len(seen):
        return NAN
    return float(wasserstein_distance(simulated, seen))
