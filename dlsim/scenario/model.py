"""What is asked: a `Scenario`, a frozen value with torch's names, defaults and rules.

All times are seconds, all sizes bytes. A value that torch would refuse is refused here, with
`ScenarioError`; the checks run when a value is made, so a scenario that exists can be simulated.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_indices,
    check_integer,
    check_text,
    check_tuples,
)
from dlsim.scenario.consumer import Consumer
from dlsim.scenario.dataset import Dataset, IterableDataset, MapDataset
from dlsim.scenario.dealing import batches, dealt_to, shard
from dlsim.scenario.distributions import Recorded
from dlsim.scenario.errors import ScenarioError, require
from dlsim.scenario.failure import Failure
from dlsim.scenario.job import Job
from dlsim.scenario.loader import Loader
from dlsim.scenario.machine import STAGED_BYTES, Costs, Machine
from dlsim.scenario.validation import Validation

OLD, LAST = ((1, 12), (1, 13)), (2, 15)  # torch's releases before 2.0, and the last one known
LATEST = f"{LAST[0]}.{LAST[1]}"
UNLIMITED, FREE, ALONE = Machine().storage, Costs(), Job()
SHORTEST_TIMEOUT = 1e-3  # seconds, where timeouts are caught: each of them is kept
SHARING = {*Costs.__struct_fields__} - {
    "worker_start",
    "index_latency",
    "snapshot",
    "starts",
}  # costs of what is shared

Policy: TypeAlias = Literal["torch", "row"]


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that decides how loading unfolds, but for the seed.

    All of it, but for the machine, is that of one rank.

    Raises `ScenarioError` where the parts do not fit each other.

    Args:
        loader: The keyword arguments of the DataLoader. Example: { num_workers = 8 }
        dataset: Where samples come from, what each costs, how large it is.
            Example: { kind = "map", length = 50_000 }
        consumer: The training loop. Example: { step = "435 ms" }
        machine: The machine it runs on. Example: { cores = 16 }
        costs: What the machinery around the schedule costs; free until it is said.
            Example: { take = "0.2 ms" }
        job: The ranks that train together, each as the rest of the scenario says.
            Example: { ranks = 8 }
        failures: Exceptions that user code raises; in a file, one [[failures]] for each.
            Example: [{ where = "fetch", at = 17 }]
        validation: A loop over a second loader, for which training stops every so often.
            Example: { loader = { num_workers = 4 }, dataset = { kind = "map", length = 5_000 } }
        torch: The release of torch whose rules apply, from 1.12 to 2.15. Example: "2.6"
        policy: torch: one message for each batch, as torch does it; row: indices are sent one at
            a time. Example: "row"
        epochs: How many passes over the loader are made. Example: 3
        name: What it is called in answers and pictures. Example: "ResNet-50 on one A100"
    """

    loader: Loader
    dataset: Dataset
    consumer: Consumer = Consumer()
    machine: Machine = Machine()
    costs: Costs = Costs()
    job: Job = Job()
    failures: tuple[Failure, ...] = ()
    validation: Validation | None = None
    torch: str = LATEST
    policy: Policy = "torch"
    epochs: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        check_tuples(self, "failures")
        for key, kinds in _PARTS.items():
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            require(isinstance(getattr(self, key), kinds), key, f"a {wanted}", getattr(self, key))
        for failure in self.failures:
            require(isinstance(failure, Failure), "failures", "a list of Failure", failure)
        check_integer(self, "epochs", 1)
        check_text(self, "name", empty=True)
        require(self.policy in get_args(Policy), "policy", "torch or row", self.policy)
        release = self.torch_release
        loader, dataset = self.loader, self.dataset
        check_conflict(
            not loader.in_order and release < (2, 6),
            "loader.in_order",
            f"torch {self.torch} has no such keyword; it came with 2.6",
        )
        self._check_errors()
        if loader.stateful:
            self._check_stateful()
        if isinstance(dataset, IterableDataset):
            self._check_iterable(dataset)
        else:
            check_conflict(
                dataset.batched and release < (1, 13),
                "dataset.batched",
                f"torch {self.torch} does not call __getitems__; 1.13 was the first to",
            )
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
                distribution.values,
            )
        if self.is_job:
            self._check_job()
        if self.validation is not None:
            self._check_validation()

    @property
    def is_job(self) -> bool:
        """Whether ranks train together, and each has a trace of its own."""
        return self.job != ALONE

    @property
    def ideal(self) -> bool:
        """Whether nothing is shared or costs anything but fetching, collating and stepping.

        Starting workers and the latency of index lists may take time: they share nothing.
        """
        machine, costs = self.machine, self.charged
        shared = machine.cores or machine.background or machine.crosstalk or self.locks
        limited = machine.storage != UNLIMITED or self.pins or self.job.remote
        return (
            not shared
            and not limited
            and all(getattr(costs, key) == getattr(FREE, key) for key in SHARING)
            and (self.validation is None or self.validating.ideal)
        )

    @property
    def validating(self) -> Scenario:
        """Validation alone, which is to be there: an epoch for each time that it comes.

        So its epochs are at least those of training. Ranks do not meet in it.
        """
        own, consumer = self.validation, self.consumer
        assert own is not None
        return structs.replace(
            self,
            loader=own.loader,
            dataset=own.dataset,
            consumer=structs.replace(
                consumer,
                step=own.step,
                step_per_sample=own.step_per_sample,
                stop_after=own.stop_after,
                on=(),
            ),
            job=structs.replace(self.job, sync="never", uneven="wait") if self.is_job else ALONE,
            failures=own.failures,
            epochs=self.epochs * max(self._validations, 1),
            validation=None,
        )

    @property
    def _validations(self) -> int:
        """How often validation comes in an epoch."""
        own, most = self.validation, self.consumer.stop_after
        if own is None or own.every is None:
            return int(own is not None)
        there = batches(self.loader, self.dataset, *dealt_to(self.job))
        return (there if most is None else min(there, most)) // own.every

    @property
    def taken_ahead(self) -> int:
        """How many batches the loop may have taken that the training step has not."""
        loop = self.consumer.loop
        one = loop == "accelerate" or (
            loop == "lightning" and not isinstance(self.dataset, MapDataset)
        )
        return self.consumer.queue + 1 if loop == "thread" else int(one)

    @property
    def rebinds(self) -> bool:
        """Whether the workers of an epoch that is left early live until the next one has its own.

        So they do where the old iterator does: its name is rebound; or Lightning, which counts
        the batches of a loader that has a length, or a stateful loader makes the new one first.
        """
        loader, loop = self.loader, self.consumer.loop
        counts = loop == "lightning" and isinstance(self.dataset, MapDataset)
        return (
            loader.num_workers > 0
            and not loader.persistent_workers
            and (loop == "rebind" or counts or loader.stateful)
        )

    @property
    def charged(self) -> Costs:
        """The costs that arise as workers are started; of threads, none of processes."""
        loader = self.loader
        if loader.threads:
            return self.costs.of_threads()
        return self.costs.of_processes(loader.start_method)

    @property
    def locks(self) -> bool:
        """Whether workers hold a lock that they share."""
        return self.loader.threads and any(stage.lock > 0 for stage in self.dataset.fetch)

    @property
    def own_memory(self) -> float:
        """Bytes that the processes take besides batches; threads are in the main process."""
        machine, loader = self.machine, self.loader
        start = self.costs.by(loader.start_method)
        stated = None if start is None else start.worker_memory
        each = machine.worker_memory if stated is None else stated
        each += machine.copied * machine.main_memory if loader.start_method == "fork" else 0.0
        workers = 0 if loader.threads else loader.num_workers * (2 if self.rebinds else 1)
        beside = 0.0 if self.validation is None else self.validating.own_memory
        return max(machine.main_memory, beside) + workers * each

    @property
    def pins(self) -> bool:
        """Whether batches are pinned: `pin_memory` does nothing on a machine without accelerator.

        As torch's `_BaseDataLoaderIter` has it: no thread is started then, either.
        """
        return self.loader.pin_memory and self.consumer.device != "cpu"

    def copied_by_host(self, size: float) -> bool:
        """Whether the host waits until a batch of `size` bytes is copied to the accelerator."""
        return not self.pins and size > STAGED_BYTES * max(self.dataset.tensors, 1)

    def copying(self, size: float) -> float:
        """Seconds to copy so many samples to the accelerator, with as many bytes as on average."""
        on_cpu = self.consumer.device == "cpu"
        return 0.0 if on_cpu else self.charged.copy_byte * size * self.dataset.sample_bytes.mean

    def sharing(self, size: float) -> float:
        """Seconds that a worker takes to put a collated batch of `size` bytes into shared memory.

        Nothing without workers, or where batches go through the pipe.
        """
        return self.charged.share.of(self.dataset.tensors, size) if self.through_shm else 0.0

    @property
    def downloads(self) -> bool:
        """Whether files are downloaded ahead of their samples."""
        return isinstance(self.dataset, IterableDataset) and self.dataset.download is not None

    @property
    def through_shm(self) -> bool:
        """Whether batches come from workers in shared memory."""
        return self._moves and self.dataset.path == "shm"

    @property
    def through_pipe(self) -> bool:
        """Whether batches come from workers pickled, through a pipe."""
        return self._moves and self.dataset.path == "pipe"

    @property
    def _moves(self) -> bool:
        return self.loader.num_workers > 0 and not self.loader.threads

    @property
    def torch_release(self) -> tuple[int, int]:
        """`torch` as a pair of numbers, for comparing."""
        parts = self.torch.split(".") if isinstance(self.torch, str) else []
        require(
            len(parts) in (2, 3) and all(p.isdecimal() for p in parts),
            "torch",
            f'a release such as "{LATEST}"',
            self.torch,
        )
        release = (int(parts[0]), int(parts[1]))
        known = release in OLD or (2, 0) <= release <= LAST
        expected = f"a release from {OLD[0][0]}.{OLD[0][1]} to {LATEST}, whose rules are known"
        require(known, "torch", expected, self.torch)
        return release

    def _check_iterable(self, dataset: IterableDataset) -> None:
        loader = self.loader
        for key in ("shuffle", "sampler", "batch_sampler", "endless"):
            value = getattr(loader, key)
            require(
                value is None or value is False,
                f"loader.{key}",
                "nothing: an iterable-style dataset has no sampler",
                value,
            )
        require(
            loader.dispatch in ("turns", "dealt"),
            "loader.dispatch",
            "turns or dealt, as each worker has its own part of an iterable-style dataset",
            loader.dispatch,
        )
        if isinstance(dataset.sharding, tuple):
            dealt = 1 if self.job.reads_all else self.job.world
            wanted = max(loader.num_workers, 1) * dealt
            require(
                len(dataset.sharding) == wanted,
                "dataset.sharding",
                f"{wanted} lengths, one for each worker{' of each rank' if dealt > 1 else ''}; or, "
                'of files that are dealt to any number, dataset.sharding = "none" and '
                "dataset.shards = these lengths",
                dataset.sharding,
            )

    def _check_errors(self) -> None:
        """Refuse loops that catch errors for ever, or for about as long."""
        if self.consumer.on_error != "continue":
            return
        loader = self.loader
        check_conflict(
            self.consumer.loop not in ("plain", "rebind"),
            "consumer.on_error",
            f'expected stop, as loop = "{self.consumer.loop}" gives nothing after an error, '
            "got continue",
        )
        check_conflict(
            0 < loader.timeout < SHORTEST_TIMEOUT,
            "loader.timeout",
            f'expected at least {SHORTEST_TIMEOUT} s where consumer.on_error = "continue", '
            f"got {loader.timeout}",
        )
        failures = {failure.where for failure in self.failures}
        check_conflict(
            isinstance(self.dataset, IterableDataset) and "worker_init_fn" in failures,
            "consumer.on_error",
            "expected stop, as a worker whose worker_init_fn failed never says that its part of an "
            "iterable-style dataset has ended, got continue",
        )
        check_conflict(
            loader.endless and bool(failures),
            "consumer.on_error",
            "expected stop, as an endless sampler (loader.endless) may fail for ever, got continue",
        )

    def _check_stateful(self) -> None:
        """Refuse what torchdata's loader cannot, and what is not known of it."""
        loader, dataset = self.loader, self.dataset
        check_conflict(
            self.consumer.loop not in ("plain", "rebind"), "loader.stateful", "needs a plain loop"
        )
        check_conflict(
            self.consumer.on_error == "continue",
            "loader.stateful",
            'needs consumer.on_error = "stop": after an exception StatefulDataLoader\'s snapshots '
            "fail",
        )
        if isinstance(dataset, IterableDataset):
            check_conflict(
                loader.resume > 0 and self.costs.snapshot > 0,
                "loader.resume",
                "goes on without the state of an iterable-style dataset, and costs.snapshot saves "
                "one",
            )
            workers, size = loader.num_workers, loader.batch_size or 1
            every = range(max(workers, 1))
            lengths = [len(shard(dataset, self.job, w, loader)) for w in every]
            there = sum(n // size if loader.drop_last else -(-n // size) for n in lengths)
        else:
            there = loader.batches(dataset.length)
        require(
            loader.resume <= there,
            "loader.resume",
            f"at most the batches of an epoch ({there})",
            loader.resume,
        )
        check_conflict(self.is_job and loader.resume > 0, "loader.resume", "needs a single rank")

    def _check_indices(self, dataset: MapDataset) -> None:
        loader = self.loader
        check_conflict(
            loader.shuffle and dataset.length == 0,
            "loader.shuffle",
            "expected false, as torch refuses to shuffle an empty dataset, got true",
        )
        if loader.sampler is not None:
            check_indices("loader.sampler", loader.sampler, dataset.length)
        for batch in loader.batch_sampler or ():
            check_indices("loader.batch_sampler", batch, dataset.length)
        check_conflict(
            loader.endless and loader.batches(dataset.length) == 0,
            "loader.endless",
            "needs a sampler that has at least one batch",
        )
        check_conflict(
            loader.endless and self.consumer.loop != "plain", "loader.endless", "needs a plain loop"
        )

    def _check_job(self) -> None:
        """That data can be dealt as the job says, and that everyone gets some."""
        loader, job, storage = self.loader, self.job, self.machine.storage
        iterable = isinstance(self.dataset, IterableDataset)
        many, whole = job.world > 1, job.deal == "batches"
        check_conflict(whole and iterable, "job.deal", "batches needs a map-style dataset")
        if job.deal == "kept":
            needs = "kept needs an iterable-style dataset and loader.batch_size"
            check_conflict(not iterable or loader.batch_size is None, "job.deal", needs)
        check_conflict(
            many and job.deal == "distributed" and loader.batch_sampler is not None,
            "job.deal",
            "distributed excludes loader.batch_sampler; batches of it can be dealt",
        )
        check_conflict(
            whole and loader.batch_sampler is None and loader.batch_size is None,
            "job.deal",
            "batches needs loader.batch_size",
        )
        check_conflict(
            whole and job.even_batches and loader.batch_sampler is not None,
            "job.even_batches",
            "needs loader.batch_size; set it to false to deal a batch_sampler",
        )
        check_conflict(
            job.remote and structs.replace(storage, cache=0.0) != UNLIMITED,
            "job.storage",
            "is read in place of machine.storage, of which only the cache may be set",
        )
        if many and not iterable and job.deal != "same":
            last = batches(loader, self.dataset, job, job.world - 1)
            first = batches(loader, self.dataset, Job(), 0)
            require(
                last > 0 or first == 0,
                "job.ranks" if job.nodes == 1 else "job.nodes",
                f"no more ranks than an epoch has batches ({first})",
                job.world,
            )

    def _check_validation(self) -> None:
        """That validation could run by itself, and that training does not go on meanwhile."""
        check_conflict(
            self.consumer.on_error == "continue",
            "validation",
            'needs consumer.on_error = "stop"',
        )
        check_conflict(
            self.consumer.loop == "thread",
            "validation",
            "needs a loop that does not read ahead by a thread, which would go on meanwhile",
        )
        check_conflict(self.job.uneven == "join", "validation", 'excludes job.uneven = "join"')
        assert self.validation is not None
        check_conflict(
            getattr(self.validation.dataset, "download", None) is not None,
            "validation.dataset.download",
            "expected none, as the cache of files is that of training",
        )
        try:
            _ = self.validating
        except ScenarioError as error:
            raise ScenarioError(f"validation.{error}") from None

    def _recorded(self) -> list[tuple[str, Recorded]]:
        """Every `Recorded` in the scenario with its dotted key."""
        found: list[tuple[str, Any]] = [("consumer.step", self.consumer.step)]
        found.append(("dataset.collate", self.dataset.collate))
        for i, stage in enumerate(self.dataset.fetch):
            found += [
                (f"dataset.fetch.{i}.wait", stage.wait),
                (f"dataset.fetch.{i}.cpu", stage.cpu),
                (f"dataset.fetch.{i}.read_bytes", stage.read_bytes),
            ]
        return [(key, d) for key, d in found if isinstance(d, Recorded)]


_PARTS: dict[str, tuple[type, ...]] = {
    "loader": (Loader,),
    "dataset": (MapDataset, IterableDataset),
    "consumer": (Consumer,),
    "machine": (Machine,),
    "costs": (Costs,),
    "job": (Job,),
    "validation": (Validation, type(None)),
}
