"""What an axis of a metric says: its name, its unit, and what its values are multiplied with."""

from __future__ import annotations

import numpy as np

from dlsim.scenario.units import BYTES
from dlsim.trace.trace import Floats

NAMES = {
    "samples_per_s": "throughput (samples/s)",
    "distinct_per_s": "throughput (distinct samples/s)",
    "batches_per_s": "throughput (batches/s)",
    "stall": "stall (% of the time)",
    "validation": "validation (% of the time)",
    "validation_stall": "stall in validation (% of its time)",
    "au": "accelerator utilisation (%)",
    "worker_utilisation": "workers busy (% of the time)",
    "wait_mean": "mean wait (s)",
    "wait_p50": "median wait (s)",
    "wait_p95": "95th percentile of waits (s)",
    "wait_p99": "99th percentile of waits (s)",
    "wait_first": "wait for the first batch (s)",
    "first_batch": "time to the first batch (s)",
    "epoch_time": "time of an epoch (s)",
    "elapsed": "elapsed time (s)",
    "head_of_line": "waited while a later batch was ready (s)",
    "period": "time from one batch to the next (s)",
    "memory": "memory of batches on their way",
    "buffer_bytes": "most bytes in the buffer",
    "buffer_mean": "mean of batches ready",
    "buffer_max": "most batches ready",
    "credit_max": "most batches sent and not returned",
    "held": "batches that came early",
    "held_max": "most early batches at a time",
    "lost": "samples that never come",
}
IN_PERCENT = ("stall", "validation", "validation_stall", "au", "worker_utilisation")
IN_BYTES = ("memory", "buffer_bytes")
STEADY = "steady_"  # metrics of the batches after the warm-up begin with it


def axis_of(metric: str, values: Floats) -> tuple[float, str]:
    """What `values` of a metric are multiplied with to be drawn, and what the axis says.

    Shares are drawn in percent, bytes in the unit of the greatest.
    """
    name = metric.removeprefix(STEADY)
    said = NAMES.get(name, name.replace("_", " "))
    if name != metric:
        said += ", warmed up"
    if name in IN_BYTES:
        most = np.fmax.reduce(values, initial=0.0)
        unit = next((u for u in ("TiB", "GiB", "MiB", "KiB") if most >= float(BYTES[u])), "B")
        return 1 / float(BYTES[unit]), f"{said} ({unit})"
    return 100.0 if name in IN_PERCENT else 1.0, said
