"""What everything in one simulation shares."""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from dlsim.engine.processes.clock import LAST, WORKERS, Steps, until
from dlsim.engine.processes.cores import Sharing
from dlsim.engine.processes.record import Recorder
from dlsim.engine.processes.storage import Disk
from dlsim.engine.rules import MAIN, round_trip
from dlsim.scenario import Scenario

# A write releases Python's lock: it needs a core, but shares it with no thread of its process.
# Only one writes at a time.
WRITING = 1 << 40


class Run:
    """One simulation: its clock, what is simulated, where it is written down, the machine.

    On the ideal machine nothing is shared: there are no `cores` to wait for.
    """

    def __init__(self, scenario: Scenario, seed: int, recorder: Recorder) -> None:
        self.env = env = simpy.Environment()
        self.scenario, self.seed, self.recorder = scenario, seed, recorder
        self.round_trip = round_trip(scenario)
        machine = scenario.machine
        self.disk = Disk(env, machine.storage)
        self.cores: Sharing | None = None
        if not scenario.ideal:
            self.cores = Sharing(env, machine.rate, machine.background)

    def compute(self, process: int, seconds: float, turn: int | None = None) -> Steps:
        """Use `seconds` of processor time in `process` (a worker's number, or MAIN).

        `turn` is that of the thread, if it is not the main one of its process.
        """
        if seconds > 0:
            turn = turn_of(process) if turn is None else turn
            if self.cores is None:
                yield until(self.env, self.env.now + seconds, turn)
            else:
                yield self.cores.serve(seconds, process, turn)

    def compute_together(self, processes: Sequence[int], seconds: float, turn: int) -> Steps:
        """Use `seconds` of processor time in each of the `processes`, at the same time."""
        assert self.cores is not None, "whatever asks for several makes the machine a shared one"
        if seconds > 0:
            yield self.env.all_of([self.cores.serve(seconds, p, turn) for p in processes])

    def spin(self, moment: float) -> Steps:
        """Let the main process wait until `moment` for the accelerator, on a core if it spins."""
        cores = self.cores if self.scenario.consumer.spin else None
        if cores is not None:
            cores.crowd(1)
        yield until(self.env, moment, LAST)
        if cores is not None:
            cores.crowd(-1)

    def terminate(self, workers: Sequence[simpy.Process]) -> None:
        """End all workers at once, with all their threads, whatever they wanted of the machine."""
        for process in workers:
            if process.is_alive:
                process.interrupt("terminate")
        for shared in (self.cores, self.disk.bandwidth):
            if shared is not None:
                for customer in (*range(len(workers)), WRITING):
                    shared.leave(customer)


def turn_of(process: int) -> int:
    """When the main thread of a process (a worker's number, or MAIN) acts at one moment."""
    return LAST if process == MAIN else WORKERS + process
