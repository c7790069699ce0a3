"""The answer to "where does the time go, and what would help?", in values and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.engine.facts import left_to_chance
from dlsim.scenario import Scenario
from dlsim.trace.causes import LAST_ROUND
from dlsim.trace.rhythm import Rhythm
from dlsim.trace.summary import number
from dlsim.trace.telling import beside, limit, regular, sentence, table
from dlsim.trace.work import given_shares, in_an_epoch, last_round, told, unit
from dlsim.whatif.bounds import Bounds, disagrees
from dlsim.whatif.changes import ONE_THREAD, Change
from dlsim.whatif.endings import ended_by
from dlsim.whatif.extent import part_of
from dlsim.whatif.leaving import left_early
from dlsim.whatif.limits import means
from dlsim.whatif.replicate import Replications
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval

CLEAR = 0.1  # of a gain; who knows it to that, or to half of `WORTH`, need not know it better
WORTH = 0.02  # a gain below this is not worth a person's time
LITTLE = 1.1  # times as fast; less is told to two digits after the point
NEARLY = 0.8  # a setting that gains this share of what a better program or machine would


@dataclass(frozen=True)
class Gain:
    """What a change is worth: `gain` is the paired interval of how much more samples a second.

    0.25 is a quarter more. `samples_per_s`: with the change.
    """

    change: Change
    gain: Interval
    samples_per_s: float

    @property
    def sure(self) -> bool:
        """Whether it helps noticeably, and not by chance (which one replication cannot tell)."""
        return self.gain.mean >= WORTH and not self.gain.low <= 0

    @property
    def clear(self) -> bool:
        """Whether more replications would tell no more that anyone would act on."""
        return self.gain.half_width <= max(CLEAR * abs(self.gain.mean), WORTH / 2)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the time of `scenario` goes, and what would help.

    `idle`: the share of the elapsed time for which each cause keeps training idle; `shares`: that
    for which it is on the critical path, which add up to 1; both the greatest first. `gains`: of
    each single change, greatest first. `pair`: of the two changes that help together, where
    neither a setting nor a better machine helps alone. `headspace`: of a perfect loader. `runs`:
    the replications of the scenario as it is. `limits`: its closed-form bounds. `rhythm`: that of
    the waits of one run, under the seed, if they have one. Of long runs only a part was simulated,
    and stands for the whole; no rhythm is looked for in it.
    """

    scenario: Scenario
    idle: dict[str, Interval]
    shares: dict[str, Interval]
    gains: list[Gain]
    pair: Gain | None
    headspace: Gain
    runs: Replications
    limits: Bounds
    rhythm: Rhythm | None = None

    @property
    def stall(self) -> float:
        """The share of the time for which training is idle; NaN where no time passes."""
        return self.runs.interval("stall").mean

    @property
    def apart(self) -> float:
        """The share of the time in validation; 0 where there is none."""
        return float(np.nan_to_num(self.runs.interval("validation").mean))

    @property
    def limit(self) -> str:
        """What keeps training idle most, parts together; the step, where that is not long."""
        return limit(means(self.idle), self.stall) if self.shares else ""

    @property
    def best(self) -> Gain | None:
        """The change of the loader that surely gains most; None if none gains noticeably.

        What can be set by a keyword argument goes before what must be programmed or bought, if
        it gains nearly as much. What does not fit into memory is none.
        """
        sure = [gain for gain in self._sure if gain.change.name != _FASTER_STEP]
        enough = NEARLY * sure[0].gain.mean if sure else 0.0
        near = [gain for gain in sure if gain.gain.mean >= enough]
        return next((gain for gain in near if gain.change.loader), sure[0] if sure else None)

    @property
    def setting(self) -> Gain | None:
        """The keyword argument that surely gains most; None if none gains noticeably."""
        return next((gain for gain in self._sure if gain.change.loader), None)

    @property
    def _sure(self) -> list[Gain]:
        return [g for g in self.gains if g.sure and space(g.change.scenario).fits is not False]

    def __str__(self) -> str:
        """What limits and what helps, and whether it fits, a line each; then shares and gains."""
        return _text(self)


_FASTER_STEP = "step twice as fast"


def _text(found: Explanation) -> str:
    more = told(found.scenario, in_an_epoch(found.scenario))
    apart = beside(found.apart, found.runs.interval("validation_stall").mean)
    last = last_round(found.scenario) if found.limit == LAST_ROUND else ""
    first = " ".join(
        filter(None, (_threads(found), _sentence(found), apart, last, regular(found.rhythm), more))
    )
    lines = [first, _fitting(found), ""]
    if found.shares:
        busy = 1 - found.stall - found.apart
        lines += [table(means(found.idle), busy, means(found.shares), found.apart)]
    lines += ["", "what single changes would gain, in samples a second"]
    rows = [*found.gains, *([found.pair] if found.pair else []), found.headspace]
    width = max(len(gain.change.name) for gain in rows)
    for gain in rows:
        setting = f"  {gain.change.setting}" if gain.change.setting else ""
        setting += ", does not fit" if space(gain.change.scenario).fits is False else ""
        lines.append(f"  {gain.change.name:{width}}  {_percent(gain.gain):>16}{setting}")
    now, done = found.runs.interval("distinct_per_s"), in_an_epoch(found.scenario)
    what = unit(done)
    lines += [
        "",
        f"now {number(now.mean)} {what} ({_runs(found, now.half_width)}"
        f"{part_of(found.runs.part or found.scenario, found.scenario)}); "
        f"{found.limits.told(done.share, what)}",
    ]
    part = left_early(found.scenario, found.runs.interval("epoch_time").mean)
    lines += filter(None, [part, given_shares(found.scenario)])
    flagged = disagrees(found.limits, found.runs)
    return "\n".join([*lines, flagged] if flagged else lines)


def _runs(found: Explanation, half_width: float) -> str:
    """How sure the samples a second are, and from how many runs."""
    if not left_to_chance(found.scenario):
        return "nothing is random: one run"
    runs = len(found.runs)
    sure = "" if half_width != half_width else f"± {number(half_width)}, "
    return f"{sure}{runs} run{'s' * (runs != 1)}"


def _threads(found: Explanation) -> str:
    """That samples keep several cores busy by threads that wait for one another, if one gains."""
    alone = next((gain for gain in found.gains if gain.change.name == ONE_THREAD), None)
    if alone is None or not alone.sure:
        return ""
    stages = [stage for stage in found.scenario.dataset.fetch if stage.threads > 1]
    names = ", ".join(dict.fromkeys(stage.name for stage in stages))
    threads, cores = max(stage.threads for stage in stages), found.scenario.machine.cores
    busy = threads if cores is None else min(threads, cores)
    gain = "about" if any(stage.linger for stage in stages) else "at least"
    return (
        f"Each sample keeps {busy:.3g} core{'s' * (busy != 1)} busy while it computes ({names}), "
        f"by threads of libraries in each worker: limit threads in worker_init_fn: {gain} "
        f"{_times(alone.gain)}, {_percent(alone.gain)}."
    )


def _sentence(found: Explanation) -> str:
    """What limits, and the change that helps most."""
    if not found.shares:
        return "No time passes: there is nothing to explain."
    words, failed = sentence(means(found.idle), found.stall), found.runs["failed"].all()
    if failed:
        words += f"; runs end early: {ended_by(found.scenario) or 'by an error'}"
    elif not found.runs["batches"].any():
        return "No batch is returned."
    best, head = found.best, found.headspace.gain
    if best is None:
        room = f"a perfect loader would gain {_percent(head).removeprefix('+')}"
        if head.mean != head.mean:
            return f"{words}." if failed else f"{words}; no single change of the loader helps."
        if head.mean < WORTH:
            return f"{words}; the loader is good enough: {room}."
        if found.pair is not None:
            return f"{words}; no single change helps noticeably, but two do: {_pair(found.pair)}."
        sure = any(gain.sure and gain.change.name != _FASTER_STEP for gain in found.gains)
        fits = " that fits into memory" if sure else ""
        return f"{words}; no single change of the loader{fits} helps noticeably: {room}."
    if found.pair is not None:
        return (
            f"{words}; no single setting or better machine helps noticeably, but two together do: "
            f"{_pair(found.pair)}."
        )
    how = f" ({best.change.setting})" if best.change.setting else ""
    times = _times(best.gain)
    words += f"; {_among(found, best)}{best.change.name}{how} would help most: "
    words += f"{times}, {_percent(best.gain)}"
    setting = found.setting
    if setting is not None and not best.change.loader:
        words += f"; of mere settings, {setting.change.setting} does, {_percent(setting.gain)}"
    return f"{words}."


def _among(found: Explanation, best: Gain) -> str:
    """Of what a change is the best, where another one, which is not advised, gains more."""
    if all(gain.gain.mean <= best.gain.mean for gain in found.gains if gain.sure):
        return ""
    return "of settings, " if best.change.loader else "of changes to loading, "


def _pair(found: Gain) -> str:
    return f"{found.change.name}: {_times(found.gain)}, {_percent(found.gain)}"


def _times(gain: Interval) -> str:
    """How many times as fast: to one digit after the point, or to what tells it from 1."""
    times = 1 + gain.mean
    return f"{times:.2g} times as fast" if times >= LITTLE else f"{times:.3g} times as fast"


def _fitting(found: Explanation) -> str:
    """Whether it fits: with the setting that helps most, or as it is."""
    chosen = found.setting
    now = space(found.scenario)
    if chosen is None or now.fits is False or not now.needed:
        return str(now)
    return f"{space(chosen.change.scenario)} That is with {chosen.change.setting}."


def _percent(gain: Interval) -> str:
    if gain.mean != gain.mean:
        return "-"
    if gain.half_width != gain.half_width:
        return f"{100 * gain.mean:+z.1f} %"
    return f"{100 * gain.mean:+z.1f} ± {100 * gain.half_width:.1f} %"
