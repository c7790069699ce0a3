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

from dlsim.engine.usable import usable_cores
from dlsim.scenario.distributions import Floats
from dlsim.validation.observing import accelerator, machine

NAN = float("nan")
# Of all cores together; CPU seconds that counting by clock ticks may be wrong by.
LEAST, TICKS = 0.025, 0.05
# Other programs here; whoever shares the hardware and is seen to; cores at an unusual pace.
OTHERS, HOST, PACE = "others", "host", "pace"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A real run, in seconds: its `epoch`, and when batches were `requested` and `returned`.

    Moments count from the start of the epoch. `foreign`, `stolen`: the cores that others used, and
    that the host took away, on average; NaN where the machine does not tell. `at`: when, in Unix
    time. `spoilt`: who disturbed it so much that it says little of the loader; nobody, if empty.
    """

    epoch: float
    requested: Floats
    returned: Floats
    foreign: float
    stolen: float
    at: float
    spoilt: str

    @property
    def wait_p95(self) -> float:
        """The 95th percentile of the seconds that batches were waited for; NaN without any."""
        waits = self.returned - self.requested
        return float(np.percentile(waits, 95)) if len(waits) else NAN

    def row(self) -> dict[str, Any]:
        """The run as JSON can say it, to the microsecond."""
        return {
            "epoch": round(self.epoch, 6),
            "requested": np.round(self.requested, 6).tolist(),
            "returned": np.round(self.returned, 6).tolist(),
            "foreign": round(self.foreign, 4),
            "stolen": round(self.stolen, 4),
            "at": round(self.at),
            "spoilt": self.spoilt,
        }

    @staticmethod
    def of(row: dict[str, Any]) -> Trial:
        """The run that `row` made a row of."""
        return Trial(
            epoch=row["epoch"],
            requested=np.array(row["requested"], float),
            returned=np.array(row["returned"], float),
            foreign=row["foreign"],
            stolen=row["stolen"],
            at=row["at"],
            spoilt=row["spoilt"],
        )


def spoilt(foreign: float, stolen: float, seconds: float, cores: float) -> str:
    """Who took more of the cores, for so many seconds, than on a quiet machine; empty if nobody."""
    least = LEAST * cores + TICKS / seconds
    if foreign > least:
        return OTHERS
    return HOST if foreign + stolen > least else ""


def timed(
    loader: DataLoader[Any],
    step: Callable[[Any], object] | None = None,
    batches: int | None = None,
    progress: Callable[[int], object] = lambda batches: None,
) -> Trial:
    """One epoch of `loader`, as a training loop would run it; left after `batches` batches.

    It ends when an accelerator, if one is in use, has done all it was given; that it is got ready,
    as the first loader of a process that pins its batches does, comes before.
    `progress` is called with the number of batches since last time.
    """
    requested, returned = [], []
    accelerator.begin(loader)
    before, at = machine.load(), time.time()
    began = asked = monotonic()
    iterator = iter(loader)
    asked = monotonic()
    for batch in islice(iterator, batches):
        requested.append(asked - began)
        returned.append(monotonic() - began)
        if step is not None:
            step(batch)
        progress(1)
        asked = monotonic()
    accelerator.settle()
    del iterator  # workers that do not persist go with it
    epoch, after = monotonic() - began, machine.load()
    stolen, foreign = machine.others(before, after) if before and after else (NAN, NAN)
    return Trial(
        epoch=epoch,
        requested=np.array(requested),
        returned=np.array(returned),
        foreign=foreign / epoch,
        stolen=stolen / epoch,
        at=at,
        spoilt=spoilt(foreign / epoch, stolen / epoch, epoch, usable_cores()),
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
        vars(copy).update(prefetch_factor=None, persistent_workers=False, timeout=0)
    elif copy.prefetch_factor is None:
        vars(copy).update(prefetch_factor=2)
    return copy
