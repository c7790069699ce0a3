"""Real jobs on this machine: so many processes, each with its part of the data, that meet.

They go by what torch does for them: DistributedSampler deals, DistributedDataParallel trains, gloo
is what they meet through; each has one thread to compute with, as torchrun has it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from dlsim.engine.usable import usable_cores
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.training_step import TrainingStep
from dlsim.validation.fidelity.trials import Trial, spoilt, timed
from dlsim.validation.fidelity.workloads import WORKLOADS, Workload
from dlsim.validation.observing import machine

NAMES = ("sleep", "jpeg", "files, warm", "training")
OF_JOBS = tuple(workload for workload in WORKLOADS if workload.name in NAMES)
Step = Callable[[Any], object]
Result = TypeVar("Result")
MEETINGS = 200  # by which it is found out how long one takes
APART = 0.004  # seconds that ranks come at most before or after each other then
BATCH, REST = 8, 0.002  # samples, and the seconds that a worker is blocked after them


@contextmanager
def group_of(rank: int, world: int, store: Path) -> Iterator[None]:
    """This process as a rank of a job, which finds the others by the file `store`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    dist.barrier()  # who leaves while others still connect to it breaks their connection
    try:
        yield
    finally:
        dist.destroy_process_group()


def in_job(world: int, task: Callable[..., Result], *given: Any) -> list[Result]:
    """What `task(rank, world, *given)` returns in each of so many processes, ranks of one job."""
    with (
        tempfile.TemporaryDirectory(prefix="dlsim-") as folder,
        ProcessPoolExecutor(world, multiprocessing.get_context("fork")) as processes,
    ):
        store = Path(folder) / "store"
        tasks = [processes.submit(_rank, rank, world, store, task, given) for rank in range(world)]
        return [task.result() for task in tasks]


def _rank(
    rank: int, world: int, store: Path, task: Callable[..., Result], given: tuple[Any, ...]
) -> Result:
    with group_of(rank, world, store):
        return task(rank, world, *given)


def workload_of(configuration: Configuration) -> Workload:
    """The work that a job does."""
    return {one.name: one for one in OF_JOBS}[configuration.workload]


def timed_job(files: Path, configuration: Configuration) -> Trial:
    """One epoch of a job, until its last rank is done; when batches were returned on rank 0.

    Who else used the machine is counted from before the ranks are started until they are gone.
    """
    before = machine.load()
    began = time.monotonic()
    found = in_job(configuration.ranks, timed_rank, files, configuration)
    after, passed = machine.load(), time.monotonic() - began
    nan = float("nan")
    stolen, foreign = machine.others(before, after) if before and after else (nan, nan)
    starts = np.array([start for start, _ in found])
    ends = starts + [trial.epoch for _, trial in found]
    first = found[0][1]
    late = starts[0] - starts.min()
    return Trial(
        epoch=float(ends.max() - starts.min()),
        requested=first.requested + late,
        returned=first.returned + late,
        foreign=foreign / passed,
        stolen=stolen / passed,
        at=first.at,
        spoilt=spoilt(foreign / passed, stolen / passed, passed, usable_cores()),
    )


def timed_rank(
    rank: int, world: int, files: Path, configuration: Configuration
) -> tuple[float, Trial]:
    """One epoch of one rank, and when it began, by the clock that all have."""
    workload = workload_of(configuration)
    data = workload.dataset(files)
    dealt: DistributedSampler[Any] = DistributedSampler(data, world, rank, shuffle=False)
    settings: dict[str, Any] = {"collate_fn": workload.collate, **configuration.settings}
    loader: DataLoader[Any] = DataLoader(data, sampler=dealt, **settings)
    step = TrainingStep(parallel=True) if workload.trains else met(configuration.step)
    dist.barrier()
    began = time.monotonic()
    return began, timed(loader, step)


def met(seconds: float) -> Step:
    """A step that sleeps for so long, and then meets the other ranks."""

    def step(batch: Any) -> None:
        if seconds:
            time.sleep(seconds)
        dist.barrier()

    return step


def exchange(files: Path, configuration: Configuration) -> list[float]:
    """Seconds from when the last rank has come until all go on, of meetings on this machine.

    What a rank waits for there is woken by the system, at once or at the next tick of its clock:
    so ranks come as those of `configuration` do, having computed or slept, up to `APART` after
    each other, and exchange the gradients of its training step, if it trains. Where there are
    workers, as many as there are cores fetch its samples meanwhile.
    """
    workload = workload_of(configuration)
    numbers = sum(p.numel() for p in TrainingStep().model.parameters()) if workload.trains else 0
    computes = workload.trains or not (configuration.step or configuration.num_workers)
    workers = int(usable_cores()) if configuration.num_workers else 0
    with beside([partial(fetch, workload.dataset(files), n, workers) for n in range(workers)]):
        meetings = in_job(configuration.ranks, come_and_go, numbers, computes)
    came, left = np.array(meetings).transpose(1, 0, 2)
    seconds: list[float] = (left.max(axis=0) - came.max(axis=0)).tolist()
    return seconds


@contextmanager
def beside(works: list[Callable[[], None]]) -> Iterator[None]:
    """Each of the `works`, which do not end, is done by a process meanwhile."""
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=work, daemon=True) for work in works]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def fetch(data: Any, first: int, step: int) -> None:
    """Fetch every so many-th sample, again and again."""
    torch.set_num_threads(1)
    for number, index in enumerate(cycle(range(first, len(data), step))):
        data[index]
        if number % BATCH == BATCH - 1:
            time.sleep(REST)


def compute(seconds: float) -> None:
    """Use so much of a core."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def come_and_go(
    rank: int, world: int, numbers: int, computes: bool
) -> tuple[list[float], list[float]]:
    """When a rank came to each meeting, and when it went on; so many numbers are added up there."""
    gradients, rng = torch.zeros(numbers), np.random.default_rng(rank)
    dist.barrier()  # the first one of a job connects the ranks
    came, left = [], []
    for seconds in rng.uniform(0, APART, MEETINGS):
        compute(seconds) if computes else time.sleep(seconds)
        came.append(time.monotonic())
        if numbers:
            dist.all_reduce(gradients)
        else:
            dist.barrier()
        left.append(time.monotonic())
    return came, left
