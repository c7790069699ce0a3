"""One slow worker of four: what it costs depends on in_order, and on the release of torch.

Each worker reads a stream of its own, a batch a second; worker 0's lies on a slow disk, 10 s a
batch. Training takes no time.
"""

from __future__ import annotations

import numpy as np

import dlsim

WORKERS, BATCHES = 4, 1000
SLOW, FAST = 10.0, 1.0

RULES = {
    ("2.5", True): "in turn, in order",
    ("2.6", False): "in turn, as they arrive",
    ("2.7", False): "to workers with room, as they arrive",
}


def scenario(torch: str, in_order: bool) -> dlsim.Scenario:
    """Streams that do not end while we watch."""
    seconds = [SLOW] * BATCHES + [FAST] * BATCHES * (WORKERS - 1)
    return dlsim.Scenario(
        loader=dlsim.Loader(num_workers=WORKERS, in_order=in_order),
        dataset=dlsim.IterableDataset(
            WORKERS * BATCHES,
            sharding="split",
            fetch=[dlsim.Stage("read", wait=dlsim.Recorded(seconds))],
        ),
        consumer=dlsim.Consumer(stop_after=BATCHES),
        torch=torch,
    )


def main() -> None:
    print(f"{BATCHES} batches from {WORKERS} workers; worker 0 takes 10 s a batch, the others 1 s")
    print()
    print(f"torch  in_order  {'batches go':38}  batches/s  by each worker")
    for (torch, in_order), rule in RULES.items():
        trace = dlsim.simulate(scenario(torch, in_order))
        returned = trace.order
        rate = len(returned) / trace.returned.max(initial=0, where=trace.status == 1)
        shares = np.bincount(trace.worker[returned], minlength=WORKERS)
        print(f"{torch:5}  {in_order!s:8}  {rule:38}  {rate:9.3f}  {shares}")
    print()
    print(
        "In order, everyone waits for the slow worker's next batch. Without order, torch 2.6 still"
    )
    print("sends to all in turn: the slow worker collects the whole window, and the others get one")
    print("batch for each of its own. From 2.7 on it keeps its share of the window, and no more:")
    print("the others go on at their pace, which with its own makes 3.1 batches/s.")


if __name__ == "__main__":
    main()
