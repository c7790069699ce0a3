"""Running a scenario on the compiled engine, and returning the trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlsim.engine.compiled.consumer import epoch as epoch_with_workers
from dlsim.engine.compiled.consumer import epoch_alone, start_epoch
from dlsim.engine.compiled.in_order import epochs, simulate_in_order, suits
from dlsim.engine.compiled.jobs import MOST_SAMPLES, Jobs
from dlsim.engine.compiled.messages import (
    DONE,
    EPOCH_OVER,
    EXCEPTION,
    MORE_JOBS,
    MORE_ROOM,
    MORE_SAMPLES,
    RAISED,
)
from dlsim.engine.compiled.state import COLUMNS, NONE, SAMPLES, new_state
from dlsim.engine.compiled.worker import advance
from dlsim.engine.draws import ServiceTimes
from dlsim.engine.fetch import failure
from dlsim.engine.messages import MAIN
from dlsim.scenario import IterableDataset, Scenario
from dlsim.trace.trace import MOMENTS, Meta, Problem, Samples, Trace

FIRST_BLOCK, LARGEST_BLOCK = 64, 4096  # jobs drawn at a time

Progress = Callable[[int], object]


def simulate(
    scenario: Scenario, seed: int, meta: Meta, *, samples: bool, progress: Progress
) -> Trace:
    """The trace of a scenario that is covered; `meta` as it is without a problem."""
    if suits(scenario) and not samples:
        return simulate_in_order(scenario, seed, meta, progress)
    simulation = Simulation(scenario, seed, samples=samples)
    simulation.run(progress)
    return simulation.trace(meta)


class Simulation:
    """The state, and what it asks for: numbers, and room for what comes of them."""

    def __init__(self, scenario: Scenario, seed: int, *, samples: bool) -> None:
        self.scenario, self.seed, self.samples = scenario, seed, samples
        self.state = new_state(scenario, samples=samples)
        self.main = self.state.main[0]
        self.problem: Problem | None = None
        self.first: list[int] = []
        self.moments: list[list[float]] = []  # of each epoch: started, primed, ended

    def run(self, progress: Progress) -> None:
        """All epochs, until an exception ends them."""
        with_workers = self.scenario.loader.num_workers > 0
        for epoch in range(self.scenario.epochs):
            self.first.append(int(self.main["sent"]))
            self.moments.append([self.main["now"], np.nan, np.nan])
            why = start_epoch(self.state, epoch == 0)
            if why == DONE:
                self.moments[-1][1] = self.main["now"]
                self.start_drawing(epoch)
                while True:
                    before = int(self.main["returned"])
                    why = (
                        epoch_with_workers(self.state) if with_workers else epoch_alone(self.state)
                    )
                    progress(int(self.main["returned"]) - before)
                    self.complain()
                    if not self.supply(why):
                        break
            if why != EPOCH_OVER:
                self.problem = self.what_happened(why)
                break
            self.moments[-1][2] = self.main["now"]
        if with_workers:
            advance(self.state, self.main["now"])
            self.complain()

    # ---- numbers and room ----

    def start_drawing(self, epoch: int) -> None:
        """Begin the streams of random numbers of an epoch; nothing is drawn yet."""
        scenario, state = self.scenario, self.state
        indices = self.samples or any(f.where == "fetch" for f in scenario.failures)
        self.jobs = Jobs(scenario, self.seed, epoch, int(self.main["sent"]), indices=indices)
        self.block = FIRST_BLOCK
        self.take_jobs(0)
        if isinstance(scenario.dataset, IterableDataset):
            workers = scenario.loader.num_workers
            for number, shard in enumerate(state.shards):
                mine = scenario.dataset.shard(number, workers)
                shard["index"], shard["rest"], shard["ended"] = mine.start, len(mine), False
                shard["used"] = shard["have"] = 0
            self.services = [
                ServiceTimes(scenario.dataset.fetch, self.seed, epoch, worker + 1)
                for worker in (range(workers) if workers else [MAIN])
            ]

    def supply(self, why: int) -> bool:
        """Get what the event loop returned for; False if it is over."""
        if why == MORE_JOBS:
            most = max(1, MOST_SAMPLES // max(int(self.state.rules["most"][0]), 1))
            self.take_jobs(min(self.block, most))
            self.block = min(2 * self.block, LARGEST_BLOCK)
        elif why == MORE_SAMPLES:
            self.take_samples(int(self.main["hungry"]))
        elif why == MORE_ROOM:
            self.make_room()
        else:
            return False
        return True

    def take_jobs(self, count: int) -> None:
        """Draw the next jobs; those before are sent."""
        self.state = self.state._replace(**self.jobs.take(count)._asdict())
        self.main["job"], self.main["more"] = 0, self.jobs.more

    def take_samples(self, worker: int) -> None:
        """Draw more seconds for samples of one shard, twice as many as are left."""
        shard, seconds = self.state.shards[worker], self.state.shard_seconds[worker]
        left = int(shard["have"] - shard["used"])
        size = int(self.state.rules["size"][0])
        count = min(
            max(FIRST_BLOCK, size, shard["have"]), len(seconds) - left, shard["rest"] - left
        )
        begin = int(shard["index"]) + left
        seconds[:left] = seconds[shard["used"] : shard["have"]]
        seconds[left : left + count] = self.services[worker].array(range(begin, begin + count))
        shard["used"], shard["have"] = 0, left + count

    def make_room(self) -> None:
        """Make columns longer that are full."""
        state = self.state
        have = len(state.step)
        if self.main["sent"] == have:
            room = max(2 * have, self.expected())
            columns: dict[str, Any] = {name: longer(getattr(state, name), room) for name in COLUMNS}
            self.state = state._replace(**columns, moments=longer(state.moments, room))
        if self.samples and self.main["rows"] + state.rules["most"][0] > len(state.sample_batch):
            room = 2 * len(state.sample_batch) + 1024 + int(state.rules["most"][0])
            rows: dict[str, Any] = {name: longer(getattr(state, name), room) for name in SAMPLES}
            self.state = self.state._replace(**rows)

    def expected(self) -> int:
        """The number of batches, if it is known to be, else a first guess."""
        batches, stop_after = self.jobs.batches, self.scenario.consumer.stop_after
        if batches is None:
            return 1024
        if stop_after is not None:
            batches = min(batches, stop_after + self.scenario.loader.window)
        return batches * self.scenario.epochs

    # ---- what came of it ----

    def complain(self) -> None:
        """Raise `ScenarioError` if something was used that was not recorded."""
        if self.main["short_index"] != NONE:
            for service in self.services:
                service.take([int(self.main["short_index"])])
        if self.main["short_number"] != NONE:
            self.jobs.complain(int(self.main["short_number"]))

    def what_happened(self, why: int) -> Problem:
        """The exception that ended the loop."""
        now = float(self.main["now"])
        if why == EXCEPTION:
            number = int(self.main["answer"])
            planned = self.scenario.failures[int(self.state.outcome[number]) - RAISED]
            raised = failure(self.scenario, planned.where, planned.at)
            assert raised is not None
            return Problem(raised.kind, raised.message, number, now)
        timeout = self.scenario.loader.timeout
        return Problem("timeout", f"DataLoader timed out after {timeout} seconds", MAIN, now)

    def trace(self, meta: Meta) -> Trace:
        """What happened."""
        state, sent, end = self.state, int(self.main["sent"]), float(self.main["now"])
        columns: dict[str, Any] = {
            name: column[:sent] for name, column in zip(MOMENTS, state.moments, strict=True)
        }
        # An accelerator may have been behind the host when an error ended the loop.
        columns["finished"][columns["finished"] > end] = np.nan
        return Trace(
            **columns,
            worker=state.worker[:sent],
            size=state.size[:sent],
            status=state.status[:sent],
            order=state.order[: int(self.main["returned"])],
            epochs=epochs(self.first, self.moments),
            meta=Meta(**{**_fields(meta), "problem": self.problem}),
            samples=self.sample_rows(end) if self.samples else None,
        )

    def sample_rows(self, end: float) -> Samples:
        """The samples begun until `end` (seconds)."""
        state = self.state
        rows = np.flatnonzero(state.sample_started[: int(self.main["rows"])] <= end)
        fetched = state.sample_fetched[rows]
        return Samples(
            index=state.sample_index[rows],
            batch=state.sample_batch[rows],
            worker=state.sample_worker[rows],
            started=state.sample_started[rows],
            fetched=np.where(fetched <= end, fetched, np.nan),
        )


def longer(array: Any, room: int) -> Any:
    """A copy of `array` with room for more at the end of its last axis."""
    made = np.empty((*array.shape[:-1], room), array.dtype)
    made[..., : array.shape[-1]] = array
    return made


def _fields(meta: Meta) -> dict[str, Any]:
    return {name: getattr(meta, name) for name in meta.__struct_fields__}
