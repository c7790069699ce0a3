"""Where the time goes in what misses its goal, or nearly does; rows for `speed`.

A part is the difference of two times: with it, and without. So all share one core: on two, numbers
are drawn beside the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import dlsim
from dlsim.engine import outcome, outcomes
from dlsim.engine.compiled import gammas
from dlsim.engine.compiled.in_order import InOrder
from dlsim.engine.compiled.jobs import LARGEST_BLOCK, Jobs
from dlsim.engine.compiled.recurrence import schedule
from dlsim.engine.kept import kept
from dlsim.engine.native.arrays import table
from dlsim.scenario import Scenario
from dlsim.trace import Trace
from dlsim.trace.tally import Tally
from dlsim.whatif.parallel import measure_all
from tests.benchmarks.models import CONSTANT, draw, limited, scenario
from tests.benchmarks.scale import REPLICATIONS
from tests.benchmarks.timing import alternate, one_core

BATCHES, CONFIGURATIONS = 10**6, 50
RUNS = CONFIGURATIONS * REPLICATIONS


def of_a_batch(repeats: int) -> Iterator[str]:
    """Rows: what each part takes of a batch of one sample."""
    plan = scenario(BATCHES)
    drawn, scheduled, traced, tallied, by_numpy = medians(
        repeats,
        BATCHES,
        lambda: drawing(plan),
        lambda: scheduling(plan),
        lambda: simulate(plan),
        lambda: outcome(plan),
        lambda: draw(BATCHES, 1),
    )
    first = [("drawing", drawn), ("the schedule", scheduled - drawn)]
    by_numpy_ns = shown(by_numpy, "ns")
    parts = listed([*first, ("memory for a trace", traced - scheduled)], "ns")
    yield f"| in order | {parts} | {by_numpy_ns} |"
    parts = listed([*first, ("metrics", tallied - scheduled)], "ns")
    yield f"| metrics alone, in order | {parts} | {by_numpy_ns} |"

    batches = BATCHES // 4
    plan, alike = limited(batches), limited(batches, **CONSTANT)
    drawn, regular, simulated, by_numpy = medians(
        repeats,
        batches,
        lambda: drawing(plan),
        lambda: simulate(alike),
        lambda: simulate(plan),
        lambda: draw(batches, 1),
    )
    parts = listed(
        [
            ("drawing", drawn),
            ("events, if nothing is random", regular),
            ("more, as they are irregular", simulated - regular - drawn),
        ],
        "ns",
    )
    yield f"| limited cores | {parts} | {shown(by_numpy, 'ns')} |"


def of_a_run(repeats: int) -> Iterator[str]:
    """A row: what each part takes of a run of 1,000 batches in a sweep, in one process."""
    plan = scenario(1000)
    vary = {"loader.num_workers": range(8, 8 + CONFIGURATIONS)}
    cases = [dlsim.replace(plan, {key: value}) for key in vary for value in vary[key]]

    def shared(found: Callable[[Iterable[Trace | Tally]], object]) -> None:
        with kept():
            for case in cases:
                found(outcomes(case, range(REPLICATIONS)))

    def sweep() -> None:
        with tempfile.TemporaryDirectory() as folder:
            dlsim.sweep(plan, vary, REPLICATIONS, jobs=1, out=Path(folder) / "sweep.csv")

    traced, tallied, measured, swept = medians(
        repeats,
        RUNS,
        lambda: [simulate(plan, seed) for seed in range(RUNS)],
        lambda: shared(list),
        lambda: shared(measure_all),
        sweep,
    )
    parts = listed(
        [
            ("the moments, from numbers that are drawn once, and counting", tallied),
            ("metrics and the steady state", measured - tallied),
            (f"the table, a row for {REPLICATIONS} runs", swept - measured),
        ],
        "µs",
    )
    parts += f"; a single run, a trace: {shown(traced, 'µs')}"
    yield f"| a run in a sweep | {parts} | |"


def medians(repeats: int, count: int, *cases: Callable[[], object]) -> list[float]:
    """Seconds that each case takes for one of `count` on one core; they are run alternately."""
    with one_core():
        timings = alternate(repeats, **{str(i): case for i, case in enumerate(cases)})
    return [median(taken) / count for taken in timings.values()]


def drawing(plan: Scenario) -> None:
    """Draw what the engine draws, as it does."""
    jobs = Jobs(plan, 0, 0, 0, indices=False, sample=gammas.sample)
    while jobs.more:
        jobs.take(LARGEST_BLOCK)


def scheduling(plan: Scenario) -> None:
    """Draw, and find out all moments, but keep none."""
    run = InOrder(plan, keep=False)
    for drawn, _ in run.blocks(0):
        schedule(run.table, table(drawn))


def simulate(plan: Scenario, seed: int = 0) -> None:
    """Simulate on the compiled engine."""
    dlsim.simulate(plan, seed, engine="compiled")


def listed(parts: list[tuple[str, float]], unit: str) -> str:
    """The named parts, each with what it takes."""
    return "; ".join(f"{name}: {shown(seconds, unit)}" for name, seconds in parts)


def shown(seconds: float, unit: str) -> str:
    """To three digits, in ns or µs."""
    return f"{seconds * {'ns': 1e9, 'µs': 1e6}[unit]:.3g} {unit}"
