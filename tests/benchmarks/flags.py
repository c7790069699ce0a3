"""Disagreements of simulations with closed forms: none that is not there, those that are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dlsim.scenario import Scenario
from dlsim.whatif import bounds, disagrees, replicate
from tests.benchmarks.drawing import drawn
from tests.strategies import scenarios
from tests.whatif.test_bounds import anywhere

REPLICATIONS = 5
PLANTED = (1.1, 1.5, 3.0)
PIECE = 50  # scenarios
KINDS = {
    "of torch's rules and all distributions": scenarios(torch_only=False),
    "on machines where everything is shared": anywhere(),
}


def each(
    strategy: st.SearchStrategy[Scenario], count: int, seed: int, look: Callable[[Scenario], None]
) -> None:
    """Look at so many random scenarios, always the same under a seed."""

    @drawn(count, seed)
    @given(strategy)
    def look_at(scenario: Scenario) -> None:
        look(scenario)

    look_at()


def flagged(strategy: st.SearchStrategy[Scenario], count: int, seed: int) -> dict[str, Any]:
    """What was flagged of so many scenarios; how often with a bound so many times too high."""
    false: list[str] = []
    true = [0] * len(PLANTED)

    def look(scenario: Scenario) -> None:
        found, limits = replicate(scenario, REPLICATIONS), bounds(scenario)
        said = disagrees(limits, found)
        if said is not None:
            false.append(f"{said}: {scenario}")
        for at, factor in enumerate(PLANTED):
            # a simulation that is bound by this would be so many times too fast
            least = float(found["elapsed"].mean()) / max(float(found["batches"].mean()), 1.0)
            wrong = replace(limits, periods={"step": factor * least})
            true[at] += disagrees(wrong, found) is not None

    each(strategy, count, seed, look)
    return {"flagged": false, "planted": true}


def pieces(count: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Some scenarios of a kind each."""
    return {
        f"{kind}, {first} to {first + PIECE}": partial(
            flagged, strategy, min(PIECE, count - first), first
        )
        for kind, strategy in KINDS.items()
        for first in range(0, count, PIECE)
    }


def lines(count: int, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A table of both kinds of random scenarios."""
    planted = ", ".join(f"{factor - 1:.0%}" for factor in PLANTED)
    yield (
        f"{count:,} random scenarios of each kind, {REPLICATIONS} replications of each: how many "
        "are flagged as beyond their closed forms, which none is (goal: 0); and how many when a "
        f"bound is put in that the simulation beats by {planted}. Epochs here are short, and some "
        "times vary without end (Pareto), so that chance explains much: what it explains is "
        "not flagged.\n"
    )
    yield f"| scenarios | flagged | of those planted: {planted} | |\n|---|---|---|---|"
    for kind in KINDS:
        mine = [row for name, row in rows.items() if name.startswith(kind)]
        false = [said for row in mine for said in row["flagged"]]
        true = [sum(column) for column in zip(*(row["planted"] for row in mine), strict=True)]
        shown = ", ".join(map(str, true))
        yield f"| {kind} | {len(false)} | {shown} | {'**missed**' if false else ''} |"
        for said in false[:5]:
            print(said)
