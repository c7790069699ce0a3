"""What is asked: a `Scenario`, a frozen value with torch's names, defaults and rules.

All times are seconds, all sizes bytes. A value that torch would refuse is refused here, with
`ScenarioError`; the checks run when a value is made, so a scenario that exists can be simulated.
"""

from __future__ import annotations

import re
from math import inf
from typing import Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import check_integer, check_text, check_tuples
from dlsim.scenario.consumer import Consumer
from dlsim.scenario.dataset import ZERO, Dataset, IterableDataset, MapDataset
from dlsim.scenario.dealing import batches, dealt_to
from dlsim.scenario.distributions import Distribution
from dlsim.scenario.errors import require
from dlsim.scenario.failure import Failure
from dlsim.scenario.fitting import check_fit
from dlsim.scenario.job import Job
from dlsim.scenario.loader import Loader
from dlsim.scenario.machine import STAGED_BYTES, STEADY, UNLIMITED, Costs, Machine
from dlsim.scenario.validation import Validation

OLD, LAST = ((1, 12), (1, 13)), (2, 15)  # torch's releases before 2.0, and the last one known
LATEST = f"{LAST[0]}.{LAST[1]}"
RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})(\.\d+)?")
FREE, ALONE = Costs(), Job()
SHARING = {*Costs.__struct_fields__} - {
    "worker_start",
    "index_latency",
    "snapshot",
    "lock",
    "reading",
    "jitter",
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
        check_fit(self)

    @property
    def is_job(self) -> bool:
        """Whether ranks train together, and each has a trace of its own."""
        return self.job != ALONE

    @property
    def ideal(self) -> bool:
        """Whether nothing is short or costs anything but fetching, collating and stepping.

        Starting workers and the latency of index lists may take time: they share nothing. Nor do
        those who compute, where there is a core for each.
        """
        limited = self.machine.storage != UNLIMITED or self.pins or self.job.remote
        return (
            self._costs_nothing
            and not limited
            and not self.locks
            and not self.crowded
            and (self.validation is None or self.validating.ideal)
        )

    @property
    def crowded(self) -> bool:
        """Whether those who compute may have less than a core each, if all do at a time."""
        machine = self.machine
        return machine.rate(self._computing * self.job.ranks + machine.background) < 1

    @property
    def _computing(self) -> float:
        """The most of a rank that can compute at a time, each on a core of its own.

        Those are workers, with threads of libraries; threads of a step; the main process and one
        that writes, where what they do costs anything.
        """
        loader, consumer = self.loader, self.consumer
        if self.machine.cores is not None and consumer.loop == "thread" and not loader.num_workers:
            return inf  # both threads of the main process have one core
        gang = max((stage.threads for stage in self.dataset.fetch), default=1)
        fetching = max(loader.num_workers, 1) * gang * (2 if self.rebinds else 1)
        stepping = consumer.threads if consumer.device == "cpu" else int(consumer.spin)
        beside = 0.0 if self.validation is None else self.validating._computing
        return fetching + stepping + (0 if self._costs_nothing else 2) + beside

    @property
    def _costs_nothing(self) -> bool:
        costs = self.charged
        return all(getattr(costs, key) == getattr(FREE, key) for key in SHARING)

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
            epochs=self.epochs * max(self._validations, 1) + (own.num_sanity_val_steps > 0),
            validation=None,
        )

    @property
    def reading(self) -> Scenario:
        """The loader of a rank alone, where rank 0 reads for all: to be read by nothing else."""
        consumer = structs.replace(
            self.consumer, loop="plain", step=ZERO, step_per_sample=0.0, stop_after=None
        )
        job = structs.replace(self.job, deal="same", sync="never", uneven="wait")
        return structs.replace(self, consumer=consumer, job=job)

    @property
    def _validations(self) -> int:
        """How often validation comes in an epoch."""
        own, most = self.validation, self.consumer.stop_after
        if own is None or own.every is None:
            return int(own is not None)
        there = batches(self.loader, self.dataset, *dealt_to(self.job))
        return (there if most is None else min(there, most)) // own.every

    @property
    def counted(self) -> bool:
        """Whether a loop can know how many batches an epoch has: of a length, or of a limit."""
        return isinstance(self.dataset, MapDataset) or self.consumer.stop_after is not None

    @property
    def taken_ahead(self) -> int:
        """How many batches the loop may have taken that the training step has not."""
        loop = self.consumer.loop
        one = loop == "accelerate" or (loop == "lightning" and not self.counted)
        return self.consumer.queue + 1 if loop == "thread" else int(one)

    @property
    def rebinds(self) -> bool:
        """Whether the workers of an epoch that is left early live until the next one has its own.

        So they do where the old iterator does: its name is rebound; or Lightning, which counts
        batches where it can, or a stateful loader makes the new one first.
        """
        loader, loop = self.loader, self.consumer.loop
        counts = loop == "lightning" and self.counted
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
    def jitter(self) -> Distribution:
        """By how much receiving a batch differs from the mean; not at all where none are moved."""
        return self.charged.jitter if self._moves and not self.ideal else STEADY

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
        return self.loader.pin_memory and self.consumer.device == "accelerator"

    def copied_by_host(self, size: float) -> bool:
        """Whether the host waits until a batch of `size` bytes is copied to the accelerator."""
        return not self.pins and size > STAGED_BYTES * max(self.dataset.tensors, 1)

    def copying(self, size: float) -> float:
        """Seconds to copy so many samples to the accelerator, with as many bytes as on average."""
        copied = self.consumer.device == "accelerator"
        return 0.0 if not copied else self.charged.copy_byte * size * self.dataset.sample_bytes.mean

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
        parts = RELEASE.fullmatch(self.torch) if isinstance(self.torch, str) else None
        require(parts is not None, "torch", f'a release such as "{LATEST}"', self.torch)
        assert parts is not None
        release = (int(parts[1]), int(parts[2]))
        known = release in OLD or (2, 0) <= release <= LAST
        expected = f"a release from {OLD[0][0]}.{OLD[0][1]} to {LATEST}, whose rules are known"
        require(known, "torch", expected, self.torch)
        return release


_PARTS: dict[str, tuple[type, ...]] = {
    "loader": (Loader,),
    "dataset": (MapDataset, IterableDataset),
    "consumer": (Consumer,),
    "machine": (Machine,),
    "costs": (Costs,),
    "job": (Job,),
    "validation": (Validation, type(None)),
}
