"""Datasets: where samples come from, what each costs, how big it is."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import check_distribution, check_flags, check_integer, check_tuples
from dlsim.scenario.distributions import Constant, Duration, Share, Size
from dlsim.scenario.errors import is_integer, is_number, require

Path: TypeAlias = Literal["shm", "pipe"]

ZERO = Constant(0.0)


class Stage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing done for each sample: bytes are read, then time passes blocked, then on a core.

    Args:
        name: What it is called in answers and pictures. Example: "decode"
        wait: Time that passes while no core is needed: a request to another machine, a sleep.
            Example: "5 ms"
        cpu: Time of a core that is needed: decoding, transforming. Example: "1.86 ms"
        read_bytes: Bytes read from `machine.storage`. Example: "110 KiB"
        threads: How many threads of a library compute at the same time, each for `cpu`: BLAS,
            OpenMP and OpenCV start one for each core, in every worker. Example: 8
        spin: The share of what they compute in which they wait for one another, on a core; a
            single thread is spared it. Example: 0.5
    """

    name: str
    wait: Duration | None = None
    cpu: Duration | None = None
    read_bytes: Size | None = None
    threads: int = 1
    spin: Share = 0.0

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and self.name != "", "name", "some text", self.name)
        check_distribution(self, "wait", optional=True)
        check_distribution(self, "cpu", optional=True)
        check_distribution(self, "read_bytes", optional=True)
        check_integer(self, "threads", 1)
        require(is_number(self.spin) and 0 <= self.spin < 1, "spin", "a share below 1", self.spin)


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
    """A map-style dataset: any sample can be had by its index.

    Args:
        length: How many samples there are. In torch: `len(dataset)`. Example: 50_000
        fetch: Stages, one after another, that each sample takes; in a file, one [[dataset.fetch]]
            for each. In torch: `dataset[index]`, or one `next()` of an iterable-style dataset.
            Example: [{ name = "decode", cpu = "1.86 ms" }]
        collate: Time of a core that making a batch of its samples takes. In torch: `collate_fn`.
            Example: "2 ms"
        sample_bytes: How large a sample is once it is fetched. Example: 602_112
        batched: Whether the stages happen once for each batch (map only). In torch: `__getitems__`.
            Example: true
        tensors: Of how many tensors a batch consists. Example: 2
        path: How a batch gets to the main process: its tensors through shared memory (/dev/shm),
            or all of it pickled, through a pipe, as NumPy arrays are. Example: "pipe"
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
    """An iterable-style dataset: each worker has an iterator that yields samples.

    The arguments that are not described here are those of `MapDataset`.

    Args:
        sharding: What each worker's iterator yields (iterable only). none: all samples, so that
            every worker repeats the data; split: consecutive shares of `ceil(length /
            num_workers)`, as torch's documentation of `IterableDataset` splits a range; a list:
            that many samples for each worker (`length` is then not used). Example: "split"
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
