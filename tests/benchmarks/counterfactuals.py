"""Whether removing the top cause gains what its counterfactual promised; whether shares add up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import dlsim
from dlsim.scenario import Scenario
from dlsim.trace.critical_path import shares
from dlsim.whatif import Explanation, Gain, explain, interval, replicate
from dlsim.whatif.extent import measured
from tests.benchmarks.flags import each
from tests.strategies import scenarios
from tests.test_bounds import anywhere

PROMISED, MADE = 10, 100  # replications of the promise, and of what came of it
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


def lines(count: int) -> Iterator[str]:
    """Two tables' worth of figures."""
    worst, seen = 0.0, 0
    kept = tried = 0
    causes: dict[str, int] = {}

    def add_up(scenario: Scenario) -> None:
        nonlocal worst, seen
        found = shares(dlsim.simulate(scenario))
        seen += 1
        worst = max(worst, abs(sum(found.values()) - 1) if found else 0.0)

    def change(scenario: Scenario) -> None:
        nonlocal kept, tried
        found = explain(scenario, PROMISED)
        gain = remedy(found)
        if gain is None or gain.gain.count < PROMISED:
            return
        tried += 1
        kept += came(scenario, gain)
        causes[gain.change.name] = causes.get(gain.change.name, 0) + 1

    for strategy in (scenarios(torch_only=False), anywhere()):
        each(strategy, 5 * count, add_up)
    each(anywhere(), count, change)
    bad = "" if worst <= 1e-9 else " **missed**"
    yield f"The shares of {seen:,} random scenarios add up to 1 within {worst:.1g}.{bad}\n"
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
