"""Whether advice is right by brute force, in random scenarios: with a target, and without one.

    python -m tests.benchmarks.advice --scenarios 500 --jobs 2

What is finished is kept: the same command goes on from there (`--anew` begins again, as after a
change of dlsim).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import dlsim
from dlsim.scenario.distributions import Floats
from dlsim.trace import Trace
from dlsim.trace.metrics import (
    accelerator_utilisation,
    epoch_times,
    mean,
    samples_per_second,
    stall,
)
from dlsim.whatif import replicate
from dlsim.whatif.candidates import Candidate, candidates
from dlsim.whatif.cheapest import search
from dlsim.whatif.question import Question as question_of
from dlsim.whatif.question import targets
from dlsim.whatif.targets import NEARLY, SHARES
from tests.benchmarks import resumed

WITHIN = 0.01  # of the time, or of the limit
WORKERS, PREFETCH = range(6), (1, 2, 4)
TARGETS = {"max_stall": "stall", "min_au": "au", "max_epoch": "epoch_time"}
TRUTH = 1_000_000  # batches that the truth of a configuration rests on, at most
FIRST, MOST = 20, 3000  # replications of it: the most are more than any answer rests on
SURE = 3.0  # half-widths of 95 %, or standard errors of what is compared run by run
APART = 10_000  # added to the seed of what is to see other random numbers
PIECE = 5  # scenarios


@dataclass(frozen=True)
class Question:
    """A scenario, and what is asked of it."""

    scenario: dlsim.Scenario
    target: str
    limit: float
    seed: int

    def answer(self) -> Candidate | None:
        """What is advised, if anything."""
        asked = targets(**{self.target: self.limit})
        settings: dict[str, Any] = {
            "workers": tuple(WORKERS),
            "prefetch": PREFETCH,
            "seed": self.seed,
        }
        return search(self.scenario, question_of(targets=asked, **settings)).chosen

    def excess(self, scenario: dlsim.Scenario) -> float:
        """How far beyond the limit the true mean is; negative within it, 1 % of it being 0.01.

        From as many runs as tell surely on which side of 1 % it is, or from the most there are:
        from fewer, it would be less sure than the answer that it judges.
        """
        metric = TARGETS[self.target]
        scale = (-1.0 if metric == "au" else 1.0) / (1.0 if metric in SHARES else self.limit)
        runs, most = FIRST, min(TRUTH * 2 // scenario.dataset.length, MOST)
        while True:
            found = replicate(scenario, runs, APART + self.seed, measured=figures).interval(metric)
            beyond, error = scale * (found.mean - self.limit), SURE * abs(scale) * found.half_width
            if runs == most or min(abs(beyond - WITHIN), abs(beyond + WITHIN)) > error:
                return beyond
            runs = min(4 * runs, most)


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
    other = _of_another_kind(scenario, rng)
    return Question(other, target, float(limits[target]), seed)


def _of_another_kind(scenario: dlsim.Scenario, rng: np.random.Generator) -> dlsim.Scenario:
    """In one of two cases `scenario`; else with long tails, cores, costs, or several epochs."""
    length = scenario.dataset.length
    changes: dict[str, Any] = {}
    if rng.random() < 0.5:
        return scenario
    mean = scenario.dataset.fetch[0].wait
    assert mean is not None
    if rng.random() < 0.5:
        tail = dlsim.Mixture((dlsim.Constant(0.8 * mean.mean), dlsim.Constant(8.0)), (0.95, 0.05))
        slow = dlsim.Lognormal(mean.mean, 1.5), dlsim.Exponential(mean.mean), tail
        changes["dataset.fetch.0.wait"] = slow[int(rng.integers(len(slow)))]
    if rng.random() < 0.25:
        changes["dataset.fetch.0.cpu"] = dlsim.Gamma(0.3, 0.5)
        changes["machine.cores"] = float(rng.choice([2, 4]))
    if rng.random() < 0.25:
        changes["costs.receive.message"] = rng.uniform(0.02, 0.2)
    if rng.random() < 0.25 and length <= 600:
        changes["epochs"] = 3
        changes["costs.worker_start"] = rng.uniform(0.0, 2.0)
    if rng.random() < 0.25:
        changes["machine.shm"] = float(rng.choice([6000, 12_000, 25_000]))
    return dlsim.replace(scenario, changes)


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
    chosen = asked.answer()
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
    settings: dict[str, Any] = {"workers": tuple(WORKERS), "prefetch": PREFETCH, "seed": seed}
    found = search(asked.scenario, question_of(**settings))
    truth = _speeds(options, seed)
    mine, speeds = truth[found.best.cost], {cost: each.mean() for cost, each in truth.items()}
    fastest = max(speeds, key=lambda cost: speeds[cost])
    most = speeds[fastest]
    if mine.mean() < (NEARLY - WITHIN) * most:
        lost = 1 - mine.mean() / most
        (name,) = (option.keywords for option in options if option.cost == fastest)
        return f"{found.best.keywords} is {lost:.1%} slower than {name}"
    for option in options:
        if option.cost == found.best.cost:
            return ""
        if speeds[option.cost] > (NEARLY + WITHIN / 2) * most:
            return f"{option.keywords} is cheaper than {found.best.keywords}, and as fast"
    return "what is advised is no candidate"


def _speeds(options: list[Candidate], seed: int) -> dict[Any, Floats]:
    """Samples a second of each option, in so many runs that tell who is as fast as the fastest."""

    def run(some: list[Candidate], times: int) -> dict[Any, Floats]:
        settings: dict[str, Any] = {"seed": APART + seed, "measured": _speed}
        return {o.cost: replicate(o.scenario, times, **settings)["samples_per_s"] for o in some}

    runs, found = FIRST, run(options, FIRST)
    scenario = options[0].scenario
    most = min(TRUTH * 2 // (scenario.epochs * scenario.dataset.length), MOST)
    while runs < most:
        best = max(found.values(), key=lambda each: float(each.mean()))
        doubted = [option for option in options if _in_doubt(found[option.cost], best)]
        if not doubted:
            break
        runs = min(4 * runs, most)
        found |= run([o for o in options if o in doubted or found[o.cost] is best], runs)
    return found


def _in_doubt(speeds: Floats, best: Floats) -> bool:
    """Whether these may be on either side of a speed that makes an answer wrong."""
    runs = min(len(speeds), len(best))
    behind = [
        bound * best[:runs] - speeds[:runs] for bound in (NEARLY - WITHIN, NEARLY + WITHIN / 2)
    ]
    return any(abs(d.mean()) < SURE * np.std(d, ddof=1) / runs**0.5 for d in behind)


def _speed(trace: Trace) -> dict[str, float]:
    return {"samples_per_s": samples_per_second(trace)}


def piece(seed: int) -> resumed.Piece:
    """What is wrong with both answers to a random question."""
    return {"target": wrong(question(seed)), "fastest": wrong_fastest(seed)}


def pieces(count: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is wrong with the answers to some questions each, by question."""

    def look(first: int) -> dict[str, Any]:
        return {str(seed): piece(seed) for seed in range(first, min(first + PIECE, count))}

    return {f"from {first}": partial(look, first) for first in range(0, count, PIECE)}


def lines(count: int, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How many answers were right, and what was wrong with the others."""
    found = {seed: said for row in rows.values() for seed, said in row.items()}
    yield (
        f"{count} random scenarios of 30 to 3,000 batches, some with long tails, few cores, costs, "
        f"or a small /dev/shm, and up to {len(WORKERS) - 1} workers with three windows, in order "
        "and in any order. The truth is simulated for every configuration, with other random "
        "numbers. With a target for the stall, the accelerator's utilisation or the epoch an "
        "answer is right if what is advised holds it, or misses it by less than 1 %, and nothing "
        "cheaper holds it by more than 1 %. Goal: at least 95 %. Without a target it is right if "
        "it is less than 2 % slower than the fastest, and nothing cheaper is within half a per "
        "cent of that. Goal: at least 97 %.\n"
    )
    for name, goal in (("target", 0.95), ("fastest", 0.97)):
        yield from said(name, goal, {seed: each[name] for seed, each in found.items()})


def said(name: str, goal: float, found: dict[Any, str]) -> Iterator[str]:
    """How many of these answers are right, by seed, and what is wrong with the others."""
    wrongs = {seed: text for seed, text in found.items() if text}
    right, count = len(found) - len(wrongs), len(found)
    verdict = "" if right >= goal * count else " **missed**"
    asked = {"target": "With a target", "fastest": "Without one"}[name]
    yield f"{asked}, right: {right} of {count}, {right / max(count, 1):.1%}.{verdict}"
    yield ""
    yield from (f"- scenario {seed}: {text}" for seed, text in wrongs.items())


def main() -> None:
    """Ask all, and print how many answers are right; exit status 1 if too few are."""
    asked = resumed.options(__doc__ or "", 500).parse_args()
    rows = resumed.rows("advice", piece, asked)
    text = "\n".join(lines(len(rows), {"all": {str(seed): row for seed, row in rows.items()}}))
    print(text)
    sys.exit("**missed**" in text)


if __name__ == "__main__":
    main()
