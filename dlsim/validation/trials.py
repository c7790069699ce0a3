"""Real runs, unobserved: how long an epoch takes, and how long each batch is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from dlsim.scenario.distributions import Floats
from dlsim.validation import machine

FOREIGN, TICKS = 0.05, 0.05  # cores; CPU seconds that counting by clock ticks may be wrong by


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A real run, in seconds: its `epoch`, and when batches were `requested` and `returned`.

    Moments count from the start of the epoch. `others`: the cores that others used, or the host
    took away, on average; NaN where the machine does not tell. `at`: when, in Unix time.
    """

    epoch: float
    requested: Floats
    returned: Floats
    others: float
    at: float

    @property
    def spoilt(self) -> bool:
        """Whether others used so much of the machine that the run says little of the loader."""
        return spoilt(self.others, self.epoch)

    @property
    def wait_p95(self) -> float:
        """The 95th percentile of the seconds that batches were waited for; NaN without any."""
        waits = self.returned - self.requested
        return float(np.percentile(waits, 95)) if len(waits) else float("nan")

    def row(self) -> dict[str, Any]:
        """The run as JSON can say it, to the microsecond."""
        return {
            "epoch": round(self.epoch, 6),
            "requested": np.round(self.requested, 6).tolist(),
            "returned": np.round(self.returned, 6).tolist(),
            "others": round(self.others, 4),
            "at": round(self.at),
        }

    @staticmethod
    def of(row: dict[str, Any]) -> Trial:
        """The run that `row` made a row of."""
        return Trial(
            epoch=row["epoch"],
            requested=np.array(row["requested"], float),
            returned=np.array(row["returned"], float),
            others=row["others"],
            at=row["at"],
        )


def spoilt(others: float, seconds: float) -> bool:
    """Whether that many cores used by others for so long are more than a quiet machine shows."""
    return others > FOREIGN + TICKS / seconds


def try_out(
    loader: DataLoader[Any],
    step: Callable[[Any], object] | None = None,
    batches: int | None = None,
) -> Trial:
    """One epoch of `loader`, as a training loop would run it; left after `batches` batches."""
    requested, returned = [], []
    before, at = machine.load(), time.time()
    began = asked = monotonic()
    iterator = iter(loader)
    asked = monotonic()
    for batch in islice(iterator, batches):
        requested.append(asked - began)
        returned.append(monotonic() - began)
        if step is not None:
            step(batch)
        asked = monotonic()
    del iterator  # workers that do not persist go with it
    epoch, after = monotonic() - began, machine.load()
    taken = sum(machine.others(before, after)) if before and after else float("nan")
    return Trial(
        epoch=epoch,
        requested=np.array(requested),
        returned=np.array(returned),
        others=taken / epoch,
        at=at,
    )


def pause(seconds: float, times: int = 30) -> float:
    """The seconds that `time.sleep(seconds)` takes on this machine."""
    taken = []
    for _ in range(times):
        began = monotonic()
        time.sleep(seconds)
        taken.append(monotonic() - began)
    return float(np.median(taken))


def with_settings(loader: DataLoader[Any], **settings: Any) -> DataLoader[Any]:
    """A copy of a user's loader with another `num_workers` or `prefetch_factor`.

    Its dataset, samplers and generators are the same objects. As in torch, there is nothing to
    prefetch without workers, and the default with them is 2.
    """
    copy = object.__new__(type(loader))
    vars(copy).update(vars(loader), _iterator=None, **settings)
    if not copy.num_workers:
        vars(copy).update(prefetch_factor=None, persistent_workers=False)
    elif copy.prefetch_factor is None:
        vars(copy).update(prefetch_factor=2)
    return copy
