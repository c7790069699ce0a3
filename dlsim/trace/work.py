"""What comes of the samples of a dataset: how many are distinct, come again, or never come.

Each epoch is a pass of its own: what it has of the dataset counts once in it. Of an iterable-style
dataset that every worker yields whole (`sharding="none"`) a worker has had, from its beginning, as
much as came in its batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from msgspec import structs

from dlsim.scenario import IterableDataset, Scenario, dealing
from dlsim.trace.columns import distinct_values, parts
from dlsim.trace.stays import order_by_epoch
from dlsim.trace.trace import FAILED, Integers, Trace

DISTINCT = "distinct samples/s"
NEARLY = 16  # numbers with fewer descents are as good as in order


@dataclass(frozen=True, kw_only=True)
class Work:
    """Samples `returned`, how many of them are `distinct`, and those `lost` of all `there` are.

    Lost are samples that never come in an epoch, though nothing ends it early. `without`: workers
    that no batch comes from in any such epoch.
    """

    returned: float
    distinct: float
    lost: float
    there: float
    without: int

    @property
    def share(self) -> float:
        """The share of the samples returned that are distinct."""
        return self.distinct / self.returned if self.returned else 1.0


@lru_cache(maxsize=64)  # of every run of a scenario the same is asked again
def in_an_epoch(scenario: Scenario) -> Work:
    """What comes of each epoch of `scenario`; of a rank, where there are many.

    Where the loop leaves it early nothing is lost: more would have come. Where rank 0 reads for
    all, each has its share of that.
    """
    if scenario.job.dispatches:
        return _dispatched(scenario)
    if isinstance(scenario.dataset, IterableDataset):
        found, batches = _of_shards(scenario)
    else:
        found, batches = _of_indices(scenario)
    stop = scenario.consumer.stop_after
    early = scenario.loader.endless or (stop is not None and stop < batches)
    return replace(found, lost=0.0, without=0) if early else found


def _dispatched(scenario: Scenario) -> Work:
    """What comes of each epoch to one rank of what rank 0 reads; what fills up a round is none."""
    job, reading = scenario.job, in_an_epoch(scenario.reading)
    stop, rounds = (
        scenario.consumer.stop_after,
        dealing.batches(scenario.loader, scenario.dataset, job, 0),
    )
    lost = 0.0 if stop is not None and stop < rounds else reading.lost / job.world
    returned, distinct, there = (
        each / job.world for each in (reading.returned, reading.distinct, reading.there)
    )
    return Work(
        returned=returned, distinct=distinct, lost=lost, there=there, without=reading.without
    )


def work(trace: Trace) -> Work | None:
    """What came of the samples of a run, over all its epochs; None where that is not known.

    It is not without a scenario, nor of a run that was watched without the sizes of its batches.
    """
    scenario = trace.meta.scenario
    if scenario is None or (len(trace.order) and not _samples(trace, trace.order)):
        return None
    there = in_an_epoch(_to_its_end(scenario)).there
    returned = distinct = lost = whole = 0.0
    used: set[int] = set()
    for batches, ended in _passes(trace, scenario):
        new = _distinct(trace, scenario, batches)
        returned += _samples(trace, batches)
        distinct += new
        for part in parts(0, len(batches)):
            used.update(distinct_values(trace.worker[batches[part]]).tolist())
        whole += ended
        lost += ended * (there - new)
    without = scenario.loader.num_workers - len(used) if whole and used != {-1} else 0
    return Work(
        returned=returned, distinct=distinct, lost=lost, there=whole * there, without=without
    )


def _samples(trace: Trace, batches: Integers) -> float:
    """How many samples are in these batches."""
    return float(sum(trace.size[batches[part]].sum() for part in parts(0, len(batches))))


def unit(*found: Work) -> str:
    """What throughput is compared by: distinct samples, which are all where none comes again."""
    return DISTINCT if any(each.share < 1 for each in found) else "samples/s"


def told(scenario: Scenario, found: Work) -> str:
    """What is to be known of `found`, a sentence for each thing that is not as one expects."""
    loader, dataset = scenario.loader, scenario.dataset
    workers, iterable = loader.num_workers, isinstance(dataset, IterableDataset)
    if iterable and workers and loader.drop_last and not found.returned and found.lost:
        return _nothing(scenario)
    said = []
    if found.share < 1:
        why = ", as every worker yields all (dataset.sharding)" if iterable else ""
        said.append(
            f"Each sample comes {1 / found.share:.3g} times{why}: "
            f"{found.distinct:,.0f} of the {found.returned:,.0f} are distinct."
        )
    if found.lost:
        why = "drop_last" if loader.drop_last else "errors"
        each = " in each worker" if iterable and workers > 1 and loader.drop_last else ""
        said.append(f"{found.lost:,.0f} of {found.there:,.0f} samples never come ({why}{each}).")
    if found.without and found.returned:
        none = "no batch" if loader.drop_last or not iterable else "no data"
        have = "has" if found.without == 1 else "have"
        said.append(f"{found.without} of {workers} workers {have} {none}.")
    return " ".join(said)


def other_workers(scenario: Scenario) -> str:
    """Why other numbers of workers would not share the same data; "" where they would."""
    if isinstance(scenario.dataset, IterableDataset) and scenario.dataset.repeats:
        return (
            "Each of any number of workers would yield all of the data; with "
            'dataset.sharding = "split" they share it.'
        )
    return given_shares(scenario)


def given_shares(scenario: Scenario) -> str:
    """What is not known of other numbers of workers, where each has a given share; "" elsewhere."""
    dataset, workers = scenario.dataset, scenario.loader.num_workers
    if not isinstance(dataset, IterableDataset) or not dataset.given:
        return ""
    return (
        f"No num_workers but {workers} is tried: dataset.sharding says what each worker has. "
        'Files are dealt to any number of them: dataset.sharding = "none", dataset.shards = [...].'
    )


def last_round(scenario: Scenario) -> str:
    """How many workers the last round of an epoch leaves idle; "" if none, or where it varies."""
    loader, workers = scenario.loader, scenario.loader.num_workers
    if isinstance(scenario.dataset, IterableDataset) or not workers or loader.endless:
        return ""
    batches = _of_indices(_to_its_end(scenario))[1]
    left, stop = batches % workers, scenario.consumer.stop_after
    if batches < workers or not left or (stop is not None and stop < batches):
        return ""
    return f"The last round leaves {workers - left} of {workers} workers idle."


def _nothing(scenario: Scenario) -> str:
    """Why no worker has a batch, and how many may have one."""
    dataset, loader = scenario.dataset, scenario.loader
    most = max(map(len, _shards(scenario)))
    said = (
        f"No worker has a batch: each has at most {most:,} samples, and drop_last drops what is "
        f"less than {loader.batch_size:,}."
    )
    fewer = (
        number
        for number in range(loader.num_workers - 1, 0, -1)
        if isinstance(dataset, IterableDataset) and dataset.divisible
        if in_an_epoch(_with_workers(scenario, number)).returned
    )
    enough = next(fewer, 0)
    return f"{said} At most {enough} workers get one." if enough else said


def _with_workers(scenario: Scenario, number: int) -> Scenario:
    loader = structs.replace(scenario.loader, num_workers=number)
    return structs.replace(scenario, loader=loader)


def _to_its_end(scenario: Scenario) -> Scenario:
    """The scenario with a loop that leaves no epoch early."""
    if scenario.consumer.stop_after is None:
        return scenario
    return structs.replace(scenario, consumer=structs.replace(scenario.consumer, stop_after=None))


def _shards(scenario: Scenario) -> list[range]:
    """A range as long as what each worker yields, of those of this rank."""
    dataset, loader, job = scenario.dataset, scenario.loader, scenario.job
    assert isinstance(dataset, IterableDataset)
    numbers = range(loader.num_workers) if loader.num_workers else [-1]
    read = [len(dealing.shard(dataset, job, worker, loader)) for worker in numbers]
    return [range(dealing.kept(length, job, loader)) for length in read]


def _of_shards(scenario: Scenario) -> tuple[Work, int]:
    """What comes of an epoch of an iterable-style dataset, and in how many batches."""
    dataset, loader = scenario.dataset, scenario.loader
    assert isinstance(dataset, IterableDataset)
    size, lengths = loader.batch_size or 1, [len(shard) for shard in _shards(scenario)]
    came = [n - n % size if loader.drop_last else n for n in lengths]
    distinct = max(came) if dataset.repeats else sum(came)
    there = max(lengths) if dataset.repeats else sum(lengths)
    found = Work(
        returned=float(sum(came)),
        distinct=float(distinct),
        lost=float(there - distinct),
        there=float(there),
        without=sum(n == 0 for n in came) if loader.num_workers else 0,
    )
    return found, sum(-(-n // size) for n in came)


def _of_indices(scenario: Scenario) -> tuple[Work, int]:
    """What comes of an epoch of a map-style dataset, and in how many batches."""
    indices, dealt = _indices(scenario), dealing.dealt_to(scenario.job)
    came, batches = dealing.extent(scenario.loader, scenario.dataset, *dealt)
    if indices is None:
        distinct, there = came, scenario.dataset.length
    else:
        there = different(indices)
        distinct = there if came == len(indices) else different(indices[:came])
    found = Work(
        returned=float(came),
        distinct=float(distinct),
        lost=float(there - distinct),
        there=float(there),
        without=max(scenario.loader.num_workers - batches, 0),
    )
    return found, batches


def _indices(scenario: Scenario) -> Integers | None:
    """Dataset indices of an epoch, as far as they are distinct or not.

    None stands for all of the dataset, in any order.
    """
    loader = scenario.loader
    places = dealing.places(loader, scenario.dataset, *dealing.dealt_to(scenario.job))
    order: Integers | None = None
    if loader.batch_sampler is not None:
        lists = [np.asarray(batch, np.int64) for batch in loader.batch_sampler]
        order = np.concatenate(lists) if lists else np.zeros(0, np.int64)
    elif loader.sampler is not None:
        order = np.asarray(loader.sampler, np.int64)
    if places is None:
        return order
    return np.asarray(places) if order is None else order[places]


def _ends(scenario: Scenario) -> Integers:
    """Where the batches of an epoch end."""
    return dealing.ends(scenario.loader, scenario.dataset, *dealing.dealt_to(scenario.job))


def _passes(trace: Trace, scenario: Scenario) -> Iterator[tuple[Integers, bool]]:
    """The batches returned of each pass over the dataset; and whether it came to its end."""
    order, stop = trace.order, scenario.consumer.stop_after
    if scenario.loader.endless:
        of = order // max(len(_ends(scenario)), 1)
        for number in range(int(of.max(initial=-1)) + 1):
            yield order[of == number], False
        return
    ended = (~np.isnan(trace.epochs.ended)).tolist()
    if scenario.loader.resume and ended:
        ended[0] = False  # what is missing came in another run
    for places, whole in zip(order_by_epoch(trace), ended, strict=True):
        batches = order[places]
        yield batches, whole and (stop is None or len(batches) < stop)


def _distinct(trace: Trace, scenario: Scenario, batches: Integers) -> float:
    """How many distinct samples are in these batches of one pass."""
    dataset = scenario.dataset
    if scenario.job.dispatches:
        found = in_an_epoch(_to_its_end(scenario))
        return min(found.share * _samples(trace, batches), found.distinct)
    if isinstance(dataset, IterableDataset):
        if not dataset.repeats or scenario.loader.num_workers < 2:
            return _samples(trace, batches)
        return _covered(trace, scenario, batches)
    ends, dealt = _ends(scenario), dealing.dealt_to(scenario.job)[0].world > 1
    if dealt and len(batches) == len(ends) and not scenario.loader.endless:  # all of them
        return in_an_epoch(_to_its_end(scenario)).distinct
    indices = _indices(scenario)
    if indices is None or not len(batches):
        return _samples(trace, batches)
    if scenario.loader.endless:
        at = batches % len(ends)
    else:
        at = batches - trace.epochs.first[trace.epoch_of(batches)]
    begins = np.concatenate(([0], ends[:-1]))
    parts = [indices[begins[k] : ends[k]] for k in at.tolist()]
    return float(different(np.concatenate(parts)))


def different(indices: Integers) -> int:
    """How many different numbers there are: sorting is ten times as fast as NumPy's hashing.

    What a rank is dealt in turn is in order, but for the last one.
    """
    descents = int(np.count_nonzero(indices[1:] <= indices[:-1]))
    ordered = np.sort(indices, kind="stable" if descents < NEARLY else None)
    return len(ordered[:1]) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _covered(trace: Trace, scenario: Scenario, batches: Integers) -> float:
    """How many samples are in any batch, where each worker takes all of them from the first on."""
    size, epoch = scenario.loader.batch_size or 1, trace.epoch_of(batches[:1])
    numbers = np.arange(len(trace))
    mine = numbers[trace.epoch_of(numbers) == epoch] if len(batches) else numbers[:0]
    took = np.where(trace.status[mine] == FAILED, size, trace.size[mine])
    seen = np.zeros(0, np.int64)
    for worker in range(scenario.loader.num_workers):
        his = trace.worker[mine] == worker
        ends = np.cumsum(took[his])
        came = np.isin(mine[his], batches)
        parts = [np.arange(e - t, e) for e, t in zip(ends[came], took[his][came], strict=True)]
        seen = distinct_values(np.concatenate((seen, *parts)))
    return float(len(seen))
