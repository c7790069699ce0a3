"""What else went on while a run was watched: other people's work, and the watching itself."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import repeat
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, thread_time
from typing import Any, NamedTuple

import torch

from dlsim.engine.usable import usable_cores
from dlsim.scenario.units import duration
from dlsim.trace.summary import percent
from dlsim.validation.observing.hooks import Collate, Tagged
from dlsim.validation.observing.probe import Probe
from dlsim.validation.observing.wrapped_dataset import WatchedMap

STAT = Path("/proc/stat")
# Looking at the workers takes some ten milliseconds: it is done when the last batch is there. Where
# it is not known which that is, after so many.
LOOKS = (4, 40, 400)
PAGES = (1 << 23) // mmap.PAGESIZE
TURNS = 5000  # of a loop that does nothing
FORGETTING = 20e-6  # seconds after which a processor has half forgotten what watching does
IDLE, IOWAIT, STEAL = 3, 4, 7  # columns of the first line of /proc/stat, after its name


class Load(NamedTuple):
    """Seconds since some start: the clock, and of CPU: stolen, used by all, used by us.

    Ours are this process and its children that have ended. Stolen is what a virtual machine
    wanted and its host gave to others.
    """

    time: float
    stolen: float
    busy: float
    ours: float


def load() -> Load | None:
    """The load so far; None where the machine does not tell."""
    try:
        line = STAT.read_text().splitlines()[0].split()[1:]
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in line]
        stolen = ticks[STEAL]
        # Guests' time (columns 8, 9) is counted in user time already.
        busy = sum(ticks[:STEAL]) - ticks[IDLE] - ticks[IOWAIT]
    except (OSError, ValueError, IndexError):
        return None
    return Load(monotonic(), stolen, busy, sum(os.times()[:4]))


def others(before: Load, after: Load) -> tuple[float, float]:
    """What others took from `before` to `after`, in CPU seconds: stolen by the host, used here."""
    foreign = (after.busy - before.busy) - (after.ours - before.ours)
    return after.stolen - before.stolen, max(foreign, 0.0)  # ours is measured more finely


def ended_children() -> float:
    """CPU seconds used so far by child processes that have ended; NaN where nobody tells."""
    try:
        import resource
    except ImportError:  # not a Unix
        return math.nan
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def new_pages() -> float:
    """Pages of memory that were new so far to this process, and to its children that have ended."""
    both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return float(sum(resource.getrusage(who).ru_minflt for who in both))


def contention(before: Load | None, after: Load | None) -> dict[str, str]:
    """Notes on what others took of the machine from `before` to `after`; none if not known."""
    if before is None or after is None:
        return {}
    time = after.time - before.time
    cores = os.cpu_count() or 1

    def note(seconds: float) -> str:
        share = percent(seconds / (time * cores))
        return f"{seconds:.2f} CPU s in {time:.2f} s on {cores} cores ({share} of the machine)"

    stolen, foreign = others(before, after)
    return {"steal": note(stolen), "foreign_cpu": note(foreign)}


class Overhead(NamedTuple):
    """CPU seconds that watching costs: for each sample, for each batch, and for carrying that to
    the main process, which is not of the thread that fetches."""

    sample: float
    batch: float
    carrying: float

    def __str__(self) -> str:
        return f"{duration(self.sample)} a sample, {duration(self.batch + self.carrying)} a batch"


class Work:
    """Samples that compute for so many seconds, or for `FORGETTING`."""

    def __init__(self, seconds: float) -> None:
        self.turns = TURNS
        turn = min(self.timed() for _ in range(5)) / TURNS
        self.turns = int(min(seconds, FORGETTING) / turn)

    def timed(self) -> float:
        """Seconds that one takes."""
        began = perf_counter()
        self[0]
        return perf_counter() - began

    def __getitem__(self, index: int) -> int:
        for _ in repeat(None, self.turns):
            pass
        return index


def overhead(took: float, *, samples: bool, rounds: int = 20, most: int = 64) -> Overhead:
    """What it costs to watch samples that take so long; measured on batches of one and several."""
    with tempfile.TemporaryDirectory(prefix="dlsim-") as directory:
        probe, work = Probe(Path(directory), samples=samples), Work(took)
        probe.open(-1)
        dataset, collate = WatchedMap(work, probe), Collate(list, probe)

        def watched(numbers: list[int]) -> None:
            collate(dataset.__getitems__((0, numbers)))

        def plain(numbers: list[int]) -> None:
            values = [work[index] for index in numbers]
            list(values)

        def carried(first: object, then: object) -> None:
            work[0]
            there_and_back(first)
            there_and_back(then)

        one, several = (
            dearer(partial(watched, numbers), partial(plain, numbers), rounds)
            for numbers in ([0], list(range(most)))
        )
        carrying = dearer(lambda: carried((0, ()), Tagged(0, ())), lambda: carried((), ()), rounds)
        probe.close()
    sample = max(several - one, 0.0) / (most - 1)
    return Overhead(sample, max(one - sample, 0.0), max(carrying, 0.0))


def facts(before: Load | None, after: Load | None, watching: Overhead) -> dict[str, float]:
    """The machine in numbers: `cores` that this process may use, `memory` and `shm` in bytes.

    `descriptors`: how many files a process may have open, where that is limited. `accelerator`: 1
    where torch finds one, else 0.

    Also the cores that we used (`ours`), others used (`foreign`) and the host took away (`stolen`),
    on average, and what watching costs the thread that fetches for each sample and batch.
    """
    found = {
        "cores": usable_cores(),
        "accelerator": float(torch.accelerator.is_available()),
        "memory": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "switch_interval": sys.getswitchinterval(),
        "watch_sample": watching.sample,
        "watch_batch": watching.batch,
    }
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        found["descriptors"] = float(most)
    with suppress(OSError):
        found["shm"] = float(shutil.disk_usage("/dev/shm").total)
    if before is not None and after is not None and after.time > before.time:
        stolen, foreign = others(before, after)
        time = after.time - before.time
        found |= {"stolen": stolen / time, "foreign": foreign / time}
        found["ours"] = (after.ours - before.ours) / time
    return found


def pace(seconds: float = 0.1) -> float:
    """Seconds that the slowest of the cores takes for a piece of work that is always the same.

    On shared hardware a core can be half as fast as it was a minute ago, and nothing that the
    system counts says so. Nor does a moment: where others' work shares a physical core, it is one
    or the other for some milliseconds at a time, so that each core is tried for its share of
    `seconds`, and its mean counts. Of the cores this process may use, at most 16 are tried.
    """
    if not hasattr(os, "sched_getaffinity"):
        return spinning(seconds)
    slowest = 0.0
    with moving() as usable:
        for core in usable[:16]:
            os.sched_setaffinity(0, {core})
            slowest = max(slowest, spinning(seconds / len(usable[:16])))
    return slowest


@contextmanager
def moving() -> Iterator[list[int]]:
    """The cores this process may use, of which it may choose some meanwhile."""
    usable = os.sched_getaffinity(0)
    try:
        yield sorted(usable)
    finally:
        os.sched_setaffinity(0, usable)


def paging(rounds: int = 3, clock: Callable[[], float] = perf_counter) -> float:
    """Seconds for touching 8 MiB of memory that is new to the process, page by page.

    Batches are written into new memory; what that costs a virtual machine, its host decides.
    """
    return min(touch(clock) for _ in range(rounds))


def paged(pages: float, batches: int) -> dict[str, float]:
    """Of so many new `pages`, the bytes for each batch, and what a new byte costs, in seconds.

    Nothing where no batch was made, or memory is not given out by glibc.
    """
    if not batches or platform.libc_ver()[0] != "glibc":
        return {}
    return {
        "new_bytes": max(pages, 0.0) * mmap.PAGESIZE / batches,
        "new_byte": paging(clock=thread_time) / (PAGES * mmap.PAGESIZE),
    }


def touch(clock: Callable[[], float]) -> float:
    """Seconds for writing a byte into each of `PAGES` new pages."""
    began = clock()
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory:
        for at in range(0, PAGES * mmap.PAGESIZE, mmap.PAGESIZE):
            memory[at] = 1
        return clock() - began


def spinning(seconds: float) -> float:
    """The mean of as many `spin` as that takes, three at least."""
    ends, times = perf_counter() + seconds, [spin() for _ in range(3)]
    while perf_counter() < ends:
        times.append(spin())
    return sum(times) / len(times)


def spin() -> float:
    """Seconds for adding up some thirty thousand squares."""
    began, total = perf_counter(), 0
    for number in range(30_000):
        total += number * number
    return perf_counter() - began


class WorkerMemory:
    """Looks at the workers `after` so many batches, of which `progress` is told: the most `bytes`
    of one's own.

    `last`: after how many batches it does, None if that is not known.
    """

    def __init__(self, progress: Callable[[int], object], last: int | None) -> None:
        self.progress, self.last, self._spent = progress, last, 0.0
        self.after = LOOKS if last is None else (last,)
        self.bytes = math.nan
        largest_child()  # importing takes longer than looking

    def look(self) -> None:
        """It is time to."""
        began = monotonic()
        self.bytes = max(largest_child(), self.bytes)
        self._spent = monotonic() - began

    def apart(self, batches: int) -> float:
        """Seconds for which it has looked since the last of so many, while nobody did anything."""
        return self._spent if batches == self.last else 0.0


def largest_child() -> float:
    """The bytes that a child process has to itself, of the one that has the most resident.

    NaN where there is none, or no psutil.
    """
    try:
        import psutil
    except ImportError:
        return math.nan
    with suppress(psutil.Error, ValueError):  # of none, there is no largest
        children = [psutil.Process(child.pid) for child in active_children()]
        largest = max(children, key=lambda child: child.memory_info().rss)
        return float(largest.memory_full_info().uss)
    return math.nan


def there_and_back(message: Any) -> Any:
    """`message` pickled and unpickled."""
    return pickle.loads(pickle.dumps(message))


def dearer(watched: Callable[[], object], plain: Callable[[], object], rounds: int) -> float:
    """By how many CPU seconds the one is dearer than the other: the median of alternate rounds."""
    more = []
    for _ in range(rounds):
        began = thread_time()
        plain()
        between = thread_time()
        watched()
        more.append(thread_time() - between - (between - began))
    return median(more)
