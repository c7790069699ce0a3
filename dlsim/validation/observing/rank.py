"""A rank of a job, as torchrun started it: where it stands, and where it meets the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dlsim.scenario import DlsimError
from dlsim.trace.observation import Observation

BOOT = Path("/proc/sys/kernel/random/boot_id")
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The process of number `rank` of a job of `world`, of which each node has `ranks`.

    `meets`: all ranks are to meet after each step, as the step does not make them. `group`: of all
    ranks, on the CPU.
    """

    rank: int
    world: int
    ranks: int
    meets: bool
    group: Any = None

    def meet(self) -> None:
        """Wait until all ranks are here."""
        dist.barrier(self.group)

    def gathered(self, seen: Observation) -> list[Observation] | None:
        """What all ranks saw, in their order, on rank 0; None on others, which send it there."""
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(seen, found, dst=0, group=self.group)
        return found

    def facts(self, began: float) -> dict[str, object]:
        """What tells how traces of ranks belong together; `began`: zero, by the system's clock."""
        return {
            "rank": self.rank,
            "world": self.world,
            "ranks": self.ranks,
            "meets": self.meets,
            "began": began,
            "clock": BOOT.read_text().strip() if BOOT.exists() else os.uname().nodename,
        }


@contextmanager
def of_job(*, meets: bool) -> Iterator[Rank | None]:
    """This process as a rank of the job that its environment tells of, as torchrun sets it.

    None where it tells of none. Ranks find each other by the process group that user code has
    made, or else by one of gloo's. Raises `DlsimError` for numbers that cannot be.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield None
        return
    try:
        rank, world, ranks = (int(os.environ.get(name, "")) for name in NEEDED)
    except ValueError:
        rank, world, ranks = 0, 0, 1
    if not 0 <= rank < world or ranks < 1 or world % ranks:
        got = ", ".join(f"{name}={os.environ.get(name, '')}" for name in NEEDED)
        raise DlsimError(f"environment: expected a rank of a job as torchrun sets it, got {got}")
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo")
    try:
        group = dist.new_group(backend="gloo")
        yield Rank(rank=rank, world=world, ranks=ranks, meets=meets, group=group)
    finally:
        if ours:
            dist.destroy_process_group()
