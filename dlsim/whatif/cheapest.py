"""The cheapest configuration that holds a target, how sure that is, and how far it carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from dlsim.scenario import Scenario
from dlsim.whatif.advice import Advice
from dlsim.whatif.bounds import bounds
from dlsim.whatif.candidates import Candidate, candidates, pareto, with_throughput
from dlsim.whatif.changes import slower
from dlsim.whatif.demand import demand
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.explain import explain
from dlsim.whatif.feasibility import NEARLY, Judge, Target, Verdict
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.statistics import check_confidence

# How wrong the inputs may be in the question of the margin: so many times as long.
WRONG = {
    "loading 20 % slower": {"loading": 1.2},
    "loading 20 % faster": {"loading": 0.8},
    "steps 20 % shorter": {"step": 0.8},
    "steps 20 % longer": {"step": 1.2},
}
PREFETCH = (1, 2, 4, 8)
NEAR = 0.05  # a miss that is greater by so little is no reason to pay more
GLANCE = 2  # replications of what was not judged, to tell what else there is
DEFAULT = 2  # torch's prefetch_factor


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
    keep_order: bool = False,
    seed: int = 0,
    jobs: int = 1,
) -> Advice:
    """The cheapest configuration of the loader of `scenario` that holds the given targets.

    Targets: `max_stall`, a share of the time; `max_wait_p95`, seconds; `min_au`, a share;
    `max_epoch`, seconds. Without any, samples a second within 1 % of the most that any number of
    workers gives. A target holds if the mean over runs does, with `confidence`; one that is only
    met by chance, or still undecided after `maximum` replications, does not (by default up to
    1,000, fewer of long runs).

    Cheapest: fewest workers, then least memory for batches on their way (window times bytes of a
    batch), then nearest to torch's defaults. `max_memory` bytes, and `machine.memory` and
    `machine.shm`, are not exceeded by it. Candidates are judged in the order of their cost: those
    that closed forms rule out at once, the others by a sequential test, which replicates them
    until it can tell (see `Judge`); all see common random numbers. Of long epochs only a part is
    simulated (see `dlsim.whatif.extent`).

    With `keep_order`, none that gives up the order of batches is a candidate.

    Raises `WhatIfError` for a target that cannot be, and where no batch is returned, or no time
    passes.
    """
    if not demand(scenario).batches:
        raise WhatIfError("dataset: expected one of which a batch is returned, got none")
    targets = _targets(max_stall, max_wait_p95, min_au, max_epoch)
    check_confidence(confidence)
    if maximum is not None:
        check_counts(maximum=maximum)
    check_jobs(jobs)
    options = candidates(scenario, workers, prefetch, max_memory)
    if keep_order:
        options = [option for option in options if option.scenario.loader.in_order]
    judge = Judge(targets, confidence, maximum, len(options), seed, jobs)
    if not bounds(scenario).period and np.isnan(judge.samples_per_s(options[0].scenario)).all():
        raise WhatIfError("scenario: expected one in which time passes, got none")
    if not targets:
        judge.targets = targets = (_fastest(options, judge),)
    chosen = next((o for o in _hopeful(options, judge) if judge(o.scenario).holds), None)
    best = chosen or _nearest(_looked_at(options, judge), judge)
    # of what is beyond the advice, a glance is enough, and long to simulate
    beyond = (best.workers + 1, 2 * best.workers)
    near = [o for o in options if o.workers <= best.workers or o.workers in beyond]
    known = [
        with_throughput(option, float(judge.samples_per_s(option.scenario, GLANCE).mean()))
        for option in _looked_at(near if chosen else options, judge)
    ]
    return Advice(
        scenario=scenario,
        targets=targets,
        chosen=chosen,
        best=best,
        verdict=judge.verdict(best.scenario),
        margin=dict(_margin(best, options, judge)),
        explanation=None
        if chosen
        else explain(best.scenario, None, seed, keep_order=keep_order, jobs=jobs),
        front=pareto(known, best),
        speeds=judge.samples_per_s(best.scenario),
        judged=judge.simulated,
    )


def _hopeful(options: list[Candidate], judge: Judge) -> Iterator[Candidate]:
    """The candidates, the cheapest first, but for those of which even more prefetching fails.

    A larger window delays nothing: what the largest one clearly misses, a smaller one does.
    """
    largest = {(o.workers, o.in_order): o for o in options}  # the last is the largest
    for option in options:
        most = judge(largest[option.workers, option.in_order].scenario)
        if most.holds or not most.decided or most.miss < NEAR:
            yield option


def _fastest(options: list[Candidate], judge: Judge) -> Target:
    """The target of coming within 1 % of the greatest throughput of some of the candidates.

    These are the largest windows of 0, 1, 2, 4, ... workers, and of the most there are, up to one
    that keeps the training step busy.
    """
    largest = {o.workers: o.scenario for o in options if o.in_order}
    most, best, fastest = max(largest), 0.0, largest[min(largest)]
    for workers, scenario in sorted(largest.items()):
        if workers & (workers - 1) == 0 or workers == most:
            speed = float(judge.samples_per_s(scenario).mean())
            if speed > best:
                best, fastest = speed, scenario
        limits = bounds(scenario)
        if best * limits.periods.get("step", 0.0) >= NEARLY * limits.samples_per_batch:
            break
    words = f"{100 * NEARLY:.0f} % of the most that any settings give"
    return Target("samples_per_s", NEARLY * best, at_most=False, words=words, best=fastest)


def _margin(
    best: Candidate, options: list[Candidate], judge: Judge
) -> Iterator[tuple[str, Verdict]]:
    """Whether `best` holds the targets with wrong inputs, by what is wrong.

    What is to be about as fast as any settings is held against those with the same wrong inputs,
    and no fewer workers.
    """
    relative = any(target.best is not None for target in judge.targets)
    options = [option for option in options if option.workers >= best.workers]
    for name, factors in WRONG.items():
        targets = judge.targets
        if relative:
            wrong = [replace(o, scenario=slower(o.scenario, **factors)) for o in options]
            targets = (_fastest(wrong, judge),)
        yield name, judge.verdict(slower(best.scenario, **factors), targets)


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
        if not isinstance(limit, (int, float)) or not 0 <= limit <= (1 if share else float("inf")):
            wanted = "a share from 0 to 1" if share else "seconds, at least 0"
            raise WhatIfError(f"{name}: expected {wanted}, got {limit!r}")
        found.append(Target(metric, float(limit), at_most))
    return tuple(found)


def _nearest(options: list[Candidate], judge: Judge) -> Candidate:
    """The cheapest of the candidates that come about as near to the targets as any."""
    misses = [judge.verdict(option.scenario).miss for option in options]
    near = (1 + NEAR) * (1 + min(misses)) - 1
    return next(option for option, miss in zip(options, misses, strict=True) if miss <= near)


def _looked_at(options: list[Candidate], judge: Judge) -> list[Candidate]:
    """The candidates that were simulated, and those like torch's defaults, or nearest to them."""
    usual: dict[int, int] = {}
    for option in options:
        nearest = usual.setdefault(option.workers, option.prefetch)
        if abs(option.prefetch - DEFAULT) < abs(nearest - DEFAULT):
            usual[option.workers] = option.prefetch
    return [
        option
        for option in options
        if judge.seen(option.scenario)
        or (option.in_order and option.prefetch == usual[option.workers])
    ]
