"""Pictures as numbers: what a screen can show of a run, and no more.

The page draws these and computes nothing. Of what has too many parts to be seen, there are as many
columns as `dlsim.report.plots` draws: shares of the time, or least, mean and greatest levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.report.columns import envelope, shares
from dlsim.report.plots import COLUMNS, MOST_BARS, Spent, spent
from dlsim.report.style import BARRIER, FETCH, STEP, WAIT
from dlsim.trace import Trace, memory, metrics, stays
from dlsim.trace.levels import Levels
from dlsim.trace.trace import Floats

KINDS = {WAIT: "wait", STEP: "step", BARRIER: "barrier", FETCH: "fetch"}
STEPS = 600  # changes of a level, of which all are sent
QUANTILES = np.concatenate((np.linspace(0, 0.99, 100), np.linspace(0.991, 1, 10)))
Json = dict[str, Any]


def stretch(trace: Trace, zoom: tuple[float, float] | None = None) -> tuple[float, float]:
    """Begin and end of what is shown, in seconds: the part of the run in `zoom`, never empty."""
    begin, end = metrics.span(trace)
    if zoom is not None:
        begin, end = max(begin, zoom[0]), min(end, zoom[1])
    return begin, end if end > begin else begin + 1.0


def lanes(trace: Trace, begin: float, end: float) -> Json:
    """Who did what when: for each lane its bars, or the shares of equal columns of time (%).

    A bar is begin, end (seconds) and batch number. `dense`: whether any lane has columns.
    """
    edges = np.linspace(begin, end, COLUMNS + 1)
    found: list[Json] = []
    for number, kinds in enumerate(spent(trace, metrics.worker_count(trace) + 1)):
        seen = [_within(kind, begin, end) for kind in kinds]
        crowded = max(len(each[1]) for each in seen) > MOST_BARS
        lane: Json = {"name": f"worker {number - 1}" if number else "main process"}
        for colour, batches, begins, ends in seen:
            if crowded:
                lane[KINDS[colour]] = (
                    (100 * shares(begins, ends, edges)).round().astype(int).tolist()
                )
            else:
                rows = zip(_short(begins), _short(ends), batches.tolist(), strict=True)
                lane[KINDS[colour]] = [list(row) for row in rows]
        found.append({**lane, "dense": crowded})
    return {"begin": begin, "end": end, "lanes": found}


def _within(kind: Spent, begin: float, end: float) -> Spent:
    colour, batches, begins, ends = kind
    some = (ends > begin) & (begins < end)
    return colour, batches[some], begins[some].clip(begin), ends[some].clip(max=end)


def occupancy(trace: Trace, begin: float, end: float) -> Json:
    """Batches ready, and sent but not returned, over time; and the credit window."""
    scenario = trace.meta.scenario
    curves = {"ready": stays.buffer(trace), "credit": stays.credit(trace)}
    if not metrics.worker_count(trace):
        del curves["credit"]
    return {
        "begin": begin,
        "end": end,
        "curves": {name: curve(level, begin, end) for name, level in curves.items()},
        "limit": (scenario.loader.window or None) if scenario is not None else None,
    }


def bytes_over_time(trace: Trace, begin: float, end: float) -> Json:
    """Bytes of batches on their way, all together and those in /dev/shm, and what there is."""
    used, scenario = memory(trace), trace.meta.scenario
    assert scenario is not None
    shm = scenario.through_shm
    curves = {"ready": used.shm} if shm else {}
    return {
        "begin": begin,
        "end": end,
        "curves": {
            name: curve(level, begin, end)
            for name, level in {**curves, "credit": used.total}.items()
        },
        "limit": scenario.machine.shm if shm else scenario.machine.memory,
    }


def curve(level: Levels, begin: float, end: float) -> Json:
    """A level over time: `times` and `counts`; or `low`, `mean`, `high` of equal columns."""
    first = max(int(np.searchsorted(level.times, begin, side="right")) - 1, 0)
    last = int(np.searchsorted(level.times, end))
    times, counts = level.times[first:last].clip(begin), level.counts[first:last]
    if len(times) <= STEPS:
        return {"times": _short(times), "counts": counts.tolist()}
    edges = np.linspace(begin, end, COLUMNS + 1)
    low, mean, high = envelope(Levels(times, counts, end), edges)
    return {"low": low.tolist(), "mean": _short(mean), "high": high.tolist()}


def waits(trace: Trace) -> Json:
    """How long training waits: the wait (seconds) that each share of the batches stays below."""
    known = metrics.known(metrics.waits(trace))
    values = np.quantile(known, QUANTILES) if len(known) else np.zeros(len(QUANTILES))
    return {"shares": _short(QUANTILES), "waits": _short(values)}


def _short(values: Floats) -> list[float]:
    """Numbers with the digits that a screen has pixels for."""
    return [float(f"{value:.6g}") for value in values.tolist()]
