"""Simulations, many at a time: in this process, in many, or on a cluster, with equal results."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from dlsim.engine import outcomes, replications
from dlsim.engine.effort import decided, decision
from dlsim.engine.facts import left_to_chance
from dlsim.engine.kept import kept
from dlsim.engine.progress import advance, watched
from dlsim.scenario import Scenario
from dlsim.scenario.errors import is_integer, shown
from dlsim.trace import JobTrace, Trace, summarize
from dlsim.trace.job_metrics import lateness
from dlsim.trace.job_summary import at_barrier
from dlsim.trace.tally import JobTally, Marks, Tally
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.steady import Steady, marks_of, steady_states

T = TypeVar("T")
Row: TypeAlias = dict[str, float]
Run: TypeAlias = Trace | JobTrace
Counted: TypeAlias = Tally | JobTally
Measure: TypeAlias = Callable[[Run], Row]


class Besides(NamedTuple):
    """What is measured besides of the first `few` replications, as it takes longer than metrics."""

    few: int
    measured: Measure


MOST_JOBS = 10_000  # on a cluster; one machine has room for fewer
MOST_RUNS = 1_000_000  # of one scenario; intervals as narrow as that say nothing of any machine
TOGETHER = 32  # runs whose steady states are found at once; each has up to a MiB of marks
STEADY = [f"steady_{name}" for name in Steady.__dataclass_fields__]


@lru_cache(maxsize=1000)  # as all configurations of a sweep use the same
def replication_seed(seed: int, replication: int) -> int:
    """The seed with which replication number `replication` of an experiment `seed` is simulated.

    63 bits of the `replication`-th child that `numpy.random.SeedSequence(seed).spawn` makes. It
    depends on nothing else: replication r of every configuration, in every process and on every
    machine, sees the same random numbers, so that configurations are compared under common ones.
    Raises `WhatIfError` for a seed that is none.
    """
    if not is_integer(seed) or seed < 0:
        raise WhatIfError(f"seed: expected an integer of at least 0, got {seed!r}")
    child = np.random.SeedSequence(seed, spawn_key=(replication,))
    return int(child.generate_state(1, np.uint64)[0] >> np.uint64(1))


def measure(run: Run | Counted) -> Row:
    """Metric by name: all of `summarize`, the figures of `steady_state`, and `failed`.

    Names of steady-state figures begin with `steady_`; all others are of the whole run. `failed`
    is 1 for a run that an error ended, else 0. A job has `barrier` and `amplification` besides
    (see `dlsim.trace.job_metrics`); its steady state is that of its first rank.
    """
    (row,) = measure_all([run])
    return row


def measure_all(runs: Iterable[Run | Counted], besides: Besides | None = None) -> list[Row]:
    """What `measure` finds in each of the runs, which are not all kept at a time.

    `besides`: what is found in the first ones, too, which are traces.
    """
    few, find = besides or (0, None)
    summed_up = (_summed_up(run, find if number < few else None) for number, run in enumerate(runs))
    rows: list[Row] = []
    while some := list(islice(summed_up, TOGETHER)):
        steady = steady_states([marks for _, _, marks in some])
        for (row, failed, _), state in zip(some, steady, strict=True):
            settled = zip(STEADY, state.as_dict().values(), strict=True)
            rows.append({**row, **dict(settled), "failed": failed})
    return rows


def _summed_up(run: Run | Counted, besides: Measure | None) -> tuple[Row, float, Sequence[Marks]]:
    failed = float(not isinstance(run, Counted) and run.meta.problem is not None)
    row = summarize(run).as_dict()
    if besides is not None and not isinstance(run, Counted):
        row |= besides(run)
    if isinstance(run, JobTrace | JobTally):
        return {**row, **meeting(run)}, failed, marks_of(run.ranks[0])
    return row, failed, marks_of(run)


def meeting(run: JobTrace | JobTally) -> Row:
    """Of a job: the share of its ranks' time at the barrier, and barrier amplification."""
    found = run if isinstance(run, JobTally) else lateness(run)
    return {"barrier": at_barrier(run), "amplification": found.amplification}


def simulations(
    scenario: Scenario,
    seed: int,
    numbers: Sequence[int],
    measured: Measure = measure,
    besides: Besides | None = None,
) -> list[Row]:
    """What is `measured` of each of the replications `numbers`, which ascend, of `scenario`.

    For metrics alone no trace is kept, where the engine can do without. Where nothing is left to
    chance, one simulation stands for all. `besides`: see `Besides`.
    """
    alike = 1 if left_to_chance(scenario) else max(len(numbers), 1)
    some = [replication_seed(seed, number) for number in numbers[::alike]]
    few, find = besides or (0, None)
    told = sum(number < few for number in numbers[::alike])
    with kept():
        if measured is measure:
            found = None if find is None else Besides(told, find)
            rows = measure_all(outcomes(scenario, some, told), found)
        else:
            rows = [
                measured(run) | (find(run) if find is not None and place < told else {})
                for place, run in enumerate(replications(scenario, some))
            ]
    return [dict(row) for row in rows for _ in range(alike)]


def check_counts(**counts: object) -> None:
    """Raise `WhatIfError` unless each of the named counts is an integer from 1 to `MOST_RUNS`."""
    for name, count in counts.items():
        if not is_integer(count) or count < 1:  # type: ignore[operator]
            raise WhatIfError(f"{name}: expected an integer of at least 1, got {shown(count)}")
        if count > MOST_RUNS:  # type: ignore[operator]
            raise WhatIfError(f"{name}: expected at most {MOST_RUNS:,}, got {shown(count)}")


def check_jobs(jobs: object) -> None:
    """Raise `WhatIfError` unless `jobs` says how many processes: 1, 2, ..., or -1, -2, ..."""
    if not is_integer(jobs) or jobs == 0:
        raise WhatIfError(f"jobs: expected a number of processes, or -1 for all, got {jobs!r}")
    if jobs > MOST_JOBS:  # type: ignore[operator]
        raise WhatIfError(f"jobs: expected at most {MOST_JOBS:,} processes, got {jobs!r}")


def run_all(function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[T]:
    """`function(*task)` of every task, as the results come: with `jobs=1`, in order.

    Other numbers of `jobs` go to joblib, and so to whatever backend `joblib.parallel_config`
    names. When results are given up, no more tasks begin. Raises `WhatIfError` when a process is
    killed.
    """
    if jobs == 1:
        yield from (function(*task) for task in tasks)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    wanted = [True]
    begun = takewhile(lambda _: bool(wanted), tasks)
    with deaf():
        _track_quietly()
        about = os.getpid(), decision()
        results = parallel(delayed(_followed)(*about, function, *task) for task in begun)
    try:
        for result, done in results:
            advance(done)
            yield result
    except GeneratorExit:
        # What was begun may end: aborting it now and then breaks a thread of joblib's own.
        wanted.clear()
        with suppress(Exception):
            deque(results, maxlen=0)
        raise
    except _killed() as error:
        reason = "killed by the system, perhaps for want of memory"
        raise WhatIfError(f"a worker process was lost ({reason})") from error
    finally:
        with warnings.catch_warnings():
            # joblib says that tasks are given up, and how to have fewer of them
            warnings.filterwarnings("ignore", "[0-9]+ tasks ")
            results.close()


def _followed(
    parent: int, compiled: bool | None, function: Callable[..., T], *task: Any
) -> tuple[T, float]:
    """The result of a task, one of many, in a process that does not outlive its `parent`.

    And how much was done for it (see `dlsim.engine.progress`).
    """
    if os.getppid() == parent:
        _follow(parent)
    with decided(compiled), watched() as progress:
        return function(*task), progress.done


@lru_cache
def _follow(parent: int) -> None:
    """Let this process end soon after its parent, which may be killed and tell nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def deaf() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach; it reaches this one afterwards, and ends them.

    They would print tracebacks while they start, and joblib fails where it is interrupted then.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # as it starts, in 3.11, it lets the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _track_quietly() -> None:
    """Start the process with which joblib tidies up, if there is none, so that it says nothing.

    It removes what a process that was interrupted or killed has left, and would tell each piece.
    """
    from joblib.externals.loky.backend import resource_tracker

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, "ignore:resource_tracker")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _killed() -> tuple[type[BaseException], ...]:
    """What the backends raise when a process of theirs is gone."""
    from concurrent.futures.process import BrokenProcessPool

    distributed = sys.modules.get("distributed")  # loaded wherever its backend is in use
    return (BrokenProcessPool, distributed.KilledWorker) if distributed else (BrokenProcessPool,)
