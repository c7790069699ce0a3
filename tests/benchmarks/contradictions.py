"""Ask every command about many random scenarios; print where two contradict each other.

    python -m tests.benchmarks.contradictions --scenarios 2000 --seed 1

On what limits, and by how much; on whether it fits, and whether a target is held; on what a change
gains; on what advice promises. Accounts add up, too. Exit status 0 where nothing is contradicted.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

import dlsim
from dlsim.engine.compiled import installed
from dlsim.engine.effort import decided
from dlsim.scenario import Scenario
from tests.benchmarks.drawing import drawn
from tests.strategies import on_machines, scenarios
from tests.trace.test_account import adds_up
from tests.whatif import voice

SHARES = st.sampled_from([0.02, 0.05, 0.2, 0.6])
SPAWNED = dlsim.scenario.Start(method="spawn", worker_start=0.25, worker_memory=2e4)
FORKED = dlsim.scenario.Start(method="fork", worker_start=0.125)
STARTS = st.sampled_from([(), (SPAWNED,), (SPAWNED, FORKED)])
METHODS = st.sampled_from([None, "fork", "spawn"])
LIMITS = st.sampled_from([None, 1e5, 1e6, 64 * 2.0**20])


@st.composite
def limited(draw: st.DrawFn) -> Scenario:
    """Any scenario, some of them on machines with little room, or with other start methods."""
    scenario = draw(scenarios(torch_only=False) | on_machines())
    shm, memory = draw(LIMITS), draw(LIMITS)
    descriptors = draw(st.sampled_from([None, None, 30]))
    machine = structs.replace(scenario.machine, shm=shm, memory=memory, descriptors=descriptors)
    loader, costs = scenario.loader, structs.replace(scenario.costs, starts=draw(STARTS))
    if loader.num_workers and not loader.threads:
        loader = structs.replace(loader, multiprocessing_context=draw(METHODS))
    return structs.replace(scenario, machine=machine, loader=loader, costs=costs)


def ask(scenario: Scenario, share: float) -> None:
    """Raise where two answers about `scenario` contradict each other."""
    adds_up(dlsim.simulate(scenario))
    voice.gains_what_is_said(scenario, voice.agree(scenario))
    voice.fits_alike(scenario)


def main() -> int:
    """Run, and say what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--advise", type=int, default=10, help="every n-th is advised on, too")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    began = time.perf_counter()

    @drawn(options.scenarios, options.seed)
    @given(limited(), SHARES)
    def contradict(scenario: Scenario, share: float) -> None:
        counts["scenarios"] += 1
        try:
            ask(scenario, share)
            if counts["scenarios"] % options.advise == 0:
                voice.asserts_what_is_so(scenario, share)
                voice.holds_what_it_promises(scenario, share)
        except Exception:
            counts["contradictions"] += 1
            print(f"{traceback.format_exc(limit=-3)}{share} {scenario}\n", flush=True)
        if counts["scenarios"] % 100 == 0:
            print(dict(counts), flush=True)

    with decided(installed()):  # many answers: compiling is worth it
        contradict()
    took = time.perf_counter() - began
    print(f"{counts['scenarios']} scenarios, {counts['contradictions']} contradicted: {took:.0f} s")
    return 1 if counts["contradictions"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
