"""A real training step, for the workload that trains: a small network, trained on the CPU."""

from __future__ import annotations

import torch
import torch._dynamo  # which the first optimizer imports else, for seconds
from torch import nn


class TrainingStep:
    """Called with a batch of pictures, it makes one step of gradient descent.

    With `parallel`, all ranks of the job that this process is of make it together.
    """

    def __init__(self, *, parallel: bool = False) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.AvgPool2d(3),
            nn.Conv2d(3, 16, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        if parallel:
            self.model = nn.parallel.DistributedDataParallel(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self(torch.zeros(2, 3, 160, 160))  # the first step of a process takes longer

    def __call__(self, pictures: torch.Tensor) -> None:
        """Train on `pictures`, all of which are taken for the first of ten kinds."""
        kinds = torch.zeros(len(pictures), dtype=torch.long)
        loss = nn.functional.cross_entropy(self.model(pictures), kinds)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
