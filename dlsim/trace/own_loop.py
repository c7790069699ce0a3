"""The loop that a loader of a class of its own has around torch's, in a run that was watched."""

from __future__ import annotations

import json

from dlsim.scenario.units import duration
from dlsim.trace.observation import Observation

NOTICED = 0.05  # of the time of a batch


def told(seen: Observation) -> str:
    """What the loop takes for each batch, and as what it counts; "" where that is little."""
    own = json.loads(seen.meta.notes.get("machine", "{}")).get("own", 0.0)
    if not own * len(seen.order) > NOTICED * seen.end:
        return ""
    return (
        f"The loader's own __iter__ takes {duration(own)} for each batch, besides torch's: "
        "that is counted as training."
    )
