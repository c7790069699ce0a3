"""What is wrong with a loader, and what to set: `diagnose`.

Its run is watched and calibrated; then the scenario that stands for it is explained, and advice
is sought in it. What is advised is tried, so that what came of it stands beside the promise.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from torch.utils.data import DataLoader

from dlsim.engine import simulate
from dlsim.engine.compiled import installed
from dlsim.engine.facts import batches_to_simulate
from dlsim.scenario import DlsimError, IterableDataset, Loader, Scenario
from dlsim.scenario.distributions import Floats
from dlsim.trace.libraries import worth_limiting
from dlsim.trace.metrics import samples_per_second
from dlsim.trace.observation import Observation
from dlsim.validation.calibrating.scenario import Calibration, calibration
from dlsim.validation.diagnosing.answer import Diagnosis
from dlsim.validation.diagnosing.memory import room
from dlsim.validation.diagnosing.present import facts, settings_of
from dlsim.validation.diagnosing.starts import LASTING, lasting, there_already
from dlsim.validation.fidelity.trials import with_settings
from dlsim.validation.observing.one_thread import limited
from dlsim.validation.observing.run import observe
from dlsim.whatif import Advice, advise, explain
from dlsim.whatif.candidates import Candidate
from dlsim.whatif.demand import demand
from dlsim.whatif.explanation import WORTH
from dlsim.whatif.parallel import replication_seed
from dlsim.whatif.statistics import Ratio, t_quantile

SECONDS = 15.0  # to watch
STALL = 0.05  # the share of the time that training may wait
PREFETCH = (2, 4)
WORKERS = (*range(9), 10, 12, 16)
NEAR = 0.05  # of configurations that are so near to the fastest, the cheapest is taken
REPLICATIONS = 20  # of one configuration, at most
EXPLAINED = 8  # of each change: of a run that was watched, little is left to chance
DRAWS = 20  # scenarios that would have been as likely, from which gains are told
# Standard deviations of what one real run gains over another, relative to what is predicted: of
# loaders that wait, and of loaders that compute, on cores that others want, too. Measured by
# `tests.benchmarks.diagnosis`, the first also by `dlsim validate`.
WAITING, COMPUTING = 0.035, 0.1
CONFIDENCE = 0.95
A_STEP = 0.01  # of the time of a batch; shorter steps are none
# Samples to simulate: the beginning of a long epoch stands for all of it.
COMPILED, INTERPRETED = 15_000, 1_500

PATIENCE = 3.0  # times as long as the run before, and what is tried is left


class DiagnoseError(DlsimError):
    """A run of a loader that cannot be diagnosed."""


def diagnose(
    loader: DataLoader[Any],
    *,
    step: Callable[[Any], object] | None = None,
    batches: int | None = None,
    seconds: float = SECONDS,
    max_stall: float = STALL,
    split: bool = False,
    attempt: bool = True,
    seed: int = 0,
    jobs: int = 1,
) -> Diagnosis:
    """What limits `loader`, the settings that help most, what they gain, and whether they fit.

    The loader is watched as `observe` does it, for `batches` or `seconds`; `step` is called with
    each batch. `max_stall`: the share of the time that training may wait. `split`: workers of an
    iterable-style dataset share its samples, however many they are. `attempt`: what is advised is
    run, too, for as many batches.

    Raises `DiagnoseError` for a run that an error ended, and what `observe`, `calibrate` and
    `advise` raise.
    """
    seen = observe(loader, step=step, batches=batches, seconds=seconds)
    alone = one_thread_each(seen, loader, step=step) if attempt else None
    found = diagnose_run(seen, alone=alone, max_stall=max_stall, split=split, seed=seed, jobs=jobs)
    return try_out(found, loader, step=step) if attempt and found.changes else found


def diagnose_run(
    seen: object,
    *,
    alone: Observation | None = None,
    max_stall: float = STALL,
    split: bool = False,
    seed: int = 0,
    jobs: int = 1,
) -> Diagnosis:
    """The diagnosis from a run that was watched; all else as in `diagnose`.

    `alone`: one with one thread for each library, as `one_thread_each` makes it; if it was faster,
    all else is said of it.
    """
    if isinstance(seen, Observation) and alone is not None and faster(alone, seen):
        found = diagnose_run(alone, max_stall=max_stall, split=split, seed=seed, jobs=jobs)
        return dataclasses.replace(found, crowded=seen)
    if alone is not None:
        found = diagnose_run(seen, max_stall=max_stall, split=split, seed=seed, jobs=jobs)
        return dataclasses.replace(found, alone=alone)
    if isinstance(seen, Observation):
        check(seen)
    calibrated = calibration(seen)
    assert isinstance(seen, Observation)
    scenario = shaped(calibrated.scenario, split)
    now = settings_of(scenario)
    epoch = batches_to_simulate(without_end(calibrated.scenario, split))
    # Where starting workers matters, settings are those for epochs in which they are there already.
    lasts = lasting(scenario, scenario.loader, epoch, seed) >= LASTING
    advice = advise(
        there_already(scenario) if lasts else scenario,
        max_stall=max_stall,
        workers={*WORKERS, now["num_workers"]},
        prefetch={*PREFETCH, now.get("prefetch_factor", PREFETCH[0])},
        maximum=REPLICATIONS,
        seed=seed,
        jobs=jobs,
    )
    chosen = pick(advice)
    as_watched = shaped(calibrated.scenario, split, len(seen.order))
    simulated = samples_per_second(simulate(as_watched, seed))
    missed = math.log(simulated / samples_per_second(seen)) / 2  # in part, it is so in both runs
    unsure = math.hypot(WAITING, COMPUTING * computing(scenario), missed)
    loader = chosen.scenario.loader
    asked = scenario, msgspec.structs.replace(scenario, loader=loader)
    tried = as_watched, as_tried(as_watched, loader)
    promised = gain(calibrated, *tried, unsure, seed)
    has_step = scenario.consumer.seconds(seen.size.mean()) * len(seen.order) > A_STEP * seen.end
    return Diagnosis(
        lasting=lasting(scenario, loader, epoch, seed) if lasts else 0.0,
        seen=seen,
        scenario=scenario,
        explanation=explain(scenario, EXPLAINED, seed, jobs=jobs),
        advice=advice,
        max_stall=max_stall if has_step else None,
        settings=settings_of(chosen.scenario),
        gain=promised if asked == tried else gain(calibrated, *asked, unsure, seed),
        gain_as_watched=promised,
        simulated=simulated,
        room=room(chosen.scenario, chosen.memory, worker_bytes(seen)),
    )


def one_thread_each(
    seen: Observation,
    loader: DataLoader[Any],
    *,
    step: Callable[[Any], object] | None = None,
    progress: Callable[[int], object] = lambda batches: None,
) -> Observation | None:
    """A run of `loader` with one thread for each library in each worker, as long as `seen`.

    None where the workers that were `seen` kept no more than a core busy each.
    """
    if not loader.num_workers or not worth_limiting(seen):
        return None
    return observe(
        limited(loader),
        step=step,
        batches=len(seen.order),
        seconds=PATIENCE * max(seen.end, 1.0),
        progress=progress,
    )


def faster(run: Observation, other: Observation) -> bool:
    """Whether `run` was faster than the `other` by more than nothing."""
    return samples_per_second(run) > (1 + WORTH) * samples_per_second(other)


def try_out(
    found: Diagnosis,
    loader: DataLoader[Any],
    *,
    step: Callable[[Any], object] | None = None,
    progress: Callable[[int], object] = lambda batches: None,
) -> Diagnosis:
    """The diagnosis with a run of `loader` with the settings advised, as long as the one before.

    `step` and `progress` as in `observe`.
    """
    with warnings.catch_warnings():
        # torch warns of more workers than cores; the advice has seen that they help
        warnings.filterwarnings("ignore", "This DataLoader will create")
        tried = observe(
            with_settings(loader if found.crowded is None else limited(loader), **found.advised),
            step=step,
            batches=len(found.seen.order),
            seconds=PATIENCE * max(found.seen.end, 1.0),
            progress=progress,
        )
    taken = dataclasses.replace(found.room, each_worker=worker_bytes(tried))
    return dataclasses.replace(found, tried=tried, room=taken)


def worker_bytes(seen: Observation) -> float:
    """The most bytes that a worker was seen to have to itself; NaN where none was looked at."""
    return facts(seen).get("worker_bytes", math.nan)


def check(seen: Observation, name: str = "loader") -> None:
    """Raise `DiagnoseError` for a run that an error ended; one that was interrupted will do.

    `name`: what a message calls the loader.
    """
    problem = seen.meta.problem
    if problem is not None and problem.kind != "interrupt":
        batch = f", for batch {problem.batch}" if problem.batch >= 0 else ""
        raise DiagnoseError(
            f"{name}: after {len(seen.order)} batches an error ended it{batch}: {problem.message}"
        )


def shaped(scenario: Scenario, split: bool, batches: int | None = None) -> Scenario:
    """`scenario` for so many `batches`, or for an epoch of at most as many as are worth it."""
    whole = without_end(scenario, split)
    if batches is None:
        samples = COMPILED if installed() else INTERPRETED
        batches = max(samples // (scenario.loader.batch_size or 1), 1)
    if batches >= batches_to_simulate(whole):
        batches = None
    return msgspec.structs.replace(
        whole, consumer=msgspec.structs.replace(whole.consumer, stop_after=batches)
    )


def without_end(scenario: Scenario, split: bool) -> Scenario:
    """`scenario`, of which no epoch is left early, its samples shared if they are to be `split`."""
    dataset, consumer = scenario.dataset, scenario.consumer
    if split and isinstance(dataset, IterableDataset):
        dataset = msgspec.structs.replace(dataset, sharding="split", shards=None)
    return msgspec.structs.replace(
        scenario, dataset=dataset, consumer=msgspec.structs.replace(consumer, stop_after=None)
    )


def pick(advice: Advice) -> Candidate:
    """The cheapest that holds the target; if none does, the cheapest of those about as fast as any.

    Other orders than torch's are left to those who ask for them, unless they gain more than that.
    """
    if advice.chosen is not None:
        return advice.chosen
    most = max(option.samples_per_s for option in advice.front)
    near = [option for option in advice.front if option.samples_per_s >= (1 - NEAR) * most]
    return next((option for option in near if option.in_order), near[0])


def computing(scenario: Scenario) -> float:
    """The share of the time that goes into a batch in which someone computes, not waits."""
    need = demand(scenario)
    waits = need.reads + need.waits
    computes = need.computes_in_workers + need.receives
    return computes / ((waits + computes) or 1.0)


def as_tried(scenario: Scenario, loader: Loader) -> Scenario:
    """`scenario` with `loader`, run in the process in which that was watched.

    What a main process that fetches imported and opened with its first sample, workers that are
    forked from it have.
    """
    spared = not scenario.loader.num_workers and loader.start_method == "fork"
    costs = scenario.costs
    if spared:
        costs = msgspec.structs.replace(costs, first_sample=0.0, first_cpu=0.0)
    return msgspec.structs.replace(scenario, loader=loader, costs=costs)


def gain(
    calibrated: Calibration, scenario: Scenario, changed: Scenario, unsure: float, seed: int
) -> Ratio:
    """How many times as many samples a second `changed` makes as `scenario`, less one.

    The interval is one for two real runs. What was watched leaves some costs uncertain, the same
    for both; real runs differ, and predictions of what was not seen are wrong, by `unsure` more: a
    relative standard deviation.
    """

    def speeds(scenario: Scenario) -> Floats:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, 0)))
        likely = dataclasses.replace(calibrated, scenario=scenario)
        seeds = [replication_seed(seed, number) for number in range(DRAWS)]
        return np.array([samples_per_second(simulate(likely.draw(rng), s)) for s in seeds])

    ratios = np.log(speeds(changed) / speeds(scenario))
    spread = math.sqrt(float(ratios.var(ddof=1)) * (1 + 1 / DRAWS) + unsure**2)
    wide = t_quantile(CONFIDENCE, DRAWS) * spread
    middle = math.exp(float(ratios.mean()))
    return Ratio(middle - 1, middle * math.sinh(wide), DRAWS)
