"""How long simulations take, known beforehand; and whether compiled code is worth loading for them.

Loading it takes longer than many a question takes without it, and compiling it, once for each
installation, longer still. What is asked may be many simulations, of which each sees only itself,
and in many processes: who asks says how much there is in all, and it is decided once (`deciding`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

from msgspec import structs

from dlsim.engine.compiled import installed
from dlsim.engine.compiled.jobs import alike
from dlsim.engine.compiled.settings import plain, rules_of
from dlsim.engine.facts import (
    batch_ends,
    by_index,
    only_processes,
    sample_by_sample,
    shard_of,
    storage_of,
    uncovered,
)
from dlsim.engine.progress import advance, expecting, unannounced, watching
from dlsim.engine.ranks import rank_scenario
from dlsim.engine.usable import usable_cores
from dlsim.scenario import IterableDataset, MapDataset, Scenario, Stage

SECONDS = 50e-6  # that a unit of effort is charged, on one core of some 3 GHz
# Seconds that the SimPy engine takes there for a batch; for a number that is drawn; and for what a
# sample asks for by itself: to be served beside others, or to wait.
BATCH, DRAW, SHARED, ALONE = 40e-6, 0.03e-6, 8e-6, 2e-6
LOOKING = 2e-3  # seconds that looking at a run of one rank takes, however short it is
# Seconds on such a core: what was compiled before; or is to be, as the event loop, or where there
# is a recurrence.
LOADING, COMPILING, LITTLE = 0.05, 2.0, 0.3
LOOP, PLAIN_LOOP, RECURRENCE = "loop.run", "loop.run_plain", "recurrence.schedule"

# Seconds that went into simulations without compiled code until now. Who asks for many, one after
# another, does not know each time: once they took as long as compiling would have, it is done.
_spent = 0.0
_decided: ContextVar[bool | None] = ContextVar("decided", default=None)


def effort(scenario: Scenario) -> float:
    """What a simulation of `scenario` is charged, where it is decided how much to simulate.

    In batches of one sample on an ideal machine. Where cores are limited it is the price of the
    dearest case, in which each sample waits by itself, so that what an answer is told from does not
    change with the stages; how long it takes says `seconds_of`. A job is the work of all its ranks.
    """
    return sum(map(_effort, loops(scenario)))


def _effort(scenario: Scenario) -> float:
    batches, calls = begun_work(scenario)
    if shares_cores(scenario):  # whoever computes is told when anyone else begins
        return _of_all(scenario, 4 * batches + calls)
    return _of_all(
        scenario, batches + 0.01 * calls if scenario.ideal else 2 * batches + 0.3 * calls
    )


def seconds_of(scenario: Scenario) -> float:
    """About how many seconds the SimPy engine takes for `scenario`, on one core of some 3 GHz."""
    return sum(map(_seconds_of, loops(scenario)))


def loops(scenario: Scenario) -> tuple[Scenario, ...]:
    """Training, and validation beside it, if there is any, each as a scenario of its own."""
    if scenario.validation is None:
        return (scenario,)
    return structs.replace(scenario, validation=None), scenario.validating


def _seconds_of(scenario: Scenario) -> float:
    batches, calls = begun_work(scenario)
    stages = max(len(scenario.dataset.fetch), 1)
    if batched(scenario):
        calls = batches * stages
    epoch = BATCH * batches + DRAW * calls
    if not scenario.ideal and sample_by_sample(scenario):
        epoch += calls / stages * sum(map(partial(_asking, scenario), scenario.dataset.fetch))
    return _of_all(scenario, epoch / SECONDS) * SECONDS


def _asking(scenario: Scenario, stage: Stage) -> float:
    """Seconds for what a sample asks for one by one in a stage."""
    reads = stage.read_bytes is not None
    shared = (stage.cpu is not None) + (reads and storage_of(scenario).bandwidth is not None)
    return SHARED * shared + ALONE * ((stage.wait is not None) + reads)


def fast_effort(scenario: Scenario) -> float:
    """What simulating one rank of `scenario` takes by the compiled engine, in units of `effort`."""
    batches, drawn = begun_work(scenario)
    epoch = 0.05 * batches + 0.001 * drawn + shuffled(scenario) / 25_000
    return max(scenario.epochs * epoch, 1.0)


def cost(scenario: Scenario, *, fast: bool | None = None) -> float:
    """About what a simulation of `scenario` and its account take, in units of `effort`.

    `fast`: with compiled code; by default, where it is there, for what it has.
    """
    shares = scenario.is_job and not scenario.ideal
    if not (installed() if fast is None else fast) or shares or only_processes(scenario):
        return effort(scenario)
    return fast_effort(scenario)


def takes(scenario: Scenario, *, fast: bool | None = None) -> float:
    """The same as it is: less than its cost, where that is of a dearer case."""
    return min(cost(scenario, fast=fast), seconds_of(scenario) / SECONDS)


def begun(scenario: Scenario, returned: float) -> float:
    """How many batches are begun for each that is `returned`, as workers are ahead of the loop."""
    loader, consumer = scenario.loader, scenario.consumer
    if not returned:
        return 1.0
    if loader.endless:
        return 1.0 + loader.window / (scenario.epochs * returned)
    if consumer.stop_after is None:
        return 1.0
    whole = structs.replace(scenario, consumer=structs.replace(consumer, stop_after=None))
    return min(returned + loader.window, counts(whole)[0]) / returned


def batched(scenario: Scenario) -> bool:
    """Whether stages happen once for a batch, and not for each of its samples."""
    return isinstance(scenario.dataset, MapDataset) and scenario.dataset.batched


def shares_cores(scenario: Scenario) -> bool:
    """Whether what one process computes depends on who else does."""
    return scenario.machine.cores is not None or scenario.machine.crosstalk > 0


def begun_work(scenario: Scenario) -> tuple[float, float]:
    """Batches begun in an epoch of a rank, and what is drawn for their samples, for each stage."""
    batches, samples, _ = counts(scenario)
    times = begun(scenario, batches)
    if scenario.ideal and alike(scenario):
        return times * batches, 0.0  # nothing is drawn for each
    return times * batches, times * samples * max(len(scenario.dataset.fetch), 1)


def _of_all(scenario: Scenario, epoch: float) -> float:
    """What all epochs of all ranks take, if an epoch of one takes so much; not validation."""
    return max(ranks(scenario) * scenario.epochs * (epoch + shuffled(scenario) / 2500), 1.0)


def ranks(scenario: Scenario) -> int:
    """How many ranks are simulated."""
    return 1 if scenario.job.rank is not None else scenario.job.world


def shuffled(scenario: Scenario) -> int:
    """How many indices are shuffled for an epoch: none where nothing depends on them."""
    return scenario.dataset.length if scenario.loader.shuffle and by_index(scenario) else 0


def counts(scenario: Scenario) -> tuple[float, float, float]:
    """Batches and samples returned in an epoch, and batches of the worker that has most.

    Of a job, those of its first rank.
    """
    if scenario.is_job and scenario.job.rank is None:
        scenario = rank_scenario(scenario, 0)
    loader, dataset = scenario.loader, scenario.dataset
    workers = max(loader.num_workers, 1)
    size = loader.batch_size or 1
    if isinstance(dataset, IterableDataset):
        shards = [len(shard_of(scenario, w)) for w in range(workers)]
    elif scenario.is_job:
        return _dealt(scenario)
    elif loader.batch_sampler is not None:
        sizes = [len(batch) for batch in loader.batch_sampler][: scenario.consumer.stop_after]
        return len(sizes), sum(sizes), len(sizes) / workers
    else:
        shards = [dataset.length if loader.sampler is None else len(loader.sampler)]
    each = [n // size if loader.drop_last else -(-n // size) for n in shards]
    batches = sum(each)
    samples = sum(min(n * size, shard) for n, shard in zip(each, shards, strict=True))
    most = scenario.consumer.stop_after
    if most is not None and most < batches:  # the smaller batch is the last, or each worker's last
        full = isinstance(dataset, MapDataset)
        left = most * size if full else samples * most / batches
        return most, left, most / workers
    longest = max(each) if isinstance(dataset, IterableDataset) else batches / workers
    return batches, samples, longest


def _dealt(scenario: Scenario) -> tuple[float, float, float]:
    """The same of what a rank is dealt of a map-style dataset."""
    ends = batch_ends(scenario)[: scenario.consumer.stop_after]
    samples = ends[-1] if len(ends) else 0
    return len(ends), samples, len(ends) / max(scenario.loader.num_workers, 1)


@contextmanager
def deciding(seconds: float, scenario: Scenario, *, jobs: int = 1, runs: int = 0) -> Iterator[None]:
    """Decide for all that is simulated inside, which takes about so many `seconds` on SimPy.

    They are those of simulations like that of `scenario`, in so many processes; so many `runs` are
    looked at.
    """
    besides = LOOKING * ranks(scenario) * runs
    with (
        decided(worth_compiling(seconds, loop(scenario))),
        announcing(seconds, scenario, jobs=jobs, besides=besides),
    ):
        yield


def announcing(
    seconds: float, scenario: Scenario, *, jobs: int = 1, besides: float = 0.0
) -> AbstractContextManager[None]:
    """Tell who watches (`dlsim.engine.progress`) how long what is done inside will take.

    `besides`: so many seconds go into what is no simulation, and no compiled code makes shorter.
    """
    if not unannounced():  # finding it out takes as long as a small simulation
        return nullcontext()
    covered = not (uncovered(scenario) if scenario.is_job else only_processes(scenario))
    cores = usable_cores()
    at_once = max(min(float(jobs), cores) if jobs > 0 else cores, 1.0)
    share = SECONDS * ranks(scenario) * fast_effort(scenario) / seconds_of(scenario)
    slow, fast = (seconds + besides) / at_once, (share * seconds + besides) / at_once
    if not installed():
        return expecting(seconds, slow, fast + COMPILING if covered else None)
    if not covered or not worth_compiling(seconds, needed := loop(scenario)):
        return expecting(seconds, slow)
    first, here = compiles_first(needed), _loaded(needed)
    loading = COMPILING if first else 0.0 if here else LOADING
    return expecting(seconds, fast + loading, loading=loading, compiling=first)


def telling(scenario: Scenario) -> Callable[[int], object]:
    """What tells who watches that so many more batches of a simulation of `scenario` are done."""
    if watching() is None:
        return lambda batches: None
    returned = sum(one.epochs * counts(one)[0] for one in loops(scenario))
    batches = max(ranks(scenario) * returned, 1.0)
    each = seconds_of(scenario) / batches
    return lambda batches: advance(each * batches)


@contextmanager
def decided(compile: bool | None) -> Iterator[None]:
    """What was decided elsewhere holds for all that is simulated inside."""
    before = _decided.set(compile)
    try:
        yield
    finally:
        _decided.reset(before)


def decision() -> bool | None:
    """Whether compiled code is to be used, if that is decided."""
    return _decided.get()


def worth_compiling(seconds: float, kernel: str = LOOP) -> bool:
    """Whether compiled code is there, and sooner done with what takes so many `seconds` without.

    It is where what is needed of it, the `kernel`, is loaded already. What was decided holds.
    """
    if not installed():
        return False
    if (before := _decided.get()) is not None:
        return before
    if _loaded(kernel):
        return True
    first = LITTLE if kernel == RECURRENCE else COMPILING
    return _spent + seconds > (first if compiles_first(kernel) else LOADING)


def spend(seconds: float) -> None:
    """Remember that so much went into a simulation without compiled code."""
    global _spent
    _spent += seconds


def kernel(scenario: Scenario) -> str:
    """What of the compiled engine simulates `scenario`."""
    from dlsim.engine.in_order import suits

    return RECURRENCE if suits(scenario) else loop(scenario)


def loop(scenario: Scenario) -> str:
    """Which event loop simulates `scenario`, if one does."""
    return LOOP if scenario.is_job or not plain(rules_of(scenario, samples=False)) else PLAIN_LOOP


def compiles_first(kernel: str = LOOP) -> bool:
    """Whether there is something to compile before anything else."""
    from dlsim.engine.compiled.jit import kept

    return not _loaded(kernel) and not kept(kernel)


def _loaded(kernel: str) -> bool:
    module, _, name = kernel.partition(".")
    found = getattr(sys.modules.get(f"dlsim.engine.compiled.{module}"), name, None)
    return found is not None and found.code is not None
