"""What advice is asked for: targets, and the settings there are to choose from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.feasibility import Budget, Judge
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.statistics import check_confidence
from dlsim.whatif.targets import SHARES, Target

PREFETCH = (1, 2, 4, 8)
MOST_NUMBERS = 1025  # of workers, none among them; a search among more takes minutes to begin
USUAL, MOST = 16, 64  # workers: those that are looked at first, and as far as the search goes on


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: see `dlsim.whatif.advise`, whose arguments these are.

    `workers`: None for as many as help.
    """

    targets: tuple[Target, ...] = ()
    workers: tuple[int, ...] | None = None
    prefetch: tuple[int, ...] = PREFETCH
    batch_sizes: tuple[int, ...] = ()
    max_memory: float | None = None
    confidence: float = 0.95
    maximum: int | None = None
    keep_order: bool = False
    seed: int = 0
    jobs: int = 1

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.maximum is not None:
            check_counts(maximum=self.maximum)
        check_jobs(self.jobs)

    @property
    def ranges(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of workers to look at; the next ones where all of one are too few."""
        if self.workers is not None:
            return (self.workers,)
        found, most = [tuple(range(USUAL + 1))], USUAL
        while most < MOST:
            most *= 2
            found.append(tuple(range(most + 1)))
        return tuple(found)

    def judge(self, tries: int, budget: Budget | None = None) -> Judge:
        """Who judges by these targets, among so many configurations.

        Within the `budget`; by default with one of their own, which has no end where it is asked
        for so many replications.
        """
        asked = self.targets, self.confidence, self.maximum, tries, self.seed, self.jobs
        return Judge(*asked, budget or (Budget(math.inf) if self.maximum else Budget()))


def targets(
    max_stall: float | None = None,
    max_wait_p95: float | None = None,
    min_au: float | None = None,
    max_epoch: float | None = None,
) -> tuple[Target, ...]:
    """The targets that are given. Raises `WhatIfError` for one that cannot be."""
    found = []
    for name, metric, at_most, limit in (
        ("max_stall", "stall", True, max_stall),
        ("max_wait_p95", "wait_p95", True, max_wait_p95),
        ("min_au", "au", False, min_au),
        ("max_epoch", "epoch_time", True, max_epoch),
    ):
        if limit is None:
            continue
        share = metric in SHARES
        if not isinstance(limit, (int, float)) or not 0 <= limit <= (1 if share else float("inf")):
            wanted = "a share from 0 to 1" if share else "seconds, at least 0"
            raise WhatIfError(f"{name}: expected {wanted}, got {limit!r}")
        found.append(Target(metric, float(limit), at_most))
    return tuple(found)


def numbers(values: Iterable[int] | None) -> tuple[int, ...] | None:
    """The values, if any are given. Raises `WhatIfError` for more than can be looked at."""
    if values is None:
        return None
    found = tuple(islice(values, MOST_NUMBERS + 1))
    if len(found) > MOST_NUMBERS:
        raise WhatIfError(f"workers: expected at most {MOST_NUMBERS:,} numbers to choose from")
    return found
