"""An account in words: one sentence, and one table, wherever it is told."""

from __future__ import annotations

from collections.abc import Mapping

from dlsim.scenario.units import duration
from dlsim.trace import rhythm
from dlsim.trace.causes import FETCH, STEP, VALIDATION, WORDS, greatest, group, grouped, ranked
from dlsim.trace.summary import aligned, percent

NEGLIGIBLE = 0.05  # a training that is idle for less is limited by its step
NEAR = 0.5  # of the greatest cause; what keeps training idle for less goes without saying
SHOWN = 0.0005  # of the time; a smaller share is no line of a table
DIFFERENCE = (
    "Idle is what training waited for; the path is what each second hung on, busy ones too:\n"
    "what would have ended the run sooner, had it been faster."
)


def limit(idle: Mapping[str, float], stall: float) -> str:
    """What limits a run: the greatest cause of its idleness, or the step if there is little of it.

    `idle`: the share of the elapsed time by cause, `stall` their sum.
    """
    return STEP if stall < NEGLIGIBLE else greatest(idle)


def sentence(idle: Mapping[str, float], stall: float) -> str:
    """How long training is idle, and for what, without a full stop: the greatest cause first.

    `idle`: the share of the elapsed time by cause, `stall` their sum; NaN if that is not known.
    """
    if stall != stall:
        return "How long training is idle is not known"
    said = f"Training is idle {percent(stall)} of the time"
    if limit(idle, stall) == STEP:
        return f"{said}: {WORDS[STEP]} limits"
    first = greatest(idle)
    if not first:  # what the few runs of which causes are told were spared
        return said
    found = grouped(idle)
    causes = [first, *(cause for cause in ranked(found) if cause != first)]
    near = [cause for cause in causes if found[cause] >= NEAR * found[first]]
    return f"{said}: " + ", ".join(_part(cause, found[cause], idle) for cause in near)


def regular(found: rhythm.Rhythm | None) -> str:
    """A sentence on the rhythm of waits: every how many batches, how long, why; "" for none."""
    if found is None:
        return ""
    which = f"Every {ordinal(found.period)} batch is waited for"
    usual = f"usually {duration(found.wait)}, the others {duration(found.others)}"
    why = _why(found)
    return f"{which}, {usual}{': ' if why else ''}{why}."


def _why(found: rhythm.Rhythm) -> str:
    long, short = (duration(length) for length in found.lengths)
    if found.cause == rhythm.EPOCH:
        return "it is the first of an epoch, for which nothing is sent before the epoch begins"
    if found.cause == rhythm.FETCH:
        whose = f"come from worker {found.worker} and " if found.worker >= 0 else ""
        return f"these {whose}take {long} to fetch, the others {short}"
    if found.cause == rhythm.STEP:
        return f"the loop takes {long} before it asks for these, {short} before the others"
    if found.cause == rhythm.WINDOW:
        return (
            f"no more than {found.period} (num_workers * prefetch_factor) are on their way at a "
            f"time, and the worker of the next one is idle for {long}"
        )
    if found.cause == rhythm.ROUNDS:
        return (
            f"{found.period} workers (num_workers) fetch at the same time, so that batches come "
            f"{found.period} at a time"
        )
    return ""


def ordinal(number: int) -> str:
    """A number as one counts: 1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{last or 'th'}"


def _part(cause: str, share: float, idle: Mapping[str, float]) -> str:
    """The share of a cause, and what it is for: of several stages, the one that takes most."""
    parts = {name: value for name, value in idle.items() if group(name) == cause}
    most = max(parts, key=lambda name: parts[name])
    stage = most.partition(": ")[2]
    several = cause == FETCH and len(parts) > 1
    which = f", most of it {stage}" if several and stage not in ("", FETCH) else ""
    return f"{percent(share)} for {WORDS.get(cause, cause)}{which}"


def beside(share: float, idle: float) -> str:
    """A sentence on validation: the share of time it takes, and of that, for which it is idle."""
    if not share > 0:
        return ""
    waits = f", {percent(idle)} of it idle" if idle >= NEGLIGIBLE else ""
    return f"Validation takes {percent(share)} of the time{waits}."


def table(
    idle: Mapping[str, float], busy: float, path: Mapping[str, float], apart: float = 0.0
) -> str:
    """The account and the critical path beside each other, shares of the elapsed time by cause.

    `apart`: the share in validation, of `busy` no part. Last, in what they differ.
    """
    causes = ranked({cause: max(idle.get(cause, 0.0), 0.0) for cause in {**idle, **path}})
    by_path = sorted(causes, key=lambda cause: (-idle.get(cause, 0.0), -path.get(cause, 0.0)))
    rows = [("where the time goes", "idle", "path")]
    for cause in by_path:
        shares = idle.get(cause, 0.0), path.get(cause, 0.0)
        if cause not in (STEP, VALIDATION) and max(shares) >= SHOWN:
            idle_for, hung_on = (percent(share) if share else "" for share in shares)
            rows.append((f"  {cause}", idle_for, hung_on))
    if apart:
        rows.insert(1, ("  validation", f"({percent(apart)})", percent(path.get(VALIDATION, 0.0))))
    rows.insert(1, ("  busy", f"({percent(busy)})", percent(path.get(STEP, 0.0))))
    return f"{aligned(rows)}\n{DIFFERENCE}"
