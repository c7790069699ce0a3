"""Which machine to rent: the one on which a sample costs least, by the price of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dlsim.scenario import Scenario
from dlsim.trace.summary import number
from dlsim.whatif.advice import Advice
from dlsim.whatif.cheapest import advise
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.statistics import Interval, interval


@dataclass(frozen=True)
class Offer:
    """A machine by its `name`, and the `advice` for it. `price`: of a million samples."""

    name: str
    advice: Advice
    price: float

    @property
    def holds(self) -> bool:
        """Whether the targets are held on it."""
        return self.advice.chosen is not None


@dataclass(frozen=True)
class Rental:
    """The `offers`: those that hold the targets first, each kind the cheapest first.

    `dearer`: how much more the second costs than the first, as a share, under common random
    numbers; None where there is no second that holds.
    """

    offers: list[Offer]
    dearer: Interval | None

    @property
    def best(self) -> Offer | None:
        """The machine to rent; None if no machine holds the targets."""
        return self.offers[0] if self.offers[0].holds else None

    def __str__(self) -> str:
        """First the answer, then a line for each machine."""
        return _text(self)


def rent(scenarios: Mapping[str, Scenario], advised: Callable[..., Advice] = advise) -> Rental:
    """What a million samples cost on each machine, given by name a scenario on it.

    Each scenario says what the machine takes for a step and for loading, how many cores it has,
    and its `machine.price_per_hour`. Each gets the fastest loader that `advised` finds for it: to
    state targets, say `functools.partial(advise, max_stall=0.05)`. Raises `WhatIfError` for a
    machine without a price.
    """
    for name, scenario in scenarios.items():
        if scenario.machine.price_per_hour is None:
            raise WhatIfError(
                f"machine.price_per_hour: {name}: expected a price to compare machines by, got none"
            )
    found = []
    for name, scenario in scenarios.items():
        advice = advised(scenario, fastest=True)
        assert advice.price is not None
        found.append(Offer(name, advice, advice.price))
    offers = sorted(found, key=lambda offer: (not offer.holds, offer.price))
    holding = [offer for offer in offers if offer.holds]
    return Rental(offers, _dearer(*holding[:2]) if len(holding) > 1 else None)


def _dearer(first: Offer, second: Offer) -> Interval:
    """How much more a sample costs on the second, as a share."""
    runs = min(len(first.advice.speeds), len(second.advice.speeds))
    hourly = [offer.advice.scenario.machine.price_per_hour or 0.0 for offer in (first, second)]
    speeds = first.advice.speeds[:runs] / second.advice.speeds[:runs]
    return interval(hourly[1] / hourly[0] * speeds - 1)


def _text(found: Rental) -> str:
    best, dearer = found.best, found.dearer
    if best is None:
        nearest = found.offers[0]
        lines = [
            "On none of these machines the targets are held; the cheapest is "
            f"{nearest.name}: {nearest.advice.results}"
        ]
    else:
        lines = [
            f"Rent {best.name}: {number(best.price)} for a million samples, "
            f"with {best.advice.best.keywords}"
        ]
    if best is not None:
        lines.append(f"{best.advice.bill} {best.advice.untried}".strip())
    if dearer is not None:
        sure = "" if dearer.low > 0 else ", which is no sure difference"
        lines.append(
            f"The next, {found.offers[1].name}, costs {100 * dearer.mean:.1f} "
            f"± {100 * dearer.half_width:.1f} % more{sure}."
        )
    width = max(len(offer.name) for offer in found.offers)
    lines += ["", f"{'':{width}}  an hour  a million samples  samples/s  loader"]
    for offer in found.offers:
        advice = offer.advice
        verdict = "" if offer.holds else f"  (misses the target: {advice.results})"
        lines.append(
            f"{offer.name:{width}}  {number(advice.scenario.machine.price_per_hour or 0.0):>7}  "
            f"{number(offer.price):>17}  {number(advice.speed.mean):>9}  "
            f"{advice.best.keywords}{verdict}"
        )
    return "\n".join(lines)
