"""Running a scenario for which the recurrence says everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dlsim.engine.compiled.jobs import MOST_SAMPLES, IndexLists, Jobs, alike
from dlsim.engine.compiled.recurrence import new_course, schedule
from dlsim.engine.compiled.rules import most_samples
from dlsim.engine.in_order import epochs, joined
from dlsim.engine.run import round_trip
from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.trace import MOMENTS, RETURNED, Meta, Trace

LARGEST_BLOCK = 16384  # jobs drawn at a time


class InOrder:
    """Runs for which the recurrence says everything, one after another, block by block.

    `course` keeps the columns of all batches, or with `keep=False` only of the last ones, as
    many as what comes looks back at.
    """

    def __init__(self, scenario: Scenario, *, keep: bool) -> None:
        loader, costs, dataset = scenario.loader, scenario.costs, scenario.dataset
        assert isinstance(dataset, MapDataset)
        self.scenario = scenario
        self.batches = IndexLists(scenario, 0, 0, indices=False).batches
        self.total = self.batches * scenario.epochs
        samples = 1 if alike(scenario) else max(most_samples(scenario), 1)
        self.block = max(1, min(LARGEST_BLOCK, MOST_SAMPLES // samples))
        self.back = max(loader.window, scenario.consumer.run_ahead)
        room = self.total if keep else min(self.total, self.back + max(self.back, self.block))
        self.course = new_course(loader.num_workers, loader.window, room)
        self.moments: list[list[float]] = []  # of each epoch: started, primed, ended
        main = self.course.main
        main["window"], main["run_ahead"] = loader.window, scenario.consumer.run_ahead
        main["round_trip"] = round_trip(scenario)
        main["latency"] = costs.index_latency - main["round_trip"]
        main["batched"] = dataset.batched
        self.unbegun = main.copy()

    def run(self, seed: int) -> Iterator[tuple[int, bool]]:
        """After each block, the number of its first batch, and whether the epoch ends with it."""
        self.course.main[:] = self.unbegun
        self.moments = []
        main = self.course.main[0]
        for epoch in range(self.scenario.epochs):
            began = float(main["now"])
            self.start_epoch(epoch)
            jobs = Jobs(self.scenario, seed, epoch, int(main["first"]), indices=False)
            while jobs.more:
                drawn = jobs.take(self.block)
                begin = int(main["next"])
                jobs.check(drawn, begin)
                self.make_room(len(drawn.steps))
                services = drawn.services.ravel()
                schedule(self.course, drawn.offsets, services, drawn.collates, drawn.steps)
                yield begin, not jobs.more
            self.end_epoch()
            self.moments.append([began, float(main["primed"]), float(main["now"])])

    def start_epoch(self, epoch: int) -> None:
        """`iter(loader)`: start the workers, or wait until all that persist have acknowledged."""
        main, loader = self.course.main[0], self.scenario.loader
        now = float(main["now"])
        if epoch == 0 or not loader.persistent_workers:
            for _ in range(loader.num_workers):
                now += self.scenario.costs.worker_start
        else:
            now += float(main["latency"])
        main["primed"] = main["now"] = self.course.free[:] = now
        main["first"], main["latest"] = epoch * self.batches, 0

    def end_epoch(self) -> None:
        """Wait for the workers, unless they persist, and for the last steps."""
        main, loader = self.course.main[0], self.scenario.loader
        if not loader.persistent_workers:
            now = float(main["now"])
            main["now"] = joined(now, now + main["latency"], loader.num_workers)
        main["now"] = max(main["now"], main["accelerator"])

    def make_room(self, count: int) -> None:
        """Forget the oldest batches, if there are no columns for so many more."""
        course, main = self.course, self.course.main[0]
        used = int(main["next"] - main["base"])
        if used + count <= len(course.size):
            return
        for column in (*course.moments, course.worker, course.size):
            column[: self.back] = column[used - self.back : used]
        main["base"] += used - self.back


def simulate_in_order(
    scenario: Scenario, seed: int, meta: Meta, progress: Callable[[int], object]
) -> Trace:
    """The trace of a scenario that suits; `meta` is put into it."""
    run = InOrder(scenario, keep=True)
    for begin, _ in run.run(seed):
        progress(int(run.course.main[0]["next"]) - begin)
    columns: dict[str, Any] = dict(zip(MOMENTS, run.course.moments, strict=True))
    columns["arrived"] = columns["fetched"]
    return Trace(
        **columns,
        worker=run.course.worker,
        size=run.course.size,
        status=np.full(run.total, RETURNED, np.uint8),
        order=np.arange(run.total),
        epochs=epochs([epoch * run.batches for epoch in range(scenario.epochs)], run.moments),
        meta=meta,
    )
