from __future__ import annotations

import numpy as np
import pytest

import dlsim
from dlsim.engine import simulate

# 30 samples, each sleeping 2, 3 or 4 s with equal chance; batch 3; training step 3 s. One run for
# each configuration, by the author of the notes this project comes from (dist_ml_tuts): workers,
# prefetch_factor, and the mean over batches 2 to 10 of the time between returns, less the step.
MEASURED = [
    (0, None, 9.017),
    (1, 2, 5.791),
    (1, 3, 6.126),
    (2, 2, 1.229),
    (2, 3, 1.451),
    (3, 2, 0.115),
]
STEP = 3.0


@pytest.mark.parametrize(("num_workers", "prefetch_factor", "measured"), MEASURED)
def test_measured_waits(num_workers: int, prefetch_factor: int | None, measured: float) -> None:
    """Each wait measured lies within the central 95 % of what 1,000 simulated runs give."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=3, num_workers=num_workers, prefetch_factor=prefetch_factor),
        dataset=dlsim.MapDataset(30, fetch=[dlsim.Stage("sleep", wait=dlsim.Empirical([2, 3, 4]))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(STEP)),
    )
    waits = []
    for seed in range(1000):
        trace = simulate(scenario, seed)
        waits.append(np.diff(trace.returned[trace.order]).mean() - STEP)
    low, high = np.percentile(waits, [2.5, 97.5])
    assert low <= measured <= high
