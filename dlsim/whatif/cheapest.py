"""The cheapest configuration that holds a target, how sure that is, and how far it carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from msgspec import structs

from dlsim.scenario import Scenario
from dlsim.whatif.advice import Advice
from dlsim.whatif.bounds import bounds
from dlsim.whatif.candidates import Candidate, candidates, pareto, with_throughput
from dlsim.whatif.changes import slower
from dlsim.whatif.demand import demand
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.explain import explain
from dlsim.whatif.fastest import nearly_as_fast
from dlsim.whatif.feasibility import NEARLY, Judge, Target, Verdict, surely_above
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
NEAR = 0.05  # of its limit; what misses by less may yet hold
LEAST = 0.002  # a miss that is greater by so little, as a share, is no reason to pay more
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
    fastest: bool = False,
) -> Advice:
    """The cheapest configuration of the loader of `scenario` that holds the given targets.

    Targets: `max_stall`, a share of the time; `max_wait_p95`, seconds; `min_au`, a share;
    `max_epoch`, seconds. Without any, samples a second within 1 % of the most that any number of
    workers gives. A target holds if the mean over runs does, with `confidence`; one that is only
    met by chance, or still undecided after `maximum` replications, does not (by default up to
    1,000, fewer of long runs).

    With `fastest`, of those that hold the targets one that is within 1 % of the fastest of them.

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
    workers, prefetch = tuple(workers), tuple(prefetch)
    options = candidates(scenario, workers, prefetch, max_memory)
    roomy = _without_limit(scenario)
    crowded = roomy is not None and len(options) < len(
        candidates(roomy, workers, prefetch, max_memory)
    )
    if keep_order:
        options = [option for option in options if option.scenario.loader.in_order]
    judge = Judge(targets, confidence, maximum, len(options), seed, jobs)
    if not bounds(scenario).period and np.isnan(judge.samples_per_s(options[0].scenario)).all():
        raise WhatIfError("scenario: expected one in which time passes, got none")
    if not targets:
        judge.targets = targets = (nearly_as_fast(options, judge),)
    hopeful = _hopeful(options, judge)
    chosen = next((o for o in hopeful if _holds(o, options, judge)), None)
    if fastest and chosen is not None and not targets[0].rivals:
        chosen = _faster(chosen, options, judge)
    if chosen is None and targets[0].rivals:  # rivals that cannot be told apart
        chosen = next(o for o in options if o.scenario == targets[0].rivals[0])
    best = chosen or _nearest(_looked_at(options, judge), judge)
    # of what is beyond the advice, a glance is enough, and long to simulate
    beyond = (best.workers + 1, 2 * best.workers)
    near = [o for o in options if o.workers <= best.workers or o.workers in beyond]
    known = [
        with_throughput(option, float(judge.samples_per_s(option.scenario, GLANCE).mean()))
        for option in _looked_at(near if chosen else options, judge)
    ]
    with_room = None
    if crowded and roomy is not None and (chosen is None or any(t.rivals for t in targets)):
        with_room = advise(
            roomy,
            max_stall=max_stall,
            max_wait_p95=max_wait_p95,
            min_au=min_au,
            max_epoch=max_epoch,
            workers=workers,
            prefetch=prefetch,
            max_memory=max_memory,
            confidence=confidence,
            maximum=maximum,
            keep_order=keep_order,
            fastest=fastest,
            seed=seed,
            jobs=jobs,
        )
    return Advice(
        scenario=scenario,
        with_room=with_room,
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
        times=(judge.mean(best.scenario, "epoch_time"), judge.mean(best.scenario, "elapsed")),
        tried=max(option.workers for option in options),
    )


def _without_limit(scenario: Scenario) -> Scenario | None:
    """`scenario` with a /dev/shm as large as can be; None where it is not said how large it is."""
    if scenario.machine.shm is None:
        return None
    return structs.replace(scenario, machine=structs.replace(scenario.machine, shm=None))


def _hopeful(options: list[Candidate], judge: Judge) -> Iterator[Candidate]:
    """The candidates, the cheapest first, but for those of which even more prefetching fails.

    A larger window delays nothing: what the largest one clearly misses, a smaller one does.
    """
    largest = {(o.workers, o.in_order, o.switches): o for o in options}  # the last is the largest
    for option in options:
        if option.ordered:
            most = judge(largest[option.workers, True, option.switches].scenario)
            if not most.holds and most.decided and most.miss >= NEAR:
                continue
        yield option


def _holds(option: Candidate, options: list[Candidate], judge: Judge) -> bool:
    """Whether `option` holds the targets; and, if it gives up order, surely gains by that."""
    verdict = judge(option.scenario)
    if not verdict.holds or option.in_order:
        return verdict.holds
    like = option.workers, option.prefetch, option.switches
    ordered = [o for o in options if o.in_order]
    twin = next((o for o in ordered if (o.workers, o.prefetch, o.switches) == like), None)
    if twin is None:
        return True
    runs = verdict.runs
    speeds = (judge.samples_per_s(each.scenario, runs)[:runs] for each in (option, twin))
    return surely_above(np.subtract(*speeds), judge.risk_no, equal=False)


def _faster(chosen: Candidate, options: list[Candidate], judge: Judge) -> Candidate:
    """The cheapest that holds the targets and is about as fast as any that does."""
    dearer = [option for option in options if option.cost >= chosen.cost]
    known = [(float(judge.samples_per_s(o.scenario).mean()), o) for o in dearer]
    quick = sorted(known, key=lambda pair: -pair[0])
    best = next(speed for speed, o in quick if o == chosen or _holds(o, options, judge))
    near = (o for speed, o in known if speed >= NEARLY * best)
    return next(o for o in near if o == chosen or _holds(o, options, judge))


def _margin(
    best: Candidate, options: list[Candidate], judge: Judge
) -> Iterator[tuple[str, Verdict]]:
    """Whether `best` holds the targets with wrong inputs, by what is wrong.

    What is to be about as fast as any settings is held against those with the same wrong inputs,
    and no fewer workers.
    """
    relative = any(target.rivals for target in judge.targets)
    largest = {(o.workers, o.in_order): o for o in options if o.switches == best.switches}
    most = max(workers for workers, _ in largest)
    options = [best] + [
        o for (n, _), o in largest.items() if n >= best.workers and (n & (n - 1) == 0 or n == most)
    ]
    for name, factors in WRONG.items():
        targets = judge.targets
        if relative:
            wrong = [replace(o, scenario=slower(o.scenario, **factors)) for o in options]
            targets = (nearly_as_fast(wrong, judge),)
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
    near = min(misses) * (1 + LEAST) + LEAST
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
