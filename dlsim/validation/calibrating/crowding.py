"""How busy the other cores were while something was computed, and what that cost.

Cores share caches, memory, and what the system keeps under lock; so some work takes longer while
its neighbours are busy, and other work does not. Which of the two a loader's is, its batches
tell, if some were fetched among busy cores and some among idle ones.
"""

from __future__ import annotations

import numpy as np

from dlsim.engine.facts import MAIN
from dlsim.scenario import Machine
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats

MOST = 1.0  # no more than this is believed: twice the time


def crowding(seen: Observation, cores: float) -> Floats:
    """For each batch, how busy the other cores were on average while it was fetched, 0 to 1.

    Every stretch of work, of a worker on a batch or of the main process, is taken to be as dense
    throughout as its CPU makes it on average. What the main process fetches itself is of its own
    stretches, and crowds nobody.
    """
    assert seen.samples is not None
    spent = seen.batch_cpu
    order, theirs = seen.order, seen.worker != MAIN
    begun = np.concatenate([seen.started[theirs], seen.requested[order]])
    ended = np.concatenate([seen.fetched[theirs], seen.returned[order]])
    used = np.concatenate([spent[theirs], (seen.thread_returned - seen.thread_requested)[order]])
    if len(order) > 1:  # steps, by all threads of the main process
        begun = np.concatenate([begun, seen.returned[order[:-1]]])
        ended = np.concatenate([ended, seen.requested[order[1:]]])
        used = np.concatenate([used, seen.cpu_requested[order[1:]] - seen.cpu_returned[order[:-1]]])
    known = (ended > begun) & ~np.isnan(used)
    begun, ended, used = begun[known], ended[known], used[known]
    density = used / (ended - begun)
    times = np.concatenate([begun, ended])
    by_time = np.argsort(times, kind="stable")
    times, slopes = times[by_time], np.cumsum(np.concatenate([density, -density])[by_time])
    done = np.concatenate([[0.0], np.cumsum(np.diff(times) * slopes[:-1])])
    wall = seen.fetched - seen.started
    with np.errstate(invalid="ignore", divide="ignore"):
        busy = (np.interp(seen.fetched, times, done) - np.interp(seen.started, times, done)) / wall
        others: Floats = np.clip((busy - spent / wall) / max(cores - 1, 1.0), 0.0, 1.0)
    return others


def paired(crowded: Floats, cores: float) -> Floats:
    """The share of the time for which a core's sibling is busy, if all cores have one.

    `crowded`: how busy the other cores are. So many processes are on different physical cores as
    far as there are enough.
    """
    machine, busy = Machine(cores=cores), np.arange(1.0, max(cores, 1.0) + 1)
    shares = [machine.paired(number) for number in busy]
    found: Floats = np.interp(1 + crowded * (cores - 1), busy, shares)
    return found


def contention(crowded: Floats, seconds: Floats, expected: float = 0.0) -> float:
    """By how much, relatively, `seconds` grow as `crowded` goes from 0 to 1; at least 0.

    One entry for each batch. A slope that chance could have made of the `expected` one counts for
    less, the less sure it is (James and Stein's positive part); where nothing varies, that is it.
    """
    known = ~np.isnan(crowded + seconds)
    crowded, seconds = crowded[known], seconds[known]
    if len(seconds) < 4 or np.ptp(crowded) < 0.2:
        return expected
    from scipy.stats import linregress

    line = linregress(crowded, seconds)
    if line.intercept <= 0:
        return expected
    found = max(line.slope / line.intercept, 0.0)
    apart, chance = found - expected, line.stderr / line.intercept
    sure = max(0.0, 1 - (chance / apart) ** 2) if apart else 0.0
    return float(min(expected + sure * apart, MOST))
