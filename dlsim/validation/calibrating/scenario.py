"""From observed runs to a scenario of the loader on this machine: `calibrate`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import (
    Constant,
    Consumer,
    Cost,
    Costs,
    IterableDataset,
    Machine,
    MapDataset,
    Recorded,
    Scenario,
    Stage,
    Start,
)
from dlsim.scenario.distributions import Distribution, Floats, scaled
from dlsim.trace.job import JobTrace, ranks_of
from dlsim.trace.job_metrics import exchanges
from dlsim.validation.calibrating.checks import Check, checks
from dlsim.validation.calibrating.cost_errors import error, errors_of, step_times
from dlsim.validation.calibrating.costs import (
    Accounts,
    CalibrateError,
    accounts,
    by_start_method,
    of_batches,
    together,
)
from dlsim.validation.calibrating.crowding import contention
from dlsim.validation.calibrating.fitting import Fit, fit
from dlsim.validation.calibrating.steps import per_sample

IDLE = 0.2  # of a thread's time, or of several together, in which they may do nothing
BY_INDEX = 100_000  # samples; of larger datasets costs are not kept one by one
NOTICED = 0.05  # cores that others used, from which on the machine is not quiet
MACHINERY = ("take", "serialise", "hand_over", "receive", "pin", "put", "ready")
# About, in a pin-memory thread beside an H100; what was observed decides (docs/device.md).
PINNING = Cost(message=60e-6, tensor=20e-6, byte=0.3e-9)
HELD = 0.5  # of a step's time: a host that leaves it sooner is not held back by the accelerator
AHEAD = 1000  # steps of one kernel that CUDA takes before the host has to wait (docs/device.md)
NOTICEABLE = 1e-3  # of a start; less is the system's, and in the latency
BETWEEN_RUNS = ("pace", "placing")  # what differs from run to run, not from batch to batch
NEGLIGIBLE = 20e-6  # seconds that nobody waits for on purpose


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The `scenario` of observed runs, and how sure it is.

    `fits`: how samples and steps are distributed, and why. `errors`: the relative standard error
    of each cost, by its key; `pace` is that of all processor time together in one more run,
    `placing` that of receiving and handing over. `runs`: how many were watched.
    `alone`: what runs without workers tell of those, where there were runs of both kinds: the same
    work costs other times in the main process, by its threads and its memory. `checks`: each of the
    runs beside what the scenario makes of it.
    """

    scenario: Scenario
    fits: dict[str, Fit]
    errors: dict[str, float]
    runs: int = 1
    alone: Calibration | None = None
    checks: tuple[Check, ...] = ()

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
                wait=stage.wait and scaled(stage.wait, factor["wait"]),
                cpu=stage.cpu and scaled(stage.cpu, factor["cpu"]),
            )
            for stage in scenario.dataset.fetch
        )
        costs = {
            key: factor[key] * getattr(scenario.costs, key) for key in ("take", "worker_start")
        }
        moving = {
            key: getattr(scenario.costs, key).times(factor[key])
            for key in ("serialise", "hand_over", "receive", "pin")
        }
        return msgspec.structs.replace(
            scenario,
            dataset=msgspec.structs.replace(scenario.dataset, fetch=fetch),
            costs=msgspec.structs.replace(scenario.costs, **costs, **moving),
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
        return replace(calibrated(with_workers, transport, each), alone=alone)
    return calibrated(watched, transport, each)


def calibrated(
    watched: Sequence[tuple[Any, list[Accounts]]], transport: Costs | None, each: float
) -> Calibration:
    """The calibration on runs that all have workers, or all have none, with their accounts."""
    seen = [run for run, _ in watched]
    found = of_runs([one for _, ranks in watched for one in ranks], transport, each)
    found = replace(found, scenario=of_job(found.scenario, seen))
    own = [(run, consumer_of(ranks, each)[0]) for run, ranks in watched]
    return replace(found, checks=checks(found.scenario, own))


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


def of_runs(runs: list[Accounts], transport: Costs | None, each: float = 0.0) -> Calibration:
    """The same, of accounts; a step takes so many seconds longer for `each` sample."""
    errors = errors_of(runs) | {"step": error(step_times(like_first(runs)))}
    slower = 0.0
    if len({run.scenario.loader.num_workers for run in runs}) > 1:
        costs_of_batches = np.concatenate([of_batches(run) for run in runs])
        slower = contention(together(runs, "crowding"), costs_of_batches)
    runs = [relieved(run, slower) for run in runs]
    first = runs[0]
    if transport is None:
        from dlsim.validation.calibrating.transport import probe

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transport = probe(first.path)
    fetch, fits = stages(runs)
    consumer, fits["step"] = consumer_of(like_first(runs), each)
    dataset: Any = first.scenario.dataset
    batched = isinstance(dataset, MapDataset) and dataset.batched
    costs = costs_of(like_first(runs), transport)
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
        machine=machine_of(runs, slower),
        costs=costs,
    )
    return Calibration(scenario=scenario, fits=fits, errors=errors, runs=len(runs))


def relieved(run: Accounts, contention: float) -> Accounts:
    """The accounts as they would be, had all other cores been idle."""
    slowed = 1 + contention * np.nan_to_num(run.crowding)
    of_batch = np.ones(int(max(run.batch.max(initial=0), run.numbers.max(initial=0))) + 1)
    of_batch[run.numbers] = slowed
    typical = float(slowed.mean()) if len(slowed) else 1.0
    return replace(
        run,
        cpu=run.cpu / of_batch[run.batch],
        collate=run.collate / slowed,
        **{name: getattr(run, name) / typical for name in MACHINERY},
    )


def like_first(runs: Sequence[Accounts]) -> list[Accounts]:
    """Those in whose steps the main process is blocked, if it is in the first one's, or is not.

    Of runs watched with steps and without, the first says which are meant. And cores that rest
    between batches are woken, and placed, otherwise than those that never do: moving a batch may
    take twice as long.
    """

    def rests(run: Accounts) -> bool:
        return len(run.step_wait) > 0 and float(run.step_wait.mean()) > NEGLIGIBLE

    return [run for run in runs if rests(run) == rests(runs[0])]


def shared(run: Accounts, costs: Costs) -> float:
    """Seconds of collating a batch that go into putting it into shared memory."""
    return costs.share.of(run.tensors, run.bytes) if run.scenario.loader.num_workers else 0.0


def stages(runs: Sequence[Accounts]) -> tuple[tuple[Stage, ...], dict[str, Fit]]:
    """How samples are fetched: index by index, if each was seen, else as they are distributed."""
    wait, cpu = together(runs, "wait"), together(runs, "cpu")
    fits = {"wait": fit(wait), "cpu": fit(cpu)}
    dataset: Any = runs[0].scenario.dataset
    index = together(runs, "index").astype(np.int64)
    waits: Distribution = fits["wait"].distribution
    cpus: Distribution = fits["cpu"].distribution
    single = isinstance(dataset, MapDataset) and not dataset.batched and len(index) > 0
    if single and index.min() >= 0 and index.max() < dataset.length <= BY_INDEX:
        # Indices that were not seen take what some other sample took, wait and CPU together.
        rows = np.random.default_rng(0).integers(len(index), size=dataset.length)
        rows[index] = np.arange(len(index))
        if len(np.unique(index)) == dataset.length or correlated(wait, cpu):
            waits = Recorded(tuple(wait[rows].tolist()))
            cpus = Recorded(tuple(cpu[rows].tolist()))
    wait_first = waits if waits.mean >= NEGLIGIBLE else None
    computing = by_threads(cpus, [run.busy for run in runs])
    return (msgspec.structs.replace(computing[0], wait=wait_first), *computing[1:]), fits


def by_threads(cpu: Distribution, busy: Sequence[float]) -> tuple[Stage, ...]:
    """What a sample computes, if in runs it kept so many cores busy while its own thread did.

    Threads that are as busy as that one all the time wait for each other on a core: one would do as
    much alone, at least. Those that are not, sleep when they have nothing to do: what they compute
    is work, and beside it there is some that one thread does alone.
    """
    several = [cores for cores in busy if cores > 1]
    if not several:
        return (Stage("fetch", cpu=cpu),)
    cores = float(np.mean(several))
    threads = max(ceil(cores - IDLE), 2)
    if cores > threads - IDLE:
        return (Stage("fetch", cpu=cpu, threads=threads, spin=1 - 1 / threads),)
    together = (cores - 1) / (threads - 1)
    return (
        Stage("fetch", cpu=scaled(cpu, 1 - together)),
        Stage("libraries", cpu=scaled(cpu, together), threads=threads),
    )


def correlated(wait: Floats, cpu: Floats) -> bool:
    """Whether samples that wait long compute long (or short), enough to matter."""
    if len(wait) < 3 or not wait.std() or not cpu.std():
        return False
    small = min(wait.std(), cpu.std()) < 0.05 * (wait.mean() + cpu.mean())
    return not small and abs(float(np.corrcoef(wait, cpu)[0, 1])) > 0.3


def consumer_of(runs: Sequence[Accounts], each: float = 0.0) -> tuple[Consumer, Fit]:
    """The step: on the host's cores, if the main process computes during most of it.

    It takes so many seconds longer for `each` sample of its batch.
    """
    wait, cpu = together(runs, "step_wait"), together(runs, "step_cpu")
    stop_after = runs[0].scenario.consumer.stop_after

    def fixed(of: Callable[[Accounts], Floats], less: float = 0.0) -> Fit:
        seen = [of(run) - each * (run.scenario.loader.batch_size or 1) for run in runs]
        return fit(np.maximum(np.concatenate(seen) - less, 0.0))

    settings: dict[str, Any] = {"step_per_sample": each}
    if all(len(run.device) for run in runs):
        # A host that waits for the accelerator spins, and computes nothing.
        ahead = max(run.ahead for run in runs)
        device, host = together(runs, "device"), together(runs, "host")
        spent = attrgetter("device" if ahead else "host")
        if ahead and np.median(host) < HELD * np.median(device):
            ahead = AHEAD
        found = fixed(spent, float(np.nan_to_num(np.mean([run.copy for run in runs]))))
        # else it sleeps until it is told
        settings |= {"run_ahead": ahead, "spin": float(cpu.sum()) >= float(wait.sum())}
    elif float(cpu.sum()) > float(wait.sum()) and float(cpu.mean()) > NEGLIGIBLE:
        found = fixed(attrgetter("step_cpu"))
        busy = float(np.mean([run.step_threads for run in runs]))
        settings |= {"device": "cpu", "threads": max(1, ceil(busy - IDLE))}
    else:
        found = fixed(lambda run: step_times([run]))
    return Consumer(found.distribution, stop_after, **settings), found


def machine_of(runs: Sequence[Accounts], contention: float) -> Machine:
    """Cores, memory and what others use of them."""
    known = [run.machine for run in runs if run.machine]
    if not known:
        return Machine()
    others = float(np.mean([machine.get("foreign", 0.0) for machine in known]))
    return Machine(
        cores=known[0].get("cores"),
        background=others if others >= NOTICED else 0.0,
        contention=contention,
        memory=known[0].get("memory"),
        shm=known[0].get("shm"),
        descriptors=int(known[0]["descriptors"]) if "descriptors" in known[0] else None,
    )


def costs_of(runs: Sequence[Accounts], transport: Costs) -> Costs:
    """What was observed of each cost; what was not, from the probe."""
    alike, *others = by_start_method(runs)

    def mean(name: str, otherwise: float, of: Sequence[Accounts] = runs) -> float:
        values = together(of, name)
        return float(values.mean()) if len(values) else otherwise

    def ready(of: Sequence[Accounts]) -> float:
        return mean("ready", transport.worker_ready, of) + mean("begin_cpu", 0.0, of)

    waited = mean("begin", 0.0)
    latency = together(runs, "latency")
    take = mean("take", transport.take)
    known = float(np.quantile(latency, 0.25)) if len(latency) else transport.index_latency
    tensors, size = runs[0].tensors, runs[0].bytes

    def adapted(name: str) -> Cost:
        unit: Cost = getattr(transport, name)
        return matched(unit, mean(name, unit.of(tensors, size)), tensors, size)

    collated = [run.collate.mean() for run in runs if run.scenario.loader.num_workers]
    share = transport.share if runs[0].path == "shm" else Cost()
    if collated and share.of(tensors, size) > min(collated):
        share = share.times(float(min(collated)) / share.of(tensors, size))
    return Costs(
        worker_start=mean("start", transport.worker_start, alike),
        worker_ready=ready(alike),
        worker_wait=waited if waited >= NOTICEABLE else 0.0,
        first_sample=mean("begin_wait", 0.0),
        worker_stop=mean("stop", transport.worker_stop),
        index_put=mean("put", transport.index_put),
        index_latency=max(known - take, 0.0),
        take=take,
        share=share,
        serialise=adapted("serialise"),
        hand_over=adapted("hand_over"),
        receive=adapted("receive"),
        pin=pinning(runs),
        copy_byte=float(np.nan_to_num(np.mean([run.copy for run in runs]) / max(size, 1.0))),
        starts=tuple(
            Start(
                method=group[0].scenario.loader.start_method,
                worker_start=mean("start", transport.worker_start, group),
                worker_ready=ready(group),
            )
            for group in others
        ),
    )


def pinning(runs: Sequence[Accounts]) -> Cost:
    """What copying a batch into pinned memory takes, once there is enough of it.

    The typical batch tells: the first ones are given new memory, which later ones use again.
    """
    pins = together(runs, "pin")
    if not len(pins):
        return Cost()
    return matched(PINNING, float(np.median(pins)), runs[0].tensors, runs[0].bytes)


def matched(unit: Cost, seconds: float, tensors: float, size: float) -> Cost:
    """The cost `unit`, changed so that a batch of these contents takes `seconds`.

    What a large batch takes longer than the probe's grows with its bytes.
    """
    expected = unit.of(tensors, size)
    if seconds > expected and size > 65536:
        return msgspec.structs.replace(unit, byte=unit.byte + (seconds - expected) / size)
    return unit.times(seconds / expected) if expected > 0 else Cost(message=seconds)
