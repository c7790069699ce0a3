"""Memory that processes take anew for each batch, in a run that was observed.

What is freed, glibc gives back to the system once more than twice the largest piece lies free that
it ever got back from a map of its own (`mallopt(3)`, M_MMAP_THRESHOLD); workers begin with what the
main process has come to. A large batch that is pickled is in memory several times, and all of it is
freed: so the next one takes new pages, each of which the system clears, unless something larger was
freed before, or the thresholds are set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from dlsim.scenario.units import duration, size
from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats

MORE = 2.0  # times a batch's bytes, that are new; where memory is kept, it is a small part
NOTICED = 0.2  # of the processor time of a batch
LARGEST = 1 << 25  # bytes of a piece that glibc can be told to keep
SETTING = f"MALLOC_MMAP_THRESHOLD_={LARGEST} MALLOC_TRIM_THRESHOLD_={8 * LARGEST}"


def returned(seen: Observation) -> float:
    """Seconds of processor time that each batch's new memory costs; 0 where memory is kept.

    Of batches that are pickled: those in shared memory are in new memory each, whatever is kept.
    """
    known = json.loads(seen.meta.notes.get("machine", "{}"))
    pickled, shared = (_mean(column) for column in (seen.pickled_bytes, seen.tensor_bytes))
    new = known.get("new_bytes", 0.0)
    if pickled <= shared or new < MORE * pickled:
        return 0.0
    return float(new * known["new_byte"])


def told(seen: Observation) -> str:
    """That memory is given back only to be taken again, and what keeps it; "" if little is."""
    known, seconds = json.loads(seen.meta.notes.get("machine", "{}")), returned(seen)
    each = known.get("ours", 0.0) * seen.end / max(len(seen.order), 1)
    if not seconds > NOTICED * each or _mean(seen.pickled_bytes) > LARGEST:
        return ""
    return (
        f"Each batch of {size(_mean(seen.pickled_bytes))} takes {size(known['new_bytes'])} of new "
        f"memory, some {duration(min(seconds, each))} of {duration(each)} of processor time: what "
        f"is freed goes back to the system. With {SETTING} in the environment it is kept."
    )


def differing(runs: Iterable[Observation]) -> str:
    """That what workers free is kept in some of the runs and given back in others; "" if not."""
    told: dict[bool, list[float]] = {True: [], False: []}
    for seen in runs:
        known = json.loads(seen.meta.notes.get("machine", "{}"))
        pickled, shared = (_mean(column) for column in (seen.pickled_bytes, seen.tensor_bytes))
        if "new_bytes" in known and pickled > shared and (seen.worker >= 0).any():
            told[returned(seen) > 0].append(known["new_bytes"])
    if not (told[True] and told[False]):
        return ""
    return (
        f"Watched runs differ in their memory: in {len(told[True])} of "
        f"{len(told[True]) + len(told[False])} what is freed goes back to the system, and a batch "
        f"takes {size(max(told[True]))} of new memory, not {size(min(told[False]))}. Another run "
        f"may do either, and predictions are less sure by that; with {SETTING} in the environment "
        "all keep it."
    )


def _mean(column: Floats) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else 0.0
