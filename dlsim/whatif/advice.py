"""The answer to "which settings hold my target?", in values and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import structs

from dlsim.engine.facts import left_to_chance
from dlsim.scenario import Cost, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.scenario.units import size
from dlsim.trace.memory import DESCRIPTORS
from dlsim.trace.summary import number
from dlsim.trace.work import given_shares, in_an_epoch, told, unit
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.changes import pasted
from dlsim.whatif.coming import told_of_samples
from dlsim.whatif.explanation import WORTH, Explanation
from dlsim.whatif.extent import part_of, shortened
from dlsim.whatif.growing import told_of_step
from dlsim.whatif.leaving import left_early
from dlsim.whatif.sequential import Verdict
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval, interval
from dlsim.whatif.targets import Target

MOST_ROWS = 16  # of what else there is; of more, every other one is shown
FREE_PINS = (
    "pin_memory=True: what pinning takes is not stated (costs.pin); without an accelerator, torch "
    "pins nothing."
)
SURE = 0.999  # a probability above it is not told more exactly


@dataclass(frozen=True)
class Otherwise:
    """What would be best were `what` different, and whether it `holds` the targets.

    `samples_per_s`: of `best`; or how many times as fast it is as `what`.
    """

    what: str
    best: Candidate
    samples_per_s: float
    holds: bool


@dataclass(frozen=True, eq=False)
class Advice:
    """The answer to a target.

    `chosen`: the cheapest configuration that holds all of `targets`, None if none does; `best`:
    `chosen`, or else the one that comes nearest. `workers`: the numbers that were looked at.
    `verdict`: what is known of `best`. `margin`: whether `best` still holds, with inputs so much
    wrong, by what is wrong. `explanation`: of `best`, where it misses a target, or training is idle
    though none was given: what is in the way, and what would help; None where its own runs end in
    an error. `front`: configurations that no other beats in throughput, workers and memory.
    `speed`: of `best`, in samples a second; `speeds`: in each replication. `judged`: simulations
    made. `times`: seconds of an epoch, and of the whole run, with `best`. `tried`: the most workers
    that were looked at, where more might do better, else 0. `ended`: which errors end runs with
    other settings. `undecided`: whether the search ended at its own limit before all that might be
    better were decided. `as_set`: switches that gain with the number of workers that is set.
    `with_room`: what were best on a machine with room for all batches, where settings are left out
    that do not fit; `programmed`: with other samplers, shares of data, or ways to start workers.
    """

    scenario: Scenario
    targets: tuple[Target, ...]
    chosen: Candidate | None
    best: Candidate
    workers: tuple[int, ...]
    verdict: Verdict
    margin: dict[str, Verdict]
    explanation: Explanation | None
    front: list[Candidate]
    speeds: Floats
    judged: int
    times: tuple[float, float]
    tried: int
    undecided: bool = False
    as_set: Otherwise | None = None
    ended: str = ""
    with_room: Otherwise | None = None
    programmed: tuple[Otherwise, ...] = ()

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
        """What was not tried, or not decided, where the search ended at its own limit."""
        more = f"More than {self.tried} workers were not tried." if self.tried else ""
        others = "others may reach it" if self.chosen is None else "others may be better"
        left = f"The search ended at its own limit: {others}." if self.undecided else ""
        return " ".join(filter(None, (more, left)))

    @property
    def kept(self) -> str:
        """Which switches gain where the number of workers stays as it is set."""
        if self.as_set is None:
            return ""
        best = self.as_set.best
        switches = ", ".join(pasted(*switch) for switch in best.switches)
        return (
            f"With {self.as_set.what}, as it is set, {switches} would be "
            f"{self.as_set.samples_per_s:.2g} times as fast."
        )

    @property
    def crowded(self) -> str:
        """What more room would bring, where what does not fit is faster, or holds the targets."""
        room = self.with_room
        if room is None or not self._better(room):
            return ""
        there = room.best.scenario
        real = structs.replace(there, machine=self.scenario.machine)
        over = space(real).outgrown
        if over is None:  # of what `max_memory` leaves out
            return ""
        if over.resource == DESCRIPTORS:
            has, need = f"{over.limit:,.0f}", f"{over.needed:,.0f} (ulimit -n)"
        else:
            has, need = size(over.limit or 0.0), size(over.needed)
        less = (
            ""
            if over.resource == DESCRIPTORS
            else " Smaller batches, or samples of a smaller type (uint8 instead of float32), need "
            "less."
        )
        where = over.resource[0].upper() + over.resource[1:]
        return (
            f"{where} keeps back more: it has {has}, and with {need} {room.best.keywords} "
            f"would {self._how(room)}.{less}"
        )

    @property
    def alternatives(self) -> list[str]:
        """What another sampler, or other shares of the data, would bring: a line for each."""
        return [
            f"With {other.what}, {other.best.keywords} would {self._how(other)}."
            for other in self.programmed
            if self._better(other)
        ]

    def _better(self, other: Otherwise) -> bool:
        """Whether it is noticeably faster, or holds the targets where this does not."""
        reaches = other.holds and self.chosen is None
        return reaches or other.samples_per_s > (1 + WORTH) * self.speed.mean

    def _how(self, other: Otherwise) -> str:
        reaches = " and reach it" if other.holds and self.chosen is None else ""
        times = other.samples_per_s / self.speed.mean
        return f"be {times:.2g} times as fast{reaches}" if times > 1 + WORTH else "reach it"

    def __str__(self) -> str:
        """First the keyword arguments to paste; then how sure they are, and what else there is."""
        whole = self.best.scenario
        lines = [*(_held(self) if self.chosen is not None else _missed(self)), str(space(whole))]
        said = told(whole, in_an_epoch(whole))
        if said and self.explanation is None:  # which says it, too
            lines.append(said)
        if not self.best.in_order:
            lines.append("in_order=False: the order of batches depends on timing, run by run.")
        if ("pin_memory", True) in self.best.switches and whole.costs.pin == Cost():
            lines.append(FREE_PINS)
        if self.best.size:
            lines.append(told_of_step(whole))
        left = left_early(whole, self.verdict.means.get("epoch_time", math.nan))
        lines += filter(
            None,
            (
                self.ended,
                given_shares(whole),
                told_of_samples(whole, self.workers),
                self.crowded,
                *self.alternatives,
                self.kept,
                left,
                self.bill,
                self.untried,
            ),
        )
        if self.margin:
            lines += ["", "does it survive wrong inputs?", *_margin(self)]
        lines += ["", "what else there is: no other configuration is better in all of these"]
        return "\n".join([*lines, *_front(self)])


def _held(found: Advice) -> list[str]:
    """What to paste; and what comes of it, how sure that is."""
    verdict = found.verdict
    sure = f"{verdict.probability:.3g}" if verdict.probability < SURE else f"above {SURE}"
    told = f"That holds with probability {sure}, and in {_runs(found)}."
    if verdict.held < verdict.runs:
        told = f"On average that holds, with probability {sure}; by itself, in {_runs(found)}."
    if not left_to_chance(found.best.scenario):
        told = f"Nothing is random: one run{_part(found)} tells."
    return [
        found.best.keywords,
        f"With these, {found.results}. {told}",
        *_in_the_way(found),
    ]


def _missed(found: Advice) -> list[str]:
    """What comes nearest; and what stands in the way."""
    verdict = found.verdict
    asked = " and ".join(map(str, found.targets))
    if verdict.failed:
        return [f"No settings reach it: {asked}. Of all that were tried, runs end early."]
    if verdict.miss == 0:
        return [
            f"No settings surely reach it: {asked}. The best are {found.best.keywords}",
            f"With these, {found.results}; but that is met by chance, in {_runs(found)}.",
        ]
    known = "are known to reach" if found.undecided else "reach"
    return [
        f"No settings {known} it: {asked}. The best are {found.best.keywords}",
        f"With these, {found.results}.",
        *_in_the_way(found),
    ]


def _in_the_way(found: Advice) -> list[str]:
    """What keeps training idle with the best settings, and what would help; a line, if any."""
    return [str(found.explanation).splitlines()[0]] if found.explanation else []


def _runs(found: Advice) -> str:
    """In how many of the simulated runs it holds."""
    return f"{found.verdict.held} of {found.verdict.runs} simulated runs{_part(found)}"


def _part(found: Advice) -> str:
    whole = found.best.scenario
    return part_of(shortened(whole), whole)


def _margin(found: Advice) -> Iterator[str]:
    for name, case in found.margin.items():
        results = ", ".join(target.result(case.means[target.metric]) for target in found.targets)
        yield f"  {name}: {'yes' if case.holds else 'no'}, {results}"


def _front(found: Advice) -> Iterator[str]:
    of = unit(*(in_an_epoch(option.scenario) for option in found.front))
    every = -(-len(found.front) // MOST_ROWS)
    last = len(found.front) - 1
    for row, option in enumerate(found.front):
        if (last - row) % every and option.cost != found.best.cost:
            continue
        memory = f"  ({size(option.memory)})" if option.memory else ""
        yield f"  {number(option.samples_per_s):>8} {of}  {option.keywords}{memory}"
