"""How data are dealt to the ranks of a job: places in the order of all, in which each takes them.

Follows torch's `DistributedSampler` and accelerate's `BatchSamplerShard`. No order is looked at
here, only how long it is: who gets the k-th of it is the same in every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.dataset import IterableDataset
from dlsim.scenario.job import Job
from dlsim.scenario.loader import Loader
from dlsim.scenario.streaming import RULES

Places = NDArray[np.int64]

ALONE = Job()  # a single rank


def dealt_to(job: Job) -> tuple[Job, int]:
    """The job as far as dealing is concerned, and the rank: all to one, if it is not a rank's."""
    return (ALONE, 0) if job.rank is None else (job, job.rank)


def dealt_in_turn(length: int, rank: int, world: int, *, drop_last: bool) -> Places:
    """The places that a rank takes of an order of `length`, as torch's DistributedSampler deals.

    Everyone has equally many: the first places are repeated, or with `drop_last` the last left out.
    """
    if drop_last:
        return np.arange(rank, length // world * world, world)
    mine = np.arange(rank, -(-length // world) * world, world)
    mine[-1:] %= max(length, 1)  # fewer than `world` are repeated, so of one rank's at most one
    return mine


def dealt_in_batches(
    ends: Sequence[int] | Places,
    rank: int,
    world: int,
    *,
    size: int | None,
    drop_last: bool,
    even: bool,
) -> list[Places]:
    """The places of each batch of a rank, where batches of all end at `ends` in the order.

    As accelerate's BatchSamplerShard deals: batch b to rank b mod world; with `drop_last` only
    whole rounds. With `even`, batches that are short of `size` are filled up with the first
    places, and so are more batches until the round is whole.
    """
    last = np.asarray(ends, np.int64)
    first, count = np.append(0, last[:-1]), len(last)
    if drop_last:
        count -= count % world
    mine = [np.arange(first[batch], last[batch]) for batch in range(rank, count, world)]
    if drop_last or not even or not count or size is None:
        return mine
    again, lacking = last[min(world, count) - 1], size - (last[-1] - first[-1])
    if lacking and (count - 1) % world == rank:
        mine[-1] = np.append(mine[-1], np.arange(lacking) % again)
    if count % world and rank >= count % world:
        filled = lacking + size * (rank - count % world)
        mine.append(np.arange(filled, filled + size) % again)
    return mine


def shard(dataset: IterableDataset, job: Job, worker: int, loader: Loader) -> Sequence[int]:
    """The dataset indices that a worker's iterator reads, in the rank that sees this `job`.

    Without workers: the main process's. Dealt out, the workers of all ranks are numbered one rank
    after another, and each has its shard; else those of each rank are. Shards in turn go to the
    ranks in turn first, as webdataset's `split_by_node` and Hugging Face's have it.
    """
    alone = job.rank is None or job.reads_all
    each, mine = max(loader.num_workers, 1), max(worker, 0)
    if dataset.sharding in RULES:
        size = loader.batch_size or 1
        return RULES[dataset.sharding](dataset.length, size, Job() if alone else job, mine, each)
    if alone:
        return dataset.shard(mine, loader.num_workers)
    rank = job.rank or 0
    workers = each * job.world if loader.num_workers or job.world > 1 else 0
    in_turn = dataset.shards is not None and dataset.dealt == "turns"
    return dataset.shard(mine * job.world + rank if in_turn else rank * each + mine, workers)


def kept(read: int, job: Job, loader: Loader) -> int:
    """How many samples a worker's iterator yields that has `read` so many, as `job.deal` has it.

    Of a batch for each rank it keeps one; of the last ones, filled up, too, or with `drop_last`
    nothing.
    """
    if not job.keeps:
        return read
    size = loader.batch_size or 1
    rounds, rest = divmod(read, size * job.world)
    return size * (rounds + (rest > 0 and not loader.drop_last))


def slices(sizes: Sequence[int], world: int, first: int, *, drop_last: bool) -> list[int]:
    """How many samples each rank has of a round of batches of these `sizes`, joined.

    As accelerate's DataLoaderDispatcher has it: equally many, so that some may be left over and
    lost. Of the last round none is, unless with `drop_last`: it is filled up with the epoch's first
    samples, at most one for each rank, of the `first` there are in its first round. (0: of another
    round than the last.)
    """
    total = sum(sizes)
    each, rest = divmod(total, world)
    if rest and first and not drop_last:
        total, each = total + min(first, world), each + 1
    return [max(0, min(total - rank * each, each)) for rank in range(world)]


def places(loader: Any, dataset: Any, job: Job, rank: int) -> Places | None:
    """The places in the order of all that a rank takes in an epoch of a map-style dataset.

    None stands for all of them, one after another.
    """
    if job.world == 1 or job.deal in ("same", "dispatched"):
        return None
    if job.deal == "distributed":
        length = order_length(loader, dataset)
        return dealt_in_turn(length, rank, job.world, drop_last=job.drop_last)
    lists = _batches_dealt(loader, dataset, job, rank)
    return np.concatenate(lists) if lists else np.zeros(0, np.int64)


def ends(loader: Any, dataset: Any, job: Job, rank: int) -> Places:
    """Where the batches end that a rank takes in an epoch, of a map-style dataset.

    Which places they are of is not looked at where that makes no difference: there are millions.
    """
    if job.world > 1 and job.deal == "batches":
        lists = _batches_dealt(loader, dataset, job, rank)
        return np.cumsum([len(batch) for batch in lists], dtype=np.int64)
    if loader.batch_sampler is not None:
        return np.cumsum([len(batch) for batch in loader.batch_sampler], dtype=np.int64)
    length = _length_dealt(loader, dataset, job)
    return batch_ends(length, loader.batch_size or 1, drop_last=loader.drop_last)


def extent(loader: Any, dataset: Any, job: Job, rank: int) -> tuple[int, int]:
    """How many places a rank takes in an epoch of a map-style dataset, and in how many batches."""
    if loader.batch_sampler is not None or (job.world > 1 and job.deal == "batches"):
        last = ends(loader, dataset, job, rank)
        return (int(last[-1]) if len(last) else 0), len(last)
    length, size = _length_dealt(loader, dataset, job), loader.batch_size or 1
    count = length // size if loader.drop_last else -(-length // size)
    return min(count * size, length), count


def _batches_dealt(loader: Any, dataset: Any, job: Job, rank: int) -> list[Places]:
    """The places of each batch of a rank, where whole batches are dealt."""
    return dealt_in_batches(
        ends(loader, dataset, Job(), 0),
        rank,
        job.world,
        size=None if loader.batch_sampler is not None else loader.batch_size,
        drop_last=loader.drop_last,
        even=job.even_batches,
    )


def _length_dealt(loader: Any, dataset: Any, job: Job) -> int:
    """How many places each rank takes, where it is not batches that are dealt."""
    length = order_length(loader, dataset)
    if job.world > 1 and job.deal == "distributed":
        length = length // job.world if job.drop_last else -(-length // job.world)
    return length


def order_length(loader: Any, dataset: Any) -> int:
    """How many indices a sampler gives in an epoch."""
    length: int = dataset.length if loader.sampler is None else len(loader.sampler)
    return length


def batch_ends(length: int, size: int, *, drop_last: bool) -> NDArray[np.int64]:
    """Where the batches of so many indices end."""
    whole = np.arange(size, length + 1, size)
    short = length % size and not drop_last
    return np.append(whole, length) if short else whole


def batches(loader: Any, dataset: Any, job: Job, rank: int) -> int:
    """How many batches a rank has in an epoch that nothing ends early."""
    if job.dispatches:
        read = batches(loader, dataset, ALONE, 0)
        return read // job.round if loader.drop_last else -(-read // job.round)
    if not isinstance(dataset, IterableDataset):
        return extent(loader, dataset, job, rank)[1]
    size, mine = loader.batch_size or 1, job.seen_by(rank)
    workers = range(max(loader.num_workers, 1))
    shards = [kept(len(shard(dataset, mine, w, loader)), mine, loader) for w in workers]
    return sum(n // size if loader.drop_last else -(-n // size) for n in shards)
