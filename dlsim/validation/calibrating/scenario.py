"""From observed runs to a scenario of the loader on this machine: `calibrate`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import (
    Constant,
    Costs,
    IterableDataset,
    Machine,
    MapDataset,
    Scenario,
    Stage,
)
from dlsim.scenario.distributions import times
from dlsim.trace.job import JobTrace, ranks_of
from dlsim.trace.job_metrics import exchanges
from dlsim.trace.new_memory import differing
from dlsim.trace.observation import Observation
from dlsim.validation.calibrating.accounts import Accounts, CalibrateError, of_batches, together
from dlsim.validation.calibrating.checks import Check, checks
from dlsim.validation.calibrating.cost_errors import BETWEEN_RUNS, error, errors_of, step_times
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.crowding import contention, paired
from dlsim.validation.calibrating.fitting import Fit
from dlsim.validation.calibrating.lock import NEGLIGIBLE
from dlsim.validation.calibrating.moving import costs_of, shared, without_cold
from dlsim.validation.calibrating.spinning import spinning
from dlsim.validation.calibrating.steps import per_sample
from dlsim.validation.calibrating.work import (
    consumer_of,
    helped,
    lingers,
    spun,
    stages,
    together_on_cores,
    watched_consumer,
)

NOTICED = 0.05  # cores that others used, from which on the machine is not quiet
SIBLING = 0.9  # of what a core does alone: one that does less beside another is its sibling
SWITCH_INTERVAL = 5e-3  # Python's own, where a run does not tell (sys.getswitchinterval)
MACHINERY = ("take", "serialise", "hand_over", "receive", "reading", "pin", "put")
AT_FIRST = ("ready", "begin_cpu", "begin_serialise")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The `scenario` of observed runs, and how sure it is.

    `fits`: how samples and steps are distributed, and why. `errors`: the relative standard error
    of each cost, by its key; `pace` is that of all processor time together in one more run,
    `placing` that of receiving and handing over, `begin` that of first samples. `runs`: how many
    were watched.
    `alone`: what runs without workers tell of those, where there were runs of both kinds: the same
    work costs other times in the main process, by its threads and its memory. `checks`: each of the
    runs beside what the scenario makes of it. `memory`: that they differ in what becomes of memory
    that is freed, if they do.
    """

    scenario: Scenario
    fits: dict[str, Fit]
    errors: dict[str, float]
    runs: int = 1
    alone: Calibration | None = None
    checks: tuple[Check, ...] = ()
    memory: str = ""

    def draw(self, rng: np.random.Generator) -> Scenario:
        """A scenario that would have been as likely to be observed as this one was."""
        return self.with_factors(
            {key: exp(rng.normal(0.0, error)) for key, error in self.errors.items()}
        )

    def with_factors(self, factors: Mapping[str, float]) -> Scenario:
        """The scenario with costs so many times as high, by the keys of `errors`; others stay."""
        factor = dict.fromkeys(self.errors, 1.0) | dict(factors)
        scenario, on_cpu = self.scenario, self.scenario.consumer.device == "cpu"
        for key in factor.keys() - {*BETWEEN_RUNS, "wait", *(() if on_cpu else ("step",))}:
            factor[key] *= factor["pace"]
        for key in ("receive", "hand_over"):
            factor[key] *= factor["placing"]
        fetch = tuple(
            msgspec.structs.replace(
                stage,
                wait=times(stage.wait, factor["wait"]),
                cpu=times(stage.cpu, factor["cpu"]),
            )
            for stage in scenario.dataset.fetch
        )
        costs = {
            key: factor[key] * getattr(scenario.costs, key) for key in ("take", "worker_start")
        }
        first = {
            key: factor["begin"] * getattr(scenario.costs, key)
            for key in ("first_sample", "first_cpu")
        }
        moving = {
            key: getattr(scenario.costs, key).times(factor[key])
            for key in ("serialise", "hand_over", "receive", "pin")
        }
        return msgspec.structs.replace(
            scenario,
            dataset=msgspec.structs.replace(scenario.dataset, fetch=fetch),
            costs=msgspec.structs.replace(scenario.costs, **costs, **first, **moving),
            consumer=scenario.consumer.times(factor["step"]),
        )


def calibrate(*seen: object, transport: Costs | None = None) -> Scenario:
    """The scenario that stands for the loader of the observed runs `seen`, on this machine.

    With the settings of the first run; runs of other settings make the costs surer.
    `transport`: what moving batches costs here (None: a probe of about two seconds finds out).
    Raises `CalibrateError` for runs that tell too little.
    """
    return calibration(*seen, transport=transport).scenario


def calibration(*seen: object, transport: Costs | None = None) -> Calibration:
    """What `calibrate` finds, with its reasons and its uncertainty.

    Of jobs that were watched, every rank counts as a run; the first job's ranks are the scenario's.
    """
    if not seen:
        raise CalibrateError("runs: expected at least one observed run, got none")
    runs: Sequence[Any] = seen
    watched = [(run, [accounts(rank) for rank in ranks_of(run)]) for run in runs]
    every = [one for _, ranks in watched for one in ranks]
    stepping = like_first(every)
    sizes = [run.scenario.loader.batch_size or 1 for run in stepping]
    each = per_sample(sizes, [step_times([run]) for run in stepping])
    with_workers = [one for one in watched if one[1][0].scenario.loader.num_workers]
    without = [one for one in watched if not one[1][0].scenario.loader.num_workers]
    if with_workers and without:
        alone = calibrated(without, transport, each)
        return replace(calibrated(with_workers, transport, each, stepping), alone=alone)
    return calibrated(watched, transport, each, stepping)


def calibrated(
    watched: Sequence[tuple[Any, list[Accounts]]],
    transport: Costs | None,
    each: float,
    stepping: Sequence[Accounts] = (),
) -> Calibration:
    """The calibration on runs that all have workers, or all have none, with their accounts.

    `stepping`: those, and others, that tell what steps take.
    """
    seen = [run for run, _ in watched]
    runs = [one for _, ranks in watched for one in ranks]
    found = of_runs(runs, transport, each, stepping)
    found = replace(found, scenario=of_job(found.scenario, seen))
    own = [(run, watched_consumer(ranks, each, stepping)) for run, ranks in watched]
    resting = [rests(ranks[0]) for _, ranks in watched]
    warm = {id(run) for run in without_cold(runs)}
    cold = [any(id(one) not in warm for one in ranks) for _, ranks in watched]
    made = tuple(
        replace(check, alike=rested == resting[0], cold=begun)
        for check, rested, begun in zip(checks(found, own), resting, cold, strict=True)
    )
    ranks = [rank for run in seen for rank in ranks_of(run) if isinstance(rank, Observation)]
    return replace(found, checks=made, memory=differing(ranks))


def of_job(scenario: Scenario, runs: Sequence[object]) -> Scenario:
    """The scenario of a rank as that of the first job in `runs`, if there is one.

    How long ranks take to go on once all have come, is seen where they met by themselves alone; in
    steps that exchange gradients it is part of the step.
    """
    jobs = [run for run in runs if isinstance(run, JobTrace)]
    if not jobs or jobs[0].meta.scenario is None:
        return scenario
    settings = jobs[0].meta.scenario
    taken = [exchanges(job) for job in jobs if len(job) > 1]
    known = np.concatenate(taken) if taken else np.empty(0)
    sync_time = Constant(float(np.median(known)) if len(known) else 0.0)
    dataset: Any = settings.dataset
    shape = {"length": dataset.length}
    if isinstance(dataset, IterableDataset):
        shape["sharding"] = dataset.sharding
    return msgspec.structs.replace(
        scenario,
        loader=settings.loader,
        dataset=msgspec.structs.replace(scenario.dataset, **shape),
        job=msgspec.structs.replace(settings.job, sync_time=sync_time),
    )


def of_runs(
    runs: list[Accounts],
    transport: Costs | None,
    each: float = 0.0,
    stepping: Sequence[Accounts] = (),
) -> Calibration:
    """The same, of accounts; a step takes so many seconds longer for `each` sample."""
    errors = errors_of(runs) | {"step": error(step_times(like_first(runs)))}
    threads = siblings(runs)
    if threads < 1:
        runs = [replace(run, crowding=paired(run.crowding, run.machine["cores"])) for run in runs]
    slower, spin, linger = 1 / threads - 1, None, 0.0
    if spinning([run.busy for run in runs]):
        spin, linger = spun(runs), lingers(runs)
    else:
        runs = helped(runs)
    if not linger and len({run.scenario.loader.num_workers for run in runs}) > 1:
        costs_of_batches = np.concatenate([of_batches(run) for run in runs])
        # The first batch takes longer for more reasons than its neighbours.
        crowded = np.where(together(runs, "first"), np.nan, together(runs, "crowding"))
        slower = contention(crowded, costs_of_batches, slower)
    runs = [relieved(run, slower) for run in without_cold(runs)]
    first = runs[0]
    if transport is None:
        from dlsim.validation.calibrating.transport import probe

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transport = probe(first.path)
    if linger:  # what they only wait for one another is simulated
        undisturbed = together_on_cores(runs)
        fetch, fits = stages(undisturbed, 0.0, linger)
        errors |= {key: errors_of(undisturbed)[key] for key in ("cpu", "pace")}
    else:
        fetch, fits = stages(runs, spin)
    consumer, fits["step"] = consumer_of(like_first(runs), each, stepping)
    dataset: Any = first.scenario.dataset
    batched = isinstance(dataset, MapDataset) and dataset.batched
    costs = costs_of(like_first(runs), transport, runs)
    collating = np.concatenate([run.collate - shared(run, costs) for run in runs])
    changes = {
        "sample_bytes": Constant(first.bytes / float(np.mean(first.sizes))),
        "tensors": round(first.tensors),
        "path": first.path,
    }
    waited = together(runs, "collate_wait")
    if batched:
        changes["collate"] = Constant(max(float(collating.mean()), 0.0))
        each_wait = float(waited.mean()) if len(waited) else 0.0
        fetch = (*fetch, Stage("collate", wait=Constant(each_wait))) if each_wait else fetch
    else:
        # As a stage, so that it grows with the batch; torch's collate is a loop over samples.
        samples = max(together(runs, "sizes").sum(), 1)
        each = max(float(collating.sum() / samples), 0.0)
        wait = Constant(float(waited.sum() / samples)) if waited.any() else None
        fetch = (*fetch, Stage("collate", wait=wait, cpu=Constant(each)))
    scenario = msgspec.structs.replace(
        first.scenario,
        dataset=msgspec.structs.replace(dataset, fetch=fetch, **changes),
        consumer=consumer,
        machine=machine_of(runs, slower, siblings=threads < 1),
        costs=costs,
    )
    return Calibration(scenario=scenario, fits=fits, errors=errors, runs=len(runs))


def siblings(runs: Sequence[Accounts]) -> float:
    """What a core did while its sibling was busy, where the runs were watched; 1: it has none.

    A little less than alone cores do that are no siblings: they share caches, and their frequency.
    Who disturbs a probe, or a host that moves two cores onto one for a moment, makes it less, and
    nothing makes it more: the most of all runs counts.
    """
    found = max((run.machine["siblings"] for run in runs if "siblings" in run.machine), default=1.0)
    return found if found < SIBLING else 1.0


def relieved(run: Accounts, contention: float) -> Accounts:
    """The accounts as they would be, had all other cores been idle, or all siblings."""
    slowed = 1 + contention * np.nan_to_num(run.crowding)
    of_batch = np.ones(int(max(run.batch.max(initial=0), run.numbers.max(initial=0))) + 1)
    of_batch[run.numbers] = slowed
    typical = float(slowed.mean()) if len(slowed) else 1.0
    at_first = float(slowed[run.first].mean()) if run.first.any() else typical
    return replace(
        run,
        cpu=run.cpu / of_batch[run.batch],
        collate=run.collate / slowed,
        **{name: getattr(run, name) / typical for name in MACHINERY},
        **{name: getattr(run, name) / at_first for name in AT_FIRST},
    )


def like_first(runs: Sequence[Accounts]) -> list[Accounts]:
    """Those in whose steps the main process is blocked, if it is in the first one's, or is not.

    Of runs watched with steps and without, the first says which are meant. And cores that rest
    between batches are woken, and placed, otherwise than those that never do: moving a batch may
    take twice as long.
    """
    return [run for run in runs if rests(run) == rests(runs[0])]


def rests(run: Accounts) -> bool:
    """Whether the main process is blocked in its steps."""
    return len(run.step_wait) > 0 and float(run.step_wait.mean()) > NEGLIGIBLE


def machine_of(runs: Sequence[Accounts], slower: float, *, siblings: bool = False) -> Machine:
    """Cores, memory and what others use of them.

    Work takes so much longer, relative, while all other cores are busy; as they are `siblings`, or
    else by contention.
    """
    known = [run.machine for run in runs if run.machine]
    if not known:
        return Machine()
    others = float(np.mean([machine.get("foreign", 0.0) for machine in known]))
    return Machine(
        cores=known[0].get("cores"),
        background=others if others >= NOTICED else 0.0,
        siblings=1 / (1 + slower) if siblings else 1.0,
        contention=0.0 if siblings else slower,
        switch_interval=known[0].get("switch_interval", SWITCH_INTERVAL),
        slice=known[0].get("slice") or None,
        memory=known[0].get("memory"),
        shm=known[0].get("shm"),
        descriptors=int(known[0]["descriptors"]) if "descriptors" in known[0] else None,
    )
