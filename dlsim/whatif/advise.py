"""The cheapest configuration that holds a target, how sure that is, and how far it carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlsim.scenario import Scenario
from dlsim.scenario.units import size
from dlsim.trace.critical_path import STEP
from dlsim.trace.summary import number
from dlsim.whatif.candidates import Candidate, candidates, pareto, with_throughput
from dlsim.whatif.changes import slower
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.explain import WORDS, group_shares, with_shares
from dlsim.whatif.feasibility import FIRST, Judge, Target, Verdict
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.replicate import replicate
from dlsim.whatif.statistics import check_confidence
from dlsim.whatif.sweep import batches_to_simulate

WRONG = 0.2  # how wrong the inputs may be in the question of the margin
PREFETCH = (1, 2, 4, 8)
NEAR = 0.05  # a miss that is greater by so little is no reason to pay more
LEAST, MOST, BATCHES = 40, 1000, 100_000  # replications; batches to simulate of one candidate
BEYOND = 2  # up to so many times the workers advised, the front tells what there is
DEFAULT = 2  # torch's prefetch_factor


@dataclass(frozen=True, eq=False)
class Advice:
    """The answer to a target.

    `chosen`: the cheapest configuration that holds all of `targets`, None if none does; `best`:
    `chosen`, or else the one that comes nearest. `verdict`: what is known of `best`. `margin`:
    whether `best` still holds, with inputs so much wrong, by what is wrong. `obstacle`: the cause
    that takes most of the time of `best`. `front`: configurations that no other beats in
    throughput, workers and memory. `judged`: simulations made.
    """

    scenario: Scenario
    targets: tuple[Target, ...]
    chosen: Candidate | None
    best: Candidate
    verdict: Verdict
    margin: dict[str, Verdict]
    obstacle: str
    front: list[Candidate]
    judged: int

    def __str__(self) -> str:
        """First the keyword arguments to paste; then how sure they are, and what else there is."""
        return _text(self)


def advise(
    scenario: Scenario,
    *,
    max_stall: float | None = None,
    max_wait_p95: float | None = None,
    min_au: float | None = None,
    max_epoch: float | None = None,
    workers: Iterable[int] = range(17),
    prefetch: Iterable[int] = PREFETCH,
    max_memory: float | None = None,
    confidence: float = 0.95,
    maximum: int | None = None,
    seed: int = 0,
    jobs: int = 1,
) -> Advice:
    """The cheapest configuration of the loader of `scenario` that holds the given targets.

    Targets: `max_stall`, a share of the time; `max_wait_p95`, seconds; `min_au`, a share;
    `max_epoch`, seconds. A target holds if the mean over runs does, with `confidence`; one that
    is only met by chance, or still undecided after `maximum` replications, does not (by default
    40 to 1,000, fewer of long runs).

    Cheapest: fewest workers, then least memory for batches on their way (window times bytes of a
    batch), then nearest to torch's defaults. `max_memory` bytes, and `machine.memory` and
    `machine.shm`, are not exceeded by it. Candidates are judged in the order of their cost: those
    that closed forms rule out at once, the others by a sequential test, which replicates them
    until it can tell (see `Judge`); all see common random numbers.

    Raises `WhatIfError` if no target is given, or one that cannot be.
    """
    targets = _targets(max_stall, max_wait_p95, min_au, max_epoch)
    check_confidence(confidence)
    if maximum is None:
        maximum = min(max(BATCHES // batches_to_simulate(scenario), LEAST), MOST)
    check_counts(maximum=maximum)
    check_jobs(jobs)
    options = candidates(scenario, workers, prefetch, max_memory)
    judge = Judge(targets, confidence, maximum, len(options), seed, jobs)
    chosen = next((option for option in options if judge(option.scenario).holds), None)
    best = chosen or _nearest(_looked_at(options, judge), judge)
    # what is far beyond the advice is of no interest, and long to simulate
    near = [o for o in options if chosen is None or o.workers <= BEYOND * max(chosen.workers, 1)]
    known = [
        with_throughput(option, judge.samples_per_s(option.scenario))
        for option in _looked_at(near, judge)
    ]
    return Advice(
        scenario=scenario,
        targets=targets,
        chosen=chosen,
        best=best,
        verdict=judge.verdict(best.scenario),
        margin={name: judge.verdict(case) for name, case in _wrong(best.scenario).items()},
        obstacle=_obstacle(best.scenario, targets, seed),
        front=pareto(known),
        judged=judge.simulated,
    )


def _targets(
    max_stall: float | None,
    max_wait_p95: float | None,
    min_au: float | None,
    max_epoch: float | None,
) -> tuple[Target, ...]:
    found = []
    for name, metric, at_most, limit in (
        ("max_stall", "stall", True, max_stall),
        ("max_wait_p95", "wait_p95", True, max_wait_p95),
        ("min_au", "au", False, min_au),
        ("max_epoch", "epoch_time", True, max_epoch),
    ):
        if limit is None:
            continue
        share = metric in ("stall", "au")
        if not 0 <= limit <= (1 if share else float("inf")):
            wanted = "a share from 0 to 1" if share else "seconds, at least 0"
            raise WhatIfError(f"{name}: expected {wanted}, got {limit!r}")
        found.append(Target(metric, float(limit), at_most))
    if not found:
        raise WhatIfError("target: expected max_stall, max_wait_p95, min_au or max_epoch")
    return tuple(found)


def _nearest(options: list[Candidate], judge: Judge) -> Candidate:
    """The cheapest of the candidates that come about as near to the targets as any."""
    misses = [judge.verdict(option.scenario).miss for option in options]
    near = (1 + NEAR) * (1 + min(misses)) - 1
    return next(option for option, miss in zip(options, misses, strict=True) if miss <= near)


def _looked_at(options: list[Candidate], judge: Judge) -> list[Candidate]:
    """The candidates that were simulated, and those with torch's default window or the nearest."""
    usual: dict[int, int] = {}
    for option in options:
        nearest = usual.setdefault(option.workers, option.prefetch)
        if abs(option.prefetch - DEFAULT) < abs(nearest - DEFAULT):
            usual[option.workers] = option.prefetch
    return [o for o in options if judge.seen(o.scenario) or o.prefetch == usual[o.workers]]


def _obstacle(best: Scenario, targets: tuple[Target, ...], seed: int) -> str:
    """The cause that takes most of the time of `best` on the critical path.

    Where targets are about waiting, the training step is no obstacle.
    """
    found = group_shares(replicate(best, FIRST, seed, measured=with_shares))
    if all(target.metric != "epoch_time" for target in targets):
        found.pop(STEP, None)
    return max(found, key=lambda cause: found[cause], default="")


def _wrong(scenario: Scenario) -> dict[str, Scenario]:
    """The scenario with its inputs so much wrong, by what is."""
    less, more = 1 - WRONG, 1 + WRONG
    return {
        f"loading {100 * WRONG:.0f} % slower": slower(scenario, loading=more),
        f"loading {100 * WRONG:.0f} % faster": slower(scenario, loading=less),
        f"steps {100 * WRONG:.0f} % shorter": slower(scenario, step=less),
        f"steps {100 * WRONG:.0f} % longer": slower(scenario, step=more),
    }


def _text(found: Advice) -> str:
    asked = " and ".join(map(str, found.targets))
    verdict = found.verdict
    if found.chosen is not None:
        lines = [
            found.chosen.keywords,
            f"{asked}: holds, {found.verdict}, with probability {verdict.probability:.3g} "
            f"({verdict.held} of {verdict.runs} runs do)",
        ]
    else:
        obstacle = WORDS.get(found.obstacle, found.obstacle)
        lines = [
            f"Nothing holds {asked}; the best found is {found.best.keywords}",
            f"with it, {verdict}; what stands in the way: {obstacle}",
        ]
    lines.append(f"{size(found.best.memory)} for batches on their way" if found.best.memory else "")
    if found.chosen is not None:
        lines += ["", "does it survive wrong inputs?"]
        lines += [
            f"  {name}: {'yes' if case.holds else 'no'}, {case}"
            for name, case in found.margin.items()
        ]
    lines += ["", "what else there is: no other configuration is better in all of these"]
    lines += [
        f"  {number(option.samples_per_s):>8} samples/s  {option.keywords}"
        + (f"  ({size(option.memory)})" if option.memory else "")
        for option in found.front
    ]
    return "\n".join(line for at, line in enumerate(lines) if line or at > 2)
