"""An account in words: one sentence, and one table, wherever it is told."""

from __future__ import annotations

from collections.abc import Mapping

from dlsim.trace.causes import FETCH, STEP, WORDS, greatest, group, grouped, ranked
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
    found = grouped(idle)
    causes = [first, *(cause for cause in ranked(found) if cause != first)]
    near = [cause for cause in causes if found[cause] >= NEAR * found[first]]
    return f"{said}: " + ", ".join(_part(cause, found[cause], idle) for cause in near)


def _part(cause: str, share: float, idle: Mapping[str, float]) -> str:
    """The share of a cause, and what it is for: of several stages, the one that takes most."""
    parts = {name: value for name, value in idle.items() if group(name) == cause}
    most = max(parts, key=lambda name: parts[name])
    stage = most.partition(": ")[2]
    which = f", most of it {stage}" if cause == FETCH and stage and len(parts) > 1 else ""
    return f"{percent(share)} for {WORDS.get(cause, cause)}{which}"


def table(idle: Mapping[str, float], busy: float, path: Mapping[str, float]) -> str:
    """The account and the critical path beside each other, shares of the elapsed time by cause.

    Last, in what they differ.
    """
    causes = ranked({cause: max(idle.get(cause, 0.0), 0.0) for cause in {**idle, **path}})
    by_path = sorted(causes, key=lambda cause: (-idle.get(cause, 0.0), -path.get(cause, 0.0)))
    rows = [("where the time goes", "idle", "path")]
    for cause in by_path:
        shares = idle.get(cause, 0.0), path.get(cause, 0.0)
        if cause != STEP and max(shares) >= SHOWN:
            idle_for, hung_on = (percent(share) if share else "" for share in shares)
            rows.append((f"  {cause}", idle_for, hung_on))
    rows.insert(1, ("  busy", f"({percent(busy)})", percent(path.get(STEP, 0.0))))
    return f"{aligned(rows)}\n{DIFFERENCE}"
