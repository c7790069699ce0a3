"""The note that this project comes from, claim by claim, in the simulation and in torch itself.

Most tests run twice: on the simulation, and on torch's own code under a virtual clock. Where
torch differs from the note's words, the test says how.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.engine import simulate
from dlsim.trace import Trace, credit, difference

torch = pytest.importorskip("torch")
data = torch.utils.data

Unfold = Callable[[dlsim.Scenario], Trace]


@pytest.fixture(params=["simulated", "torch"])
def unfold(request: pytest.FixtureRequest) -> Unfold:
    """A function from a scenario to what happens, with samples: simulated, or torch's own code."""
    from dlsim.validation import run_virtual

    how = simulate if request.param == "simulated" else run_virtual
    return lambda scenario: how(scenario, samples=True)


def note(step: float = 0.5, *, iterable: str | None = None, **loader: Any) -> dlsim.Scenario:
    """The note's example: 24 rows of 1 s each, batches of 3, two workers."""
    fetch = [dlsim.Stage("row", wait=dlsim.Constant(1.0))]
    dataset = (
        dlsim.IterableDataset(24, sharding=iterable, fetch=fetch)
        if iterable
        else dlsim.MapDataset(24, fetch=fetch)
    )
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 3, "num_workers": 2, **loader}),
        dataset=dataset,
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
    )


def rows_of(trace: Trace, worker: int) -> list[int]:
    """The rows that a worker fetches, in order."""
    assert trace.samples is not None
    return trace.samples.index[trace.samples.worker == worker].tolist()


def batches_of(trace: Trace) -> list[list[int]]:
    """The rows of each batch."""
    samples = trace.samples
    assert samples is not None
    return [samples.index[samples.batch == batch].tolist() for batch in range(len(trace))]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_buffer_target(unfold: Unfold, num_workers: int) -> None:
    """The loader tries to hold 2 * n_workers batches.

    Torch counts the batches sent to workers and not yet returned to the user, so that those
    being fetched are part of it.
    """
    trace = unfold(note(num_workers=num_workers))
    assert credit(trace).max == min(2 * num_workers, 8)


def test_requests_at_creation(unfold: Unfold) -> None:
    """The loader sends requests as soon as its iterator is created, before any next().

    It sends for the whole buffer at once.
    """
    trace = unfold(note())
    assert trace.sent[:4].tolist() == [0.0] * 4
    assert trace.epochs.primed[0] == 0.0
    assert (trace.sent[4:] > trace.epochs.primed[0]).all()


def test_first_rows(unfold: Unfold) -> None:
    """Worker 0 begins with row 0 and worker 1 with row 3, at the same time."""
    samples = unfold(note()).samples
    assert samples is not None
    first = [int(np.argmax(samples.worker == worker)) for worker in (0, 1)]
    assert samples.index[first].tolist() == [0, 3]
    assert samples.started[first].tolist() == [0.0, 0.0]


def test_rows_one_after_another(unfold: Unfold) -> None:
    """Once a worker has fetched a row, it goes on with the next one of its batch.

    Torch does not send for rows one by one, as the note says: one message holds all indices of a
    batch, and the worker goes through them by itself.
    """
    trace = unfold(note())
    samples = trace.samples
    assert samples is not None
    for batch in range(len(trace)):
        mine = samples.batch == batch
        assert np.diff(samples.index[mine]).tolist() == [1, 1]
        assert (samples.started[mine][1:] == samples.fetched[mine][:-1]).all()


def test_row_by_row_comes_to_the_same() -> None:
    """With free messages, the note's protocol of a message for each row gives the same times."""
    scenario = note()
    by_row = simulate(dlsim.replace(scenario, {"policy": "row"}), samples=True)
    assert difference(simulate(scenario, samples=True), by_row) is None


def test_row_by_row_costs_round_trips() -> None:
    """Where messages take time, the note's protocol pays for every row, torch for every batch."""
    slow = dlsim.replace(note(step=0.0), {"costs.index_latency": 0.1})
    by_batch = simulate(slow)
    by_row = simulate(dlsim.replace(slow, {"policy": "row"}))
    # only the first message is waited for; later ones lie ready when their turn comes
    assert by_batch.returned.max() == pytest.approx(12 + 0.1)
    assert by_row.returned.max() == pytest.approx(12 + 12 * 0.1)


def test_twelve_rows_then_silence(unfold: Unfold) -> None:
    """12 rows are requested for 4 batches, and then nothing until a batch is consumed."""
    trace = unfold(note(step=100.0))
    consumed = trace.returned[:2]
    requested = trace.sent < consumed[0]
    assert trace.size[requested].sum() == 12
    silence = (trace.sent > consumed[0]) & (trace.sent < consumed[1])
    assert not silence.any()
    samples = trace.samples
    assert samples is not None
    # nobody fetches once five batches (those four, and the one just sent) are there
    assert not ((samples.started > 9.0) & (samples.started < consumed[1])).any()


def test_one_consumed_one_requested(unfold: Unfold) -> None:
    """For each batch consumed, one more is requested, of the next worker in line.

    Torch sends for it when next() is about to return the batch, before the user's code sees it.
    """
    trace = unfold(note(num_workers=3))
    later = np.arange(6, len(trace))
    assert trace.sent[later].tolist() == trace.returned[later - 6].tolist()
    assert trace.worker[later].tolist() == (later % 3).tolist()


def test_whole_batches_in_turn(unfold: Unfold) -> None:
    """The first worker gets all indices of the first batch, the second of the second, and so on."""
    trace = unfold(note())
    assert trace.worker.tolist() == [0, 1] * 4
    assert batches_of(trace) == [list(range(i, i + 3)) for i in range(0, 24, 3)]


def test_sampling_comes_first(unfold: Unfold) -> None:
    """The order of rows is the sampler's, whoever fetches them and however long they take."""
    order = np.random.default_rng(0).permutation(24).tolist()
    slow = dlsim.Recorded(np.arange(24) % 7)
    scenario = dlsim.replace(note(sampler=order), {"dataset.fetch.0.wait": slow})
    assert list(itertools.chain(*batches_of(unfold(scenario)))) == order


class Pids(data.Sampler[int]):
    """A sampler that notes in which process it is asked."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        for index in range(24):
            self.seen.add(os.getpid())
            yield index


class Where(data.Dataset[int]):
    """A dataset whose rows are the process that fetches them, and that counts its rows."""

    fetched = 0

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> int:
        self.fetched += 1
        return os.getpid()


def test_sampling_in_the_main_process() -> None:
    """Real workers fetch, each with its copy of the dataset; the main process samples."""
    sampler, dataset = Pids(), Where()
    loader = data.DataLoader(dataset, batch_size=3, num_workers=2, sampler=sampler)
    fetchers = [set(batch.tolist()) for batch in loader]
    assert sampler.seen == {os.getpid()}
    assert all(len(fetcher) == 1 for fetcher in fetchers)
    assert len(set.union(*fetchers) - {os.getpid()}) == 2
    assert dataset.fetched == 0


def test_no_indices_for_iterables(unfold: Unfold) -> None:
    """An iterable-style dataset gets no indices; only its next is called.

    Torch still sends a message for each batch: a list of None, one for each sample to take.
    """
    loader = data.DataLoader(Shards(), batch_size=3, num_workers=2)
    assert next(iter(loader.batch_sampler)) == [None] * 3
    mapped, streamed = unfold(note()), unfold(note(iterable="none"))
    for name in ("sent", "started", "worker"):
        assert getattr(mapped, name)[:8].tolist() == getattr(streamed, name)[:8].tolist()


def test_duplicates_without_sharding(unfold: Unfold) -> None:
    """Without sharding, every worker yields all the rows, so that each comes once for each."""
    trace = unfold(note(iterable="none"))
    assert rows_of(trace, 0) == rows_of(trace, 1) == list(range(24))
    assert trace.size[trace.order].sum() == 48


def test_sharding(unfold: Unfold) -> None:
    """With sharding, each row comes once."""
    trace = unfold(note(iterable="split"))
    assert rows_of(trace, 0) == list(range(12))
    assert rows_of(trace, 1) == list(range(12, 24))


class Shards(data.IterableDataset[int]):
    """24 rows, of which an instance yields those from `start` to `end`."""

    start, end = 0, 24

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))


def shard(worker: int) -> None:
    """A `worker_init_fn`: configure the dataset of this worker's process."""
    info = data.get_worker_info()
    share = 24 // info.num_workers
    info.dataset.start, info.dataset.end = worker * share, (worker + 1) * share


def test_worker_init_fn() -> None:
    """worker_init_fn can set the shard of the dataset in each process; that cures duplicates."""
    everything = data.DataLoader(Shards(), batch_size=3, num_workers=2)
    assert sorted(row for batch in everything for row in batch.tolist()) == sorted([*range(24)] * 2)
    sharded = data.DataLoader(Shards(), batch_size=3, num_workers=2, worker_init_fn=shard)
    simulated = simulate(note(iterable="split"), samples=True)
    wanted = [batches_of(simulated)[batch] for batch in simulated.order]
    assert [batch.tolist() for batch in sharded] == wanted


def test_one_reader(unfold: Unfold) -> None:
    """All workers ship their batches to one reader, the main process, which takes one at a time.

    In torch, they share one result queue, while each has an index queue of its own; and without
    a pin-memory thread, the main process takes from it only inside next().
    """
    trace = unfold(note(step=2.5))
    inside = (trace.received[:, None] >= trace.requested) & (
        trace.received[:, None] <= trace.returned
    )
    assert inside.any(axis=1).all()
    iterator: Any = iter(data.DataLoader(Shards(), num_workers=3))
    assert len(iterator._index_queues) == 3
    assert not isinstance(iterator._worker_result_queue, list)
