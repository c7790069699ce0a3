"""Why it is as slow as it is, and what each single change would gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.engine.effort import effort
from dlsim.scenario import Scenario
from dlsim.trace.critical_path import (
    COLLATE,
    CORE,
    EDGE,
    ERROR,
    FETCH,
    HEAD_OF_LINE,
    RECEIVE,
    START,
    STEP,
    STORAGE,
    TAKE,
    TRANSPORT,
    grouped,
)
from dlsim.trace.summary import number
from dlsim.whatif.bounds import Bounds, bounds, disagrees
from dlsim.whatif.changes import Change, changes, perfect_loader
from dlsim.whatif.controls import gained
from dlsim.whatif.extent import SHARE, measured, part_of, shortened
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.replicate import Replications, replicate
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval, interval

# Replications, and the effort of all for each change; some seconds, whatever the scenario.
LEAST, MOST, EFFORT = 5, 30, 12_000.0
WORTH = 0.02  # a gain below this is not worth a person's time
NEARLY = 0.8  # a setting that gains this share of what a better program or machine would

LIMITS = {
    STEP: "The training step limits",
    FETCH: "Fetching samples limits",
    COLLATE: "Collating limits",
    CORE: "The cores limit: too many processes want them",
    STORAGE: "Storage limits",
    HEAD_OF_LINE: "Order limits: slow batches keep back faster ones",
    TAKE: "Telling workers what to fetch limits",
    TRANSPORT: "Moving batches out of the workers limits",
    RECEIVE: "Receiving batches in the main process limits",
    START: "Starting up limits: the run is short",
    EDGE: "The beginning and end of epochs limit",
    ERROR: "An error ends the run",
}


# The same causes as what stands in the way.
WORDS = {
    STEP: "the training step",
    FETCH: "fetching samples",
    COLLATE: "collating",
    CORE: "the cores, which too many processes want",
    STORAGE: "storage",
    HEAD_OF_LINE: "order: slow batches keep back faster ones",
    TAKE: "telling workers what to fetch",
    TRANSPORT: "moving batches out of the workers",
    RECEIVE: "receiving batches in the main process",
    START: "starting up, until the first batch is there",
    EDGE: "the beginning and end of epochs",
    ERROR: "an error",
}


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


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the time of `scenario` goes, and what would help.

    `shares`: of the elapsed time on the critical path, by cause, greatest first; their means add
    up to 1. `gains`: of each single change, greatest first. `headspace`: of a perfect loader.
    `runs`: the replications of the scenario as it is. `limits`: its closed-form bounds. Of long
    runs only a part was simulated, and stands for the whole.
    """

    scenario: Scenario
    shares: dict[str, Interval]
    gains: list[Gain]
    headspace: Gain
    runs: Replications
    limits: Bounds

    @property
    def limit(self) -> str:
        """The cause that takes most of the time, all stages of fetching taken together."""
        found = group_shares(self.runs)
        return max(found, key=lambda group: found[group], default="")

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


def explain(
    scenario: Scenario, replications: int | None = None, seed: int = 0, *, jobs: int = 1
) -> Explanation:
    """Where the time of `scenario` goes, and what each single change would gain.

    The critical path of every replication is divided among its causes; every change that makes
    sense is simulated under the same random numbers, so that its gain is a paired difference.
    `replications`: by default 5 to 30, fewer of long runs, and of very long ones only a part is
    simulated (see `dlsim.whatif.extent`). `jobs`: see `replicate`.
    """
    check_jobs(jobs)
    if replications is None:
        fitting = int(EFFORT / effort(shortened(scenario, EFFORT / LEAST)))
        replications = min(max(fitting, LEAST), MOST)
    check_counts(replications=replications)

    def run(case: Scenario, *, shares: bool = False) -> Replications:
        part = shortened(case, EFFORT / LEAST)
        what = measured(case, shares=shares)
        return replicate(part, replications, seed, jobs=jobs, measured=what)

    runs = run(scenario, shares=True)

    def gain(change: Change) -> Gain:
        changed = run(change.scenario)
        return Gain(change, gained(runs, changed), float(changed["samples_per_s"].mean()))

    gains = [gain(change) for change in changes(scenario)]
    return Explanation(
        scenario=scenario,
        shares=_mean_shares(runs),
        gains=sorted(gains, key=lambda found: -np.nan_to_num(found.gain.mean, nan=-np.inf)),
        headspace=gain(Change("a perfect loader", perfect_loader(scenario))),
        runs=runs,
        limits=bounds(scenario),
    )


def group_shares(runs: Replications) -> dict[str, float]:
    """The mean share of each cause in `runs` (measured with shares), fetching as one cause."""
    return grouped({cause: share.mean for cause, share in _mean_shares(runs).items()})


def _mean_shares(runs: Replications) -> dict[str, Interval]:
    found = {
        metric.removeprefix(SHARE): interval(np.nan_to_num(values))
        for metric, values in runs.metrics.items()
        if metric.startswith(SHARE)
    }
    return dict(sorted(found.items(), key=lambda entry: -entry[1].mean))


def _text(found: Explanation) -> str:
    lines = [_sentence(found), _fitting(found), ""]
    if found.shares:
        lines += ["where the time goes (critical path)"]
        width = max(map(len, found.shares))
        lines += [
            f"  {cause:{width}}  {100 * share.mean:5.1f} %"
            for cause, share in found.shares.items()
            if share.mean >= 0.0005
        ]
    lines += ["", "what single changes would gain, in samples a second"]
    ranked = [*found.gains, found.headspace]
    width = max(len(gain.change.name) for gain in ranked)
    for gain in ranked:
        setting = f"  {gain.change.setting}" if gain.change.setting else ""
        setting += ", does not fit" if space(gain.change.scenario).fits is False else ""
        lines.append(f"  {gain.change.name:{width}}  {_percent(gain.gain):>16}{setting}")
    now = found.runs.interval("samples_per_s")
    left = (
        ", leaving the loop early not counted"
        if found.scenario.consumer.stop_after is not None
        else ""
    )
    lines += [
        "",
        f"now {number(now.mean)} samples/s (± {number(now.half_width)}, {len(found.runs)} runs"
        f"{part_of(found.runs.scenario, found.scenario)}{left}); {found.limits}",
    ]
    flagged = disagrees(found.limits, found.runs)
    return "\n".join([*lines, flagged] if flagged else lines)


def _sentence(found: Explanation) -> str:
    """What limits, and the change that helps most."""
    if not found.shares:
        return "No time passes: there is nothing to explain."
    limit = found.limit
    parts = {cause: s.mean for cause, s in found.shares.items() if cause.startswith(limit)}
    words = f"{LIMITS.get(limit, limit)} ({100 * sum(parts.values()):.0f} % of the time"
    if limit == FETCH and len(parts) > 1:
        most = max(parts, key=lambda cause: parts[cause])
        words += f", most of it {most.removeprefix(FETCH + ': ')}"
    words += ")"
    best, head = found.best, found.headspace.gain
    if best is None:
        room = f"a perfect loader would gain {_percent(head).removeprefix('+')}"
        if head.mean < WORTH:
            return f"{words}; the loader is good enough: {room}."
        sure = any(gain.sure and gain.change.name != _FASTER_STEP for gain in found.gains)
        fits = " that fits into memory" if sure else ""
        return f"{words}; no single change of the loader{fits} helps noticeably: {room}."
    how = f" ({best.change.setting})" if best.change.setting else ""
    times = f"{1 + best.gain.mean:.2g} times as fast"
    words += f"; {best.change.name}{how} would help most: {times}, {_percent(best.gain)}"
    setting = found.setting
    if setting is not None and not best.change.loader:
        words += f"; of mere settings, {setting.change.setting} does, {_percent(setting.gain)}"
    return f"{words}."


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
