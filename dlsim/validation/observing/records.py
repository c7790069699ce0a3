"""What the processes of a loader wrote down, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.trace.trace import Floats
from dlsim.validation.observing.probe import BATCHED, READY, SAMPLE, SAMPLES

Rows: TypeAlias = NDArray[np.void]

NUMBERS = ("batch", "what", "worker", "process", "kind")
TIMES = ("began", "ended", "cpu", "queued", "used")
ROW = np.dtype([(f, "f8") for f in TIMES] + [(f, "i8") for f in NUMBERS])
FETCHED = np.dtype([("time", "f8"), ("index", "i8")])


def read(directory: Path) -> Rows:
    """What the processes wrote into `directory`, each process's records in the order written."""
    parts = [np.empty(0, ROW)]
    for path in sorted(directory.iterdir()):
        if path.suffix == ".samples":
            continue
        rows = entries(path, ROW)
        rows = rows[rows["kind"] > 0]  # without room that was left
        seen = path.with_suffix(".samples")
        parts.append(one_by_one(rows, entries(seen, FETCHED)) if seen.exists() else rows)
    return np.concatenate(parts)


def entries(path: Path, kind: np.dtype[Any]) -> Rows:
    """What is in a file; a process that is killed may leave half an entry."""
    content = path.read_bytes()
    return np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)


def one_by_one(rows: Rows, seen: Rows) -> Rows:
    """The records of a process, in which each of the samples that were `seen` has its own.

    One of several that were fetched one after another began when the one before was there. Where
    those that were asked for together were off the cores, the longest of them were: none used more
    than some limit, the others all their time. Those that one call fetched share what it used.
    """
    several = np.isin(rows["kind"], (SAMPLES, BATCHED))
    counts = np.where(several, rows["what"], 1)
    made, mine = np.repeat(rows, counts), np.repeat(several, counts)
    of, counts = made[mine], counts[several]
    if not len(of):
        return made
    seen = seen[seen["time"] > 0][: len(of)]
    called, alone = of["kind"] == BATCHED, np.repeat(counts == 1, counts)
    first = np.cumsum(counts) - counts
    ended = seen["time"].copy()
    # as the clock stood when what was used was asked: who is made to wait is so then
    last = first + counts - 1
    ended[last] = of["ended"][last]
    began = np.append(0.0, ended[:-1])
    began[first] = of["began"][first]
    began[called] = of["began"][called]
    took = ended - began
    cpu = np.minimum(took, limited(took, of["cpu"][first], counts))
    off = took - cpu
    all_off = np.repeat(np.add.reduceat(off, first), counts)
    share = np.divide(off, all_off, out=alone.astype(float), where=(all_off > 0) & ~alone)
    each = 1 / np.repeat(counts, counts)[called]
    cpu[called], share[called] = each * of["cpu"][called], each
    made["began"][mine], made["ended"][mine] = began, ended
    made["what"][mine], made["kind"][mine] = seen["index"], SAMPLE
    made["cpu"][mine], made["queued"][mine] = cpu, share * of["queued"]
    return made


def limited(took: Floats, totals: Floats, counts: NDArray[np.int64]) -> Floats:
    """What groups of so many `took`, none above the limit with which its group has its total."""
    group = np.repeat(np.arange(len(counts)), counts)
    places, ends = np.arange(len(took)), np.cumsum(counts)
    ascending = took[np.lexsort((took, group))]
    below = np.cumsum(ascending) - ascending
    below -= below[ends - counts][group]
    limits = (totals[group] - below) / (ends[group] - places)  # if those below were all
    above = np.where(limits <= ascending, places, len(took))
    most = np.append(limits, np.inf)[np.minimum.reduceat(above, ends - counts)]
    limit: Floats = np.minimum(took, most[group])
    return limit


def started_with(rows: Rows) -> float:
    """Pages of memory that were new to workers before they took work."""
    pages = rows["what"][rows["kind"] == READY]
    return float(pages[pages >= 0].sum())
