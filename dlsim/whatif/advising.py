"""Advice: the cheapest settings that hold a target, how far that carries, and what else would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from msgspec import structs

from dlsim.scenario import Scenario
from dlsim.trace.metrics import mean
from dlsim.whatif.advice import Advice, Otherwise
from dlsim.whatif.bounds import bounds
from dlsim.whatif.candidates import Candidate, candidates, pareto, switched, with_throughput
from dlsim.whatif.changes import programs, repeated
from dlsim.whatif.cheapest import Found, looked_at, search
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.explain import explain
from dlsim.whatif.explanation import WORTH, Explanation
from dlsim.whatif.fastest import nearly_as_fast
from dlsim.whatif.feasibility import FIRST
from dlsim.whatif.otherwise import WRONG, slower
from dlsim.whatif.question import PREFETCH, Question, numbers, targets
from dlsim.whatif.searching import searching
from dlsim.whatif.sequential import Verdict
from dlsim.whatif.space import space

GLANCE = 2  # replications of what was not judged, to tell what else there is
MARGIN = 24  # replications that tell whether settings survive wrong inputs, at most


def advise(
    scenario: Scenario,
    *,
    max_stall: float | None = None,
    max_wait_p95: float | None = None,
    min_au: float | None = None,
    max_epoch: float | None = None,
    workers: Iterable[int] | None = None,
    prefetch: Iterable[int] = PREFETCH,
    batch_sizes: Iterable[int] = (),
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
    1,000, fewer of long runs). All simulations together have an end, too, unless `maximum` is
    given: what is undecided then is said to be.

    Cheapest: fewest workers, then least memory for batches on their way (window times bytes of a
    batch), then nearest to torch's defaults. `max_memory` bytes, and `machine.memory` and
    `machine.shm`, are not exceeded by it. Candidates are judged in the order of their cost: those
    that closed forms rule out at once, the others by a sequential test, which replicates them
    until it can tell (see `Judge`); all see common random numbers. Of long epochs only a part is
    simulated (see `dlsim.whatif.extent`).

    `workers`: numbers to choose from; by default up to 16, and where all of them are too few, up
    to 64. `batch_sizes`: to choose from, too. With `keep_order`, none that gives up the order of
    batches is a candidate.

    Raises `WhatIfError` for a target that cannot be, and where no batch is returned, or no time
    passes.
    """
    question = Question(
        targets=targets(max_stall, max_wait_p95, min_au, max_epoch),
        workers=numbers(workers),
        prefetch=tuple(prefetch),
        batch_sizes=tuple(batch_sizes),
        max_memory=max_memory,
        confidence=confidence,
        maximum=maximum,
        keep_order=keep_order,
        seed=seed,
        jobs=jobs,
    )
    if not bounds(scenario).period and _takes_no_time(scenario, question):
        raise WhatIfError("scenario: expected one in which time passes, got none")
    with searching(scenario, question):
        return _told(scenario, question, search(scenario, question))


def _takes_no_time(scenario: Scenario, question: Question) -> bool:
    first = candidates(scenario, question.ranges[0], question.prefetch)[0]
    return bool(np.isnan(question.judge(1).samples_per_s(first.scenario)).all())


def _told(scenario: Scenario, question: Question, found: Found) -> Advice:
    """All that is told of what was found."""
    best, judge = found.best, found.judge
    limited, again = found.chosen is None or found.relative, repeated(best.scenario)
    return Advice(
        scenario=scenario,
        targets=found.targets,
        chosen=found.chosen,
        best=best,
        workers=found.workers,
        verdict=judge.verdict(best.scenario),
        front=pareto(list(_known(found)), best),
        margin=dict(_margin(found)),
        explanation=_explained(question, found) if limited else None,
        speeds=judge.samples_per_s(best.scenario),
        judged=judge.simulated,
        times=(judge.mean(best.scenario, "epoch_time"), judge.mean(best.scenario, "elapsed")),
        tried=found.most_workers if found.at_the_limit else 0,
        undecided=found.undecided,
        as_set=_as_set(scenario, found) if limited else None,
        ended=_ended(found),
        with_room=_with_room(scenario, question, found) if limited else None,
        programmed=tuple(_programmed(question, found)) if limited or again else (),
    )


def _ended(found: Found) -> str:
    """What ends the runs of settings that were looked at, with the first such; "" if nothing does.

    Without workers there are no timeouts.
    """
    seen = [option for option in found.options if found.judge.seen(option.scenario)]
    for option in seen:
        if why := found.judge.ended_by(option.scenario):
            return f"With {option.keywords}, runs end early: {why.rstrip('.')}."
    return ""


def _as_set(scenario: Scenario, found: Found) -> Otherwise | None:
    """The switches that gain most with the workers that are set, if the best has others."""
    own = switched(scenario)
    if len(own) < 2 or found.best.workers == own[0].workers or found.judge.costly(scenario):
        return None
    if any(space(option.scenario).fits is False for option in own):
        return None
    speeds = {o.cost: mean(found.judge.samples_per_s(o.scenario)) for o in own}
    best = max(own, key=lambda option: speeds[option.cost])
    now = speeds[own[0].cost]
    if not speeds[best.cost] > (1 + WORTH) * now:
        return None
    return Otherwise(own[0].keywords, best, speeds[best.cost] / now, holds=False)


def _explained(question: Question, found: Found) -> Explanation | None:
    """Why the best is no better, where training is idle, or a target is missed."""
    best, judge = found.best.scenario, found.judge
    if judge.mean(best, "failed") > 0:  # what ends its runs is what is told
        return None
    if found.chosen is not None and (judge.costly(best) or judge.mean(best, "stall") < WORTH):
        return None
    runs = FIRST if judge.costly(best) else None
    return explain(best, runs, question.seed, keep_order=question.keep_order, jobs=question.jobs)


def _known(found: Found) -> Iterator[Candidate]:
    """The candidates that were looked at, with what they make; of those beyond, after a glance."""
    best, judge = found.best, found.judge
    beyond = (best.workers + 1, 2 * best.workers)
    near = [o for o in found.options if o.workers <= best.workers or o.workers in beyond]
    for option in looked_at(near if found.chosen else found.options, judge):
        speeds = judge.samples_per_s(option.scenario, GLANCE)
        yield with_throughput(option, mean(speeds))


def _with_room(scenario: Scenario, question: Question, found: Found) -> Otherwise | None:
    """What would be on a machine with room for all batches, where settings were left out."""
    machine, budget = scenario.machine, found.judge.budget
    roomy = structs.replace(machine, shm=None, memory=None, descriptors=None)
    if roomy == machine or budget.spent:
        return None
    larger = structs.replace(scenario, machine=roomy)
    asked = found.workers, question.prefetch, question.max_memory, question.batch_sizes
    if len(candidates(larger, *asked)) == len(candidates(scenario, *asked)):
        return None
    there = search(larger, replace(question, workers=found.workers), budget)
    return Otherwise("", there.best, there.speed, there.chosen is not None)


def _programmed(question: Question, found: Found) -> Iterator[Otherwise]:
    """What another sampler, another way to share out data, or to start workers, would do."""
    largest = max(found.options, key=lambda option: option.workers)
    for change in programs(largest.scenario):
        if found.judge.costly(change.scenario) or found.judge.budget.spent:
            continue
        there = search(change.scenario, question, found.judge.budget)
        yield Otherwise(change.name, there.best, there.speed, there.chosen is not None)


def _margin(found: Found) -> Iterator[tuple[str, Verdict]]:
    """Whether the best holds the targets with wrong inputs, by what is wrong.

    What is to be about as fast as any settings is held against those with the same wrong inputs,
    and no fewer workers. Of what is undecided when the search ends, nothing is said.
    """
    best, judge = found.best, found.judge
    if found.chosen is None or judge.costly(best.scenario):
        return
    largest = {(o.workers, o.in_order): o for o in found.options if o.kind[2:] == best.kind[2:]}
    most = max(workers for workers, _ in largest)
    options = [best] + [
        o for (n, _), o in largest.items() if n >= best.workers and (n & (n - 1) == 0 or n == most)
    ]
    for name, factors in WRONG.items():
        if judge.budget.spent:
            return
        wanted = found.targets
        if found.relative:
            wrong = [replace(o, scenario=slower(o.scenario, **factors)) for o in options]
            wanted = (nearly_as_fast(wrong, judge, MARGIN),)
        verdict = judge.verdict(slower(best.scenario, **factors), wanted, MARGIN)
        if verdict.decided or not judge.budget.spent:
            yield name, verdict
