"""Will it fit: what a loader's workers and batches take, beside what the machine has left."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dlsim.scenario import Scenario
from dlsim.scenario.units import size

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes: what batches on their way take, and each of `workers` by itself; what is free.

    `batches` are in /dev/shm if `shared`, else in memory. NaN is what is not known.
    """

    batches: float
    shared: bool
    workers: int
    each_worker: float
    shm_free: float
    memory_free: float

    @property
    def memory(self) -> float:
        """All bytes: /dev/shm is memory, too."""
        own = 0.0 if math.isnan(self.each_worker) else self.workers * self.each_worker
        return self.batches + own

    @property
    def fits(self) -> bool:
        """Whether nothing is known to outgrow what is free."""
        return not (self.memory > self.memory_free or (self.shared and self.full))

    @property
    def full(self) -> bool:
        """Whether the batches outgrow /dev/shm."""
        return self.batches > self.shm_free

    def __str__(self) -> str:
        """One line: what is needed of what is free."""
        own = "" if math.isnan(self.each_worker) or not self.workers else self._own()
        where = f"/dev/shm {size(self.batches)} of {_free(self.shm_free)} free, "
        return f"{where if self.shared else ''}memory {size(self.memory)} of " + (
            f"{_free(self.memory_free)} free{own}"
        )

    def _own(self) -> str:
        return f" ({size(self.each_worker)} for each worker by itself)"


def _free(count: float) -> str:
    return "an unknown number" if math.isnan(count) else size(count)


def room(scenario: Scenario, batches: float, each_worker: float) -> Room:
    """The room for the loader of `scenario`, with so many bytes of batches on their way."""
    workers = scenario.loader.num_workers
    shm = math.nan
    with suppress(OSError):
        shm = float(shutil.disk_usage("/dev/shm").free)
    return Room(
        batches=batches,
        shared=bool(workers) and scenario.dataset.path == "shm",
        workers=workers,
        each_worker=each_worker,
        shm_free=shm,
        memory_free=memory_free(),
    )


def memory_free() -> float:
    """Bytes of memory that this process may still take: the machine's, or its group's."""
    try:
        import psutil
    except ImportError:
        return math.nan
    free = float(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        most = int((CGROUP / "memory.max").read_text())  # "max" where there is no limit
        free = min(free, most - int((CGROUP / "memory.current").read_text()))
    return free
