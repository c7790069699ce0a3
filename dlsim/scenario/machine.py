"""The machine: what is shared and limited, and what the machinery around the schedule costs."""

from __future__ import annotations

from math import ceil, inf

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_distribution,
    check_integer,
    check_positive,
    check_seconds,
    check_struct,
    check_tuples,
)
from dlsim.scenario.distributions import (
    Bandwidth,
    Bytes,
    Constant,
    Duration,
    Factor,
    Seconds,
    Share,
    times,
)
from dlsim.scenario.errors import check_non_negative, is_number, require
from dlsim.scenario.loader import StartMethod
from dlsim.scenario.starts import Start

ROUNDING = 1e-3  # by which a mean that is to be 1 may miss it: values may be written in few digits
PIPE_BYTES = 65536  # Linux's default capacity of a pipe
# CUDA takes over a smaller tensor at once, to be copied later, pinned or not: measured on an H100,
# 1 MiB was and 4 MiB were not.
STAGED_BYTES = 1 << 20


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shared storage, read by the stages that have `read_bytes`.

    Args:
        bandwidth: Bytes a second, shared equally among all reads under way; none: unlimited.
            Example: "2 GB/s"
        latency: Time before the first byte of a read comes. Example: "0.1 ms"
        requests_per_second: How many reads can begin in a second; none: any number. Example: 3000
        cache: Bytes of page cache: a sample that was read stays in it while there is room, and
            reading it again takes no time. Example: "64 GiB"
    """

    bandwidth: Bandwidth | None = None
    latency: Duration | None = None
    requests_per_second: float | None = None
    cache: Bytes = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "bandwidth", "requests_per_second", optional=True)
        check_distribution(self, "latency", optional=True)
        check_seconds(self, "cache", unit="bytes")

    def times(self, factor: float) -> Storage:
        """Storage that takes `factor` times as long."""
        bandwidth, requests = self.bandwidth, self.requests_per_second
        return structs.replace(
            self,
            latency=times(self.latency, factor),
            bandwidth=None if bandwidth is None else bandwidth / factor,
            requests_per_second=None if requests is None else requests / factor,
        )


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The machine the loader runs on; by default an ideal one.

    Args:
        cores: Processor cores, shared equally among all processes that can run; none: one for
            each. Example: 16
        background: How many other processes always want a core. Example: 1
        siblings: What each of two cores that are threads of one physical core does while both are
            busy, as a share of what one does alone; 100 %: no two are. Processes are on different
            physical cores as far as there are enough. Example: "60%"
        contention: How much longer work takes while all cores are busy than on the only busy one,
            as a share, and in between in proportion: cores share caches, memory, and what the
            system keeps under lock. Example: "20%"
        crosstalk: How much longer work takes for each two that want what only one can have, a lock
            or a disk's head, whatever the cores: work takes `1 + crosstalk * (n - 1) **
            crosstalk_power` times as long while n processes can run. So more of them may do less,
            as in Gunther's universal scalability law (Guerrilla Capacity Planning, 2007, ch. 4).
            Example: "2%"
        crosstalk_power: How fast that grows; about 2 in Gunther's law. Example: 2
        switch_interval: For how long a thread goes on computing while another one of its process
            waits for Python's lock (`sys.getswitchinterval`): the feeder thread of a worker that
            pickles, the pin-memory thread beside the training loop. None: threads of a process
            share equally what it gets of the cores. Example: "5 ms"
        slice: How often a process makes room for another that waits for its core: each core then
            computes for one at a time, and who wakes has one at once, about as in Linux. At least
            1 µs; none: cores are shared equally at every moment. Example: "4 ms"
        storage: Shared storage, read by the stages that have `read_bytes`.
            Example: { bandwidth = "2 GB/s" }
        memory: Bytes of RAM, which batches on their way must fit into. Example: "64 GiB"
        main_memory: Bytes that the main process takes besides batches. Example: "4 GiB"
        copied: The share of them that a worker started by fork copies, page by page, as reading an
            object counts a reference in it: nearly all of a dataset that is a list of Python
            objects, nothing of arrays. Example: "60%"
        worker_memory: Bytes that each worker process takes by itself: imports, and, unless it was
            forked, its own copy of the dataset. Example: "250 MiB"
        shm: Bytes of /dev/shm, which tensors on their way must fit into; a container has often
            64 MiB. Example: "8 GiB"
        descriptors: How many files a process may have open (ulimit -n): each tensor of a batch in
            /dev/shm is one, in its worker and then in the main process. Example: 1024
        price_per_hour: What the machine costs, in any currency: `dlsim advise` then says what
            samples and epochs cost. Example: 3.06
    """

    cores: float | None = None
    background: float = 0.0
    siblings: Share = 1.0
    contention: Share = 0.0
    crosstalk: Share = 0.0
    crosstalk_power: float = 2.0
    switch_interval: Seconds | None = None
    slice: Seconds | None = None
    storage: Storage = Storage()
    memory: Bytes | None = None
    main_memory: Bytes = 0.0
    copied: Share = 0.0
    worker_memory: Bytes = 0.0
    shm: Bytes | None = None
    descriptors: int | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "cores", "memory", "shm", "price_per_hour", optional=True)
        check_positive(self, "switch_interval", "slice", optional=True)
        require((self.slice or 1.0) >= 1e-6, "slice", "at least 1 µs, or none", self.slice)
        check_positive(self, "crosstalk_power")
        check_seconds(self, "main_memory", "worker_memory", unit="bytes")
        require(is_number(self.copied) and 0 <= self.copied <= 1, "copied", "a share", self.copied)
        alone = is_number(self.siblings) and 0.01 <= self.siblings <= 1
        require(alone, "siblings", "a share, at least 1 %", self.siblings)
        if self.descriptors is not None:
            check_integer(self, "descriptors", 1)
        check_non_negative(self, "a number of processes, at least 0", "background")
        check_non_negative(self, "a number of at least 0", "contention", "crosstalk")
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
        return rate / slowed * (1.0 - (1.0 - self.siblings) * self.paired(busy))

    @property
    def slices(self) -> float:
        """Seconds after which processes take turns on limited cores; 0: they share them."""
        return 0.0 if self.slice is None or self.cores is None else self.slice

    def paired(self, busy: float) -> float:
        """Of so many `busy` cores, the share of those whose sibling is busy, if all have one."""
        pairs = busy - ceil(self.cores / 2) if self.cores else 0.0
        return 2 * max(pairs, 0.0) / busy


UNLIMITED = Machine().storage
STEADY = Constant(1.0)  # as long as on average, each time


class Cost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Processor seconds to handle a batch.

    Args:
        message: For the message, whatever is in it. Example: "60 µs"
        tensor: For each tensor. Example: "20 µs"
        byte: For each byte. Example: "0.3 ns"
    """

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

    Args:
        worker_start: Starting a worker, in the main process, one after another. Example: "10 ms"
        first_start: Starting the first one, beyond what others take: something is imported with it.
            Example: "4 ms"
        worker_ready: Time of a core before a worker can take work: imports, unpickling the
            dataset, `worker_init_fn`. Example: "0.5 s"
        worker_wait: For how long a worker is blocked then: a `worker_init_fn` that sleeps.
            Example: "0.2 s"
        worker_waits: For how much longer each of the first workers is, where they differ.
            Example: ["0 s", "1 s"]
        first_sample: For how long each process that fetches, without workers the main one, is
            blocked with its first sample: a file that is opened. Example: "0.2 s"
        first_cpu: Time of a core that such a process takes for its first sample beyond what others
            take: something is imported with it. Example: "0.3 s"
        first_serialise: Time of a core that the feeder thread of a worker takes for its first batch
            beyond what others take: it is started, and so is what gives out descriptors.
            Example: "1.5 ms"
        first_next: Time of a core that the main process takes for its first `next()` beyond what
            others take: something is imported with it. Example: "4 ms"
        first_receive: Time of a core that the main process takes to rebuild the first batch beyond
            what others take: with it something is imported that it had no need of. Example: "0.3 s"
        worker_stop: Time of a core before a worker that was told to stop is gone.
            Example: "20 ms"
        index_put: Sending an index list, in the main process. Example: "40 µs"
        first_put: For how long the main process is held up as it begins to send index lists to
            workers that it has started: threads are, too, and wait for a core. Example: "3 ms"
        index_latency: From then until the worker can read it. Example: "0.5 ms"
        take: Time of a core that a worker takes between two batches. Example: "0.2 ms"
        snapshot: Time of a core that a worker takes to save its state, when it has begun and after
            each batch for which a stateful loader (`loader.stateful`) asks for it: nothing, unless
            the dataset has a `state_dict`. Example: "3 ms"
        share: Collating into shared memory, in a worker, beyond what `dataset.collate` takes.
            Example: { byte = "0.2 ns" }
        serialise: Pickling a batch, in the feeder thread of a worker, beside fetching the next.
            Example: { message = "0.1 ms" }
        hand_over: In a thread of the worker, giving out the descriptors of tensors in shared
            memory, which the main process waits for; or writing into the pipe: what does not
            fit into it, at the same time as it is read, which is part of `receive`, or in turns
            with that (`reading`). Example: { tensor = "0.1 ms" }
        lock: The share of `serialise` and `hand_over` (of tensors in shared memory) for which they
            hold up a worker that computes, as both want Python's lock: little of it where code has
            released it, as NumPy, Pillow and torch do in their loops. For the rest they need a core
            beside the worker's. 1: for all of it, and a worker gives the lock back after
            `machine.switch_interval` only, as in pure Python. Example: "30%"
        receive: Taking a batch off the queue and rebuilding it, in the main process: inside
            `next()`, or in the pin-memory thread. Example: { tensor = "0.2 ms" }
        reading: The share of `receive` that is reading out of the pipe what does not fit into it:
            64 KiB at a time, for which writer and reader wait in turns, so that `hand_over` and
            this take one after the other. 0: as much as `hand_over`, at the same time.
            Example: "80%"
        jitter: How much longer than on average each batch takes to be received, as a factor whose
            mean is 1: `receive`, and `hand_over` where the main process waits for it, take so many
            times as long. Example: { kind = "lognormal", mean = 1, cv = "20%" }
        pin: Copying into page-locked memory, in the pin-memory thread (inside `next()` without
            workers). Example: { message = "60 µs", tensor = "20 µs", byte = "0.3 ns" }
        copy_byte: Copying a byte to the accelerator. Example: "0.02 ns"
        starts: What starting a worker costs by other methods; in a file, one [[costs.starts]] for
            each. Example: [{ method = "forkserver", worker_start = "60 ms" }]
    """

    worker_start: Seconds = 0.0
    first_start: Seconds = 0.0
    worker_ready: Seconds = 0.0
    worker_wait: Seconds = 0.0
    worker_waits: tuple[Seconds, ...] = ()
    first_sample: Seconds = 0.0
    first_cpu: Seconds = 0.0
    first_serialise: Seconds = 0.0
    first_next: Seconds = 0.0
    first_receive: Seconds = 0.0
    worker_stop: Seconds = 0.0
    index_put: Seconds = 0.0
    first_put: Seconds = 0.0
    index_latency: Seconds = 0.0
    take: Seconds = 0.0
    snapshot: Seconds = 0.0
    share: Cost = Cost()
    serialise: Cost = Cost()
    hand_over: Cost = Cost()
    lock: Share = 1.0
    receive: Cost = Cost()
    reading: Share = 0.0
    jitter: Factor = STEADY
    pin: Cost = Cost()
    copy_byte: Seconds = 0.0
    starts: tuple[Start, ...] = ()

    def blocked(self, worker: int) -> float:
        """Seconds for which a worker is blocked before it takes its first sample, and with that."""
        own = self.worker_waits[worker] if worker < len(self.worker_waits) else 0.0
        return self.worker_wait + own + self.first_sample

    def by(self, method: StartMethod) -> Start | None:
        """What starting a worker by `method` costs, where it is stated apart."""
        return next((one for one in self.starts if one.method == method), None)

    def of_processes(self, method: StartMethod) -> Costs:
        """Those where workers are started by `method`."""
        own = self.by(method)
        if own is None:
            return self
        return structs.replace(self, worker_start=own.worker_start, worker_ready=own.worker_ready)

    def of_threads(self) -> Costs:
        """Those that are left where workers are threads: nothing is started, pickled or moved."""
        left = ("worker_wait", "worker_waits", "first_sample", "take", "pin", "copy_byte")
        return Costs(**{key: getattr(self, key) for key in left})

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if key in ("share", "serialise", "hand_over", "receive", "pin"):
                check_struct(self, key, Cost)
            elif key not in ("lock", "reading", "jitter", "starts", "worker_waits"):
                check_seconds(self, key)
        for key in ("lock", "reading"):
            share = getattr(self, key)
            require(is_number(share) and 0 <= share <= 1, key, "a share, 0 to 1", share)
        check_distribution(self, "jitter")
        mean = self.jitter.mean
        require(abs(mean - 1) <= ROUNDING, "jitter", "a distribution whose mean is 1", mean)
        check_tuples(self, "starts", "worker_waits")
        for wait in self.worker_waits:
            good = is_number(wait) and 0 <= wait < inf
            require(good, "worker_waits", "a list of seconds of at least 0", wait)
        for one in self.starts:
            require(isinstance(one, Start), "starts", "a list of Start", one)
        methods = [one.method for one in self.starts]
        require(len({*methods}) == len(methods), "starts", "each method once", methods)
