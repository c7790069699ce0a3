"""What the page asks for, and what it gets: everything a function of the state that it sends.

Nothing is remembered between two requests but traces, for those who zoom into them; so tabs do not
disturb each other, and a link that holds a state holds everything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from dlsim.report.job_text import job_setup, job_verdict
from dlsim.report.text import ended_early, setup, verdict
from dlsim.scenario import (
    DlsimError,
    Loader,
    Scenario,
    dumps,
    load,
)
from dlsim.scenario.loader import NOT_TORCHS
from dlsim.scenario.shipped import shipped
from dlsim.show.controls import controls
from dlsim.show.lesson_page import lesson_data, rules_data
from dlsim.show.lesson_page import shown as filmed
from dlsim.show.lessons import lesson, lessons
from dlsim.show.pictures import bytes_over_time, lanes, occupancy, stretch, waits
from dlsim.show.states import Count, State, scenario_of, seen, shown, traced
from dlsim.trace import JobTrace, Trace, metrics, summarize
from dlsim.trace.account import Account, account
from dlsim.trace.causes import VALIDATION
from dlsim.trace.job_metrics import job_account, lateness
from dlsim.trace.summary import give_or_take, number, percent
from dlsim.trace.work import other_workers
from dlsim.whatif import Interval, replicate
from dlsim.whatif.designs import WORKERS, configured
from dlsim.whatif.extent import shortened
from dlsim.whatif.space import space
from dlsim.whatif.stretching import measured
from dlsim.whatif.versus import compare

Json = dict[str, Any]

POINTS = 3  # replications of each point of throughput against workers, or prefetch_factor
NEARLY = 0.01  # of the throughput; what loses no more is as fast
EFFORT = 1500.0  # of each of these (see `dlsim.whatif.extent`)
SAMPLERS = ("sampler", "batch_sampler")
LABEL = 13  # characters that the lines of a summary begin with


class Pair(Struct, frozen=True, forbid_unknown_fields=True):
    """Two states beside each other."""

    a: State
    b: State


class Against(Struct, frozen=True, forbid_unknown_fields=True):
    """A state with other values of a key."""

    state: State
    key: Literal["loader.num_workers", "loader.prefetch_factor"]
    values: tuple[Count, ...]


class Scene(Struct, frozen=True, forbid_unknown_fields=True):
    """A state, from the moment on at which `batch` is sent."""

    state: State
    batch: int = 0


class Named(Struct, frozen=True, forbid_unknown_fields=True):
    """A lesson by its name."""

    name: str


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
    drawn = shown(state)
    asked, whole = drawn.asked, traced(drawn.scenario, state.seed)
    trace, rank = seen(whole, state.rank)
    begin, end = stretch(trace, state.zoom)
    job = isinstance(whole, JobTrace)
    found = job_account(whole) if isinstance(whole, JobTrace) else account(whole)
    summary = summarize(whole)
    used = {"busy": 1 - found.stall - found.apart}
    used |= {VALIDATION: found.apart} if found.apart else {}
    return {
        "title": asked.name,
        "sentences": [*_sentences(whole, trace, found), *([drawn.part] if drawn.part else [])],
        "setup": f"{job_setup(asked)}; each: {setup(asked)}" if job else setup(asked),
        "ranks": len(whole) if isinstance(whole, JobTrace) else 0,
        "rank": rank,
        "more": drawn.more,
        "figures": [
            ["samples/s", number(summary.samples_per_s)],
            ["idle", percent(found.stall)],
            ["wait, mean", summary.shown()["wait_mean"]],
            ["workers busy", percent(summary.worker_utilisation)],
        ],
        "account": [[name, share, percent(share)] for name, share in used.items()]
        + [[cause, share, percent(share)] for cause, share in found.shares.items()],
        "summary": [
            [line[:LABEL].strip(), line[LABEL:].strip()] for line in str(summary).splitlines()
        ],
        "samples_per_s": summary.samples_per_s,
        **pictures(trace, begin, end),
        "waits": waits(trace),
        "batches": len(trace),
        "edge": edge(trace),
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


def edge(trace: Trace) -> tuple[float, float] | None:
    """From when to when the first epoch goes over into the second, with some batches of both."""
    epochs = trace.epoch_of(trace.order)
    before, after = (trace.order[epochs == epoch] for epoch in (0, 1))
    if not len(before) or not len(after):
        return None
    some = max(metrics.worker_count(trace), 2)
    begin = float(trace.returned[before[-min(some, len(before))]])
    return begin, float(trace.finished[after[min(some, len(after)) - 1]])


def zoom(state: State) -> Json:
    """The pictures alone, of the stretch in `state.zoom`."""
    trace, _ = seen(traced(shown(state).scenario, state.seed), state.rank)
    return pictures(trace, *stretch(trace, state.zoom))


def _sentences(whole: Trace | JobTrace, trace: Trace, accounted: Account) -> list[str]:
    if isinstance(whole, JobTrace):
        found = [job_verdict(whole, lateness(whole))]
    else:
        found = [verdict(whole, accounted)]
    if whole.meta.problem is not None:
        found.insert(0, ended_early(whole.meta.problem))
    scenario = trace.meta.scenario
    if scenario is not None and len(trace.order):
        found += str(space(scenario, trace)).splitlines()
    return found


def keywords(loader: Loader) -> str:
    """The loader as a call, with what is not torch's default; below, what is no keyword there."""
    default = Loader()
    said = {
        name: f"{name}={value!r}"
        for name in loader.__struct_fields__
        if (value := getattr(loader, name)) != getattr(default, name) and name not in SAMPLERS
    }
    other = [said.pop(name) for name in NOT_TORCHS if name in said]
    call = f"DataLoader({', '.join(['dataset', *said.values()])})"
    return f"{call}\n# no DataLoader of torch's: {', '.join(other)}" if other else call


def against(asked: Against) -> Json:
    """Throughput with other values of a key: means and half-widths of 95 % intervals.

    `enough`: in words, the least of these values that is as fast as any, or nearly.
    """
    state, name = asked.state, asked.key.removeprefix("loader.")
    whole = scenario_of(state)
    counts = asked.key == WORKERS
    if counts and (why := other_workers(whole)):
        raise DlsimError(why)
    if not counts and not whole.loader.num_workers:
        raise DlsimError("Without workers nothing is fetched ahead.")
    cases = [configured(whole, {asked.key: value}) for value in asked.values]
    found = [point(case, state.seed) for case in cases]
    speeds = np.nan_to_num([each.mean for each in found])
    most = int(np.argmax(speeds))
    least = int(np.flatnonzero(speeds >= (1 - NEARLY) * speeds[most])[0])
    enough = f"{name}={asked.values[least]} is enough: {number(speeds[least])} samples/s"
    if number(speeds[most]) != number(speeds[least]):
        enough += f"; the most is {number(speeds[most])}, with {asked.values[most]}"
    return {
        "points": [
            {
                "value": value,
                "mean": each.mean,
                "half": each.half_width if each.half_width == each.half_width else 0.0,
                "text": f"{give_or_take(each.mean, each.half_width)} samples/s",
            }
            for value, each in zip(asked.values, found, strict=True)
        ],
        "enough": f"{enough}.",
    }


@lru_cache(maxsize=256)
def point(scenario: Scenario, seed: int) -> Interval:
    """Samples a second of a scenario, with an interval. It is kept for a while."""
    part = shortened(scenario, EFFORT)
    return replicate(part, POINTS, seed, measured=measured(scenario)).interval("samples_per_s")


def versus(pair: Pair) -> Json:
    """Two states beside each other: which is faster, by how much, and how sure that is."""
    a, b = shown(pair.a).scenario, shown(pair.b).scenario
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
    state = asked.state
    trace, _ = seen(traced(shown(state).scenario, state.seed), state.rank)
    return filmed(trace, asked.batch)


def taught(asked: Named) -> Json:
    """A lesson."""
    return lesson_data(lesson(asked.name))


QUESTIONS = {
    "start": (State, start),
    "run": (State, run),
    "zoom": (State, zoom),
    "against": (Against, against),
    "versus": (Pair, versus),
    "film": (Scene, scene),
    "lesson": (Named, taught),
}


def answer(question: str, body: bytes) -> bytes:
    """What was asked for, as JSON; or `error`, in one line, and the `key` that it is about."""
    kind, asked = QUESTIONS[question]
    try:
        found = asked(msgspec.json.decode(body or b"{}", type=kind))  # type: ignore[operator]
    except msgspec.DecodeError as error:
        found = {"error": f"not understood: {error}", "key": ""}
    except DlsimError as error:
        key = str(error).partition(": ")[0]
        found = {"error": str(error), "key": key if " " not in key else ""}
    return msgspec.json.encode(found)
