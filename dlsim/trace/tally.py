"""What the metrics need of a run whose batches nobody kept.

A `Tally` is made while batches finish, in memory that does not grow with them. All of it is
exact but for the quantiles of the waits of long runs: beyond `KEPT` batches, waits are counted in
classes. Each class spans 1/128 of a power of two, so that its middle is wrong by less than
0.4 %, whatever the waits look like; a reservoir of samples would need a million of them for that
at the 99th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlsim.trace.quantiles import quantile_of
from dlsim.trace.trace import Floats, Integers

KEPT = 65536  # waits that are kept one by one
FINEST = -40  # waits below 2**FINEST seconds, a picosecond, count as none
MOST_MARKS = 16384  # when there are so many in an epoch, every other one is dropped
PARTS, EXPONENTS = 128, 70  # classes to a power of two, and powers of two


@dataclass(frozen=True, eq=False)
class Marks:
    """Where an epoch stood after every so many batches returned, in the order of return.

    `time`: when that batch was returned; and sums until then: of the `waited` seconds, of those for
    which the accelerator `stepped`, of `samples`, and of seconds in validation, where there is any
    (`apart`). The first mark is at the first batch; one
    follows on every `stride` batches, and the last is at the last batch, the `batches`-th.
    """

    stride: int
    batches: int
    time: Floats
    waited: Floats
    stepped: Floats
    samples: Floats
    apart: Floats | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Tally:
    """Counts, sums and maxima of one run, named like the metrics they are for; times in seconds.

    `waits`: in ascending order, or None where there are too many; `classes`: how many fall into
    each class, then. `step`: of computing steps. `busy`: of each worker. `marks`: of each epoch.
    """

    batches: int
    samples: int
    distinct: float
    lost: float
    elapsed: float
    first_batch: float
    epoch_times: Floats
    wait_first: float
    wait: float
    step: float
    waits: Floats | None
    classes: Integers
    buffer: float
    buffer_max: int
    buffer_bytes: float
    credit_max: int
    held: int
    held_max: int
    head_of_line: float
    busy: Floats
    marks: tuple[Marks, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class JobTally:
    """The same of a job, whose `ranks` have a tally each; times in seconds.

    `waits` and `classes` are those of all ranks, in each of these, too. `begin` and `end`: of the
    job. `at_barrier`: for which ranks waited for others, all together. `amplification`: see
    `dlsim.trace.job_metrics`; NaN where ranks do not meet.
    """

    ranks: tuple[Tally, ...]
    waits: Floats | None
    classes: Integers
    begin: float
    end: float
    at_barrier: float
    amplification: float

    @property
    def batches(self) -> int:
        """Those of all ranks."""
        return sum(tally.batches for tally in self.ranks)


def wait_quantiles(tally: Tally | JobTally, shares: Sequence[float]) -> list[float]:
    """The waits that so many of all do not exceed; of none, NaN.

    Interpolated as NumPy does it, or right to 0.4 %, see above.
    """
    batches = tally.batches
    if batches == 0:
        return [math.nan] * len(shares)
    if tally.waits is not None:
        return [quantile_of(tally.waits, share) for share in shares]
    below = np.cumsum(tally.classes)
    return [middle(int(np.searchsorted(below, share * batches))) for share in shares]


def middle(number: int) -> float:
    """The middle of a class of waits, in seconds; class 0 is no wait."""
    exponent, part = divmod(number - 1, PARTS)
    return math.ldexp(1 + (part + 0.5) / PARTS, FINEST + exponent) if number else 0.0
