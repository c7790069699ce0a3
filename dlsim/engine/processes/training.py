"""The training step: on an accelerator that works beside the host, or on the host's own cores.

An accelerator does what it is given in turn: copies a batch, computes on it, copies the next one;
a stream of their own lets copies overlap with steps. A batch in pinned memory it copies by itself.
Of another one the host waits for the copying, and so for the step before.
"""

from __future__ import annotations

from collections import deque

from dlsim.engine.facts import MAIN
from dlsim.engine.processes.clock import Steps, until
from dlsim.engine.processes.run import Run


class Training:
    """Where steps are computed, and batches copied to."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.consumer = run.scenario.consumer
        self._free = 0.0  # when the accelerator has done all steps given to it
        self._copied = 0.0  # when it has all batches given to it
        self._under_way: deque[float] = deque()  # when each step will end, the oldest first

    def step(self, number: int, seconds: float, size: float) -> Steps:
        """Train on batch `number` of `size` bytes for `seconds`; returns when the host goes on."""
        if self.consumer.device == "cpu":
            yield from on_cores(self.run, seconds)
            self.run.recorder.finished[number] = self.run.env.now
            return
        env = self.run.env
        copy = self.run.costs.copy_byte * size
        if self.consumer.overlap_copy:
            ready = self._copied = max(env.now, self._copied) + copy
        else:
            ready = max(env.now, self._free) + copy
            if copy > 0 and self.run.scenario.copied_by_host(size):
                yield from self.run.spin(until(env, ready, self.run.turns.last))
        self._free = max(ready, self._free) + seconds
        self.run.recorder.finished[number] = self._free
        self._under_way.append(self._free)
        yield from self._wait(self.consumer.run_ahead)

    def drain(self) -> Steps:
        """Wait until the accelerator has done everything, as the end of an epoch does."""
        yield from self._wait(0)

    def catch_up(self) -> Steps:
        """The same in the middle of an epoch."""
        yield from self._wait(0)

    def _wait(self, ahead: int) -> Steps:
        """Wait until at most `ahead` steps are under way."""
        while len(self._under_way) > ahead:
            end = self._under_way.popleft()
            if end > self.run.env.now:
                yield from self.run.spin(until(self.run.env, end, self.run.turns.last))


def on_cores(run: Run, seconds: float) -> Steps:
    """Keep the threads of a step busy, the first of which is the main process itself."""
    if run.cores is None:
        yield from run.compute(MAIN, seconds)
    else:
        consumer = run.scenario.consumer
        threads = [MAIN - thread for thread in range(consumer.threads)]
        yield from run.compute_together(threads, seconds, run.turns.last, consumer.linger)
