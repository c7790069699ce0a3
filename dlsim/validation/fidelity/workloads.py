"""Real work for loaders to do, generated on the spot from a seed: what the suite is made of."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

SEED = 20260101


def costs(length: int, low: float, high: float) -> list[float]:
    """Seconds for each of `length` samples, evenly spread, the same in every process."""
    return np.random.default_rng(SEED).uniform(low, high, length).tolist()  # type: ignore[no-any-return]


class Sleep(Dataset[torch.Tensor]):
    """Waits, as for a network."""

    def __init__(self, length: int = 640, low: float = 0.003, high: float = 0.006) -> None:
        self.seconds = costs(length, low, high)

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.seconds[index])
        return torch.zeros(256)


class HeavyTail(Sleep):
    """Most samples are quick, a few take very long."""

    def __init__(self, length: int = 640) -> None:
        draws = 0.002 * (1 + np.random.default_rng(SEED).pareto(1.8, length))
        self.seconds = np.minimum(draws, 0.2).tolist()


class Mixed(Sleep):
    """Waits, then computes with NumPy."""

    def __init__(self, length: int = 640) -> None:
        super().__init__(length, 0.001, 0.003)
        self.table = np.random.default_rng(SEED).normal(size=20_000)

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.seconds[index])
        for _ in range(2 + index % 3):
            values = np.sort(self.table)
        return torch.from_numpy(values[:256])


class Jpeg(Dataset[torch.Tensor]):
    """Decodes a picture held in memory, resizes it, makes a tensor of it."""

    def __init__(self, length: int = 480, kinds: int = 24) -> None:
        from PIL import Image

        rng = np.random.default_rng(SEED)
        self.length = length
        self.files = []
        for _ in range(kinds):
            height, width = rng.integers(200, 500, 2)
            coarse = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((int(width), int(height)))
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=90)
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(io.BytesIO(self.files[index % len(self.files)])) as picture:
            pixels = np.array(picture.convert("RGB").resize((160, 160)))
        return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


class Large(Dataset[torch.Tensor]):
    """Samples of 750 kB: eight of them are 6 MB."""

    def __len__(self) -> int:
        return 640

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((187_500,), float(index))


class Dictionaries(Dataset[dict[str, torch.Tensor]]):
    """Each sample is twenty small tensors."""

    def __len__(self) -> int:
        return 1280

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {f"field{i}": torch.full((8,), index + i) for i in range(20)}


class Arrays(Dataset[Any]):
    """NumPy arrays of 300 kB, which go through the pipe."""

    def __len__(self) -> int:
        return 640

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.001)
        return np.full((160, 160, 3), index, np.float32)


class Files(Dataset[torch.Tensor]):
    """Reads files from disk; `cold` drops each from the page cache first."""

    def __init__(self, folder: Path, *, cold: bool, length: int = 480, size: int = 400_000) -> None:
        self.folder, self.cold, self.length = folder, cold, length
        contents = np.random.default_rng(SEED).bytes(size)
        for index in range(length):
            path = self.path(index)
            if not path.exists():
                path.write_bytes(contents)
        os.sync()

    def path(self, index: int) -> Path:
        """Where a sample is."""
        return self.folder / f"{index}.bin"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self.path(index), "rb", buffering=0) as file:
            if self.cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            data = file.read()
        values = np.frombuffer(data, np.uint8)
        return torch.tensor(float(np.sort(values[:20_000]).sum()))


class Shards(IterableDataset[torch.Tensor]):
    """A stream, split among the workers as torch's documentation does it."""

    def __init__(self, length: int = 640) -> None:
        self.seconds = costs(length, 0.002, 0.005)

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        share = -(-len(self.seconds) // workers)
        for seconds in self.seconds[worker * share : (worker + 1) * share]:
            time.sleep(seconds)
            yield torch.zeros(256)


class OneCall(Sleep):
    """One wait for a whole batch."""

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        """All samples of a batch."""
        time.sleep(0.02)
        return [torch.zeros(256)] * len(indices)


def as_list(samples: list[Any]) -> list[Any]:
    """A `collate_fn` that collates nothing."""
    return samples


@dataclass(frozen=True)
class Workload:
    """A dataset, how it is collated, its two batch sizes, and the length of a step on it.

    `step` is seconds, about what a batch of the smaller size takes two workers; with
    `trains`, steps are those of a small model trained on the CPU.
    """

    name: str
    dataset: Callable[[Path], Any]
    sizes: tuple[int, int]
    step: float
    collate: Callable[[list[Any]], Any] | None = None
    trains: bool = False

    def loader(self, folder: Path, **settings: Any) -> DataLoader[Any]:
        """A DataLoader over the dataset with these settings; files are put into `folder`."""
        return DataLoader(self.dataset(folder), collate_fn=self.collate, **settings)


WORKLOADS = (
    Workload("sleep", lambda folder: Sleep(), (8, 16), 0.02),
    Workload("jpeg", lambda folder: Jpeg(), (8, 16), 0.015),
    Workload("mixed", lambda folder: Mixed(), (8, 16), 0.02),
    Workload("large tensors", lambda folder: Large(), (8, 16), 0.01),
    Workload("dictionaries", lambda folder: Dictionaries(), (8, 32), 0.005),
    Workload("arrays", lambda folder: Arrays(), (8, 16), 0.01, as_list),
    Workload("heavy tail", lambda folder: HeavyTail(), (4, 16), 0.02),
    Workload("training", lambda folder: Jpeg(), (8, 16), 0.0, trains=True),
    Workload("files, cold", lambda folder: Files(folder, cold=True), (8, 16), 0.01),
    Workload("files, warm", lambda folder: Files(folder, cold=False), (8, 16), 0.005),
    Workload("shards", lambda folder: Shards(), (8, 16), 0.015),
    Workload("getitems", lambda folder: OneCall(), (4, 16), 0.01),
)
