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
from dlsim.scenario.errors import LARGEST, is_integer, require

StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]

LARGEST_WINDOW = 1_000_000  # batches; each is kept, and sent when an epoch begins
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
        pin_memory: Whether a thread of the main process copies each batch into page-locked memory,
            from where it is copied to a GPU faster; what that costs is `costs.pin`. Example: true
        drop_last: Whether a last batch that is not full is left out. Example: true
        timeout: How long `next()` waits for a worker before it raises; 0: for ever.
            Example: "2 min"
        multiprocessing_context: How workers are started. It decides what `costs.worker_start` and
            `costs.worker_ready` are in reality; by itself it changes nothing here.
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
    endless: bool = False

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
        check_flags(self, *flags)
        require(
            self.batch_size is None
            or (is_integer(self.batch_size) and 0 < self.batch_size <= LARGEST),
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
        check_conflict(
            self.window > LARGEST_WINDOW,
            "num_workers" if self.prefetch_factor is None else "prefetch_factor",
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

    def batches(self, length: int) -> int:
        """How many batches the sampler makes of a map-style dataset of `length` samples."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        samples = length if self.sampler is None else len(self.sampler)
        whole, rest = divmod(samples, self.batch_size or 1)
        return whole if self.drop_last or rest == 0 else whole + 1

    @property
    def window(self) -> int:
        """The credit window in batches: `num_workers * prefetch_factor` (0 without workers)."""
        factor = 2 if self.prefetch_factor is None else self.prefetch_factor
        return self.num_workers * factor
