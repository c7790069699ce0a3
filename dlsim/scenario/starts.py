"""What starting workers costs by each start method."""

from __future__ import annotations

from typing import get_args

from msgspec import Struct

from dlsim.scenario.checks import check_seconds
from dlsim.scenario.distributions import Bytes, Seconds
from dlsim.scenario.errors import require
from dlsim.scenario.loader import StartMethod


class Start(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Starting a worker by one method: counts where `loader.multiprocessing_context` is that.

    Args:
        method: Which method; where the loader sets none, torch's workers are forked.
            Example: "forkserver"
        worker_start: By it, in place of `costs.worker_start`. Example: "60 ms"
        worker_ready: By it, in place of `costs.worker_ready`. Example: "0.5 s"
        worker_memory: Bytes of a worker by it, in place of `machine.worker_memory`; none: those.
            Example: "600 MiB"
    """

    method: StartMethod = "fork"
    worker_start: Seconds = 0.0
    worker_ready: Seconds = 0.0
    worker_memory: Bytes | None = None

    def __post_init__(self) -> None:
        methods = get_args(StartMethod)
        require(self.method in methods, "method", " or ".join(methods), self.method)
        check_seconds(self, "worker_start", "worker_ready")
        if self.worker_memory is not None:
            check_seconds(self, "worker_memory", unit="bytes")
