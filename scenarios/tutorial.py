"""The ladder of PyTorch's tutorial on data loading, rung by rung, without a machine to run it on.

512 samples of 5 ms in batches of 32, ten epochs of 16 batches (PyTorch tutorials, "Data Loading
Optimization in PyTorch"). The training step is not given there; 20 ms is assumed. Starting a
worker takes 10 ms, as was seen on a two-core virtual machine with fork (8 to 15 ms).
"""

from __future__ import annotations

from typing import Any

import dlsim

LADDER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no workers", {}),
    ("num_workers=1", {"loader.num_workers": 1}),
    ("num_workers=2", {"loader.num_workers": 2}),
    ("num_workers=4", {"loader.num_workers": 4}),
    ("+ prefetch_factor=4", {"loader.prefetch_factor": 4}),
    ("+ persistent_workers", {"loader.persistent_workers": True}),
    ("+ __getitems__", {"dataset.batched": True}),
)


def baseline() -> dlsim.Scenario:
    """The tutorial's loop without workers."""
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=32, shuffle=True),
        dataset=dlsim.MapDataset(512, [dlsim.Stage("transform", wait=dlsim.Constant(0.005))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.02)),
        costs=dlsim.Costs(worker_start=0.01),
        epochs=10,
    )


def main() -> None:
    print("512 samples of 5 ms, batches of 32, 10 epochs; a training step of 20 ms")
    print()
    print(f"{'':22} {'time':>8} {'speedup':>8} {'idle':>8}")
    scenario, first = baseline(), 0.0
    for rung, changes in LADDER:
        scenario = dlsim.replace(scenario, changes)
        found = dlsim.summarize(dlsim.simulate(scenario))
        first = first or found.elapsed
        print(f"{rung:22} {found.elapsed:6.2f} s {first / found.elapsed:7.1f}x {found.stall:8.1%}")
    print()
    print("Four workers fetch a batch every 40 ms: still slower than the step. What they prefetch")
    print("does not change that, as all of it is used up at once. Persistent workers save their")
    print("start in every epoch; one call for each batch instead of 32 makes the step the limit.")


if __name__ == "__main__":
    main()
