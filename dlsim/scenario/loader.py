"""The loader: torch's keyword arguments, defaults and rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_flags,
    check_integer,
    check_seconds,
    check_tuples,
)
from dlsim.scenario.distributions import Seconds
from dlsim.scenario.errors import is_integer, require

StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]
Dispatch: TypeAlias = Literal["turns", "dealt", "stealing", "shared"]
Refill: TypeAlias = Literal["return", "arrival"]
WorkerKind: TypeAlias = Literal["processes", "threads"]

LARGEST_BATCH = 2**31 - 1  # samples, which traces count in 32 bits
LARGEST_WINDOW = 1_000_000  # batches; each is kept, and sent when an epoch begins
# What is given only where there are workers, and what it is where there are none.
WITHOUT_WORKERS = {
    "workers": "processes",
    "prefetch_factor": None,
    "persistent_workers": False,
    "timeout": 0.0,
    "multiprocessing_context": None,
    "dispatch": "turns",
    "refill": "return",
    "slots": None,
    "start_together": 1,
}
# What is no keyword argument of torch's.
NOT_TORCHS = (
    *("workers", "endless", "dispatch", "refill", "slots", "start_together"),
    *("stateful", "snapshot_every_n_steps", "resume"),
)
_NEEDS = "needs num_workers above 0"


class Loader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keyword arguments of `torch.utils.data.DataLoader`, with its defaults and its rules.

    Raises `ScenarioError` for every combination that torch refuses.

    Args:
        batch_size: Samples in a batch; none: samples come one by one, and are not collated.
            Example: 32
        shuffle: Whether the order of samples is drawn anew in each epoch. Example: true
        sampler: A recorded order of dataset indices. Example: [3, 1, 2]
        batch_sampler: A recorded list of batches of any lengths. Example: [[3, 1], [2]]
        num_workers: Processes that load batches; 0: the main process does, inside `next()`.
            Example: 8
        workers: processes, as torch's are; or threads of the main process, which torch does not
            have: they share Python's lock (`Stage.lock`), nothing has to be started, pickled or
            moved, and they cannot be terminated. In torch: processes only. Example: "threads"
        pin_memory: Whether a thread of the main process copies each batch into page-locked memory,
            from where it is copied to a GPU faster; what that costs is `costs.pin`. Example: true
        drop_last: Whether a last batch that is not full is left out. Example: true
        timeout: How long `next()` waits for a worker before it raises; 0: for ever.
            Example: "2 min"
        multiprocessing_context: How workers are started. It decides what `costs.worker_start` and
            `costs.worker_ready` are in reality; here, where `costs.starts` says so.
            Example: "spawn"
        prefetch_factor: Batches on their way for each worker: num_workers * prefetch_factor, the
            credit window, are sent and not yet returned. None: 2, where there are workers.
            Example: 4
        persistent_workers: Whether workers stay from one epoch to the next. Example: true
        in_order: Whether batches are returned in the order in which they were sent; if not, as
            they arrive (from torch 2.6 on). Example: false
        endless: Whether the sampler begins anew by itself, as timm's `MultiEpochsDataLoader` and
            ultralytics' `InfiniteDataLoader` have it: the iterator is made once, workers go on
            into the next epoch, and an epoch that is left early goes on in the next.
            In torch: a sampler of one's own. Example: true
        dispatch: Who gets the next batch. turns: the next worker in turn, as torch has it; dealt:
            the next in turn, whatever it holds, in any order, too (as torch 2.6, and SPDL's stages
            in processes); stealing: the same, and a worker with nothing left takes the oldest batch
            that waits for a busy one; shared: whoever is free takes the oldest, from one queue (as
            torchdata.nodes, SPDL). In torch: always turns. Example: "shared"
        refill: When one more batch is sent for. return: when `next()` is about to return one;
            arrival: when `next()` has received one, also where it waits for another, so that a slow
            batch keeps no worker idle, and what comes meanwhile piles up. In torch: always return.
            Example: "arrival"
        slots: The window itself, in place of num_workers * prefetch_factor, where `dispatch` is
            shared or stealing: batches sent and not yet returned (torchdata.nodes:
            `max_concurrent`). In torch: num_workers * prefetch_factor. Example: 5
        start_together: How many workers are started in the time of one, when an epoch begins:
            threads of the main process wait for them beside each other, as grain and SPDL do it.
            In torch: always 1, one worker after another. Example: 8
        stateful: Whether it is torchdata's `StatefulDataLoader` (0.11): it waits for all workers
            before it sends the first batch, workers save their state after batches
            (`costs.snapshot`), and those of an epoch that is left early live until the next has
            begun. In torch: torchdata.stateful_dataloader. Example: true
        snapshot_every_n_steps: After how many batches a stateful loader has its state saved; none:
            never. In torch: the same, of StatefulDataLoader. Example: 100
        resume: After how many batches of the first epoch a stateful loader goes on, from its
            `state_dict`; those since the last snapshot are made again, and thrown away, when the
            epoch begins (of an iterable-style dataset, which has no state, all of them).
            In torch: load_state_dict. Example: 5
    """

    batch_size: int | None = 1
    shuffle: bool = False
    sampler: tuple[int, ...] | None = None
    batch_sampler: tuple[tuple[int, ...], ...] | None = None
    num_workers: int = 0
    workers: WorkerKind = "processes"
    pin_memory: bool = False
    drop_last: bool = False
    timeout: Seconds = 0.0
    multiprocessing_context: StartMethod | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    in_order: bool = True
    endless: bool = False
    dispatch: Dispatch = "turns"
    refill: Refill = "return"
    slots: int | None = None
    start_together: int = 1
    stateful: bool = False
    snapshot_every_n_steps: int | None = 1
    resume: int = 0

    def __post_init__(self) -> None:
        check_tuples(self, "sampler", "batch_sampler")
        if self.batch_sampler is not None:
            for batch in self.batch_sampler:
                require(isinstance(batch, Sequence), "batch_sampler", "lists of indices", batch)
                # torch's default collate fails on an empty list
                require(len(batch) > 0, "batch_sampler", "lists of at least one index", batch)
            batches = tuple(tuple(batch) for batch in self.batch_sampler)
            structs.force_setattr(self, "batch_sampler", batches)
        flags = ("shuffle", "pin_memory", "drop_last", "persistent_workers", "in_order", "endless")
        check_flags(self, *flags, "stateful")
        require(
            self.batch_size is None
            or (is_integer(self.batch_size) and 0 < self.batch_size <= LARGEST_BATCH),
            "batch_size",
            f"an integer from 1 to {LARGEST_BATCH:,}, or none",
            self.batch_size,
        )
        check_integer(self, "num_workers", 0)
        check_seconds(self, "timeout")
        kinds = get_args(WorkerKind)
        require(self.workers in kinds, "workers", "processes or threads", self.workers)
        workers = self.num_workers > 0
        check_conflict(self.threads and not workers, "workers", f"threads {_NEEDS}")
        if self.prefetch_factor is not None:
            check_integer(self, "prefetch_factor", 1)
            check_conflict(not workers, "prefetch_factor", _NEEDS)
        check_integer(self, "start_together", 1)
        check_conflict(self.start_together > 1 and not workers, "start_together", _NEEDS)
        self._check_dispatch()
        self._check_stateful()
        check_conflict(
            self.window > LARGEST_WINDOW,
            "slots" if self.slots else "prefetch_factor" if self.prefetch_factor else "num_workers",
            f"expected a window (num_workers * prefetch_factor) of at most {LARGEST_WINDOW:,}, "
            f"got {self.window:,}",
        )
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
            context is not None and self.threads,
            "multiprocessing_context",
            'is how processes are started, and loader.workers = "threads"',
        )
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

    def _check_dispatch(self) -> None:
        rules, workers = get_args(Dispatch), self.num_workers > 0
        words = f"{', '.join(rules[:-1])} or {rules[-1]}"
        require(self.dispatch in rules, "dispatch", words, self.dispatch)
        require(self.refill in get_args(Refill), "refill", "return or arrival", self.refill)
        check_conflict(self.dispatch != "turns" and not workers, "dispatch", _NEEDS)
        check_conflict(self.refill != "return" and not workers, "refill", _NEEDS)
        if self.slots is not None:
            check_integer(self, "slots", 1)
            free = self.dispatch in ("stealing", "shared")
            check_conflict(not free, "slots", 'needs dispatch = "shared" or "stealing"')
            check_conflict(self.prefetch_factor is not None, "slots", "excludes prefetch_factor")

    @property
    def ordered(self) -> bool:
        """Whether batches have to come in order, as only then states mean something."""
        return self.resume > 0 or self.snapshot_every_n_steps not in (None, 1)

    def _check_stateful(self) -> None:
        check_integer(self, "resume", 0)
        every = self.snapshot_every_n_steps
        if every is not None:
            check_integer(self, "snapshot_every_n_steps", 1)
        needs = "needs stateful = true"
        check_conflict(self.resume > 0 and not self.stateful, "resume", needs)
        check_conflict(every != 1 and not self.stateful, "snapshot_every_n_steps", needs)
        check_conflict(
            self.resume > 0 and not self.in_order and self.num_workers > 0,
            "resume",
            "needs in_order: StatefulDataLoader gives no guarantee for a state in any order",
        )
        check_conflict(
            every not in (None, 1) and not self.in_order,
            "snapshot_every_n_steps",
            "expected 1 or none: in any order StatefulDataLoader 0.11 fails an assertion of its "
            f"own with others, got {every}",
        )
        if self.stateful:
            for key, usual in (
                ("workers", "processes"),
                ("dispatch", "turns"),
                ("refill", "return"),
                ("endless", False),
            ):
                check_conflict(getattr(self, key) != usual, key, "excludes stateful = true")

    def batches(self, length: int) -> int:
        """How many batches the sampler makes of a map-style dataset of `length` samples."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        samples = length if self.sampler is None else len(self.sampler)
        whole, rest = divmod(samples, self.batch_size or 1)
        return whole if self.drop_last or rest == 0 else whole + 1

    @property
    def start_method(self) -> StartMethod:
        """How worker processes are started: by default, torch's are forked."""
        return self.multiprocessing_context or "fork"

    @property
    def threads(self) -> bool:
        """Whether workers are threads of the main process."""
        return self.workers == "threads"

    @property
    def workers_stay(self) -> bool:
        """Whether workers outlive an epoch."""
        return self.persistent_workers or self.endless

    @property
    def window(self) -> int:
        """The credit window in batches: `num_workers * prefetch_factor` (0 without workers).

        Or as many as there are `slots`.
        """
        if self.slots is not None:
            return self.slots
        factor = 2 if self.prefetch_factor is None else self.prefetch_factor
        return self.num_workers * factor
