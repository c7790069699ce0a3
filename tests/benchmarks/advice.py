"""Whether the advised configuration is the best by brute force, in random scenarios."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import dlsim
from dlsim.trace import Trace
from dlsim.trace.metrics import accelerator_utilisation, epoch_times, mean, stall
from dlsim.whatif import Advice, advise, replicate
from dlsim.whatif.candidates import candidates
from dlsim.whatif.feasibility import SHARES

WITHIN = 0.01  # of the time, or of the limit
WORKERS, PREFETCH = range(6), (1, 2, 4)
TARGETS = {"max_stall": "stall", "min_au": "au", "max_epoch": "epoch_time"}
TRUTH = 10_000_000  # batches that the truth of a configuration rests on, at most
FIRST, LEAST, MOST = 20, 40, 200  # replications of it
SURE = 3.0  # half-widths of 95 %
APART = 10_000  # added to the seed of what is to see other random numbers
PIECE = 5  # scenarios


@dataclass(frozen=True)
class Question:
    """A scenario, and what is asked of it."""

    scenario: dlsim.Scenario
    target: str
    limit: float
    seed: int

    def answer(self) -> Advice:
        """What is advised."""
        asked: dict[str, Any] = {self.target: self.limit}
        return advise(self.scenario, workers=WORKERS, prefetch=PREFETCH, seed=self.seed, **asked)

    def excess(self, scenario: dlsim.Scenario) -> float:
        """How far beyond the limit the true mean is; negative within it, 1 % of it being 0.01.

        From as many runs as tell surely on which side of 1 % it is, or from the most there are.
        """
        batches = scenario.dataset.length // 2
        metric = TARGETS[self.target]
        scale = (-1.0 if metric == "au" else 1.0) / (1.0 if metric in SHARES else self.limit)
        for runs in (FIRST, min(max(TRUTH // batches, LEAST), MOST)):
            found = replicate(scenario, runs, APART + self.seed, measured=figures).interval(metric)
            beyond, error = scale * (found.mean - self.limit), SURE * abs(scale) * found.half_width
            if min(abs(beyond - WITHIN), abs(beyond + WITHIN)) > error:
                break
        return beyond


def question(seed: int) -> Question:
    """A random one: short and long runs, little and much variation, three targets."""
    rng = np.random.default_rng(seed)
    read, step = rng.uniform(0.2, 2.0), rng.uniform(0.2, 1.0)
    batches = int(rng.choice([30, 300, 3000]))
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2),
        dataset=dlsim.MapDataset(
            2 * batches,
            fetch=[dlsim.Stage("read", wait=dlsim.Gamma(read, rng.uniform(0.1, 1.5)))],
            sample_bytes=dlsim.Constant(1000.0),
        ),
        consumer=dlsim.Consumer(step=dlsim.Gamma(step, rng.uniform(0.05, 0.5))),
        costs=dlsim.Costs(index_latency=float(rng.choice([0.0, 0.2]))),
    )
    target = str(rng.choice(list(TARGETS)))
    share = rng.uniform(0.05, 0.6)
    limits = {
        "max_stall": share,
        "min_au": 1 - share,
        "max_epoch": batches * step / (1 - share),
    }
    return Question(scenario, target, float(limits[target]), seed)


def figures(trace: Trace) -> dict[str, float]:
    """What the targets are about, of a whole run."""
    return {
        "stall": stall(trace),
        "au": accelerator_utilisation(trace),
        "epoch_time": mean(epoch_times(trace)),
    }


def wrong(asked: Question) -> str:
    """What is wrong with the advice, by brute force; nothing if it is within 1 % of the best.

    Nothing cheaper may clearly hold the target, and what is advised may not clearly miss it:
    clearly is by more than 1 %.
    """
    chosen = asked.answer().chosen
    for option in candidates(asked.scenario, WORKERS, PREFETCH):
        excess = asked.excess(option.scenario)
        if chosen is not None and option.cost == chosen.cost:
            return f"{option.keywords} misses by {excess:.1%}" if excess > WITHIN else ""
        if excess <= -WITHIN:
            return f"{option.keywords} is cheaper and holds by {-excess:.1%}"
    return "" if chosen is None else "what is advised is no candidate"


def wrong_fastest(seed: int) -> str:
    """What is wrong with advice that no target was given for, by brute force.

    What is advised may not be slower than 1 % below the fastest, nor may anything cheaper be within
    1 % of it: both by more than 1 %.
    """
    asked = question(seed)
    options = candidates(asked.scenario, WORKERS, PREFETCH)
    found = advise(asked.scenario, workers=WORKERS, prefetch=PREFETCH, seed=seed)
    runs = 400 if asked.scenario.dataset.length < 1000 else LEAST
    speeds = {
        option.cost: replicate(option.scenario, runs, APART + seed)["samples_per_s"].mean()
        for option in options
    }
    most = max(speeds.values())
    if speeds[found.best.cost] < (0.99 - WITHIN) * most:
        lost = 1 - speeds[found.best.cost] / most
        return f"{found.best.keywords} is {lost:.1%} slower than the fastest"
    for option in options:
        if option.cost == found.best.cost:
            return ""
        if speeds[option.cost] > (0.99 + WITHIN / 2) * most:
            return f"{option.keywords} is cheaper than {found.best.keywords}, and as fast"
    return "what is advised is no candidate"


def pieces(count: int) -> dict[str, Callable[[], dict[str, str]]]:
    """What is wrong with the answers to some questions each, by question."""

    def look(first: int) -> dict[str, str]:
        found = {
            str(seed): wrong(question(seed)) for seed in range(first, min(first + PIECE, count))
        }
        return {seed: said for seed, said in found.items() if said}

    return {f"from {first}": partial(look, first) for first in range(0, count, PIECE)}


def lines(count: int, rows: dict[str, dict[str, str]]) -> Iterator[str]:
    """How many answers were right, and what was wrong with the others."""
    found = {seed: said for row in rows.values() for seed, said in row.items()}
    right = count - len(found)
    yield (
        f"{count} random scenarios of 30 to 3,000 batches, each with a target for the stall, the "
        "accelerator's utilisation or the epoch, and up to "
        f"{len(WORKERS) - 1} workers with three windows, in order and in any order. The truth is "
        "simulated for every configuration, with other random numbers. An answer is right if what "
        "is advised holds the target, or misses it by less than 1 %, and nothing cheaper holds it "
        "by more than 1 %. Goal: at least 95 %.\n"
    )
    verdict = "" if right >= 0.95 * count else " **missed**"
    yield f"Right: {right} of {count}, {right / count:.1%}.{verdict}"
    if found:
        yield ""
    yield from (f"- scenario {seed}: {said}" for seed, said in found.items())
