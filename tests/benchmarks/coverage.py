"""How often 95 % intervals hold the truth, where it is known: fixed and sequential, and pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import dlsim
from dlsim.trace import Trace
from dlsim.trace.metrics import mean, waits
from dlsim.whatif import Interval, paired, replicate, steady_state, sweep
from tests.known import (
    alone,
    epoch_of_free_workers,
    epoch_of_pairs,
    free,
    stall_md1,
    stall_mm1,
)

Row = dict[str, float]
MORE = 10  # times as many repetitions where few are not enough to tell 93 % from 94 %
CONSTANT, EXPONENTIAL = dlsim.Constant, dlsim.Exponential


@dataclass(frozen=True)
class Case:
    """An interval that is estimated under a seed, and the truth it is to hold."""

    name: str
    estimate: Callable[[int], Interval]
    truth: float
    times: int = 1  # as many repetitions as usual


def whole(trace: Trace) -> Row:
    """Figures of whole runs whose means are known."""
    return {"elapsed": trace.end, "wait_mean": mean(waits(trace))}


def steady(trace: Trace) -> Row:
    """Figures of the steady state whose means are known."""
    found = steady_state(trace)
    return {"steady_stall": found.stall, "steady_period": found.period}


def queues() -> Iterator[Case]:
    """The steady state of queues with one worker and one training loop."""
    for window, load in ((2, 0.8), (4, 0.5), (30, 0.8)):
        limits = {
            "M/M/1": (EXPONENTIAL(1.0), EXPONENTIAL(load), stall_mm1(load, window + 1)),
            "M/D/1": (EXPONENTIAL(1.0), CONSTANT(load), stall_md1(load, window + 1)),
        }
        for name, (fetch, step, stall) in limits.items():
            scenario = alone(fetch, step, window)
            for metric, truth in (("steady_stall", stall), ("steady_period", load / (1 - stall))):
                yield Case(
                    f"{name}, window {window}, load {load}: {metric}",
                    lambda seed, scenario=scenario, metric=metric: replicate(
                        scenario, 10, seed, measured=steady
                    ).interval(metric),
                    truth,
                )


def epochs() -> Iterator[Case]:
    """Whole epochs, of so many replications or to a precision."""
    fetch, step, batches = 1.0, 0.7, 8
    scenario = alone(EXPONENTIAL(fetch), EXPONENTIAL(step), 1, batches)
    elapsed = epoch_of_pairs(fetch, step, batches)
    truths = {"elapsed": elapsed, "wait_mean": elapsed / batches - step}
    for metric, truth in truths.items():
        for number in (5, 30):
            yield Case(
                f"epoch of 8 batches: {metric}, {number} replications",
                lambda seed, metric=metric, number=number: replicate(
                    scenario, number, seed, measured=whole
                ).interval(metric),
                truth,
                times=MORE if number == 5 else 1,
            )
        for precision in (0.2, 0.1, 0.05) if metric == "elapsed" else (0.3, 0.15):
            yield Case(
                f"epoch of 8 batches: {metric}, precision {precision:.0%}",
                lambda seed, metric=metric, precision=precision: replicate(
                    scenario, seed=seed, precision=precision, metric=metric, measured=whole
                ).interval(metric),
                truth,
            )


def stages() -> Iterator[Case]:
    """Settings of a sweep: eight runs, and more where these do not tell the speed to 0.5 %."""
    fetch, step = 1.0, 0.7
    for batches in (8_000, 16_000, 24_000):  # most, half and few of them have more runs
        scenario = alone(EXPONENTIAL(fetch), EXPONENTIAL(step), 1, batches)
        elapsed = epoch_of_pairs(fetch, step, batches)
        for metric, truth in (("elapsed", elapsed), ("wait_mean", elapsed / batches - step)):
            yield Case(
                f"sweep, epoch of {batches:,} batches: {metric}",
                lambda seed, scenario=scenario, metric=metric: swept(scenario, seed, metric),
                truth,
            )


def swept(scenario: dlsim.Scenario, seed: int, metric: str) -> Interval:
    """The interval that `sweep` has of a metric."""
    vary = {"loader.num_workers": [scenario.loader.num_workers]}
    table = sweep(scenario, vary, None, jobs=1, seed=seed)
    names = metric, f"{metric}_half_width", "replications"
    mean, half, made = (float(table[name][0]) for name in names)
    return Interval(mean, half, int(made))


def pairs() -> Iterator[Case]:
    """Differences of two scenarios under common random numbers."""
    before, after, batches = 0.7, 0.6, 8
    one, other = (alone(EXPONENTIAL(1.0), EXPONENTIAL(t), 1, batches) for t in (before, after))
    truth = epoch_of_pairs(1.0, after, batches) - epoch_of_pairs(1.0, before, batches)
    for number in (5, 12, 30):
        yield Case(
            f"difference of epochs, step {before} and {after} s, {number} pairs",
            lambda seed, number=number: paired(
                replicate(one, number, seed, measured=whole),
                replicate(other, number, seed, measured=whole),
                "elapsed",
            ),
            truth,
            times=1 if number == 30 else MORE,
        )
    fetch, batches = EXPONENTIAL(1.0), 8
    for workers in (1, 2):
        some, twice = (free(fetch, count, batches) for count in (workers, 2 * workers))
        for number in (12, 30):
            yield Case(
                f"difference of epochs, {workers} and {2 * workers} workers, {number} pairs",
                lambda seed, some=some, twice=twice, number=number: paired(
                    replicate(some, number, seed, measured=whole),
                    replicate(twice, number, seed, measured=whole),
                    "elapsed",
                ),
                epoch_of_free_workers(1.0, 2 * workers, batches)
                - epoch_of_free_workers(1.0, workers, batches),
                times=1 if number == 30 else MORE,
            )
    small, large = (alone(EXPONENTIAL(1.0), EXPONENTIAL(0.8), k) for k in (2, 4))
    yield Case(
        "difference of stalls in the steady state, windows 2 and 4",
        lambda seed: paired(
            replicate(small, 10, seed, measured=steady),
            replicate(large, 10, seed, measured=steady),
            "steady_stall",
        ),
        stall_mm1(0.8, 5) - stall_mm1(0.8, 3),
    )


def certain() -> Iterator[Case]:
    """Where nothing is random the interval is the truth, and nothing but it."""
    scenario = alone(CONSTANT(1.0), CONSTANT(0.5), 2, 100)
    yield Case(
        "constant costs: elapsed",
        lambda seed: replicate(scenario, 5, seed, measured=whole).interval("elapsed"),
        100.5,
    )


def cases() -> Iterator[Case]:
    """All of them."""
    yield from certain()
    yield from queues()
    yield from epochs()
    yield from stages()
    yield from pairs()


def covered(case: Case, repetitions: int) -> float:
    """The share of repetitions whose interval holds the truth."""
    held = sum(
        case.truth - 1e-9 <= found.high and found.low <= case.truth + 1e-9
        for found in map(case.estimate, range(repetitions))
    )
    return held / repetitions


def pieces(repetitions: int) -> dict[str, Callable[[], dict[str, float]]]:
    """A case each."""

    def share(case: Case) -> dict[str, float]:
        count = case.times * repetitions
        return {"covered": covered(case, count), "of": count}

    return {case.name: partial(share, case) for case in cases()}


def lines(repetitions: int, rows: dict[str, dict[str, float]]) -> Iterator[str]:
    """A table of all cases."""
    yield (
        "The share of 95 % intervals that hold the true mean, which is known. "
        "Goal: 93 to 97 %; where nothing is random, all. One worker and one training loop are a "
        "queue with as many places as the window has, and one (`tests/known.py`); steady-state "
        "figures are those of 10 epochs of 2,000 batches, warm-up deleted. A precision is reached "
        "by going on until the half-width is that share of the mean. A sweep makes eight runs, and "
        "up to 30 where these do not tell the speed to 0.5 %. Of five short runs it is the "
        "least: these times are skewed, and so are means of so few; means of long runs, of which "
        "five are made by default, are not. Differences of 12 pairs and more allow for what "
        "chance gave each run.\n"
    )
    yield "| case | intervals | covered | |\n|---|---|---|---|"
    for name, row in rows.items():
        share = row["covered"]
        good = 0.93 <= share <= 0.97 or (share == 1 and name.startswith("constant"))
        yield f"| {name} | {row['of']:,.0f} | {share:.1%} | {'' if good else '**missed**'} |"
