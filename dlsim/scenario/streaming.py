"""Which samples streaming data sets give to each worker of each rank, and in which order.

They deal by the batch size, before anything is read: litdata 0.2.76 (`utilities/shuffle.py`) and
mosaicml-streaming 0.13 (`base/partition/orig.py`), neither shuffled. Workers of all ranks are
alike; `worker` counts within its rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dlsim.scenario.dataset import Joined
from dlsim.scenario.job import Job

Deal: TypeAlias = Callable[[int, int, Job, int, int], Sequence[int]]


def litdata(length: int, size: int, job: Job, worker: int, workers: int) -> Sequence[int]:
    """The samples that a worker's iterator yields of litdata's StreamingDataset: one run of them.

    Each rank has equally many batches of `size`, and each of its workers, but for one more of the
    first ones. What is left over goes to the worker after these in the last rank; of several
    ranks, it is left out.
    """
    batches, more = divmod(length // size // job.world, workers)
    counts = [size * (batches + (each < more)) for each in range(workers)]
    rank = job.rank or 0
    first = rank * sum(counts) + sum(counts[:worker])
    left = length - sum(counts) if job.world == 1 and worker == more % workers else 0
    if job.world == 1 and worker > more % workers:
        first += length - sum(counts)
    return range(first, first + counts[worker] + left)


def streaming(length: int, size: int, job: Job, worker: int, workers: int) -> Sequence[int]:
    """The samples that a worker's iterator yields of mosaicml-streaming's StreamingDataset.

    Each node has a run of samples, of which its ranks take turns; batch j of a rank is made by
    worker j mod `workers`. Who would have fewer samples than others gets some of them again.
    """
    node, rank = divmod(job.rank or 0, job.ranks)
    first, each = node * length // job.nodes, -(-length // job.nodes)
    there = (node + 1) * length // job.nodes - first
    if length < job.nodes:
        first, there = (node % length if length else 0), 1
    whole = -(-each // job.ranks)  # samples of a rank
    last = rank + job.ranks * (whole - 1)  # place of its last one, which may be none of its own
    if last >= each:
        lack, over = whole * job.ranks - each, last - each
        enough = job.ranks + lack - 1 <= each
        last = each - job.ranks - lack + 1 + over if enough else over % each
    if whole == 0:
        return range(0)
    begin = first + rank
    own = range(begin, begin + job.ranks * (whole - 1), job.ranks)
    final = first + min(last, there - 1)
    made = [own[at : at + size] for at in range(worker * size, whole, workers * size)]
    if (whole - 1) // size % workers == worker:
        made.append(range(final, final + 1))
    return Joined(tuple(made))


RULES: dict[str, Deal] = {"litdata": litdata, "streaming": streaming}
