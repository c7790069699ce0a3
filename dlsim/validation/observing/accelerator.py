"""When the accelerator did what the training steps gave it: CUDA's events, as moments.

The host may have left a step long before the accelerator ends it, so that the host's clock alone
does not tell how long steps are.
"""

from __future__ import annotations

from operator import itemgetter
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader

from dlsim.trace.trace import Floats

NAN = float("nan")
cuda: Any = torch.cuda  # most of which has no types
COPIES = PAIRS = 5  # of which the fastest counts
Mark: TypeAlias = Any  # a CUDA event; None where the accelerator is not in use


class StepClock:
    """Marks in the current stream before and after each step, and when they were passed.

    Their time is the accelerator's. `settle` reads both clocks, while nothing is under way; it is
    to be called where an epoch begins and where it ends. Nothing happens before CUDA is in use.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[Mark, Mark]] = []
        self._origin: Mark = None
        self._settled: list[tuple[float, float]] = []  # seconds since the origin, on the host

    def mark(self) -> Mark:
        """A mark in the stream, to be passed when all that was given before is done."""
        if not cuda.is_initialized():
            return None
        if self._origin is None:
            self.settle()
        return self._mark()

    def _mark(self) -> Mark:
        mark = cuda.Event(enable_timing=True)
        mark.record()
        return mark

    def step(self, before: Mark, after: Mark) -> None:
        """A step was given to the accelerator between these two marks."""
        self._marks.append((before, after))

    def settle(self) -> None:
        """Wait until the accelerator has done everything, and note when that was."""
        if not cuda.is_initialized():
            return
        cuda.synchronize()
        # Whatever keeps the host from reading its clock at once, makes for a wrong pair.
        _, mark, now = min((self._pair() for _ in range(PAIRS)), key=itemgetter(0))
        if self._origin is None:
            self._origin = mark
        self._settled.append((self._origin.elapsed_time(mark) / 1000, now))

    def _pair(self) -> tuple[float, Mark, float]:
        """How far two readings of the host's clock are apart, a mark between them, their middle."""
        began = monotonic()
        mark = self._mark()
        mark.synchronize()
        now = monotonic()
        return now - began, mark, (began + now) / 2

    def moments(self) -> tuple[Floats, Floats]:
        """When the accelerator began and ended each step, by the host's clock; NaN if not known.

        Not known is it of steps before CUDA was in use, and of all steps if none has put anything
        into the accelerator's memory: then they are the host's.
        """
        unknown = np.full(len(self._marks), NAN)
        if self._origin is None or not cuda.max_memory_allocated():
            return unknown, unknown
        self.settle()
        return self._moments(0), self._moments(1)

    def _moments(self, which: int) -> Floats:
        known = [None not in marks for marks in self._marks]
        since = [
            self._origin.elapsed_time(marks[which]) / 1000 if whole else NAN
            for marks, whole in zip(self._marks, known, strict=True)
        ]
        device, host = np.array(self._settled).T
        # Between two readings both clocks go evenly.
        found: Floats = np.interp(since, device, host)
        return np.where(known, found, NAN)


def begin(loader: DataLoader[Any]) -> None:
    """Get CUDA ready, if `loader` will use it.

    Torch does so while it starts the pin-memory thread of a process's first epoch: a fifth of a
    second that no other epoch takes.
    """
    if loader.pin_memory and cuda.is_available():
        cuda.init()
        torch.zeros(1).pin_memory()


def settle() -> None:
    """Wait until the accelerator, if one is in use, has done everything it was given."""
    if cuda.is_initialized():
        cuda.synchronize()


def copying(size: float, *, pinned: bool) -> float:
    """Seconds for copying a batch of `size` bytes to the accelerator; NaN where none is in use."""
    if not cuda.is_initialized() or not size >= 1:
        return NAN
    there = torch.empty(int(size), dtype=torch.uint8, device="cuda")
    here = torch.zeros(int(size), dtype=torch.uint8, pin_memory=pinned)
    taken = []
    for _ in range(COPIES):
        cuda.synchronize()
        began, ended = (cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        there.copy_(here, non_blocking=True)
        ended.record()
        ended.synchronize()
        taken.append(float(began.elapsed_time(ended)) / 1000)
    return min(taken)
