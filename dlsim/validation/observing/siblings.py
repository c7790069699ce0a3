"""Whether cores are threads of one physical core: what one does while its sibling is busy.

Virtual machines often hide which are. So where the system names no siblings, a core is tried
beside the next one, and beside the one that would be its sibling if all first threads were numbered
before all second ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import thread_time

from dlsim.validation.observing.machine import moving, spin

SYSTEM = Path("/sys/devices/system/cpu")
ROUNDS = 10
SUSPECT = 0.95  # one that does less is asked again, as chance may have made it so
BUSY = "import sys; sys.stdout.buffer.write(b'.'); sys.stdout.flush()\nwhile True: pass"


@cache
def siblings() -> float:
    """What a core does while its sibling is busy, as a share of what it does alone; 1: has none.

    Two spinning processes against one, on the pair of cores that gets into each other's way most.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 1.0
    with moving() as usable:
        first, others = pairs(usable)
        os.sched_setaffinity(0, {first})
        found = {other: beside(other) for other in others}
        again = [max(share, beside(other)) for other, share in found.items() if share < SUSPECT]
    return min(again, default=1.0)


def pairs(usable: Sequence[int], system: Path = SYSTEM) -> tuple[int, Sequence[int]]:
    """A core, and those of the `usable` ones that may be its sibling: that one, if it is told."""
    for core in usable:
        told = [other for other in usable if other > core and other in named(core, system)]
        if told:
            return core, told[:1]
    return usable[0], sorted({*usable[1:2], *usable[len(usable) // 2 :][:1]} - {usable[0]})


def named(core: int, system: Path) -> set[int]:
    """The threads of the physical core that `core` is one of, as the system tells it."""
    try:
        text = (system / f"cpu{core}/topology/thread_siblings_list").read_text()
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    except (OSError, ValueError):
        return set()
    return {number for part in ends for number in range(part[0], part[-1] + 1)}


def beside(other: int) -> float:
    """What this core does while `other` is busy, as a share of what it does alone; 1 at most."""
    alone = fastest()
    with busy(other):
        return min(alone / fastest(), 1.0)


def fastest() -> float:
    """CPU seconds of the shortest of some equal pieces of work."""
    taken = []
    for _ in range(ROUNDS):
        began = thread_time()
        spin()
        taken.append(thread_time() - began)
    return min(taken)


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Another process spins on `core` meanwhile."""
    command = [sys.executable, "-S", "-E", "-c", BUSY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.read(1)
            os.sched_setaffinity(process.pid, {core})
            yield
        finally:
            process.send_signal(signal.SIGKILL)
