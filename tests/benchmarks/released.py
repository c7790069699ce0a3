"""What `tests.benchmarks.releases` compares in the process of one release of torch."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import Scenario
from dlsim.trace.difference import difference
from dlsim.validation import run_virtual
from tests.benchmarks.drawing import drawn
from tests.strategies import scenarios

IN_ORDER_SINCE = (2, 6)
BATCHES = 1000


def compared(release: str, count: int, seed: int) -> dict[str, Any]:
    """Random scenarios under the release's rules, simulated and run; each difference is printed."""
    found = {"scenarios": 0, "batches": 0, "differences": 0}

    @drawn(count, seed)
    @given(scenarios(), st.integers(0, 2**32))
    def compare(drawn: Scenario, seed: int) -> None:
        scenario = under(drawn, release)
        ours = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
        different = difference(ours, run_virtual(scenario, seed, samples=True))
        found["scenarios"] += 1
        found["batches"] += len(ours)
        if different is not None:
            found["differences"] += 1
            print(f"{different}\t{scenario}\tseed {seed}", flush=True)

    compare()
    return found


def under(scenario: Scenario, release: str) -> Scenario:
    """The scenario under the rules of a release, in order where there is no other."""
    known = tuple(map(int, release.split("."))) >= IN_ORDER_SINCE
    changes: dict[str, Any] = {"torch": release}
    return dlsim.replace(scenario, changes if known else {**changes, "loader.in_order": True})


def head_of_line(release: str, *, in_order: bool) -> float | None:
    """Batches a second that the release's code returns where one worker of four is slow.

    It takes 10 s for a batch, and the others 1 s. None where there is no such order.
    """
    if not in_order and tuple(map(int, release.split("."))) < IN_ORDER_SINCE:
        return None
    times = [10.0] * BATCHES + [1.0] * 3 * BATCHES
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=4, in_order=in_order),
        dataset=dlsim.IterableDataset(
            len(times),
            sharding="split",
            fetch=[dlsim.Stage("read", wait=dlsim.Recorded(times))],
        ),
        consumer=dlsim.Consumer(stop_after=BATCHES),
        torch=release,
    )
    trace = run_virtual(scenario)
    assert difference(dlsim.simulate(scenario), trace) is None
    return len(trace.order) / float(trace.returned[trace.order].max())
