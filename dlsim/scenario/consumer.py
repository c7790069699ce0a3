"""The training loop that takes batches: what calls `next()`, and how long a step takes."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_distribution,
    check_flags,
    check_integer,
    check_seconds,
    check_tuples,
)
from dlsim.scenario.dataset import ZERO
from dlsim.scenario.distributions import Duration, Seconds, scaled
from dlsim.scenario.errors import require
from dlsim.scenario.steps import On

OnError: TypeAlias = Literal["stop", "continue"]
Loop: TypeAlias = Literal["plain", "rebind", "accelerate", "lightning", "thread"]


class Consumer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The training loop: a step for each batch.

    Without `pin_memory` the host waits until a batch is copied to the accelerator, if its tensors
    are larger than 1 MiB.

    Args:
        step: How long training on a batch takes. Example: "435 ms"
        stop_after: Leave each epoch after so many batches; none: at its end. Example: 200
        device: Where the step happens: on an accelerator it needs no core; on the cpu, of a machine
            that has no accelerator, it keeps `threads` cores busy, and torch pins nothing,
            whatever `pin_memory` says; a pause, on such a machine, only lets time pass, as what
            stands for a step does while a loader is watched. Example: "cpu"
        threads: Threads of a step on the cpu, each busy for `step` seconds of a core. Example: 4
        run_ahead: How many steps the host may be ahead of the accelerator. Example: 2
        overlap_copy: Whether batches are copied to the accelerator while it computes, as on a
            stream of their own; if not, in turn with the steps. Example: true
        spin: Whether the host keeps a core busy while it waits for the accelerator, as CUDA's does
            by default. Example: true
        on_error: What becomes of an exception that `next()` raises, of user code or a timeout.
            stop: it ends the run; continue: the loop catches it and calls `next()` again at once.
            Example: "continue"
        loop: What calls `next()`. plain: the training loop; rebind: likewise, but each epoch's
            `it = iter(loader)` finds the old iterator alive, if it was left early, so that its
            workers go after the new ones are started; accelerate: one batch ahead, as its
            DataLoaderShard; lightning: as its data fetcher; thread: a thread that reads ahead into
            a queue. Example: "accelerate"
        queue: How many batches the queue of a reading thread has room for; the thread holds one
            more. Example: 2
        on: How long a step takes on other accelerators, by which `dlsim rent` compares machines;
            in a file, one [[consumer.on]] for each.
            Example: [{ accelerator = "A100", step = "435 ms" }]
        step_per_sample: How much longer than `step` a step takes for each sample of the batch:
            `step + step_per_sample * samples` in all. So it grows with the batch size.
            Example: "1.7 ms"
        linger: For how long a thread of a step that waits for others keeps a core busy: those that
            wait for the next step, too, as OpenMP's do before they sleep. It matters where
            processes take turns on cores (`machine.slice`). Example: "8 ms"
    """

    step: Duration = ZERO
    stop_after: int | None = None
    device: Literal["accelerator", "cpu", "pause"] = "accelerator"
    threads: int = 1
    run_ahead: int = 0
    overlap_copy: bool = False
    spin: bool = False
    on_error: OnError = "stop"
    loop: Loop = "plain"
    queue: int = 1
    on: tuple[On, ...] = ()
    step_per_sample: Seconds = 0.0
    linger: Seconds = 0.0

    def __post_init__(self) -> None:
        check_distribution(self, "step")
        check_seconds(self, "step_per_sample", "linger")
        if self.stop_after is not None:
            check_integer(self, "stop_after", 1)
        devices = ("accelerator", "cpu", "pause")
        require(self.device in devices, "device", "accelerator or cpu or pause", self.device)
        check_integer(self, "threads", 1)
        check_integer(self, "run_ahead", 0)
        check_flags(self, "overlap_copy", "spin")
        require(self.on_error in get_args(OnError), "on_error", "stop or continue", self.on_error)
        ahead = self.run_ahead > 0 or self.overlap_copy or self.spin
        check_conflict(
            self.device != "accelerator" and ahead,
            "device",
            f"{self.device} excludes run_ahead, overlap_copy and spin",
        )
        require(self.loop in get_args(Loop), "loop", " or ".join(get_args(Loop)), self.loop)
        check_integer(self, "queue", 1)
        check_tuples(self, "on")
        for one in self.on:
            require(isinstance(one, On), "on", "a list of On", one)
        check_conflict(self.loop != "thread" and self.queue != 1, "queue", 'needs loop = "thread"')
        check_conflict(
            self.device != "cpu" and self.threads != 1, "threads", 'needs device = "cpu"'
        )

    def seconds(self, samples: float) -> float:
        """The mean seconds of a step on so many samples."""
        return self.step.mean + self.step_per_sample * samples

    def times(self, factor: float) -> Consumer:
        """The same with steps that take `factor` times as long."""
        each = factor * self.step_per_sample
        return structs.replace(self, step=scaled(self.step, factor), step_per_sample=each)
