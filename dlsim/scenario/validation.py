"""Validation beside training: a loader of its own, and how often a loop goes over it."""

from __future__ import annotations

from msgspec import Struct

from dlsim.scenario.checks import (
    check_distribution,
    check_integer,
    check_seconds,
    check_struct,
    check_tuples,
)
from dlsim.scenario.dataset import ZERO, Dataset, IterableDataset, MapDataset
from dlsim.scenario.distributions import Duration, Seconds
from dlsim.scenario.errors import require
from dlsim.scenario.failure import Failure
from dlsim.scenario.loader import Loader


class Validation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A loop over a second loader, for which training stops: both loaders are there meanwhile.

    Training's workers go on until their window is full. Workers of validation are started when it
    first begins, and each time again, unless they are persistent; with those of training they share
    the node. The loop around `next()`, the device and the job are training's; validation begins and
    ends with nothing left to do for the accelerator. Between its batches no ranks meet.

    Args:
        loader: The keyword arguments of validation's DataLoader, as those of `loader`.
            Example: { batch_size = 64, num_workers = 4, persistent_workers = true }
        dataset: Where its samples come from, as `dataset` has it.
            Example: { kind = "map", length = 5_000 }
        step: How long validating a batch takes. Example: "120 ms"
        step_per_sample: How much longer than `step` it takes for each sample. Example: "1 ms"
        every: After how many batches of an epoch validation comes, each time; none: at each
            epoch's end. Example: 1000
        num_sanity_val_steps: How many batches of validation come before training begins, as
            Lightning has it, where they are 2 by default. Example: 2
        stop_after: Leave validation after so many batches; none: at its end. Example: 50
        failures: Exceptions that user code of validation raises, as `failures` has them; they end
            the run. Example: [{ where = "fetch", at = 17 }]
    """

    loader: Loader
    dataset: Dataset
    step: Duration = ZERO
    step_per_sample: Seconds = 0.0
    every: int | None = None
    num_sanity_val_steps: int = 0
    stop_after: int | None = None
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        check_struct(self, "loader", Loader)
        kinds = (MapDataset, IterableDataset)
        wanted = " or ".join(f"a {kind.__name__}" for kind in kinds)
        require(isinstance(self.dataset, kinds), "dataset", wanted, self.dataset)
        check_distribution(self, "step")
        check_seconds(self, "step_per_sample")
        check_integer(self, "num_sanity_val_steps", 0)
        for key in ("every", "stop_after"):
            if getattr(self, key) is not None:
                check_integer(self, key, 1)
        check_tuples(self, "failures")
        for failure in self.failures:
            require(isinstance(failure, Failure), "failures", "a list of Failure", failure)
