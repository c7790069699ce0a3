"""Datasets: where samples come from, what each costs, how big it is."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import check_distribution, check_flags, check_integer, check_tuples
from dlsim.scenario.distributions import Constant, Duration, Size
from dlsim.scenario.errors import is_integer, require

Path: TypeAlias = Literal["shm", "pipe"]

ZERO = Constant(0.0)


class Stage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing done for each sample.

    `read_bytes` are read from `machine.storage`, then `wait` seconds pass blocked, then `cpu`
    seconds of processor time are needed.
    """

    name: str
    wait: Duration | None = None
    cpu: Duration | None = None
    read_bytes: Size | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and self.name != "", "name", "some text", self.name)
        check_distribution(self, "wait", optional=True)
        check_distribution(self, "cpu", optional=True)
        check_distribution(self, "read_bytes", optional=True)


def _check_dataset(dataset: Any) -> None:
    check_integer(dataset, "length", 0)
    check_tuples(dataset, "fetch")
    for stage in dataset.fetch:
        require(isinstance(stage, Stage), "fetch", "a list of stages", stage)
    check_distribution(dataset, "collate", optional=True)
    check_distribution(dataset, "sample_bytes")
    check_integer(dataset, "tensors", 0)
    require(dataset.path in get_args(Path), "path", "shm or pipe", dataset.path)


class MapDataset(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="map",
):
    """A map-style dataset of `length` samples; the stages of `fetch` make one `__getitem__`.

    `collate` is the processor time of `collate_fn` for a batch, `sample_bytes` the size of one
    sample. `batched=True` stands for `__getitems__`: the stages happen once for each batch.
    A batch travels to the main process as `tensors` tensors in shared memory (`path="shm"`) or
    pickled through a pipe (`path="pipe"`).
    """

    length: int
    fetch: tuple[Stage, ...] = ()
    collate: Duration | None = None
    sample_bytes: Size = ZERO
    batched: bool = False
    tensors: int = 1
    path: Path = "shm"

    def __post_init__(self) -> None:
        _check_dataset(self)
        check_flags(self, "batched")


class IterableDataset(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="iterable",
):
    """An iterable-style dataset; the stages of `fetch` make one `next()` of its iterator.

    `sharding` says what each worker's iterator yields: `"none"`, all `length` samples, so that
    every worker repeats the data; `"split"`, consecutive shares of `ceil(length / num_workers)`
    by worker id, as torch's documentation of `IterableDataset` splits a range; a list, that many
    samples for each worker, in worker order (`length` is then not used). The other arguments are
    those of `MapDataset`.
    """

    length: int
    sharding: Literal["none", "split"] | tuple[int, ...] = "none"
    fetch: tuple[Stage, ...] = ()
    collate: Duration | None = None
    sample_bytes: Size = ZERO
    tensors: int = 1
    path: Path = "shm"

    def __post_init__(self) -> None:
        _check_dataset(self)
        if isinstance(self.sharding, list):
            structs.force_setattr(self, "sharding", tuple(self.sharding))
        counts = self.sharding if isinstance(self.sharding, tuple) else ()
        require(
            self.sharding in ("none", "split")
            or (len(counts) > 0 and all(is_integer(n) and n >= 0 for n in counts)),
            "sharding",
            'none, split, or a list of integers of at least 0 such as "[8, 8]"',
            self.sharding,
        )

    def shard(self, worker: int, num_workers: int) -> range:
        """The dataset indices that `worker`'s iterator yields (`num_workers=0`: the main's)."""
        if isinstance(self.sharding, tuple):
            start = sum(self.sharding[:worker])
            return range(start, start + self.sharding[worker])
        if self.sharding == "none" or num_workers == 0:
            return range(self.length)
        share = -(-self.length // num_workers)
        return range(worker * share, min((worker + 1) * share, self.length))


Dataset: TypeAlias = MapDataset | IterableDataset
