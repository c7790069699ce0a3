"""Which machine to rent for a training: what an epoch and the whole run cost on each.

Machines are simulated in the order of what an epoch costs on them at best, which closed forms
tell; one that even at best is dearer than one that was simulated, and hardly faster, is not, but
for the second: how much dearer that is, is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import inf

from dlsim.engine.compiled import installed
from dlsim.engine.effort import SECONDS, cost, deciding, effort, ranks, seconds_of
from dlsim.engine.facts import uncovered
from dlsim.engine.ranks import fair_share
from dlsim.scenario import Catalogue, Instance, Scenario, load_catalogue
from dlsim.trace.metrics import mean
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import demand
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.extent import replicated, shortened
from dlsim.whatif.otherwise import WRONG, slower
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.rental import Offer, Rental
from dlsim.whatif.renting import (
    WORKERS,
    loaders,
    scenario_on,
    step_on,
    too_much_data,
    with_workers,
)

RUNS = 3  # simulations of each
NEAR = 1.05  # of the least time there may be: that is hardly slower
IDLE = 0.02  # of the time; a loader that keeps training idle for less is good enough
BETTER = 0.01  # more workers are worth it if they make an epoch shorter by so much, as a share
PART = 2_000.0  # the cost of what is simulated of one rank (`dlsim.whatif.extent`)
SOON = 5.0  # seconds in which all ranks together are simulated, too
FAILS = "an error ends runs there"
RIVALS = 3  # offers that are looked at with wrong inputs


def rent(
    training: Scenario,
    machines: Catalogue | None = None,
    *,
    max_epoch: float | None = None,
    max_stall: float | None = None,
    workers: int | None = None,
    replications: int = RUNS,
    seed: int = 0,
    jobs: int = 1,
) -> Rental:
    """What `training` costs on each of `machines`, by default those that come with dlsim.

    `training` says how long a step takes on each accelerator (`consumer.on`); machines of which
    that, or the price, is not known are left out. There is a rank for each accelerator, on
    `job.nodes` machines; with several `job.ranks`, of machines that have so many. Each has the
    fewest workers that are as good as any, or so many `workers`. Targets: `max_epoch`, seconds;
    `max_stall`, a share of the time: who misses one is not chosen. Raises `WhatIfError` where
    nothing is left.
    """
    check_counts(replications=replications)
    check_jobs(jobs)
    catalogue = load_catalogue() if machines is None else machines
    if not training.consumer.on and not any(one.step for one in catalogue.machine):
        raise WhatIfError(
            "consumer.on: expected how long a step takes on each accelerator, as "
            '[{ accelerator = "A100", step = "435 ms" }], got nothing'
        )
    numbers = WORKERS if workers is None else (workers,)
    left_out: dict[str, str] = {}
    offers = sorted(_offers(training, catalogue, left_out), key=lambda offer: offer.least_cost)
    targets = {"epoch_time": max_epoch, "stall": max_stall}
    with _deciding(offers, numbers, replications, jobs):
        done, unseen = _compared(offers, numbers, targets, left_out, replications, seed, jobs)
        wrong = dict(_with_wrong_inputs(done, replications, seed, jobs))
    return Rental(training, catalogue, tuple(done), tuple(unseen), left_out, wrong)


def _compared(
    offers: list[Offer],
    numbers: tuple[int, ...],
    targets: dict[str, float | None],
    left_out: dict[str, str],
    replications: int,
    seed: int,
    jobs: int,
) -> tuple[list[Offer], list[Offer]]:
    """The offers that were simulated, the best first; and those that are worse anyway.

    The reason is added to those `left_out` for each that is neither.
    """
    done: list[Offer] = []

    def rank(offer: Offer) -> tuple[bool, float]:
        return not offer.holds, offer.cost

    def worse(offer: Offer) -> bool:
        return any(
            one.holds and one.cost <= offer.least_cost and one.epoch <= NEAR * offer.least_epoch
            for one in done
        )

    unseen = []
    for offer in offers:
        if sum(one.holds for one in done) >= 2 and worse(offer):
            unseen.append(offer)
            continue
        simulated = _simulated(offer, numbers, replications, seed, jobs)
        if simulated is None:
            left_out[offer.name] = "batches on their way do not fit into its memory"
            continue
        if _fails(simulated):
            left_out[offer.name] = FAILS
            continue
        done.append(replace(simulated, missed=_missed(simulated, targets)))
    if not done:
        raise WhatIfError(_nothing(left_out))
    done.sort(key=rank)
    for offer in done[:2]:
        found = _together(offer, replications, seed, jobs)
        done.remove(offer)
        if _fails(found):
            left_out[offer.name] = FAILS
        else:
            done.append(replace(found, missed=_missed(found, targets)))
    if not done:
        raise WhatIfError(_nothing(left_out))
    done.sort(key=rank)
    return done, unseen


def _deciding(
    offers: list[Offer], numbers: tuple[int, ...], runs: int, jobs: int
) -> AbstractContextManager[None]:
    """Decide, and tell who watches how long it takes, for all machines that may be simulated.

    They are those that are not worse by closed forms, each once; the first two also with all their
    ranks, and the first few with wrong inputs.
    """
    tried: list[Offer] = []
    for offer in offers:
        if len(tried) < 2 or all(o.least_epoch > NEAR * offer.least_epoch for o in tried):
            tried.append(offer)
    made, together = list[Scenario](), list[Scenario]()
    for place, offer in enumerate(tried):
        times = 1 + len(WRONG) * (place < RIVALS)
        fitting = loaders(offer.scenario, numbers)[:1]
        made += [shortened(fair_share(each), PART) for each in fitting for _ in range(times)]
        if place < 2 and offer.scenario.is_job:
            together += [each for each in fitting if _soon(each, runs)]
    if not made:
        return nullcontext()
    seconds = runs * sum(map(seconds_of, [*made, *together]))
    looked = runs * (len(made) + sum(map(ranks, together)))
    return deciding(seconds, made[0], jobs=jobs, runs=looked)


def _offers(training: Scenario, catalogue: Catalogue, left_out: dict[str, str]) -> Iterator[Offer]:
    """The machines with the right ranks, whose price and step are known; why not, of others."""
    for machine in catalogue.machine:
        on, ranks = step_on(training, machine), training.job.ranks
        if ranks not in (1, machine.accelerators):
            left_out[machine.name] = f"not {ranks} accelerators, for as many ranks (job.ranks)"
        elif machine.price_per_hour is None:
            left_out[machine.name] = f"price not given; give --price {machine.name}=..."
        elif on is None:
            left_out[machine.name] = "no step is stated for the accelerator (consumer.on)"
        else:
            scenario = scenario_on(training, machine, on)
            if too_much_data(scenario, machine):
                left_out[machine.name] = "the data do not fit on its disks"
            elif not demand(fair_share(scenario)).batches:
                left_out[machine.name] = "no batch is returned"
            else:
                yield _offer(machine, scenario)


def _offer(machine: Instance, scenario: Scenario) -> Offer:
    """A machine with what an epoch takes at best, whatever the number of workers."""
    alone = fair_share(scenario)
    many = with_workers(scenario, max(WORKERS))
    period = bounds(many).period
    return Offer(machine, scenario, least_epoch=demand(alone).batches * period)


def _simulated(
    offer: Offer, numbers: tuple[int, ...], runs: int, seed: int, jobs: int
) -> Offer | None:
    """The offer with the fewest workers that are as good as any; None where none fits.

    How many that are is found by one rank alone on its share of the machine.
    """
    best: Offer | None = None
    for scenario in loaders(offer.scenario, numbers):
        alone = fair_share(scenario)
        found = replicated(alone, runs, seed, jobs=jobs, shares=True, most=PART)
        made = replace(offer, scenario=scenario, found=found)
        if best is not None and made.epoch > (1 - BETTER) * best.epoch:
            break
        best = made
        if made.mean("stall") < IDLE:
            break
    return best


def _together(offer: Offer, runs: int, seed: int, jobs: int) -> Offer:
    """The offer with all its ranks simulated together, where that is done soon."""
    if not offer.scenario.is_job or not _soon(offer.scenario, runs):
        return offer
    return replace(offer, found=replicated(offer.scenario, runs, seed, jobs=jobs, shares=True))


def _fails(offer: Offer) -> bool:
    """Whether an error ends any of its runs, so that an epoch costs nothing one could tell."""
    return offer.found is not None and bool(offer.found["failed"].any())


def _soon(scenario: Scenario, runs: int) -> bool:
    """Whether all ranks together can be simulated in a few seconds."""
    compiles = installed() and not uncovered(scenario)
    return (cost(scenario) if compiles else effort(scenario)) * SECONDS * runs < SOON


def _missed(offer: Offer, targets: dict[str, float | None]) -> dict[str, float]:
    """The targets that the offer misses, by metric: what is wanted."""
    return {
        metric: limit
        for metric, limit in targets.items()
        if limit is not None and not offer.mean(metric) <= limit
    }


def _with_wrong_inputs(
    offers: list[Offer], runs: int, seed: int, jobs: int
) -> Iterator[tuple[str, str]]:
    """Which machine is the cheapest where inputs are wrong, by what is wrong."""
    rivals = [offer for offer in offers if offer.holds][:RIVALS]
    if len(rivals) < 2:
        return
    for name, factors in WRONG.items():
        costs = {}
        for offer in rivals:
            changed = slower(fair_share(offer.scenario), **factors)
            found = replicated(changed, runs, seed, jobs=jobs, most=PART)
            ends = not found["failed"].any()
            costs[offer.name] = offer.cost_of(mean(found["epoch_time"])) if ends else inf
        yield name, min(costs, key=lambda machine: costs[machine])


def _nothing(left_out: dict[str, str]) -> str:
    """Why there is no machine to choose from: the first reason, and how often."""
    reasons = list(left_out.items())
    if not reasons:
        return "machines: expected one at least, got none"
    name, why = reasons[0]
    more = f" (and {len(reasons) - 1} more are left out)" if len(reasons) > 1 else ""
    return f"{name}: {why}{more}"
