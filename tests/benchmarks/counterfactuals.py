"""Whether removing the top cause gains what its counterfactual promised; whether shares add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import dlsim
from dlsim.scenario import Scenario
from dlsim.trace.critical_path import shares
from dlsim.whatif import Explanation, Gain, explain, interval, replicate
from dlsim.whatif.stretching import measured
from tests.benchmarks.flags import KINDS, each
from tests.whatif.test_bounds import anywhere

PROMISED, MADE = 10, 100  # replications of the promise, and of what came of it
PIECE = 100  # scenarios whose shares are added up; changes are a tenth of that
REMEDIES = {
    "step": "step twice as fast",
    "storage": "storage twice as fast",
    "core": "twice the cores",
    "collate": "collate twice as fast",
    "head of line": "any order",
}


def remedy(found: Explanation) -> Gain | None:
    """The change that goes for the top cause, if there is one."""
    top = next(iter(found.shares), "")
    name = REMEDIES.get(top, f"{top.removeprefix('fetch: ')} twice as fast")
    return next((gain for gain in found.gains if gain.change.name == name), None)


def came(scenario: Scenario, promised: Gain) -> bool:
    """Whether the promised interval holds what comes of the change under other random numbers.

    What comes is a mean too: its own error counts.
    """
    before, after = (
        replicate(case, MADE, seed=1, measured=measured(case))["samples_per_s"]
        for case in (scenario, promised.change.scenario)
    )
    ratio = interval(after / before - 1)
    error = float(np.hypot(promised.gain.half_width, ratio.half_width))
    return abs(ratio.mean - promised.gain.mean) <= error + 1e-9


def add_up(kind: str, count: int, seed: int) -> dict[str, Any]:
    """How far from 1 the shares of so many scenarios are, at worst."""
    worst = 0.0

    def look(scenario: Scenario) -> None:
        nonlocal worst
        found = shares(dlsim.simulate(scenario))
        worst = max(worst, abs(sum(found.values()) - 1) if found else 0.0)

    each(KINDS[kind], count, seed, look)
    return {"worst": worst, "seen": count}


def change(count: int, seed: int) -> dict[str, Any]:
    """What was changed in so many scenarios, and how often what came was as promised."""
    tried: list[str] = []
    kept: list[bool] = []

    def look(scenario: Scenario) -> None:
        gain = remedy(explain(scenario, PROMISED))
        if gain is None or gain.gain.count < PROMISED:
            return
        tried.append(gain.change.name)
        kept.append(came(scenario, gain))

    each(anywhere(), count, seed, look)
    return {"tried": tried, "kept": kept}


def pieces(count: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Some scenarios each; five times as many whose shares only are looked at."""
    sums = {
        f"shares {kind}, {first}": partial(add_up, kind, min(PIECE, 5 * count - first), first)
        for kind in KINDS
        for first in range(0, 5 * count, PIECE)
    }
    few = PIECE // 10
    changed = {
        f"changes {first}": partial(change, min(few, count - first), first)
        for first in range(0, count, few)
    }
    return sums | changed


def lines(count: int, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Two paragraphs: shares add up, changes gain what they promised."""
    sums = [row for name, row in rows.items() if name.startswith("shares")]
    seen, worst = sum(row["seen"] for row in sums), max(row["worst"] for row in sums)
    bad = "" if worst <= 1e-9 else " **missed**"
    yield (
        f"The shares of {seen:,} random scenarios add up to 1 within {worst:.1g}. "
        f"Goal: 1e-9.{bad}\n"
    )
    changed = [row for name, row in rows.items() if name.startswith("changes")]
    causes = Counter(name for row in changed for name in row["tried"])
    kept, tried = sum(sum(row["kept"]) for row in changed), causes.total()
    share = kept / max(tried, 1)
    bad = "" if share >= 0.93 else " **missed**"
    made = ", ".join(f"{name} ({number})" for name, number in sorted(causes.items()))
    yield (
        f"In {count} random scenarios the cause with the greatest share was halved or removed, "
        f"where a change does that ({tried}: {made}). The change was promised a gain by "
        f"{PROMISED} pairs of runs, and made {MADE} times under other random numbers. What came "
        f"lay within the 95 % interval of the promise {kept} times, {share:.1%}. Goal: 93 % or "
        f"more (all, where nothing is random).{bad}"
    )
