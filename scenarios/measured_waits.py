"""Six waits that were measured on a real DataLoader, beside what 1,000 simulated runs give.

30 samples, each sleeping 2, 3 or 4 s with equal chance, in batches of 3; a training step of 3 s.
The measured figures are one run each, by the author of the notes this project comes from
(dist_ml_tuts): the mean, over batches 2 to 10, of the time between returns, less the step.
"""

from __future__ import annotations

import numpy as np

import dlsim

MEASURED = {  # (num_workers, prefetch_factor): seconds
    (0, None): 9.017,
    (1, 2): 5.791,
    (1, 3): 6.126,
    (2, 2): 1.229,
    (2, 3): 1.451,
    (3, 2): 0.115,
}
RUNS = 1000
STEP = 3.0


def waits(num_workers: int, prefetch_factor: int | None) -> np.ndarray:
    """The mean wait in seconds of each simulated run, summarised as the measured one was."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=3, num_workers=num_workers, prefetch_factor=prefetch_factor),
        dataset=dlsim.MapDataset(30, [dlsim.Stage("sleep", wait=dlsim.Empirical([2, 3, 4]))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(STEP)),
    )
    traces = (dlsim.simulate(scenario, seed) for seed in range(RUNS))
    return np.array([np.diff(trace.returned[trace.order]).mean() - STEP for trace in traces])


def main() -> None:
    print(f"mean wait for batches 2 to 10: one real run, and {RUNS} simulated ones")
    print()
    print("workers  prefetch  measured  simulated  central 95 %")
    inside = 0
    for (num_workers, prefetch_factor), measured in MEASURED.items():
        simulated = waits(num_workers, prefetch_factor)
        low, high = np.percentile(simulated, [2.5, 97.5])
        inside += low <= measured <= high
        print(
            f"{num_workers:7}  {prefetch_factor or '-':>8}  {measured:6.2f} s  "
            f"{simulated.mean():7.2f} s  {low:5.2f} to {high:5.2f} s"
        )
    print()
    print(f"{inside} of {len(MEASURED)} lie within. A second worker does most of what can be done;")
    print("a larger prefetch_factor does nothing here: it is the workers that are waited for.")


if __name__ == "__main__":
    main()
