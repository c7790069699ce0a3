"""The answer to "which settings hold my target?", in values and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dlsim.scenario import Scenario
from dlsim.scenario.distributions import Floats
from dlsim.scenario.units import size
from dlsim.trace.summary import number
from dlsim.trace.work import in_an_epoch, told, unit
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.explain import WORTH, Explanation
from dlsim.whatif.extent import part_of, shortened
from dlsim.whatif.feasibility import Target, Verdict
from dlsim.whatif.leaving import left_early
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval, interval

SURE = 0.999  # a probability above it is not told more exactly


@dataclass(frozen=True, eq=False)
class Advice:
    """The answer to a target.

    `chosen`: the cheapest configuration that holds all of `targets`, None if none does; `best`:
    `chosen`, or else the one that comes nearest. `verdict`: what is known of `best`. `margin`:
    whether `best` still holds, with inputs so much wrong, by what is wrong. `explanation`: of
    `best`, where it misses a target: what is in the way, and what would help. `front`:
    configurations that no other beats in throughput, workers and memory. `speed`: of `best`, in
    samples a second; `speeds`: in each replication. `judged`: simulations made.
    `times`: seconds of an epoch, and of the whole run, with `best`. `tried`: the most workers that
    were looked at. `with_room`: the advice for a /dev/shm as large as can be, where this one leaves
    settings out.
    """

    scenario: Scenario
    targets: tuple[Target, ...]
    chosen: Candidate | None
    best: Candidate
    verdict: Verdict
    margin: dict[str, Verdict]
    explanation: Explanation | None
    front: list[Candidate]
    speeds: Floats
    judged: int
    times: tuple[float, float]
    tried: int
    with_room: Advice | None = None

    @property
    def speed(self) -> Interval:
        """Samples a second of `best`."""
        return interval(self.speeds)

    @property
    def results(self) -> str:
        """What `best` does, beside what is wanted."""
        means = self.verdict.means
        return ", ".join(target.told(means[target.metric]) for target in self.targets)

    @property
    def price(self) -> float | None:
        """What a million samples cost, by the machine's price; None if it has none."""
        hourly = self.scenario.machine.price_per_hour
        return None if hourly is None else 1e6 * hourly / (3600 * self.speed.mean)

    @property
    def bill(self) -> str:
        """What a million samples, an epoch, and the whole run cost; nothing without a price."""
        if self.price is None:
            return ""
        hourly = self.scenario.machine.price_per_hour or 0.0
        epoch, run = (number(hourly * seconds / 3600) for seconds in self.times)
        each = f"A million samples cost {number(self.price)}, an epoch {epoch}"
        return f"{each}, the whole run {run}." if self.scenario.epochs > 1 else f"{each}."

    @property
    def untried(self) -> str:
        """That more workers were not tried, where the search ended at its own limit."""
        most = self.best.workers == self.tried > 0 and self.with_room is None
        limited = self.chosen is None or any(target.rivals for target in self.targets)
        return f"More than {self.tried} workers were not tried." if most and limited else ""

    @property
    def crowded(self) -> str:
        """What more of /dev/shm would bring, where it leaves out settings that are faster."""
        room, limit = self.with_room, self.scenario.machine.shm
        if room is None or limit is None or not room.speed.mean > (1 + WORTH) * self.speed.mean:
            return ""
        need = size(space(room.best.scenario).needed)
        times = room.speed.mean / self.speed.mean
        return (
            f"/dev/shm keeps back more: it has {size(limit)}, and with {need} "
            f"{room.best.keywords} would be {times:.2g} times as fast. Smaller batches, or samples "
            "of a smaller type (uint8 instead of float32), need less."
        )

    def __str__(self) -> str:
        """First the keyword arguments to paste; then how sure they are, and what else there is."""
        whole = self.best.scenario
        lines = [*(_held(self) if self.chosen is not None else _missed(self)), str(space(whole))]
        if said := told(whole, in_an_epoch(whole)):
            lines.append(said)
        if not self.best.in_order:
            lines.append("in_order=False: the order of batches depends on timing, run by run.")
        left = left_early(whole, self.verdict.means.get("epoch_time", math.nan))
        lines += filter(None, (self.crowded, left, self.bill, self.untried))
        if self.chosen is not None:
            lines += ["", "does it survive wrong inputs?", *_margin(self)]
        lines += ["", "what else there is: no other configuration is better in all of these"]
        return "\n".join([*lines, *_front(self)])


def _held(found: Advice) -> list[str]:
    """What to paste; and what comes of it, how sure that is."""
    verdict = found.verdict
    sure = f"{verdict.probability:.3g}" if verdict.probability < SURE else f"above {SURE}"
    runs = f"{verdict.held} of {verdict.runs} simulated runs{_part(found)}"
    return [
        found.best.keywords,
        f"With these, {found.results}. That holds with probability {sure}, and in {runs}.",
    ]


def _missed(found: Advice) -> list[str]:
    """What comes nearest; and what stands in the way."""
    verdict = found.verdict
    asked = " and ".join(map(str, found.targets))
    if verdict.miss == 0:
        return [
            f"No settings surely reach it: {asked}. The best are {found.best.keywords}",
            f"With these, {found.results}; but that is met by chance, in {verdict.held} of "
            f"{verdict.runs} simulated runs{_part(found)}.",
        ]
    return [
        f"No settings reach it: {asked}. The best are {found.best.keywords}",
        f"With these, {found.results}.",
        *([str(found.explanation).splitlines()[0]] if found.explanation else []),
    ]


def _part(found: Advice) -> str:
    whole = found.best.scenario
    return part_of(shortened(whole), whole)


def _margin(found: Advice) -> Iterator[str]:
    for name, case in found.margin.items():
        results = ", ".join(target.result(case.means[target.metric]) for target in found.targets)
        yield f"  {name}: {'yes' if case.holds else 'no'}, {results}"


def _front(found: Advice) -> Iterator[str]:
    of = unit(*(in_an_epoch(option.scenario) for option in found.front))
    for option in found.front:
        memory = f"  ({size(option.memory)})" if option.memory else ""
        yield f"  {number(option.samples_per_s):>8} {of}  {option.keywords}{memory}"
