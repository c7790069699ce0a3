"""The machine: what is shared and limited, and what the machinery around the schedule costs."""

from __future__ import annotations

from math import inf

from msgspec import Struct

from dlsim.scenario.checks import check_distribution, check_positive, check_seconds, check_struct
from dlsim.scenario.distributions import Bytes, Duration, Seconds
from dlsim.scenario.errors import is_number, require

PIPE_BYTES = 65536  # Linux's default capacity of a pipe
# CUDA takes over a smaller tensor at once, to be copied later, pinned or not: measured on an H100,
# 1 MiB was and 4 MiB were not.
STAGED_BYTES = 1 << 20


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shared storage, read by the stages that have `read_bytes`.

    `bandwidth`: bytes a second, shared equally among all reads under way; None: unlimited.
    `latency`: seconds before the first byte of a read. `requests_per_second`: reads begin no
    faster. `cache`: bytes of page cache; a sample read once stays in it while there is room,
    and reading it again takes no time.
    """

    bandwidth: Bytes | None = None
    latency: Duration | None = None
    requests_per_second: float | None = None
    cache: Bytes = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "bandwidth", "requests_per_second", optional=True)
        check_distribution(self, "latency", optional=True)
        check_seconds(self, "cache", unit="bytes")


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The machine the loader runs on; by default an ideal one.

    `cores` are shared equally among all processes that can run (None: one for each);
    `background` is the number of other processes that always can. While all cores are busy, work
    takes `1 + contention` times as long as on the only busy one, and in between in proportion: they
    share caches, memory and what the system keeps under lock. With `crosstalk` it takes
    `1 + crosstalk * (n - 1) ** crosstalk_power` times as long while n processes can run, whatever
    the cores: what they all want, one lock or one disk's head, they wait for, and hand on. So
    more of them may do less, as in Gunther's universal scalability law (Guerrilla Capacity
    Planning, 2007, ch. 4), whose power is about 2. `memory` and `shm` are the
    bytes of RAM and of /dev/shm, which `dlsim.memory` holds the run against. `price_per_hour`, in
    any currency, is what `dlsim.rent` compares machines by.
    """

    cores: float | None = None
    background: float = 0.0
    contention: float = 0.0
    crosstalk: float = 0.0
    crosstalk_power: float = 2.0
    storage: Storage = Storage()
    memory: Bytes | None = None
    shm: Bytes | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "cores", "memory", "shm", "price_per_hour", optional=True)
        check_positive(self, "crosstalk_power")
        for key, expected in {
            "background": "a number of processes, at least 0",
            "contention": "a number of at least 0",
            "crosstalk": "a number of at least 0",
        }.items():
            value = getattr(self, key)
            require(is_number(value) and value >= 0, key, expected, value)
        check_struct(self, "storage", Storage)

    def rate(self, processes: float) -> float:
        """Processor seconds a second that each of so many processes gets, all that can run.

        `processes`: a number above 0, those in the background among them.
        """
        cores = self.cores or inf
        rate, busy, slowed = min(1.0, cores / processes), min(processes, cores), 1.0
        if self.contention and busy > 1:
            slowed += self.contention * (busy - 1) / (cores - 1)
        if self.crosstalk and processes > 1:
            slowed += self.crosstalk * (processes - 1) ** self.crosstalk_power
        return rate / slowed


class Cost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Processor seconds to handle a batch: for the message, for each tensor, for each byte."""

    message: Seconds = 0.0
    tensor: Seconds = 0.0
    byte: Seconds = 0.0

    def __post_init__(self) -> None:
        check_seconds(self, "message", "tensor", "byte")

    def of(self, tensors: float, size: float) -> float:
        """Seconds for a batch of `tensors` tensors and `size` bytes."""
        return self.message + self.tensor * tensors + self.byte * size

    def times(self, factor: float) -> Cost:
        """The cost, `factor` times."""
        return Cost(
            message=factor * self.message, tensor=factor * self.tensor, byte=factor * self.byte
        )


class Costs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the machinery around the schedule costs, in seconds; all zero is the ideal machine.

    Start and end: `worker_start`, in the main process for each worker, one after another;
    `worker_ready`, processor time in each worker before it can take work (imports, unpickling
    the dataset, `worker_init_fn`), and `worker_wait`, for which it is blocked then (a
    `worker_init_fn` that sleeps, a file that is opened); `worker_stop`, processor time before a
    worker told to stop is gone.

    Batches: `index_put`, in the main process for each index list; `index_latency`, from then
    until the worker can read it; `take`, processor time of the worker between two batches.

    Transport: `share`, in a worker that collates into shared memory, beyond what collating takes;
    `serialise`, in the worker's feeder thread, beside the fetching of the next batch; `receive`,
    in the main process, inside `next()` or in the pin-memory thread; `hand_over`, in a thread of
    the worker: giving out the descriptors of tensors in shared memory, which the main process waits
    for, or writing into the pipe, what does not fit into it at the same time as it is read: that is
    part of `receive`.

    Accelerator: `pin`, in the pin-memory thread (inside `next()` without workers); `copy_byte`,
    to the device.
    """

    worker_start: Seconds = 0.0
    worker_ready: Seconds = 0.0
    worker_wait: Seconds = 0.0
    worker_stop: Seconds = 0.0
    index_put: Seconds = 0.0
    index_latency: Seconds = 0.0
    take: Seconds = 0.0
    share: Cost = Cost()
    serialise: Cost = Cost()
    hand_over: Cost = Cost()
    receive: Cost = Cost()
    pin: Cost = Cost()
    copy_byte: Seconds = 0.0

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if key in ("share", "serialise", "hand_over", "receive", "pin"):
                check_struct(self, key, Cost)
            else:
                check_seconds(self, key)
