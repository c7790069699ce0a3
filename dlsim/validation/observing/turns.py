"""For how long a process keeps a core that others want, too.

Linux looks at its clock's ticks only, unless somebody wakes (CONFIG_HZ; sched_ext and other
schedulers may differ). So it is seen, not asked for: this process and another one spin on one core.
"""

from __future__ import annotations

import os
from functools import cache
from time import perf_counter

import numpy as np

from dlsim.validation.observing.machine import moving
from dlsim.validation.observing.siblings import busy

MOST = 0.5  # seconds for which it is looked at
PAUSE = 0.2e-3  # seconds; interrupts are shorter
LEAST, ENOUGH = 4, 9  # turns


@cache
def turn() -> float:
    """Seconds that this process computes before another one on its core does; 0: not known."""
    if not hasattr(os, "sched_setaffinity"):
        return 0.0
    turns: list[float] = []
    with moving() as usable:
        os.sched_setaffinity(0, {usable[0]})
        with busy(usable[0]):
            began = last = perf_counter()
            until = began + MOST
            while last < until and len(turns) <= ENOUGH:
                now = perf_counter()
                if now - last > PAUSE:
                    turns.append(last - began)
                    began = now
                last = now
    return float(np.median(turns[1:])) if len(turns) > LEAST else 0.0
