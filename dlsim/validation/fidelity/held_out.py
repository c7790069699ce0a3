"""Eight workloads unlike those of the suite that dlsim is developed on, to be judged by.

What predictions are tuned on says little of other work. These were written before anything was
mended for them, with libraries that the others do not use; their data are made on the spot.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from dlsim.validation.fidelity.workloads import SEED, Workload, as_list

PACKAGES = ("av", "cv2", "h5py", "pyarrow", "scipy", "tokenizers", "torch_geometric")
"""What they import: the extra `held-out`."""


class Audio(Dataset[torch.Tensor]):
    """Clips of lognormal length, resampled, then log power spectra of which a part is kept."""

    def __init__(self, length: int = 400) -> None:
        rng = np.random.default_rng(SEED)
        seconds = np.clip(rng.lognormal(np.log(1.5), 0.8, length), 0.3, 20)
        self.lengths = (44_100 * seconds).astype(int)
        self.sound = (8000 * rng.standard_normal(int(self.lengths.max()))).astype(np.int16)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from scipy.signal import resample_poly

        clip = self.sound[: self.lengths[index]].astype(np.float32) / 32_768
        clip = resample_poly(clip, 160, 441)
        frames = np.lib.stride_tricks.sliding_window_view(clip, 400)[::160]
        power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
        features = np.log(power[:, :80] + 1e-6)
        kept = np.zeros((200, 80), np.float32)
        kept[: len(features)] = features[:200]
        return torch.from_numpy(kept)


class Tokens(Dataset[torch.Tensor]):
    """Texts of a few hundred to some thousand words, tokenised by a library in Rust."""

    def __init__(self, length: int = 640) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        rng = np.random.default_rng(SEED)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.words = ["".join(rng.choice(letters, n)) for n in rng.integers(2, 10, 4000)]
        self.starts = rng.integers(0, 1000, length)
        self.counts = np.clip(rng.lognormal(np.log(700), 0.7, length), 100, 2900).astype(int)
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False)
        self.tokenizer.train_from_iterator([" ".join(self.words[:2000])], trainer)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = self.starts[index]
        text = " ".join(self.words[start : start + self.counts[index]])
        return torch.tensor(self.tokenizer.encode(text).ids)


def padded(samples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tokens of unequal length as one tensor, and which of it are tokens."""
    tokens = pad_sequence(samples, batch_first=True, padding_value=-1)
    return {"tokens": tokens.clamp(min=0), "mask": tokens >= 0}


class Warped(Dataset[torch.Tensor]):
    """Pictures decoded, warped, blurred and shrunk by OpenCV, with the threads that it has."""

    def __init__(self, length: int = 480, kinds: int = 16) -> None:
        from PIL import Image

        rng = np.random.default_rng(SEED)
        self.length, self.files = length, []
        for _ in range(kinds):
            coarse = rng.integers(0, 255, (30, 40, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(coarse).resize((640, 480)).save(file, "JPEG", quality=90)
            self.files.append(np.frombuffer(file.getvalue(), np.uint8))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        import cv2

        picture = cv2.imdecode(self.files[index % len(self.files)], cv2.IMREAD_COLOR)
        turn = cv2.getRotationMatrix2D((320, 240), float(index * 7 % 40 - 20), 1.1)
        picture = cv2.warpAffine(picture, turn, (640, 480), flags=cv2.INTER_CUBIC)
        picture = cv2.GaussianBlur(picture, (7, 7), 1.5)
        picture = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


class Volumes(Dataset[torch.Tensor]):
    """Crops of a volume in compressed chunks; each process opens the HDF5 file when it first reads.

    A crop lies in one chunk, or across two or four of them.
    """

    def __init__(self, folder: Path, length: int = 640) -> None:
        import h5py

        self.path = folder / "volume.h5"
        rng = np.random.default_rng(SEED)
        self.corners = rng.integers(0, 192, (length, 2))
        self.corners[::2] = self.corners[::2] // 64 * 64
        if not self.path.exists():
            volume = np.cumsum(rng.integers(-2, 3, (32, 256, 256)), axis=2).astype(np.int16)
            with h5py.File(self.path, "w") as file:
                file.create_dataset("volume", data=volume, chunks=(32, 64, 64), compression="gzip")

    def __len__(self) -> int:
        return len(self.corners)

    @cached_property
    def volume(self) -> Any:
        """The data set in the open file."""
        import h5py

        return h5py.File(self.path, "r", rdcc_nbytes=0)["volume"]

    def __getitem__(self, index: int) -> torch.Tensor:
        y, x = self.corners[index]
        crop = self.volume[:, y : y + 64, x : x + 64].astype(np.float32)
        return torch.from_numpy((crop - crop.mean()) / (crop.std() + 1))


class RowGroups(IterableDataset[dict[str, torch.Tensor]]):
    """Rows of a Parquet file, whose row groups are dealt to the workers in turn."""

    def __init__(self, folder: Path, groups: int = 80, rows: int = 250) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.path, self.groups = folder / "rows.parquet", groups
        if not self.path.exists():
            rng = np.random.default_rng(SEED)
            values = rng.standard_normal(groups * rows * 256).astype(np.float32)
            table = pa.table(
                {
                    "features": pa.FixedSizeListArray.from_arrays(pa.array(values), 256),
                    "name": [f"row {i} {rng.integers(1 << 40)}" for i in range(groups * rows)],
                    "label": rng.integers(0, 1000, groups * rows),
                }
            )
            parquet.write_table(table, self.path, row_group_size=rows, compression="zstd")

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        from pyarrow import parquet

        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        file = parquet.ParquetFile(self.path)
        for group in range(worker, self.groups, workers):
            for row in file.read_row_group(group).to_pylist():
                features = torch.tensor(row["features"])
                yield {"features": features, "label": torch.tensor(row["label"])}


class Frames(Dataset[torch.Tensor]):
    """Eight frames from somewhere in a video; those since the last key frame are decoded, too."""

    def __init__(self, folder: Path, length: int = 240, frames: int = 240) -> None:
        import av

        self.path, self.length, self.frames = folder / "video.mp4", length, frames
        rng = np.random.default_rng(SEED)
        self.starts = rng.integers(0, frames - 8, length)
        if not self.path.exists():
            coarse = rng.integers(0, 255, (30, 40, 3), np.uint8)
            with av.open(str(self.path), "w") as file:
                stream = file.add_stream("mpeg4", rate=24, options={"g": "24"})
                stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                for number in range(frames):
                    shown = np.roll(coarse, number // 2, axis=1).repeat(8, 0).repeat(8, 1)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
                file.mux(stream.encode())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        import av

        start, kept = int(self.starts[index]), []
        with av.open(str(self.path)) as file:
            stream = file.streams.video[0]
            file.seek(int(start / 24 / stream.time_base), stream=stream)
            for frame in file.decode(stream):
                if frame.time >= (start - 0.5) / 24:
                    kept.append(frame.to_ndarray(format="rgb24")[::2, ::2])
                if len(kept) == 8:
                    break
        return torch.from_numpy(np.stack(kept))


class Graphs(Dataset[Any]):
    """Graphs of variable size, as PyTorch Geometric's own class, put together by its own batch."""

    def __init__(self, length: int = 640) -> None:
        rng = np.random.default_rng(SEED)
        self.nodes = np.clip(rng.lognormal(np.log(120), 0.5, length), 20, 500).astype(int)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int) -> Any:
        from torch_geometric.data import Data

        rng = np.random.default_rng([SEED, index])
        places = rng.random((self.nodes[index], 3), np.float32)
        apart = ((places[:, None] - places[None]) ** 2).sum(axis=2)
        nearest = np.argpartition(apart, 8, axis=1)[:, :8]
        edges = np.stack([np.repeat(np.arange(len(places)), 8), nearest.ravel()])
        return Data(
            x=torch.from_numpy(rng.standard_normal((len(places), 32)).astype(np.float32)),
            edge_index=torch.from_numpy(edges),
            pos=torch.from_numpy(places),
        )


def graphs(samples: list[Any]) -> Any:
    """PyTorch Geometric's batch of its graphs."""
    from torch_geometric.data import Batch

    return Batch.from_data_list(samples)


class Points(Dataset[dict[str, Any]]):
    """Point clouds of 1,000 to 20,000 points: nested dictionaries of tensors of variable size."""

    def __init__(self, length: int = 400) -> None:
        rng = np.random.default_rng(SEED)
        self.sizes = np.clip(rng.lognormal(np.log(4000), 0.7, length), 1000, 20_000).astype(int)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from scipy.spatial import cKDTree

        rng = np.random.default_rng([SEED, index])
        points = rng.random((self.sizes[index], 3), np.float32)
        _, kept = np.unique((points * 16).astype(np.int16), axis=0, return_index=True)
        distances, _ = cKDTree(points[kept]).query(points[kept[:500]], k=4)
        return {
            "cloud": {"points": torch.from_numpy(points), "voxels": torch.from_numpy(kept)},
            "target": {"near": torch.from_numpy(distances.astype(np.float32))},
        }


HELD_OUT = (
    Workload("audio", lambda folder: Audio(), (8, 16), 0.02),
    Workload("tokens", lambda folder: Tokens(), (8, 32), 0.01, padded),
    Workload("opencv", lambda folder: Warped(), (8, 16), 0.015),
    Workload("volumes", Volumes, (4, 16), 0.015),
    Workload("row groups", RowGroups, (64, 256), 0.01),
    Workload("frames", Frames, (4, 8), 0.03),
    Workload("graphs", lambda folder: Graphs(), (8, 32), 0.01, graphs),
    Workload("points", lambda folder: Points(), (4, 16), 0.01, as_list),
)
