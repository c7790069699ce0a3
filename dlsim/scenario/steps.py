"""How long a training step takes on other accelerators."""

from __future__ import annotations

from msgspec import Struct

from dlsim.scenario.checks import check_distribution, check_integer, check_text
from dlsim.scenario.dataset import ZERO
from dlsim.scenario.distributions import Duration


class On(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step on one kind of accelerator, for who compares machines (`dlsim rent`).

    Args:
        accelerator: Which kind: A100, or more exactly A100-80GB. Example: "A100"
        step: How long training on a batch takes there. Example: "435 ms"
        batch_size: Of the batches that take so long, if not loader.batch_size. Example: 400
    """

    accelerator: str = ""
    step: Duration = ZERO
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_text(self, "accelerator")
        check_distribution(self, "step")
        if self.batch_size is not None:
            check_integer(self, "batch_size", 1)
