"""How much of a run need be simulated: all of it, or so much that the rest is told from it.

What takes some tenths of a second is simulated whole. Of what takes longer, cycles are left out of
the middle, where one is like the next: of many epochs some after the first and before the last, and
of a long epoch whole rounds of the workers. So start-up, the filling of the pipeline, the last
round and the end are simulated as they are, and the cycles in the middle stand for those left out
(see `dlsim.whatif.stretching`).

Rounds are cut as a whole, as batches come in bursts where workers are in step; and not before those
who get out of step have done so. Where batches take long, few rounds have to do: intervals are the
wider. How long an epoch is cut to depends on the scenario alone, so that a setting has one answer,
whoever asks.
"""

from __future__ import annotations

import numpy as np
from msgspec import structs

from dlsim.engine.effort import cost, counts, takes
from dlsim.scenario import IterableDataset, MapDataset, Recorded, Scenario
from dlsim.whatif.bounds import bounds
from dlsim.whatif.demand import cv, variation
from dlsim.whatif.parallel import Row
from dlsim.whatif.replicate import Replications, replicate
from dlsim.whatif.stretching import LEAST, WARM, impossible, in_round, measured

RUN = 10_000.0  # the cost of what is simulated whole, in any case: about half a second
ROUNDS, WINDOWS = 60, 12  # rounds and windows that are simulated of an epoch
FEW_ROUNDS, FEW_WINDOWS = 10, 5  # the same where that many take longer than `RUN`
EPOCHS = 3  # of which the second stands for all but the first and the last
WORTH = 0.75  # an epoch is cut only if that saves a quarter of it
APART = 4  # times as many rounds as workers stay in step for, and they are anywhere in a round
NEAR = 0.9  # of the greatest least period: who takes as much may be what limits


def shortened(scenario: Scenario, most: float = RUN, *, fast: bool | None = None) -> Scenario:
    """`scenario` less cycles in its middle, so that simulating it takes about `most` at most.

    Not where one part of the run is unlike another: where errors or records are, where data is
    shared out unevenly or kept in a page cache, or where no number of samples tells what comes.
    """
    whole = cost(scenario, fast=fast)
    if whole <= most or not _alike(scenario):
        return scenario
    epochs = scenario.epochs
    if epochs > EPOCHS:
        epochs = min(max(int(epochs * most / whole), EPOCHS), epochs)
    found = structs.replace(scenario, epochs=epochs)
    affordable = int(counts(found)[0] * RUN / takes(found, fast=fast))
    left_out = _left_out(found, most, cost(found, fast=fast), affordable)
    found = _without(found, left_out) if left_out else found
    return found if cost(found, fast=fast) <= WORTH * whole else scenario


def _left_out(scenario: Scenario, most: float, whole: float, affordable: int) -> int:
    """How many batches are left out of each epoch: whole rounds of the workers."""
    batches, round_ = int(counts(scenario)[0]), in_round(scenario)
    kept = max(int(batches * most / whole), _least(scenario, affordable))
    return 0 if kept >= WORTH * batches else (batches - kept) // round_ * round_


def _least(scenario: Scenario, affordable: int) -> int:
    """How many batches of an epoch are simulated in any case: the usual, if that is `affordable`.

    Some rounds always are, and those in which workers get out of step.
    """
    round_, window = in_round(scenario), scenario.loader.window
    apart = int(_in_step(scenario) / WARM * round_)
    usual = max(LEAST, ROUNDS * round_, WINDOWS * window)
    if usual <= affordable:
        return max(usual, apart)
    few = max(affordable, FEW_ROUNDS * round_, FEW_WINDOWS * window)
    return max(few, apart)


def _without(scenario: Scenario, batches: int) -> Scenario:
    """`scenario` with so many batches fewer in each epoch, a multiple of its workers."""
    dataset, loader, consumer = scenario.dataset, scenario.loader, scenario.consumer
    samples = batches * (loader.batch_size or 1)
    if isinstance(dataset, IterableDataset) and dataset.sharding == "none":
        samples //= max(loader.num_workers, 1)  # each worker yields all of them
    if loader.sampler is not None:
        sampler = loader.sampler[: len(loader.sampler) - samples]
        scenario = structs.replace(scenario, loader=structs.replace(loader, sampler=sampler))
    else:
        shorter = structs.replace(dataset, length=dataset.length - samples)
        scenario = structs.replace(scenario, dataset=shorter)
    if consumer.stop_after is None:
        return scenario
    sooner = max(consumer.stop_after - batches, 1)
    return structs.replace(scenario, consumer=structs.replace(consumer, stop_after=sooner))


def part_of(part: Scenario, whole: Scenario) -> str:
    """In words, which part of `whole` was simulated: nothing if all of it was."""
    if part == whole:
        return ""
    batches, of = (counts(each)[0] for each in (part, whole))
    words = f" of {batches:,.0f} of {of:,.0f} batches" if batches < of else ""
    if part.epochs < whole.epochs:
        words += f"{' in' if words else ' of'} {part.epochs} of {whole.epochs} epochs"
    return words


def replicated(
    whole: Scenario,
    replications: int,
    seed: int,
    *,
    jobs: int = 1,
    shares: bool = False,
    most: float = RUN,
    fast: bool | None = None,
    before: Replications | None = None,
) -> Replications:
    """`replications` of `whole`, as far as need be simulated: the figures of the whole run.

    What is told from a part, and is better than can be, is simulated whole. `most`, `fast`: see
    `shortened`. `before`: the first of them, which are not simulated again.
    """
    part, measure = shortened(whole, most, fast=fast), measured(whole, shares=shares)
    rows = list[Row]()
    if before is not None:
        part, rows = before.part or whole, before.rows
    found = replicate(part, replications, seed, jobs=jobs, measured=measure, before=rows)
    if part != whole and impossible(whole, found.metrics):
        return replicate(whole, replications, seed, jobs=jobs, measured=measure)
    return Replications(
        whole, seed, found.metrics, found.confidence, None if part == whole else part
    )


def ends_in_step(scenario: Scenario) -> bool:
    """Whether workers that begin together are more or less in step at the end of an epoch, too.

    Runs then differ by whole rounds, some by one and some by none: few of them do not tell how
    many.
    """
    rounds = counts(scenario)[0] / in_round(scenario)
    return rounds < APART * _in_step(scenario)


def _in_step(scenario: Scenario) -> float:
    """Rounds for which workers that begin together stay in step, where they are what limits.

    What batches take of chance adds up: after n rounds workers are sqrt(n) deviations apart. While
    that is less than half a round, batches come in bursts, and the pace is not yet what it will be.
    """
    loader, dataset, limits = scenario.loader, scenario.dataset, bounds(scenario).periods
    if loader.num_workers < 2 or limits["workers"] < NEAR * max(limits.values()):
        return 0.0
    batched = isinstance(dataset, MapDataset) and dataset.batched
    calls = 1 if batched else loader.batch_size or 1
    times = [time for stage in dataset.fetch for time in (stage.wait, stage.cpu) if time]
    parts = [(calls, time) for time in times]
    parts += [(1, dataset.collate)] if dataset.collate is not None else []
    mean = sum(count * time.mean for count, time in parts)
    variance = sum(count * (cv(time) * time.mean) ** 2 for count, time in parts)
    return (mean / 2) ** 2 / variance if variance else 0.0


def _alike(scenario: Scenario) -> bool:
    """Whether one part of an epoch is like any other, and one epoch like the next."""
    dataset, loader = scenario.dataset, scenario.loader
    uneven = isinstance(dataset, IterableDataset) and dataset.uneven
    times = [scenario.consumer.step, dataset.collate, scenario.jitter]
    times += [time for s in dataset.fetch for time in (s.wait, s.cpu, s.read_bytes)]
    recorded = any(isinstance(time, Recorded) for time in times)
    cached = scenario.machine.storage.cache > 0 and scenario.epochs > 1
    listed = loader.batch_sampler is not None or scenario.failures or loader.timeout > 0
    endless = loader.endless and scenario.epochs > 1
    wild = not np.isfinite(variation(scenario))
    apart = scenario.is_job or scenario.validation is not None
    return not (uneven or recorded or cached or listed or endless or wild or apart)
