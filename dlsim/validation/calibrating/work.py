"""What samples and steps take, from accounts of observed runs: stages, and the consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import Constant, Consumer, MapDataset, Recorded, Stage
from dlsim.scenario.distributions import Distribution, Floats, scaled
from dlsim.trace.libraries import IDLE
from dlsim.validation.calibrating.accounts import Accounts, of_batches, together
from dlsim.validation.calibrating.cost_errors import step_times
from dlsim.validation.calibrating.fitting import Fit, fit
from dlsim.validation.calibrating.lock import NEGLIGIBLE
from dlsim.validation.calibrating.spinning import threads_of

LINGER = 1e-3  # seconds; threads that keep a core busy for less do not wait for each other on it
BY_INDEX = 100_000  # samples; of larger datasets costs are not kept one by one
HELD = 0.5  # of a step's time: a host that leaves it sooner is not held back by the accelerator
AHEAD = 1000  # steps of one kernel that CUDA takes before the host has to wait (docs/device.md)


def stages(
    runs: Sequence[Accounts], spin: float | None = None, linger: float = 0.0
) -> tuple[tuple[Stage, ...], dict[str, Fit]]:
    """How samples are fetched: index by index, if each was seen, else as they are distributed.

    `spin`, `linger`: as in `by_threads`.
    """
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
    computing = by_threads(cpus, max(run.busy for run in runs), spin, linger)
    return (msgspec.structs.replace(computing[0], wait=wait_first), *computing[1:]), fits


def helped(runs: Sequence[Accounts]) -> list[Accounts]:
    """The accounts as they would be, had threads of libraries always helped as much as they can.

    Where cores are short, threads that share out work do less of it, and the one that fetches does
    more. All together compute what they do there, where nobody waits for the others.
    """
    most, least = max(runs, key=by_busy), min(runs, key=by_busy)
    apart = most.busy - least.busy
    if apart < IDLE:
        return list(runs)
    shared = least.busy * mean_cost(least) / mean_cost(most)
    shared = min(max(shared, least.busy), most.busy)
    slope = (shared - least.busy) / apart
    alone = [least.busy + slope * (run.busy - least.busy) for run in runs]
    return [
        replace(run, cpu=run.cpu * kept / shared, busy=shared)
        for run, kept in zip(runs, alone, strict=True)
    ]


by_busy = attrgetter("busy")


def mean_cost(run: Accounts) -> float:
    """CPU seconds that the thread which fetches used for a sample."""
    return float(of_batches(run).mean())


def spun(runs: Sequence[Accounts]) -> float:
    """The share of what such threads compute in which they only wait for one another.

    Where cores are short, each stands in line while the others wait. So samples that had not to
    wait for a core tell what there is to do, and one thread takes no more than all do together.
    """
    needed = float(np.mean([run.unhindered for run in runs]))
    return 1 - min(needed / max(float(together(runs, "cpu").mean()), needed, NEGLIGIBLE), 1.0)


def together_on_cores(runs: Sequence[Accounts]) -> list[Accounts]:
    """The runs in which threads that wait for one another had cores together, as if all had.

    Those with the number of workers with which the typical sample computed least. As far as threads
    had to wait in these, too, they compute as much less as those who found cores did.
    """
    of_workers: dict[int, list[Accounts]] = {}
    for run in runs:
        of_workers.setdefault(run.scenario.loader.num_workers, []).append(run)
    least = min(of_workers.values(), key=lambda some: float(np.median(together(some, "cpu"))))
    needed = 1 - spun(least)
    return [replace(run, cpu=needed * run.cpu) for run in least]


def lingers(runs: Sequence[Accounts]) -> float:
    """For how long threads of libraries that spin wait on cores for one another and for samples.

    0 where they do not long enough to matter, or where processes share cores.
    """
    longest = max(run.lingers for run in runs)
    in_turns = all(run.machine.get("slice") for run in runs)
    return longest if longest > LINGER and in_turns else 0.0


def by_threads(
    cpu: Distribution, busy: float, spin: float | None, linger: float = 0.0
) -> tuple[Stage, ...]:
    """What a sample computes, if it keeps so many cores `busy` while its own thread does.

    Threads that `spin` do so for such a share of it. Others (None) sleep when they have nothing to
    do: what they compute is work, and beside it there is some that one thread does alone.
    """
    if busy <= 1:
        return (Stage("fetch", cpu=cpu),)
    threads = threads_of(busy)
    if spin is not None:
        return (Stage("fetch", cpu=cpu, threads=threads, spin=spin, linger=linger),)
    together = min((busy - 1) / (threads - 1), 1.0)
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


def consumer_of(
    runs: Sequence[Accounts], each: float = 0.0, others: Sequence[Accounts] = ()
) -> tuple[Consumer, Fit]:
    """The step: on the host's cores, if the main process computes during most of it; else a pause,
    if there is no accelerator.

    It takes so many seconds longer for `each` sample of its batch. Threads that wait for each other
    on a core compute for as much longer as one of them has none: what a step takes without that, is
    looked for in `others`, too.
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
        linger = float(np.median([run.linger for run in runs]))
        if linger > LINGER and settings["threads"] > 1:
            found = fit(undisturbed([*runs, *others], each))
            settings |= {"linger": linger}
    else:
        found = fixed(lambda run: step_times([run]))
        if not runs[0].machine.get("accelerator", 1.0):
            settings |= {"device": "pause"}
    return Consumer(found.distribution, stop_after, **settings), found


def undisturbed(runs: Sequence[Accounts], each: float) -> Floats:
    """What the main thread computes in a step none of whose threads has to wait for a core.

    As in the run in which the typical step computed least; where there were workers, all as long as
    that one.
    """
    of_runs = [
        (np.maximum(run.step_cpu - each * (run.scenario.loader.batch_size or 1), 0.0), run)
        for run in runs
        if len(run.step_cpu)
    ]
    least, run = min(of_runs, key=lambda one: float(np.median(one[0])))
    return least if not run.scenario.loader.num_workers else np.full(2, np.median(least))


def watched_consumer(
    runs: Sequence[Accounts], each: float = 0.0, others: Sequence[Accounts] = ()
) -> Consumer:
    """The same as it was while the runs were watched: who has no step looked at the workers."""
    consumer, _ = consumer_of(runs, each, others)
    looking = float(np.mean([run.looking for run in runs]))
    if not looking:
        return consumer
    return Consumer(Constant(looking), consumer.stop_after, device="cpu")
