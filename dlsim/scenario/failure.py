"""What user code raises, where."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from dlsim.scenario.checks import check_integer
from dlsim.scenario.errors import require

FailurePoint: TypeAlias = Literal["fetch", "collate", "worker_init_fn"]


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """An exception raised by user code.

    Args:
        where: fetch: when the sample of dataset index `at` is fetched, at the end of its stages;
            collate: in `collate_fn` of batch number `at` (over all epochs), at its end;
            worker_init_fn: in worker `at`, in every epoch that starts workers. Example: "fetch"
        at: The dataset index, batch number or worker number. Example: 17
    """

    where: FailurePoint
    at: int

    def __post_init__(self) -> None:
        points = get_args(FailurePoint)
        require(self.where in points, "where", " or ".join(points), self.where)
        check_integer(self, "at", 0)
