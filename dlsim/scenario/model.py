"""What is asked: a `Scenario` and its parts, frozen values with torch's names, defaults and rules.

All times are seconds, all sizes bytes. A value that torch would refuse is refused here, with
`ScenarioError`; the checks run when a value is made, so a scenario that exists can be simulated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_distribution,
    check_flags,
    check_indices,
    check_integer,
    check_seconds,
    check_tuples,
)
from dlsim.scenario.distributions import Constant, Duration, Recorded, Size
from dlsim.scenario.errors import is_integer, require

TorchVersion: TypeAlias = str
Policy: TypeAlias = Literal["torch", "row"]
StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]
FailurePoint: TypeAlias = Literal["fetch", "collate", "worker_init_fn"]
Seconds: TypeAlias = Annotated[float, Meta(extra={"quantity": "duration"})]

ZERO = Constant(0.0)
_NEEDS = "needs num_workers above 0"


class Loader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keyword arguments of `torch.utils.data.DataLoader`, with its defaults and its rules.

    `sampler` is a recorded order of dataset indices, `batch_sampler` a recorded list of batches
    of any lengths. `prefetch_factor=None` means 2 when there are workers.
    `multiprocessing_context` and `pin_memory` are accepted as torch accepts them.

    Raises `ScenarioError` for every combination that torch refuses.
    """

    batch_size: int | None = 1
    shuffle: bool = False
    sampler: tuple[int, ...] | None = None
    batch_sampler: tuple[tuple[int, ...], ...] | None = None
    num_workers: int = 0
    pin_memory: bool = False
    drop_last: bool = False
    timeout: Seconds = 0.0
    multiprocessing_context: StartMethod | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    in_order: bool = True

    def __post_init__(self) -> None:
        check_tuples(self, "sampler")
        if self.batch_sampler is not None:
            batches = tuple(tuple(batch) for batch in self.batch_sampler)
            structs.force_setattr(self, "batch_sampler", batches)
        check_flags(self, "shuffle", "pin_memory", "drop_last", "persistent_workers", "in_order")
        require(
            self.batch_size is None or (is_integer(self.batch_size) and self.batch_size > 0),
            "batch_size",
            "an integer above 0, or none",
            self.batch_size,
        )
        check_integer(self, "num_workers", 0)
        check_seconds(self, "timeout")
        workers = self.num_workers > 0
        if self.prefetch_factor is not None:
            check_integer(self, "prefetch_factor", 1)
            check_conflict(not workers, "prefetch_factor", _NEEDS)
        check_conflict(self.persistent_workers and not workers, "persistent_workers", _NEEDS)
        check_conflict(self.timeout > 0 and not workers, "timeout", _NEEDS)
        context = self.multiprocessing_context
        require(
            context is None or context in get_args(StartMethod),
            "multiprocessing_context",
            "fork, spawn or forkserver",
            context,
        )
        check_conflict(context is not None and not workers, "multiprocessing_context", _NEEDS)
        check_conflict(
            self.sampler is not None and self.shuffle, "sampler", "excludes shuffle = true"
        )
        if self.batch_sampler is not None:
            check_conflict(
                self.batch_size != 1 or self.shuffle or self.sampler is not None or self.drop_last,
                "batch_sampler",
                "excludes batch_size, shuffle, sampler and drop_last",
            )
        check_conflict(
            self.batch_size is None and self.drop_last, "drop_last", "needs a batch_size"
        )

    @property
    def window(self) -> int:
        """The credit window in batches: `num_workers * prefetch_factor` (0 without workers)."""
        factor = 2 if self.prefetch_factor is None else self.prefetch_factor
        return self.num_workers * factor

    @property
    def auto_collation(self) -> bool:
        """Whether samples are collated into batches (torch: a batch size or a batch sampler)."""
        return self.batch_size is not None or self.batch_sampler is not None


class Stage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing done for each sample: `wait` seconds blocked, then `cpu` seconds computing."""

    name: str
    wait: Duration | None = None
    cpu: Duration | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and self.name != "", "name", "some text", self.name)
        check_distribution(self, "wait", optional=True)
        check_distribution(self, "cpu", optional=True)


def _check_dataset(dataset: Any) -> None:
    check_integer(dataset, "length", 0)
    check_tuples(dataset, "fetch")
    for stage in dataset.fetch:
        require(isinstance(stage, Stage), "fetch", "a list of stages", stage)
    check_distribution(dataset, "collate", optional=True)
    check_distribution(dataset, "sample_bytes")


class MapDataset(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="map",
):
    """A map-style dataset of `length` samples; the stages of `fetch` make one `__getitem__`.

    `collate` is the time of `collate_fn` for a batch, `sample_bytes` the size of one sample.
    `batched=True` stands for `__getitems__`: the stages happen once for each batch.
    """

    length: int
    fetch: tuple[Stage, ...] = ()
    collate: Duration | None = None
    sample_bytes: Size = ZERO
    batched: bool = False

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
    samples for each worker, in worker order (`length` is then not used).
    """

    length: int
    sharding: Literal["none", "split"] | tuple[int, ...] = "none"
    fetch: tuple[Stage, ...] = ()
    collate: Duration | None = None
    sample_bytes: Size = ZERO

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


class Consumer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The training loop: `step` seconds for each batch; leaves each epoch after `stop_after`.

    `stop_after` counts the batches of an epoch after whose step the loop breaks; None: never.
    """

    step: Duration = ZERO
    stop_after: int | None = None

    def __post_init__(self) -> None:
        check_distribution(self, "step")
        if self.stop_after is not None:
            check_integer(self, "stop_after", 1)


class Costs(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the machinery around the schedule costs; all zero is the ideal machine.

    `worker_start`: seconds the main process spends starting one worker; workers start one after
    another. `index_latency`: seconds from sending indices until the worker can read them.
    """

    worker_start: Seconds = 0.0
    index_latency: Seconds = 0.0

    def __post_init__(self) -> None:
        check_seconds(self, "worker_start", "index_latency")


class Machine(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The machine the loader runs on. As yet an ideal one: a core for everything that runs."""


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """An exception raised by user code, `at` a dataset index, a batch number or a worker number.

    `where="fetch"`: whenever the sample of dataset index `at` is fetched, at the end of its
    stages. `"collate"`: in `collate_fn` of batch number `at` (over all epochs), at its end.
    `"worker_init_fn"`: in worker `at`, in every epoch that starts workers.
    """

    where: FailurePoint
    at: int

    def __post_init__(self) -> None:
        points = get_args(FailurePoint)
        require(self.where in points, "where", " or ".join(points), self.where)
        check_integer(self, "at", 0)


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that decides how loading unfolds, but for the seed.

    `torch` is the release whose rules apply, as `"major.minor"`; `policy` is `"torch"`, or
    `"row"` for the protocol in which indices are sent one at a time. `epochs` passes over the
    loader are made. `failures` are exceptions that user code raises.

    Raises `ScenarioError` where the parts do not fit each other.
    """

    loader: Loader
    dataset: Dataset
    consumer: Consumer = Consumer()
    machine: Machine = Machine()
    costs: Costs = Costs()
    failures: tuple[Failure, ...] = ()
    torch: TorchVersion = "2.13"
    policy: Policy = "torch"
    epochs: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        check_tuples(self, "failures")
        for key, kinds in _PARTS.items():
            wanted = " or ".join(kind.__name__ for kind in kinds)
            require(isinstance(getattr(self, key), kinds), key, f"a {wanted}", getattr(self, key))
        for failure in self.failures:
            require(isinstance(failure, Failure), "failures", "a list of Failure", failure)
        check_integer(self, "epochs", 1)
        require(isinstance(self.name, str), "name", "some text", self.name)
        require(self.policy in get_args(Policy), "policy", "torch or row", self.policy)
        release = self.torch_release
        loader, dataset = self.loader, self.dataset
        check_conflict(
            not loader.in_order and release < (2, 6),
            "loader.in_order",
            f"torch {self.torch} has no such keyword; it came with 2.6",
        )
        if isinstance(dataset, IterableDataset):
            self._check_iterable(dataset)
        else:
            self._check_indices(dataset)
        for where, distribution in self._recorded():
            if (
                where == "consumer.step"
                or where == "dataset.collate"
                or isinstance(dataset, IterableDataset)
            ):
                continue  # how many batches there will be is known when they are
            needed = 0 if isinstance(dataset, MapDataset) and dataset.batched else dataset.length
            require(
                len(distribution.values) >= needed,
                where,
                f"{needed} values, one for each dataset index",
                f"{len(distribution.values)} values",
            )

    @property
    def torch_release(self) -> tuple[int, int]:
        """`torch` as a pair of numbers, for comparing."""
        parts = self.torch.split(".") if isinstance(self.torch, str) else []
        require(
            len(parts) in (2, 3) and all(p.isdecimal() for p in parts),
            "torch",
            'a release such as "2.13"',
            self.torch,
        )
        release = (int(parts[0]), int(parts[1]))
        require(release >= (2, 0), "torch", "a release from 2.0 on", self.torch)
        return release

    def _check_iterable(self, dataset: IterableDataset) -> None:
        loader = self.loader
        for key in ("shuffle", "sampler", "batch_sampler"):
            value = getattr(loader, key)
            require(
                value is None or value is False,
                f"loader.{key}",
                "nothing: an iterable-style dataset has no sampler",
                value,
            )
        if isinstance(dataset.sharding, tuple):
            wanted = max(loader.num_workers, 1)
            require(
                len(dataset.sharding) == wanted,
                "dataset.sharding",
                f"{wanted} lengths, one for each worker",
                dataset.sharding,
            )

    def _check_indices(self, dataset: MapDataset) -> None:
        loader = self.loader
        if loader.sampler is not None:
            check_indices("loader.sampler", loader.sampler, dataset.length)
        for batch in loader.batch_sampler or ():
            check_indices("loader.batch_sampler", batch, dataset.length)

    def _recorded(self) -> list[tuple[str, Recorded]]:
        """Every `Recorded` in the scenario with its dotted key."""
        found: list[tuple[str, Any]] = [("consumer.step", self.consumer.step)]
        found.append(("dataset.collate", self.dataset.collate))
        for i, stage in enumerate(self.dataset.fetch):
            found += [
                (f"dataset.fetch.{i}.wait", stage.wait),
                (f"dataset.fetch.{i}.cpu", stage.cpu),
            ]
        return [(key, d) for key, d in found if isinstance(d, Recorded)]


_PARTS: dict[str, tuple[type, ...]] = {
    "loader": (Loader,),
    "dataset": (MapDataset, IterableDataset),
    "consumer": (Consumer,),
    "machine": (Machine,),
    "costs": (Costs,),
}
