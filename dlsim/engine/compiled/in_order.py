"""Running a scenario for which the recurrence says everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled import gammas
from dlsim.engine.compiled.jobs import Block, IndexLists, Jobs, alike, largest_block
from dlsim.engine.compiled.messages import RETURNED_AT
from dlsim.engine.compiled.recurrence import new_course, schedule
from dlsim.engine.compiled.settings import most_samples
from dlsim.engine.compiled.tally import Counts, count, new_counts
from dlsim.engine.facts import round_trip
from dlsim.engine.in_order import all_started, epochs, joined
from dlsim.engine.native.arrays import table
from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.columns import PART, new_column, parts, put_away
from dlsim.trace.tally import Marks, Tally
from dlsim.trace.trace import MOMENTS, RETURNED, Meta, Trace
from dlsim.trace.work import in_an_epoch


class InOrder:
    """Runs for which the recurrence says everything, one after another, block by block.

    `course` keeps the columns of all batches, or with `keep=False` only of the last ones.
    """

    def __init__(self, scenario: Scenario, *, keep: bool) -> None:
        loader, costs, dataset = scenario.loader, scenario.charged, scenario.dataset
        assert isinstance(dataset, MapDataset)
        self.scenario = scenario
        self.batches = IndexLists(scenario, 0, 0, indices=False).batches
        self.total = self.batches * scenario.epochs
        self.block = largest_block(1 if alike(scenario) else most_samples(scenario))
        self.course = new_course(
            loader.num_workers,
            loader.window,
            scenario.consumer.run_ahead,
            self.total if keep else None,
        )
        self.table = table(self.course)
        self.jobs: Jobs | None = None  # those of the last epoch
        self.moments: list[list[float]] = []  # of each epoch: started, primed, ended
        main = self.course.main
        main["round_trip"] = round_trip(scenario)
        main["latency"] = costs.index_latency - main["round_trip"]
        main["batched"] = dataset.batched
        self.unbegun = main.copy()

    def blocks(self, seed: int) -> Iterator[tuple[Block, bool]]:
        """The jobs of a run, to be scheduled block by block; and whether the epoch ends with them.

        Columns before those of the first batch are of others that returned long ago.
        """
        self.course.main[:] = self.unbegun
        self.course.latest[:] = -inf
        self.course.moments[RETURNED_AT, : -self.unbegun["base"][0]] = -inf
        self.moments = []
        main = self.course.main[0]
        for epoch in range(self.scenario.epochs):
            began = float(main["now"])
            self.start_epoch(epoch)
            jobs = self.begin(seed, epoch, int(main["first"]))
            for drawn, more in jobs.blocks(self.batches, self.block):
                jobs.check(drawn, int(main["next"]))
                yield drawn, not more
            self.end_epoch()
            self.moments.append([began, float(main["primed"]), float(main["now"])])

    def begin(self, seed: int, epoch: int, first: int) -> Jobs:
        """The jobs of an epoch, which begins with batch `first`."""
        if self.jobs is None:
            self.jobs = Jobs(self.scenario, seed, epoch, first, indices=False, sample=gammas.sample)
        else:
            self.jobs.begin(seed, epoch, first)
        return self.jobs

    def start_epoch(self, epoch: int) -> None:
        """`iter(loader)`: start the workers, or wait until all that persist have acknowledged."""
        main, loader = self.course.main[0], self.scenario.loader
        now = float(main["now"])
        if epoch == 0 or not loader.persistent_workers:
            now = all_started(self.scenario, now)
        else:
            now += float(main["latency"])
        main["primed"] = main["now"] = self.course.free[:] = now
        main["first"] = epoch * self.batches

    def end_epoch(self) -> None:
        """Wait for the workers, unless they persist, and for the last steps."""
        main, loader = self.course.main[0], self.scenario.loader
        if not loader.persistent_workers:
            now = float(main["now"])
            main["now"] = joined(now, now + float(main["latency"]), loader.num_workers)
        main["now"] = max(main["now"], main["accelerator"])


def simulate_in_order(
    scenario: Scenario, seed: int, meta: Meta, progress: Callable[[int], object]
) -> Trace:
    """The trace of a scenario that suits; `meta` is put into it."""
    run = InOrder(scenario, keep=True)
    for drawn, _ in run.blocks(seed):
        schedule(run.table, table(drawn))
        put_away()
        progress(len(drawn.steps))
    columns: dict[str, Any] = dict(zip(MOMENTS, run.course.moments, strict=True))
    columns["arrived"] = columns["fetched"]
    status, order = new_column(run.total, np.uint8), new_column(run.total, np.int64)
    numbers = np.arange(min(PART, run.total))
    for part in parts(0, run.total):
        status[part] = RETURNED
        np.add(numbers[: part.stop - part.start], part.start, out=order[part])
    return Trace(
        **columns,
        worker=run.course.worker,
        size=run.course.size,
        status=status,
        order=order,
        epochs=epochs([epoch * run.batches for epoch in range(scenario.epochs)], run.moments),
        meta=meta,
    )


def tallies(
    scenario: Scenario, seeds: Iterable[int], progress: Callable[[int], object]
) -> Iterator[Tally]:
    """The tallies of a scenario that suits the recurrence, under each of the `seeds`."""
    run = InOrder(scenario, keep=False)
    for seed in seeds:
        yield tally(run, seed, progress)


def tally(run: InOrder, seed: int, progress: Callable[[int], object]) -> Tally:
    """The tally of the run under `seed`."""
    counts = new_counts(run.course, run.total)
    counted, marks = table(counts), []
    for drawn, last in run.blocks(seed):
        count(run.table, counted, table(drawn), last)
        progress(len(drawn.steps))
        if last:
            marks.append(marks_of(counts, run.batches))
    sums, size = named(counts.sums), run.scenario.dataset.sample_bytes.mean
    waits = np.sort(counts.waits) if len(counts.waits) == run.total else None
    started, _, ended = np.array(run.moments).T
    ready, samples, held = counts.highest.tolist()
    return Tally(
        batches=sums["batches"],
        samples=sums["samples"],
        distinct=sums["samples"] * in_an_epoch(run.scenario).share,
        lost=run.scenario.epochs * in_an_epoch(run.scenario).lost,
        elapsed=float(ended[-1] - started[0]),
        first_batch=sums["first"] - float(started[0]),
        epoch_times=ended - started,
        wait_first=sums["first"] - sums["requested"],
        wait=sums["wait"],
        step=sums["step"],
        waits=waits,
        classes=counts.classes,
        buffer=sums["buffer"],
        buffer_max=ready,
        buffer_bytes=samples * size if size else nan,
        credit_max=sums["credit"],
        held=sums["held"],
        held_max=held,
        head_of_line=sums["head_of_line"],
        busy=counts.busy,
        marks=tuple(marks),
    )


def marks_of(counts: Counts, batches: int) -> Marks:
    """The marks of the epoch of so many batches that has just ended."""
    sums = named(counts.sums)
    time, waited, stepped, samples = counts.marks[:, : sums["marks"] + 1].copy()
    return Marks(sums["stride"], batches, time, waited, stepped, samples)


def named(rows: NDArray[Any]) -> dict[str, Any]:
    """The only one of some rows, as Python's numbers by name."""
    return dict(zip(rows.dtype.names or (), rows[0].item(), strict=True))
