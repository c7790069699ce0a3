"""Datasets: where samples come from, what each costs, how big it is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Literal, TypeAlias, get_args, overload

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_distribution,
    check_flags,
    check_integer,
    check_positive,
    check_seconds,
    check_struct,
    check_text,
    check_tuples,
)
from dlsim.scenario.distributions import (
    Bytes,
    Constant,
    Duration,
    Seconds,
    Share,
    Size,
    times,
)
from dlsim.scenario.errors import LARGEST, is_integer, is_number, require

Dealt: TypeAlias = Literal["turns", "runs"]
Streaming: TypeAlias = Literal["litdata", "streaming"]
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
        lock: The share of `cpu` for which Python's lock is held, where workers are threads
            (`loader.workers`), which have one in common: 0 of code that releases it, as NumPy,
            Pillow and torch do in their loops; 1 of pure Python. Example: 1
        linger: For how long a thread that waits for others keeps a core busy: those that wait for
            the next sample, too, as BLAS's and OpenMP's do before they sleep. It matters where
            processes take turns on cores (`machine.slice`). Example: "26 ms"
    """

    name: str
    wait: Duration | None = None
    cpu: Duration | None = None
    read_bytes: Size | None = None
    threads: int = 1
    spin: Share = 0.0
    lock: Share = 0.0
    linger: Seconds = 0.0

    def __post_init__(self) -> None:
        check_text(self, "name")
        check_distribution(self, "wait", optional=True)
        check_distribution(self, "cpu", optional=True)
        check_distribution(self, "read_bytes", optional=True)
        check_integer(self, "threads", 1)
        require(is_number(self.spin) and 0 <= self.spin < 1, "spin", "a share below 1", self.spin)
        check_seconds(self, "linger")
        require(is_number(self.lock) and 0 <= self.lock <= 1, "lock", "a share, 0 to 1", self.lock)

    def times(self, factor: float) -> Stage:
        """The stage that waits and computes `factor` times as long."""
        return structs.replace(self, wait=times(self.wait, factor), cpu=times(self.cpu, factor))


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


class Download(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Files that a thread of each worker downloads ahead, into a cache on the node's disk.

    A file has as many bytes as its samples' stages read (`read_bytes`), and comes from the storage
    in one read; samples wait until theirs is there. One of `shards` and `samples` says how far.

    Args:
        shards: How many files a worker has, or downloads, at a time, with the one it is in: 2 with
            litdata; more, and `at_once`, from a remote storage. Example: 2
        samples: The files of how many samples beyond the next: `predownload` of
            mosaicml-streaming, 8 * batch_size by default. Example: 256
        at_once: How many files a worker downloads at a time. Example: 4
        cache: Bytes that files on the disk of a node may take, in all epochs; those used longest
            ago make room, and are downloaded again. None: any number. Example: "100 GB"
    """

    shards: int | None = None
    samples: int | None = None
    at_once: int = 1
    cache: Bytes | None = None

    def __post_init__(self) -> None:
        one = (self.shards is None) != (self.samples is None)
        check_conflict(not one, "shards", "expected shards or samples, to say how far ahead")
        if self.shards is not None:
            check_integer(self, "shards", 1)
        if self.samples is not None:
            check_integer(self, "samples", 0)
        check_integer(self, "at_once", 1)
        check_positive(self, "cache", optional=True)


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
            num_workers)`, as torch's documentation of `IterableDataset` splits a range; litdata,
            streaming: as those of litdata and mosaicml-streaming deal them by the batch size, not
            shuffled; a list: that many samples for each worker (`length` is then not used).
            Example: "split"
        shards: Files whose samples go to one worker each: how many samples each has (iterable
            only). They are dealt to any number of workers, and `length` is what they add up to;
            `sharding` is then not used, unless it is litdata or streaming, which deal samples.
            Example: [1300, 100, 100, 100]
        dealt: How shards are dealt (iterable only). turns: shard i to worker i mod num_workers, of
            a job first to rank i mod the ranks, and there so, as webdataset and Hugging Face
            datasets do; runs: `ceil(shards / num_workers)` consecutive
            ones to each. Example: "runs"
        download: Whether files are downloaded whole, ahead of their samples (iterable only); none:
            samples are read one by one. Example: { shards = 2 }
    """

    length: int
    sharding: Literal["none", "split"] | Streaming | tuple[int, ...] = "none"
    fetch: tuple[Stage, ...] = ()
    collate: Duration | None = None
    sample_bytes: Size = ZERO
    tensors: int = 1
    path: Path = "shm"
    shards: tuple[int, ...] | None = None
    dealt: Dealt = "turns"
    download: Download | None = None

    def __post_init__(self) -> None:
        _check_dataset(self)
        if isinstance(self.sharding, list):
            structs.force_setattr(self, "sharding", tuple(self.sharding))
        counts = self.sharding if isinstance(self.sharding, tuple) else ()
        require(
            self.sharding in ("none", "split", *get_args(Streaming)) or _countable(counts),
            "sharding",
            f"none, split, litdata, streaming, or {_COUNTS}",
            self.sharding,
        )
        require(self.dealt in get_args(Dealt), "dealt", "turns or runs", self.dealt)
        if self.shards is not None:
            self._check_shards()
        if self.download is not None:
            check_struct(self, "download", Download)
            check_conflict(self.shards is None, "download", "needs shards, the files")

    def _check_shards(self) -> None:
        check_tuples(self, "shards")
        assert self.shards is not None
        require(
            _countable(self.shards),
            "shards",
            _COUNTS,
            self.shards,
        )
        check_conflict(
            self.sharding not in ("none", *get_args(Streaming)),
            "sharding",
            "excludes shards, which are dealt as `dealt` says",
        )
        structs.force_setattr(self, "length", sum(self.shards))

    @property
    def repeats(self) -> bool:
        """Whether every worker's iterator yields all samples."""
        return self.sharding == "none" and self.shards is None

    @property
    def divisible(self) -> bool:
        """Whether the same samples can be shared out among any number of workers."""
        return self.sharding in ("split", *get_args(Streaming)) or self.shards is not None

    @property
    def given(self) -> bool:
        """Whether `sharding` says what each worker has, and nothing of other numbers of workers."""
        return isinstance(self.sharding, tuple)

    @property
    def uneven(self) -> bool:
        """Whether workers may have more than their share: what each has is given."""
        return self.given or (self.shards is not None and self.sharding == "none")

    def shard(self, worker: int, num_workers: int) -> Sequence[int]:
        """The dataset indices that `worker`'s iterator yields (`num_workers=0`: the main's).

        How streaming data sets deal them, `dlsim.scenario.streaming` says.
        """
        if self.shards is not None:
            return self._dealt(worker, max(num_workers, 1))
        if isinstance(self.sharding, tuple):
            start = sum(self.sharding[:worker])
            return range(start, start + self.sharding[worker])
        if self.sharding == "none" or num_workers == 0:
            return range(self.length)
        share = -(-self.length // num_workers)
        return range(worker * share, min((worker + 1) * share, self.length))

    def _dealt(self, worker: int, workers: int) -> Joined:
        """The samples of the shards of one of the workers, one shard after another."""
        assert self.shards is not None
        ends = [*accumulate(self.shards)]
        each = -(-len(ends) // workers)
        mine = (
            range(worker, len(ends), workers)
            if self.dealt == "turns"
            else range(min(worker * each, len(ends)), min((worker + 1) * each, len(ends)))
        )
        return Joined(tuple(range(ends[i] - self.shards[i], ends[i]) for i in mine))


_COUNTS = f'a list of integers of at least 0, in all {LARGEST:g} at most, such as "[8, 8]"'


def _countable(counts: Sequence[int]) -> bool:
    """Whether these can be numbers of samples."""
    whole = len(counts) > 0 and all(is_integer(n) and n >= 0 for n in counts)
    return whole and sum(counts) <= LARGEST


class Joined(Sequence[int]):
    """Ranges of dataset indices, one after another, as one sequence."""

    def __init__(self, ranges: tuple[range, ...]) -> None:
        self.ranges = ranges
        self._ends = [*accumulate(map(len, ranges))]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        at = range(len(self))[place]  # raises IndexError
        which = bisect_right(self._ends, at)
        return self.ranges[which][at - self._ends[which] + len(self.ranges[which])]


Dataset: TypeAlias = MapDataset | IterableDataset
