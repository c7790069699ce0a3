"""The answer to "which machine?", in values and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dlsim.scenario import Catalogue, Instance, Scenario
from dlsim.scenario.units import duration
from dlsim.trace.causes import WORDS
from dlsim.trace.metrics import mean
from dlsim.trace.summary import aligned, number, percent
from dlsim.trace.telling import limit
from dlsim.whatif.bounds import bounds
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.limits import means, shares
from dlsim.whatif.renting import WORKERS
from dlsim.whatif.replicate import Replications
from dlsim.whatif.statistics import Interval, interval
from dlsim.whatif.stretching import IDLE

HOUR = 3600.0
SHOWN = 12  # machines of which the table has a row, at most, besides those on the front


@dataclass(frozen=True)
class Offer:
    """A `machine`, and the training on it.

    `found`: what was measured in its simulations; None if it was not simulated. `least_epoch`:
    seconds of an epoch at best, by closed forms. `missed`: the targets that it misses, by metric.
    """

    machine: Instance
    scenario: Scenario
    least_epoch: float
    found: Replications | None = None
    missed: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the machine is called."""
        return self.machine.name

    @property
    def holds(self) -> bool:
        """Whether no target is missed."""
        return not self.missed

    @property
    def hourly(self) -> float:
        """What all its nodes cost an hour."""
        return (self.machine.price_per_hour or 0.0) * self.scenario.job.nodes

    @property
    def alone(self) -> bool:
        """Whether one rank was simulated by itself, on its share of the machine."""
        return self.found is not None and self.scenario.is_job and not self.found.scenario.is_job

    def mean(self, metric: str) -> float:
        """The mean of a metric over the simulations. Raises `WhatIfError` if there are none."""
        if self.found is None:
            raise WhatIfError(f"{self.name}: expected a machine that was simulated")
        return mean(self.found[metric])

    def cost_of(self, seconds: float) -> float:
        """What so many seconds cost."""
        return self.hourly * seconds / HOUR

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self.mean("epoch_time")

    @property
    def cost(self) -> float:
        """What an epoch costs."""
        return self.cost_of(self.epoch)

    @property
    def costs(self) -> Interval:
        """What an epoch costs, and how sure that is."""
        assert self.found is not None
        return interval(self.found["epoch_time"] * self.hourly / HOUR)

    @property
    def least_cost(self) -> float:
        """What an epoch costs at least."""
        return self.cost_of(self.least_epoch)

    @property
    def limit(self) -> str:
        """What keeps training idle most; the step, where that is not long."""
        if self.found is None:
            return ""
        return limit(means(shares(IDLE, self.found.metrics)), self.mean("stall"))

    @property
    def at_the_limit(self) -> bool:
        """Whether it has the most workers that are tried, and those are too few."""
        workers = self.scenario.loader.num_workers
        return workers == max(WORKERS) and bounds(self.scenario).binds in ("workers", "window")

    @property
    def keywords(self) -> str:
        """The keyword arguments of each rank's DataLoader."""
        loader = self.scenario.loader
        return f"num_workers={loader.num_workers}, prefetch_factor={loader.prefetch_factor or 2}"


@dataclass(frozen=True)
class Rental:
    """What `training` costs on each machine.

    `offers`: those that were simulated, those that hold the targets first, each kind the cheapest
    first; `unseen`: those that even at best are dearer, and hardly faster. `left_out`: why, by
    name. `wrong`: which of the cheapest would be the cheapest with wrong inputs, by what is wrong.
    """

    training: Scenario
    machines: Catalogue
    offers: tuple[Offer, ...]
    unseen: tuple[Offer, ...]
    left_out: dict[str, str]
    wrong: dict[str, str]

    @property
    def best(self) -> Offer | None:
        """The cheapest machine that holds the targets; None if none does."""
        return self.offers[0] if self.offers[0].holds else None

    @property
    def front(self) -> list[Offer]:
        """Those that no other is cheaper and faster than, the cheapest first."""
        found: list[Offer] = []
        for offer in sorted(self.offers, key=lambda each: (each.cost, each.epoch)):
            if not found or offer.epoch < found[-1].epoch:
                found.append(offer)
        return found

    @property
    def dearer(self) -> Interval | None:
        """How much more an epoch costs on the second than on the first, as a share.

        Under common random numbers; None where no second holds the targets.
        """
        holding = [offer for offer in self.offers if offer.holds][:2]
        if len(holding) < 2:
            return None
        first, second = (
            offer.hourly * offer.found["epoch_time"] for offer in holding if offer.found
        )
        return interval(second / first - 1)

    def __str__(self) -> str:
        """First the answer, how sure it is and what would change it; then a line for each."""
        return "\n".join([*_answer(self), "", *_table(self), *_notes(self)])


def _answer(found: Rental) -> Iterator[str]:
    best, unit = found.offers[0], found.machines.currency
    if not best.holds:
        yield f"No machine holds the targets; the cheapest is {best.name}: {_misses(best)}."
    many = f"{best.scenario.job.nodes} of " if best.scenario.job.nodes > 1 else ""
    machine = f"{many}{best.name}{_made_of(best)}"
    yield (
        f"{f'Rent {machine}:' if best.holds else f'On {machine}'} an epoch costs "
        f"{_money(best.cost, unit)} and takes {duration(best.epoch)}, with {best.keywords}"
        f"{_each(best)}."
    )
    if found.training.epochs > 1:
        whole = best.mean("elapsed")
        yield (
            f"The whole run of {found.training.epochs} epochs costs "
            f"{_money(best.cost_of(whole), unit)} and takes {duration(whole)}."
        )
    yield f"There training is idle {percent(best.mean('stall'))} of the time; {_limits(best)}."
    yield from _rivals(found, best)


def _limits(offer: Offer) -> str:
    cause = offer.limit
    return f"what limits it is {WORDS.get(cause, cause)}"


def _rivals(found: Rental, best: Offer) -> Iterator[str]:
    fastest = min(found.offers, key=lambda offer: offer.epoch)
    if fastest != best:
        times = best.epoch / fastest.epoch
        yield (
            f"The fastest is {fastest.name}: {times:.2g} times as fast, for "
            f"{_money(fastest.cost, found.machines.currency)} an epoch."
        )
    dearer = found.dearer
    if dearer is None or not best.holds:
        return
    second = found.offers[1]
    sure = "" if dearer.low > 0 else ", which is no sure difference"
    half = f" ± {100 * dearer.half_width:.1f}" if dearer.half_width == dearer.half_width else ""
    yield f"The next, {second.name}, costs {100 * dearer.mean:.1f}{half} % more{sure}."
    yield (
        "What would change the choice: a price of "
        f"{best.name} above {_price(best, 1 + dearer.mean)}, or of {second.name} below "
        f"{_price(second, 1 / (1 + dearer.mean))}{_wrong(found, best)}."
    )


def _wrong(found: Rental, best: Offer) -> str:
    others = {name: machine for name, machine in found.wrong.items() if machine != best.name}
    kept = [name for name in found.wrong if name not in others]
    words = "".join(f"; {name} ({machine})" for name, machine in others.items())
    return words + (f". Not: {', '.join(kept)}" if kept else "")


def _price(offer: Offer, times: float) -> str:
    price = offer.machine.price_per_hour or 0.0
    return f"{number(price * times)} an hour ({number(price)} now)"


def _table(found: Rental) -> Iterator[str]:
    front = found.front
    head = "an hour", "price of", "an epoch costs", "takes", "idle", "limited by", "workers"
    rows = [("", "", *head)]
    shown = [o for i, o in enumerate(found.offers) if i < SHOWN or o in front]
    for offer in shown:
        costs = offer.costs
        half = f" ± {costs.half_width:.2g}" if costs.half_width == costs.half_width else ""
        missed = f"misses: {_misses(offer)}" if offer.missed else offer.limit
        rows.append(
            (
                f"{'*' if offer in front else ' '} {offer.name}",
                _accelerators(offer.machine),
                number(offer.hourly),
                _dated(found, offer.machine),
                f"{number(costs.mean)}{half}",
                duration(offer.epoch),
                percent(offer.mean("stall")),
                missed,
                str(offer.scenario.loader.num_workers),
            )
        )
    yield aligned(rows)
    yield "* no other is both cheaper and faster."


def _notes(found: Rental) -> Iterator[str]:
    limited = [offer.name for offer in found.offers if offer.at_the_limit]
    if limited:
        yield f"More than {max(WORKERS)} workers were not tried: {', '.join(limited)}."
    alone = [offer.name for offer in found.offers if offer.alone]
    if alone:
        yield (
            "Of these a rank was simulated alone, on its share of the machine, without what ranks "
            f"lose by waiting for each other: {', '.join(alone)}."
        )
    hidden = len(found.offers) - len([o for i, o in enumerate(found.offers) if i < SHOWN])
    if hidden > 0:
        yield f"{hidden} dearer ones are not shown."
    if found.unseen:
        least = min(found.unseen, key=lambda offer: offer.least_cost)
        yield (
            "Not simulated, as dearer even at best and hardly faster: "
            f"{len(found.unseen)} more, of which {least.name} costs least, "
            f"{number(least.least_cost)} an epoch."
        )
    reasons: dict[str, list[str]] = {}
    for name, why in found.left_out.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield f"Left out, {why}: {', '.join(names)}."
    used = {offer.machine.price_source for offer in found.offers} - {""}
    for name in sorted(used):
        source = found.machines.sources[name]
        yield f"Prices {name}, {source.date}: {source.says} ({source.page})."


def _dated(found: Rental, machine: Instance) -> str:
    source = found.machines.sources.get(machine.price_source)
    return str(source.date) if source else "yours"


def _misses(offer: Offer) -> str:
    words = {"epoch_time": "an epoch takes {}", "stall": "training is idle {} of the time"}
    shown = {"epoch_time": duration, "stall": percent}
    return ", ".join(
        words[metric].format(shown[metric](offer.mean(metric)))
        + f" (wanted: at most {shown[metric](limit)})"
        for metric, limit in offer.missed.items()
    )


def _accelerators(machine: Instance) -> str:
    count = machine.accelerators
    if not machine.accelerator:
        return f"{count} accelerator{'' if count == 1 else 's'}"
    return machine.accelerator if count == 1 else f"{count} {machine.accelerator}"


def _made_of(offer: Offer) -> str:
    parts = [offer.machine.cloud, _accelerators(offer.machine)]
    return f" ({', '.join(part for part in parts if part)})"


def _each(offer: Offer) -> str:
    world = offer.scenario.job.world
    return f" for each of {world} ranks" if world > 1 else ""


def _money(amount: float, unit: str) -> str:
    return f"{number(amount)} {unit}".strip()
