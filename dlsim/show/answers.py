"""What the page asks for, and what it gets: everything a function of the state that it sends.

Nothing is remembered between two requests but traces, for those who zoom into them; so tabs do not
disturb each other, and a link that holds a state holds everything.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from threading import Event
from typing import Any

import msgspec
from msgspec import Struct, structs

from dlsim.engine import simulate, simulate_job
from dlsim.engine.compiled import installed
from dlsim.engine.facts import batches_to_simulate
from dlsim.report.text import ended_early, setup, verdict
from dlsim.scenario import (
    DlsimError,
    IterableDataset,
    Loader,
    Scenario,
    ScenarioError,
    dumps,
    from_tree,
    load,
)
from dlsim.scenario.files import changed
from dlsim.scenario.loader import NOT_TORCHS
from dlsim.scenario.shipped import shipped
from dlsim.show.controls import controls
from dlsim.show.lesson_page import lesson_data, rules_data
from dlsim.show.lesson_page import shown as filmed
from dlsim.show.lessons import lesson, lessons
from dlsim.show.pictures import bytes_over_time, lanes, occupancy, stretch, waits
from dlsim.trace import Trace, summarize
from dlsim.trace.account import Account, account
from dlsim.trace.summary import give_or_take, number, percent
from dlsim.whatif import replicate
from dlsim.whatif.designs import configured
from dlsim.whatif.extent import measured, shortened
from dlsim.whatif.space import space
from dlsim.whatif.versus import compare

Json = dict[str, Any]

MOST = 50_000  # batches that are simulated for a picture
POINTS = 3  # replications of each point of throughput against workers
EFFORT = 1500.0  # of each of these (see `dlsim.whatif.extent`)
WARM = Event()  # set once the compiled engine answers at once
LABEL = 13  # characters that the lines of a summary begin with


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page shows: a scenario that comes with dlsim, or its TOML; what was changed; a seed.

    `zoom`: the stretch of time that is shown, in seconds.
    """

    preset: str = ""
    toml: str = ""
    changes: dict[str, str] = {}
    seed: int = 0
    zoom: tuple[float, float] | None = None


class Pair(Struct, frozen=True, forbid_unknown_fields=True):
    """Two states beside each other."""

    a: State
    b: State


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """A state with another number of workers."""

    state: State
    workers: int


class Scene(Struct, frozen=True, forbid_unknown_fields=True):
    """A state, from the moment on at which `batch` is sent."""

    state: State
    batch: int = 0


class Named(Struct, frozen=True, forbid_unknown_fields=True):
    """A lesson by its name."""

    name: str


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


def drawn(scenario: Scenario) -> tuple[Scenario, str]:
    """What is simulated for the picture of a scenario, and in words what is left out."""
    batches = batches_to_simulate(scenario)
    if batches <= MOST:
        return scenario, ""
    each = max(MOST // scenario.epochs, 100)
    consumer = structs.replace(scenario.consumer, stop_after=each)
    return (
        structs.replace(scenario, consumer=consumer),
        f"Shown is a run that leaves each epoch after {each:,} batches.",
    )


@lru_cache(maxsize=8)
def traced(scenario: Scenario, seed: int) -> Trace:
    """A trace of the scenario; of a job, that of its first rank. It is kept for a while."""
    if scenario.is_job and scenario.job.rank is None:
        return simulate_job(scenario, seed).ranks[0]
    return simulate(scenario, seed, engine="compiled" if _compiles(scenario) else "auto")


def _compiles(scenario: Scenario) -> bool:
    return installed() and WARM.is_set() and not scenario.is_job


def warm() -> None:
    """Have the compiled engine loaded, and compiled once; until then the other one does."""
    if installed():
        for path in shipped().values():
            scenario = load(path)
            consumer = structs.replace(scenario.consumer, stop_after=20)
            if not scenario.is_job:
                simulate(structs.replace(scenario, consumer=consumer), engine="compiled")
        WARM.set()


def start(_: State) -> Json:
    """What there is to choose from."""
    return {
        "presets": [
            {"name": name, "title": load(path).name or name} for name, path in shipped().items()
        ],
        "lessons": [{"name": each.name, "title": each.title} for each in lessons().values()],
        "rules": rules_data(),
    }


def run(state: State) -> Json:
    """A run of the state: sentences, figures, the account, pictures, what to copy, controls."""
    asked = scenario_of(state)
    scenario, part = drawn(asked)
    trace = traced(scenario, state.seed)
    begin, end = stretch(trace, state.zoom)
    found = account(trace)
    summary = summarize(trace)
    return {
        "title": asked.name,
        "sentences": [*_sentences(trace, found), *([part] if part else [])],
        "setup": setup(asked),
        "figures": [
            ["samples/s", number(summary.samples_per_s)],
            ["idle", percent(found.stall)],
            ["wait, mean", summary.shown()["wait_mean"]],
            ["workers busy", percent(summary.worker_utilisation)],
        ],
        "account": [["busy", 1 - found.stall, percent(1 - found.stall)]]
        + [[cause, share, percent(share)] for cause, share in found.shares.items()],
        "summary": [
            [line[:LABEL].strip(), line[LABEL:].strip()] for line in str(summary).splitlines()
        ],
        "samples_per_s": summary.samples_per_s,
        **pictures(trace, begin, end),
        "waits": waits(trace),
        "batches": len(trace),
        "code": keywords(asked.loader),
        "toml": dumps(asked),
        "controls": msgspec.to_builtins(controls(asked)),
    }


def pictures(trace: Trace, begin: float, end: float) -> Json:
    """The pictures of a stretch of time."""
    return {
        "lanes": lanes(trace, begin, end),
        "occupancy": occupancy(trace, begin, end),
        "memory": bytes_over_time(trace, begin, end),
    }


def zoom(state: State) -> Json:
    """The pictures alone, of the stretch in `state.zoom`."""
    trace = traced(drawn(scenario_of(state))[0], state.seed)
    return pictures(trace, *stretch(trace, state.zoom))


def _sentences(trace: Trace, accounted: Account) -> list[str]:
    found = [verdict(trace, accounted)]
    if trace.meta.problem is not None:
        found.insert(0, ended_early(trace.meta.problem))
    scenario = trace.meta.scenario
    if scenario is not None and len(trace.order):
        found += str(space(scenario, trace)).splitlines()
    return found


def keywords(loader: Loader) -> str:
    """The loader as a call, with what is not torch's default."""
    default = Loader()
    names = [name for name in loader.__struct_fields__ if name not in NOT_TORCHS]
    given = {name: getattr(loader, name) for name in names}
    said = [
        f"{name}={value!r}"
        for name, value in given.items()
        if value != getattr(default, name) and name not in ("sampler", "batch_sampler")
    ]
    return f"DataLoader(dataset, {', '.join(said)})" if said else "DataLoader(dataset)"


def workers(point: Point) -> Json:
    """Throughput with another number of workers: mean and half-width of a 95 % interval."""
    state = point.state
    whole = scenario_of(state)
    dataset = whole.dataset
    if isinstance(dataset, IterableDataset) and dataset.sharding != "split":
        raise DlsimError("Other numbers of workers would get other data (dataset.sharding).")
    whole = configured(whole, {"loader.num_workers": point.workers})
    part = shortened(whole, EFFORT)
    found = replicate(part, POINTS, state.seed, measured=measured(whole)).interval("samples_per_s")
    return {
        "workers": point.workers,
        "mean": found.mean,
        "half": found.half_width if found.half_width == found.half_width else 0.0,
        "text": f"{give_or_take(found.mean, found.half_width)} samples/s",
    }


def versus(pair: Pair) -> Json:
    """Two states beside each other: which is faster, by how much, and how sure that is."""
    a, b = drawn(scenario_of(pair.a))[0], drawn(scenario_of(pair.b))[0]
    found = compare(a, b, seed=pair.b.seed)
    gain = found.gain
    return {
        "text": str(found),
        "low": gain.mean - gain.half_width,
        "mean": gain.mean,
        "high": gain.mean + gain.half_width,
        "better": found.better,
    }


def scene(asked: Scene) -> Json:
    """A film of a state, from a batch on."""
    scenario = drawn(scenario_of(asked.state))[0]
    return filmed(traced(scenario, asked.state.seed), asked.batch)


def taught(asked: Named) -> Json:
    """A lesson."""
    return lesson_data(lesson(asked.name))


QUESTIONS = {
    "start": (State, start),
    "run": (State, run),
    "zoom": (State, zoom),
    "workers": (Point, workers),
    "versus": (Pair, versus),
    "film": (Scene, scene),
    "lesson": (Named, taught),
}


def answer(question: str, body: bytes) -> bytes:
    """What was asked for, as JSON; or `error`, in one line, and the `key` that it is about."""
    kind, asked = QUESTIONS[question]
    try:
        found = asked(msgspec.json.decode(body or b"{}", type=kind))  # type: ignore[operator]
    except msgspec.ValidationError as error:
        found = {"error": f"not understood: {error}", "key": ""}
    except DlsimError as error:
        key = str(error).partition(": ")[0]
        found = {"error": str(error), "key": key if " " not in key else ""}
    return msgspec.json.encode(found)
