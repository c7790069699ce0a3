"""The search for the cheapest configuration that holds the targets.

Candidates are judged in the order of their cost: those that closed forms rule out at once, the
others by a sequential test (see `Judge`). Where even the most workers are too few, the search goes
on with more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dlsim.scenario import Scenario
from dlsim.trace.metrics import mean
from dlsim.whatif.candidates import Candidate, Switches, candidates, unlike
from dlsim.whatif.fastest import DEFAULT, nearly_as_fast, slow
from dlsim.whatif.feasibility import NEAR, Budget, Judge
from dlsim.whatif.question import Question
from dlsim.whatif.sequential import Verdict
from dlsim.whatif.targets import NEARLY, Target

LEAST = 0.002  # a miss that is greater by so little, as a share, is no reason to pay more
HIGH = 0.75  # of the most workers; who takes more of them might want still more


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found among its `options`, by the simulations of its `judge`.

    `workers`: the numbers that were looked at, whether they fit or not. `targets`: those of the
    question; without any, that of being about as fast as any option. `chosen`: the cheapest that
    holds them, None if none does; `best`: `chosen`, or else the one that comes nearest.
    `undecided`: whether the search ended at its own limit before all that were better were decided.
    """

    workers: tuple[int, ...]
    options: list[Candidate]
    judge: Judge
    targets: tuple[Target, ...]
    chosen: Candidate | None
    best: Candidate
    undecided: bool = False

    @property
    def relative(self) -> bool:
        """Whether what is wanted is to be about as fast as others."""
        return any(target.rivals for target in self.targets)

    @property
    def most_workers(self) -> int:
        """The most workers that were looked at, whether their batches fit or not."""
        return max(self.workers)

    @property
    def at_the_limit(self) -> bool:
        """Whether more workers might do better: nearly the most are taken, and not enough."""
        few = self.chosen is None or self.relative
        several = len({option.workers for option in self.options}) > 1
        return few and several and self.best.workers > HIGH * self.most_workers

    @property
    def speed(self) -> float:
        """Distinct samples a second of the best."""
        return mean(self.judge.samples_per_s(self.best.scenario))


def search(scenario: Scenario, question: Question, budget: Budget | None = None) -> Found:
    """The cheapest configuration that answers `question`. Raises `WhatIfError` if none fits.

    When the `budget` is spent, by default one of its own, no more is simulated than the first runs
    of each candidate.
    """
    judge = question.judge(0, budget)
    for workers in question.ranges:
        asked = workers, question.prefetch, question.max_memory, question.batch_sizes
        options = list(unlike(candidates(scenario, *asked)))
        if question.keep_order:
            options = [option for option in options if option.scenario.loader.in_order]
        judge.tries = len(options)
        found = _among(workers, options, judge, question)
        if not found.at_the_limit or judge.budget.spent:
            break
    return found


def _among(
    workers: tuple[int, ...], options: list[Candidate], judge: Judge, question: Question
) -> Found:
    targets = question.targets or (nearly_as_fast(options, judge),)
    judge.targets = targets
    relative = bool(targets[0].rivals)
    chosen, undecided = _cheapest(options, judge)
    near = looked_at(options, judge)
    if relative and undecided:  # who surely is as fast as itself need not be the cheapest
        chosen, near = None, [option for option in options if judge.seen(option.scenario)]
    best = chosen or _nearest(near, judge)
    if relative and not judge.verdict(best.scenario).failed:
        chosen = best  # of those that cannot be told apart
    return Found(workers, options, judge, targets, chosen, best, undecided)


def _cheapest(options: list[Candidate], judge: Judge) -> tuple[Candidate | None, bool]:
    """The cheapest that holds the targets; and whether a cheaper one is undecided."""
    undecided, relative = judge.budget.spent, any(target.rivals for target in judge.targets)
    for option in _hopeful(options, judge):
        verdict = _judged(option, options, judge)
        if verdict.holds:
            return option, undecided
        undecided |= judge.budget.spent and not verdict.decided
        if undecided and relative and verdict.miss <= LEAST and not verdict.failed:
            break  # of those that cannot be told apart, the cheapest
    return None, undecided


def _hopeful(options: list[Candidate], judge: Judge) -> Iterator[Candidate]:
    """The candidates, the cheapest first, but for those of which even more prefetching fails.

    A larger window delays nothing: what the largest one clearly misses, a smaller one does.
    """
    largest = {o.kind: o for o in options}  # the last is the largest
    for option in options:
        if option.ordered:
            most = judge(largest[option.kind].scenario)
            if most.missed and most.miss >= NEAR:
                continue
        elif slow(option, judge):
            continue
        yield option


def _judged(option: Candidate, options: list[Candidate], judge: Judge) -> Verdict:
    """The verdict on `option`: if it gives up order, it only holds if it surely gains by that."""
    verdict = judge(option.scenario)
    if not verdict.holds or option.in_order:
        return verdict
    like = option.prefetch, option.kind
    ordered = [o for o in options if o.in_order]
    twin = next((o for o in ordered if (o.prefetch, _free(o)) == like), None)
    if twin is None or judge.faster(option.scenario, twin.scenario):
        return verdict
    return replace(verdict, holds=False, decided=not judge.budget.spent)


def _free(option: Candidate) -> tuple[int, bool, Switches, int]:
    """The kind of the same that gives up order."""
    workers, _, switches, size = option.kind
    return workers, False, switches, size


def _nearest(options: list[Candidate], judge: Judge) -> Candidate:
    """The cheapest of the candidates that come about as near to the targets as any.

    None whose runs an error ends, unless it ends all. Where no settings make a difference to how
    near they come, the cheapest of those about as fast as any.
    """
    judged = [(option, judge.verdict(option.scenario)) for option in options]
    judged = [(option, verdict) for option, verdict in judged if not verdict.failed] or judged
    most = min(verdict.miss for _, verdict in judged) * (1 + LEAST) + LEAST
    near = [option for option, verdict in judged if verdict.miss <= most]
    if len(near) == len(judged):
        speeds = [mean(judge.samples_per_s(option.scenario)) for option in near]
        fast = zip(near, speeds, strict=True)
        near = [option for option, speed in fast if speed >= NEARLY * max(speeds)] or near
    return near[0]


def looked_at(options: list[Candidate], judge: Judge) -> list[Candidate]:
    """The candidates that were simulated, and those like torch's defaults, or nearest to them.

    Only the former where simulating takes long.
    """
    usual: dict[tuple[int, int], int] = {}
    for option in options:
        nearest = usual.setdefault((option.workers, option.size), option.prefetch)
        if abs(option.prefetch - DEFAULT) < abs(nearest - DEFAULT):
            usual[option.workers, option.size] = option.prefetch
    return [
        option
        for option in options
        if judge.seen(option.scenario)
        or (
            option.in_order
            and option.prefetch == usual[option.workers, option.size]
            and not judge.costly(option.scenario)
        )
    ]
