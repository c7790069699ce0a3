"""The trace of a real run, with what only watching tells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import numpy as np

from dlsim.trace.trace import MOMENTS, Floats, Trace

# Its columns besides those of a trace: one entry for each batch, or for each row of `samples`.
BATCH_COLUMNS = (
    "initialising",
    "initialised",
    "init_cpu",
    "init_queued",
    "collating",
    "collate_cpu",
    "collate_queued",
    "serialising",
    "serialised",
    "serialise_cpu",
    "rebuilding",
    "rebuild_cpu",
    "pinning",
    "pinned",
    "pin_cpu",
    "pin_queued",
    "pin_thread",
    "entered",
    "left",
    "device_began",
    "device_ended",
    "cpu_started",
    "cpu_fetched",
    "thread_started",
    "queued_started",
    "cpu_requested",
    "cpu_returned",
    "thread_requested",
    "thread_returned",
    "queued_requested",
    "queued_returned",
    "tensors",
    "tensor_bytes",
    "pickled_bytes",
    "listed",
)
# Those that are moments; the others are seconds and bytes.
MOMENT_COLUMNS = (
    *("initialising", "initialised", "collating", "serialising", "serialised"),
    *("rebuilding", "pinning", "pinned", "entered", "left", "device_began", "device_ended"),
)
# What files have had only since accelerators, the beginnings of workers, and lists of tensors were
# watched.
ADDED = (
    *("initialising", "initialised", "init_cpu", "init_queued"),
    *("pinning", "pinned", "pin_cpu", "pin_queued", "pin_thread"),
    *("entered", "left", "device_began", "device_ended", "listed"),
)
SAMPLE_COLUMNS = ("sample_cpu", "sample_queued")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Observation(Trace):
    """The trace of a real run, with what only watching tells.

    One entry for each batch number: `initialising`, `initialised`: the moments that
    `worker_init_fn`, and after it the dataset's `__iter__`, began and ended in the worker of which
    this is the first batch, `init_cpu`, `init_queued` what they used and waited for a core; NaN for
    other batches. `collating`: the moment `collate_fn` is called;
    `collate_cpu`, `collate_queued`: CPU seconds of the thread that called it, and seconds it
    waited for a core. `serialising`, `serialised`: the moments its pickling began and ended, in the
    worker's feeder thread, and `serialise_cpu`, what that thread used for it; `rebuilding`: the
    moment its unpickling began, which ended at `received`, and `rebuild_cpu` likewise. `pinning`,
    `pinned`, `pin_cpu`: the same for its copying into pinned memory, `pin_queued`, the seconds for
    which the thread that does so waited for a core, and `pin_thread`, the CPU seconds that it
    had used at `pinned`; NaN where nothing is pinned. `entered`, `left`: the moments the
    host began and left the step, the first after it let go of the batch before; `device_began`,
    `device_ended`: when the accelerator began and ended what it was given in the step, NaN if none
    was used. `finished` is the later end of both. `cpu_started`, `cpu_fetched`: the CPU seconds
    that the worker process, all its threads together, had used at `started` and `fetched`;
    `thread_started`, `queued_started`: what its fetching thread had used, and waited for a core.
    `cpu_requested`, `thread_requested`, `queued_requested` and `*_returned`: likewise the main
    process and its main thread, at `requested` and `returned`. What a worker uses beside its
    fetching thread, it uses to serialise and to hand over; what its fetching thread uses beside
    samples and collating, to take messages. `tensors`, `tensor_bytes`, `pickled_bytes`: what
    batches are made of: the number of tensors, their bytes, and the bytes of all else; NaN for
    batches that were not looked at. `listed`: the tensors that have no row for each sample.

    `sample_cpu`, `sample_queued`: one entry for each row of `samples`, the CPU seconds that the
    fetching thread used for it, and those it waited for a core. What is left of the sample's time
    it was blocked.
    """

    initialising: Floats
    initialised: Floats
    init_cpu: Floats
    init_queued: Floats
    collating: Floats
    collate_cpu: Floats
    collate_queued: Floats
    serialising: Floats
    serialised: Floats
    serialise_cpu: Floats
    rebuilding: Floats
    rebuild_cpu: Floats
    pinning: Floats
    pinned: Floats
    pin_cpu: Floats
    pin_queued: Floats
    pin_thread: Floats
    entered: Floats
    left: Floats
    device_began: Floats
    device_ended: Floats
    cpu_started: Floats
    cpu_fetched: Floats
    thread_started: Floats
    queued_started: Floats
    cpu_requested: Floats
    cpu_returned: Floats
    thread_requested: Floats
    thread_returned: Floats
    queued_requested: Floats
    queued_returned: Floats
    tensors: Floats
    tensor_bytes: Floats
    pickled_bytes: Floats
    listed: Floats
    sample_cpu: Floats
    sample_queued: Floats

    @property
    def batch_cpu(self) -> Floats:
        """CPU seconds of the samples of each batch and of collating it; NaN if it was not."""
        assert self.samples is not None
        of_samples = np.bincount(self.samples.batch, self.sample_cpu, len(self))
        fetching: Floats = of_samples + self.collate_cpu
        return fetching


AnyTrace = TypeVar("AnyTrace", bound=Trace)


def later(trace: AnyTrace, seconds: float) -> AnyTrace:
    """The same run, observed or not, with all its moments `seconds` later."""
    names = [*MOMENTS, *(MOMENT_COLUMNS if isinstance(trace, Observation) else ())]
    names += ["stepped"] if trace.stepped is not None else []
    changes: dict[str, Any] = {name: getattr(trace, name) + seconds for name in names}
    epochs, rows, problem = trace.epochs, trace.samples, trace.meta.problem
    moments = {name: getattr(epochs, name) + seconds for name in ("started", "primed", "ended")}
    if rows is not None:
        changes["samples"] = replace(
            rows, started=rows.started + seconds, fetched=rows.fetched + seconds
        )
    if problem is not None:
        problem = msgspec.structs.replace(problem, time=problem.time + seconds)
        changes["meta"] = msgspec.structs.replace(trace.meta, problem=problem)
    return replace(trace, epochs=replace(epochs, **moments), **changes)
