"""Whether figures that are told from a part of a run hold the whole run's, in random long ones.

    python -m tests.benchmarks.stretch --scenarios 2000 --jobs 2

Each scenario is simulated in part, as a slow engine would have it, and whole, under other random
numbers. Prints how often the 95 % interval from the part holds the mean of whole runs, where
something is random; where nothing is, the two must be equal. What is finished is kept: the same
command goes on from there (`--anew` begins again, as after a change of dlsim).
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np

import dlsim
from dlsim.engine.effort import decided
from dlsim.whatif.extent import replicated, shortened
from dlsim.whatif.replicate import replicate
from dlsim.whatif.stretching import measured
from tests.benchmarks import resumed

MADE, TRUTH = 8, 24  # replications of the part, and of the whole
APART = 10_000  # added to the seed of the whole runs
CLEAR = 0.01  # relative; nothing whose interval is narrower may be off by more
EXACT = 1e-9
METRICS = ("samples_per_s", "elapsed", "epoch_time", "stall", "au", "wait_mean")


def scenario(seed: int) -> dlsim.Scenario:
    """A long run: many workers, mostly in step; periodic, bursty, or slowly drifting."""
    rng = np.random.default_rng(seed)
    workers = int(rng.choice([1, 2, 5, 16, 24, 32, 64, 128]))
    size = int(rng.choice([1, 2, 8]))
    batches = int(rng.integers(4, 40) * max(40 * workers, 1000))
    read = 10 ** rng.uniform(-2, 0)
    cv = float(rng.choice([0.0, 0.0, 0.01, 0.1, 0.5, 1.5]))
    load = 10 ** rng.uniform(-0.4, 0.4)  # of the step: 1 keeps up with the workers
    step = load * read * size / workers
    varying = float(rng.choice([0.0, 0.0, 0.05, 0.5]))
    return dlsim.Scenario(
        loader=dlsim.Loader(
            batch_size=size,
            num_workers=workers,
            prefetch_factor=int(rng.choice([1, 2, 4])),
            in_order=bool(rng.random() < 0.7),
            persistent_workers=bool(rng.random() < 0.5),
            drop_last=bool(rng.random() < 0.5),
        ),
        dataset=dlsim.MapDataset(
            batches * size + int(rng.integers(0, size + 1)),
            fetch=[dlsim.Stage("read", wait=_time(read, cv))],
        ),
        consumer=dlsim.Consumer(step=_time(step, varying), run_ahead=int(rng.choice([0, 0, 2]))),
        costs=dlsim.Costs(
            worker_start=float(rng.choice([0.0, 0.01, 0.3])),
            index_put=float(rng.choice([0.0, 0.0, 0.02])) * step,
        ),
        machine=dlsim.Machine(cores=float(rng.choice([4, 16])) if rng.random() < 0.15 else None),
        epochs=int(rng.choice([1, 1, 1, 5])),
    )


def _time(mean: float, cv: float) -> dlsim.scenario.Distribution:
    return dlsim.Lognormal(mean, cv) if cv else dlsim.Constant(mean)


class Answer(NamedTuple):
    """One figure, from a part and from whole runs, both with the half-width of 95 %."""

    metric: str
    part: float
    half_width: float
    whole: float
    error: float

    @property
    def off(self) -> float:
        """How far the part is off."""
        return abs(self.part - self.whole)

    @property
    def holds(self) -> bool:
        """Whether the interval, and what is not known of the whole runs, span the difference."""
        return self.off <= math.hypot(self.half_width, self.error) + EXACT * abs(self.whole)

    @property
    def wrong(self) -> bool:
        """Whether it is off by more than 1 % though the interval is narrower."""
        unit = 1.0 if self.metric in ("stall", "au") else abs(self.whole)
        return self.half_width < CLEAR * unit < self.off - 2 * self.error


def answers(seed: int, metrics: tuple[str, ...] = METRICS) -> list[Answer] | None:
    """The figures of a random scenario; None if it is simulated whole."""
    case = scenario(seed)
    if shortened(case, fast=False) == case:
        return None
    with decided(True):
        found = replicated(case, MADE, seed, fast=False)
        if found.part is None:
            return None
        whole = replicate(case, TRUTH, APART + seed, measured=measured(case))
    return [
        Answer(
            name,
            found.interval(name).mean,
            found.interval(name).half_width,
            whole.interval(name).mean,
            whole.interval(name).half_width,
        )
        for name in metrics
    ]


def piece(seed: int) -> resumed.Piece:
    """The figures of a random scenario, as a row that can be kept."""
    return {"answers": answers(seed)}


def main() -> None:
    """Simulate all, and print how often intervals hold; exit status 1 if any is surely wrong."""
    asked = resumed.options(__doc__ or "", 2000).parse_args()
    rows = resumed.rows("stretch", piece, asked)
    held: dict[str, list[bool]] = {name: [] for name in METRICS}
    wrong = whole = exact = 0
    for seed, row in rows.items():
        whole += row["answers"] is None
        for answer in (Answer(*each) for each in row["answers"] or []):
            random = answer.half_width > EXACT * abs(answer.part)
            if random:
                held[answer.metric].append(answer.holds)
            else:
                exact += answer.holds
            if answer.wrong or not (random or answer.holds):
                wrong += 1
                print(f"scenario {seed}: {answer}")
    for name, all_of_them in held.items():
        if all_of_them:
            share = sum(all_of_them) / len(all_of_them)
            print(f"{name:14} {share:.1%} of {len(all_of_them)} intervals hold the whole run's")
    print(f"{exact} figures of runs that do not vary are exact")
    print(f"{whole} of {len(rows)} scenarios were simulated whole; {wrong} figures surely wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
