"""What the page shows: a state, which it sends with each question; and what is simulated for it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from threading import Event
from typing import Annotated

from msgspec import Meta, Struct, structs

from dlsim.engine import simulate, simulate_job
from dlsim.engine.compiled import installed
from dlsim.engine.effort import counts, effort
from dlsim.scenario import DlsimError, Scenario, ScenarioError, from_tree, load
from dlsim.scenario.files import changed
from dlsim.scenario.shipped import shipped
from dlsim.trace import JobTrace, Trace

MOST = 50_000  # batches that are simulated for a picture
# Effort, where nothing is compiled: up to 0.5 s and 5 s; that of jobs is less than is reckoned.
GLANCE, LOOK, LOOK_AT_JOB = 10_000.0, 100_000.0, 1_500_000.0
WARM = Event()  # set once the compiled engine answers at once
# Compiles; and ends with the process that began it, whose end closes its stdin.
COMPILE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from dlsim.show.states import run_compiled
run_compiled()
"""
Count = Annotated[int, Meta(ge=0)]


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page shows: a scenario that comes with dlsim, or its TOML; what was changed; a seed.

    `zoom`: the stretch of time that is shown, in seconds; `rank`: of a job, the one that is shown.
    `brief`: whether the beginning will do, where all of it takes more than a moment.
    """

    preset: str = ""
    toml: str = ""
    changes: dict[str, str] = {}
    seed: int = 0
    zoom: tuple[float, float] | None = None
    rank: Count = 0
    brief: bool = False


def base_of(state: State) -> Scenario:
    """The scenario of a state before it was changed. Raises `DlsimError` where there is none."""
    if state.preset:
        known = shipped()
        if state.preset not in known:
            raise DlsimError(f"preset: expected one of {', '.join(known)}, got {state.preset!r}")
        return load(known[state.preset])
    try:
        return from_tree(tomllib.loads(state.toml))
    except ScenarioError:
        raise
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"expected TOML: {error}") from None


def scenario_of(state: State) -> Scenario:
    """The scenario of a state, as changed. Raises `DlsimError` for one that cannot be."""
    return changed(base_of(state), state.changes)


@dataclass(frozen=True)
class Shown:
    """What is `asked` for, what `scenario` is simulated for it, and in words which `part` that is.

    `more`: whether that is less than there is time for, once nothing moves any more.
    """

    asked: Scenario
    scenario: Scenario
    part: str = ""
    more: bool = False


def shown(state: State) -> Shown:
    """What is simulated for the pictures of a state. Raises `DlsimError` for one that cannot be."""
    scenario = scenario_of(state)
    batches = scenario.epochs * int(counts(scenario)[0])
    most, look = MOST, MOST
    if not _compiles(scenario):
        each = effort(scenario) / max(batches, 1)
        least = 2 * max(scenario.loader.window, 1)
        whole = LOOK_AT_JOB if scenario.is_job else LOOK
        glance, look = (min(MOST, max(int(most / each), least)) for most in (GLANCE, whole))
        most = glance if state.brief else look
    if batches <= most:
        return Shown(scenario, scenario)
    each_epoch = max(most // scenario.epochs, 1)
    consumer = structs.replace(scenario.consumer, stop_after=each_epoch)
    part = f"Shown is a run that leaves each epoch after {each_epoch:,} batches"
    more = most < min(look, batches)
    part += "; more of it follows in a moment." if more else "."
    return Shown(scenario, structs.replace(scenario, consumer=consumer), part, more)


@lru_cache(maxsize=8)
def traced(scenario: Scenario, seed: int) -> Trace | JobTrace:
    """A trace of the scenario, or of all ranks of a job. It is kept for a while."""
    if scenario.is_job and scenario.job.rank is None:
        return simulate_job(scenario, seed)
    return simulate(scenario, seed, engine="compiled" if _compiles(scenario) else "auto")


def seen(whole: Trace | JobTrace, rank: int) -> tuple[Trace, int]:
    """The trace that pictures show: of a job, that of a rank, the last one if it has no such."""
    if not isinstance(whole, JobTrace):
        return whole, 0
    rank = min(rank, len(whole) - 1)
    return whole.ranks[rank], rank


def _compiles(scenario: Scenario) -> bool:
    return installed() and WARM.is_set() and not scenario.is_job


def warm() -> None:
    """Have the compiled engine loaded, and compiled once; until then the other one does.

    Compiling lets no other thread go on for seconds: a process of its own does it, and keeps what
    it compiles, as far as that is not there.
    """
    if not installed():
        return
    with subprocess.Popen([sys.executable, "-c", COMPILE], stdin=subprocess.PIPE) as child:
        child.wait()
    run_compiled()
    WARM.set()


def run_compiled() -> None:
    """Simulate a little of each scenario that comes with dlsim with the compiled engine."""
    for path in shipped().values():
        scenario = load(path)
        consumer = structs.replace(scenario.consumer, stop_after=20)
        if not scenario.is_job:
            simulate(structs.replace(scenario, consumer=consumer), engine="compiled")
