"""The files of a stream, each of which goes to one worker, where its library tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def count(dataset: Any) -> int | None:
    """How many there are, of which worker w of W has every W-th from the w-th on; None: not known.

    Of Hugging Face's iterable datasets, and of webdataset's that end with their files.
    """
    kind = type(dataset)
    if kind.__module__.startswith("datasets."):
        shards: int | None = getattr(dataset, "num_shards", None)
        return shards
    stages = getattr(dataset, "pipeline", None)
    if not isinstance(stages, list) or not stages or getattr(dataset, "repetitions", 1) != 1:
        return None
    if not any(getattr(stage, "__name__", "") == "split_by_worker" for stage in stages):
        return None
    named = type(stages[0]).__name__ == "SimpleShardList"
    return len(stages[0].urls) if named else None


def sizes(files: int, counts: Sequence[int]) -> tuple[int, ...]:
    """How many samples each of so many files has, if the workers had so many of them.

    Files of one worker are taken to be alike.
    """
    workers = len(counts)
    found = [0] * files
    for worker, samples in enumerate(counts):
        mine = range(worker, files, workers)
        for place, file in enumerate(mine):
            found[file] = samples // len(mine) + (place < samples % len(mine))
    return tuple(found)
