"""Real loaders beside an accelerator: with and without pinning, waiting for it or running ahead."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dlsim.validation.fidelity.campaign import Rows, journal, run
from dlsim.validation.fidelity.grid import Configuration

TARGET = "device"  # what the journal calls it
WORKERS, DOUBLE = (2, 8), 4  # measured; with the last, batches of twice the size
OBSERVED = (1, 0, 8)  # watched
CALIBRATED = (1, 0)  # of which predictions are made
ROUNDS = 2

Host: TypeAlias = Literal["waits", "ahead", "other stream"]


class Small(Dataset[torch.Tensor]):
    """Waits 0.5 ms for a sample of 1 KB."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.0005)
        return torch.full((256,), float(index))


class Dictionaries(Small):
    """Twenty tensors a sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.0005)
        return {f"field{i}": torch.full((16,), float(index)) for i in range(20)}


class Pictures(Small):
    """Computes for half a millisecond; samples of 307 KB."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.table = np.random.default_rng(0).integers(0, 255, (3, 160, 160), np.uint8)
        self.numbers = np.random.default_rng(0).normal(size=12_000)

    def __getitem__(self, index: int) -> Any:
        np.sort(self.numbers)
        return torch.from_numpy(self.table).float().div_(255)


class Large(Small):
    """Samples of 4 MB, which hardly cost anything but their memory."""

    def __getitem__(self, index: int) -> Any:
        return torch.full((1_000_000,), float(index))


@dataclass(frozen=True)
class Work:
    """A dataset, how many samples make a batch, how many batches an epoch, seconds of a step."""

    dataset: Callable[[int], Dataset[Any]]
    batch_size: int
    batches: int
    step: float  # 0: a network is trained


WORKS = {
    "small": Work(Small, 16, 300, 0.004),
    "dictionaries": Work(Dictionaries, 16, 200, 0.004),
    "pictures": Work(Pictures, 32, 200, 0.006),
    "large": Work(Large, 16, 60, 0.010),
    "training": Work(Pictures, 32, 150, 0.0),
}
PINNED: dict[str, tuple[Host, ...]] = {
    "small": ("waits", "ahead"),
    "dictionaries": ("waits",),
    "pictures": ("waits", "ahead", "other stream"),
    "large": ("waits", "ahead", "other stream"),
    "training": ("waits", "ahead"),
}
UNPINNED: dict[str, tuple[Host, ...]] = {
    "small": ("waits",),
    "dictionaries": ("waits",),
    "pictures": ("waits", "ahead"),
    "large": ("waits", "ahead"),
    "training": ("waits",),
}


@dataclass(frozen=True)
class Variant:
    """A work, whether its batches are pinned, and what the host does in a step."""

    work: str
    pinned: bool
    host: Host

    @property
    def name(self) -> str:
        """As the journal names it."""
        return f"{self.work}, {'pinned' if self.pinned else 'not pinned'}, {self.host}"


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(work, hosts is PINNED, host)
        for hosts in (PINNED, UNPINNED)
        for work in WORKS
        for host in hosts[work]
    )
}


class Step:
    """A training step: copies its batch, computes on it, and waits for the outcome or does not."""

    def __init__(self, host: Host, compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.host, self.compute = host, compute
        self.stream = torch.cuda.Stream() if host == "other stream" else None

    def __call__(self, batch: Any) -> None:
        """Train on `batch`."""
        outcome = self.compute(self.copied(batch))
        if self.host == "waits":
            outcome.item()

    def copied(self, batch: Any) -> torch.Tensor:
        """The batch, all in one, on the accelerator."""
        if self.stream is None:
            return moved(batch)
        with torch.cuda.stream(self.stream):
            there = moved(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        there.record_stream(torch.cuda.current_stream())
        return there


def moved(batch: Any) -> torch.Tensor:
    """A batch copied to the accelerator; of a dictionary, each tensor."""
    if isinstance(batch, dict):
        return torch.cat([tensor.to("cuda", non_blocking=True) for tensor in batch.values()], 1)
    there: torch.Tensor = batch.to("cuda", non_blocking=True)
    return there


class Kernel:
    """Computes for so many seconds, in one kernel."""

    def __init__(self, seconds: float, cycles_per_second: float) -> None:
        self.cycles = int(seconds * cycles_per_second)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Something that depends on all of the batch."""
        torch.cuda._sleep(self.cycles)
        return batch.sum()


class Network:
    """One step of gradient descent of a network of eight convolutions."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        for _ in range(7):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
        self.model = nn.Sequential(*layers).cuda()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        for _ in range(3):
            self(torch.zeros(WORKS["training"].batch_size, 3, 160, 160, device="cuda")).item()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The loss before the step."""
        kinds = torch.zeros(len(batch), dtype=torch.long, device="cuda")
        loss = nn.functional.cross_entropy(self.model(batch), kinds)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def plan() -> Iterator[tuple[Configuration, int]]:
    """All runs in their order, variant by variant: what slowly changes, changes for all of one.

    How long a network trains on batches of twice the size, nothing tells.
    """
    for name, variant in VARIANTS.items():
        work = WORKS[variant.work]
        for workers in OBSERVED:
            yield Configuration(name, work.batch_size, workers, observed=True), 0
        for number in range(ROUNDS):
            for workers in WORKERS:
                yield Configuration(name, work.batch_size, workers), number
        if work.step:
            yield Configuration(name, 2 * work.batch_size, DOUBLE), 0


def make_all(
    folder: Path,
    cycles_per_second: float,
    *,
    seconds: float = float("inf"),
    progress: Callable[[str], object] = lambda name: None,
) -> bool:
    """Make those runs that `folder` does not have; whether all are there after so many seconds."""
    ends = time.monotonic() + seconds
    networks: list[Network] = []

    def make(one: Configuration) -> tuple[DataLoader[Any], Step]:
        variant = VARIANTS[one.workload]
        work = WORKS[variant.work]
        loader = DataLoader(
            work.dataset(work.batch_size * work.batches),
            pin_memory=variant.pinned,
            **one.settings,
        )
        if work.step:
            return loader, Step(variant.host, Kernel(work.step, cycles_per_second))
        if not networks:
            networks.append(Network())
        return loader, Step(variant.host, networks[0])

    with journal(folder, TARGET) as kept, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        for configuration, number in plan():
            name = f"{configuration.key}, round {number}"
            if name in kept.rows:
                continue
            if time.monotonic() > ends:
                return False
            progress(name)
            for other, row in made(folder, make, configuration, name, kept.rows).items():
                kept.write(other, row)
    return True


def made(folder: Path, make: Any, one: Configuration, name: str, known: Any) -> Rows:
    """One run, and what else of the machine is needed to predict it."""
    rows = run(folder, TARGET, make, one, name, frozenset(map(str, known)))
    rows[name] |= {"configuration": asdict(replace(one)), "before": []}
    return rows
