"""What of the machine this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> float:
    """The cores this process may use: those it may run on, or what its group is allowed."""
    cores = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        allowed, period = CGROUP.read_text().split()
        cores = min(cores, int(allowed) / int(period))
    return cores
