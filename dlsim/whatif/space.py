"""Will it fit: the bytes that batches on their way take, beside what the machine has for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlsim.engine.effort import counts
from dlsim.scenario import Scenario
from dlsim.scenario.units import size

UNSTATED = 1.0  # bytes of a sample, at most: only costs that grow with batches need them
SMALL = 64 * 2**20  # bytes of /dev/shm that Docker gives a container unless it is told otherwise

LARGER_SHM = "a larger /dev/shm (docker run --shm-size)"


@dataclass(frozen=True, kw_only=True)
class Space:
    """Bytes: at most `needed` by batches on their way, in /dev/shm if `shared`, else in memory.

    As many batches are on their way as the window has, and one that is trained on. `needed` is 0
    where the scenario does not say how large a sample is: nothing, or one byte. `shm`, `memory`:
    what the machine has; None where that is not stated. `window`: num_workers * prefetch_factor.
    """

    needed: float
    shared: bool
    shm: float | None
    memory: float | None
    window: int

    @property
    def limit(self) -> float:
        """The most bytes that batches on their way may take; infinite where nothing is stated."""
        limits = [self.shm if self.shared else None, self.memory]
        return min((most for most in limits if most is not None), default=math.inf)

    @property
    def fits(self) -> bool | None:
        """Whether they fit; None where that cannot be told."""
        if not self.needed or self.limit == math.inf:
            return None
        return self.needed <= self.limit

    @property
    def where(self) -> str:
        """What has the least room for them, as far as it is stated."""
        if self.shared and (self.memory is None or self.limit == self.shm):
            return "/dev/shm"
        return "memory"

    @property
    def largest_window(self) -> int:
        """The largest window (num_workers * prefetch_factor) that fits, 0 if none does."""
        return max(0, int(self.limit // (self.needed / (self.window + 1))) - 1)

    def __str__(self) -> str:
        """One line: whether it fits; or what is taken, and what must be stated to tell."""
        if not self.needed:
            return "Does it fit? How large a sample is, is not stated (dataset.sample_bytes)."
        taken = f"batches on their way take up to {size(self.needed)}"
        if self.fits is None:
            return self._unstated(taken)
        if self.fits:
            known = self.shm is not None or not self.shared
            also = "" if known else "; what /dev/shm has is not stated (machine.shm)"
            return f"It fits: {taken} of the {size(self.limit)} of {self.where}{also}."
        most = self.largest_window
        cure = f"num_workers * prefetch_factor of at most {most}" if most else "smaller batches"
        more = f"; so would {LARGER_SHM}" if self.where == "/dev/shm" else ""
        return f"It does not fit: {taken}, {self.where} has {size(self.limit)}; {cure} would{more}."

    def _unstated(self, taken: str) -> str:
        if not self.shared:
            return (
                f"Does it fit? B{taken[1:]} of memory; what it has is not stated (machine.memory)."
            )
        if self.needed <= SMALL:
            return (
                f"It fits nearly everywhere: {taken} of /dev/shm, "
                f"and even containers have {size(SMALL)}."
            )
        return (
            f"Does it fit? B{taken[1:]} of /dev/shm; what it has is not stated "
            f"(machine.shm; containers often have {size(SMALL)})."
        )


def space(scenario: Scenario) -> Space:
    """The room that `scenario` needs, and has."""
    batches, samples, _ = counts(scenario)
    a_sample = scenario.dataset.sample_bytes.mean
    a_batch = a_sample * (samples / batches if batches else 0.0)
    window, machine = scenario.loader.window, scenario.machine
    return Space(
        needed=(window + 1) * a_batch if a_sample > UNSTATED else 0.0,
        shared=scenario.dataset.path == "shm" and scenario.loader.num_workers > 0,
        shm=machine.shm,
        memory=machine.memory,
        window=window,
    )
