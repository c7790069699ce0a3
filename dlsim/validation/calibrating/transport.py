"""What moving batches costs on this machine: a short probe with batches that cost nothing else.

A single worker hands over batches made beforehand: small, of many tensors, and large. From what
each took follow the costs of a message, of a tensor and of a byte.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dlsim.scenario import Cost, Costs
from dlsim.validation.calibrating.accounts import Accounts
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.observing.run import observe

BATCHES = 60
MANY, LARGE = 16, 2_000_000  # tensors, bytes
Contents = tuple[int, int]  # tensors (or arrays), bytes of each


class Ready(Dataset[Any]):
    """A dataset that has its batch ready."""

    def __init__(self, path: str, contents: Contents) -> None:
        count, size = contents
        array = np.zeros(max(size, 8), np.uint8)
        self.arrays = [array.copy() for _ in range(count)]
        self.shared = path == "shm"

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        return [torch.from_numpy(array) for array in self.arrays] if self.shared else self.arrays


def as_it_is(samples: list[Any]) -> Any:
    """The only sample of a batch is the batch."""
    return samples[0]


def ran(path: str, contents: Contents) -> Accounts:
    """The accounts of moving batches of these contents."""
    collate_fn = None if path == "shm" else as_it_is  # torch's own collates into shared memory
    loader = DataLoader(Ready(path, contents), num_workers=1, collate_fn=collate_fn)
    return accounts(observe(loader))


@lru_cache(maxsize=2)
def probe(path: str) -> Costs:
    """The costs on this machine of batches that travel in shared memory or through the pipe."""
    small, many = ran(path, (1, 64)), ran(path, (MANY, 64))
    large = ran(path, (1, LARGE))

    def cost(name: str) -> Cost:
        return solved(*(float(np.mean(getattr(run, name))) for run in (small, many, large)))

    return Costs(
        worker_start=float(np.mean(small.start)),
        worker_ready=float(np.mean(small.ready)),
        worker_stop=float(np.mean(small.stop)),
        index_put=float(np.mean(small.put)),
        index_latency=float(np.quantile(small.latency, 0.25)) if len(small.latency) else 0.0,
        take=float(np.mean(small.take)),
        share=cost("collate") if path == "shm" else Cost(),
        serialise=cost("serialise"),
        hand_over=cost("hand_over"),
        receive=cost("receive"),
    )


def solved(small: float, many: float, large: float) -> Cost:
    """The cost of a message, a tensor and a byte, from what the three kinds of batch took."""
    tensor = max((many - small) / (MANY - 1), 0.0)
    byte = max((large - small) / LARGE, 0.0)
    return Cost(message=max(small - tensor, 0.0), tensor=tensor, byte=byte)
