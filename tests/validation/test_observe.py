import json
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from importlib import metadata
from itertools import pairwise
from multiprocessing import active_children, get_context
from multiprocessing.context import SpawnContext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from msgspec import structs
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    get_worker_info,
)
from torch.utils.data._utils.pin_memory import pin_memory

from dlsim import (
    Constant,
    Consumer,
    Loader,
    MapDataset,
    Recorded,
    Scenario,
    ScenarioError,
    Stage,
    simulate,
)
from dlsim.report import run_text
from dlsim.trace import STATUSES, credit, difference, load_trace, save
from dlsim.trace.observation import SAMPLE_COLUMNS
from dlsim.trace.trace import DISCARDED, ENDED, FAILED, PENDING, RETURNED, SKIPPED
from dlsim.validation.observing import shards
from dlsim.validation.observing.cpu_time import UNSEEN
from dlsim.validation.observing.hooks import Tagged
from dlsim.validation.observing.payload import payload_of
from dlsim.validation.observing.probe import Probe
from dlsim.validation.observing.problem import one_line
from dlsim.validation.observing.run import Interrupted, observe
from dlsim.validation.observing.unwatchable import ObserveError


class Rows(Dataset):
    def __init__(self, length, seconds=0.002, slow=None, does=lambda index: None):
        self.length, self.seconds, self.slow, self.does = length, seconds, slow, does

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.seconds if index != self.slow else 40 * self.seconds)
        self.does(index)
        return index


class Batches(Rows):
    def __getitems__(self, indices):
        time.sleep(self.seconds)
        return [10 * index for index in indices]


class Stream(IterableDataset):
    def __init__(self, start, end):
        self.start, self.end = start, end

    def __iter__(self):
        for row in range(self.start, self.end):
            time.sleep(0.002)
            yield row


class Split(Stream):
    """Shares itself out among the workers, as torch's documentation does it; may end `late`."""

    def __init__(self, start, end, late=0.0):
        super().__init__(start, end)
        self.late = late

    def __iter__(self):
        info = get_worker_info()
        yield from range(self.start + info.id, self.end, info.num_workers)
        time.sleep(self.late)


def shard(worker):
    """A `worker_init_fn` that gives worker 0 the first seven rows."""
    dataset = get_worker_info().dataset
    assert type(dataset) is Stream
    dataset.start, dataset.end = (0, 7) if worker == 0 else (7, dataset.end)


def watched(loader, **settings):
    """The trace, which a file gives back as it was, and all that the step saw."""
    seen = []
    trace = observe(loader, step=seen.append, **settings)
    with TemporaryDirectory() as folder:
        save(trace, Path(folder) / "run.npz")
        assert difference(trace, load_trace(Path(folder) / "run.npz")) is None
    return trace, seen


def statuses(trace):
    """What became of each batch, in words."""
    return [STATUSES[status] for status in trace.status]


def raise_at(bad, kind=ValueError):
    """What raises an exception for one value."""

    def does(index):
        if index == bad:
            raise kind(f"no row {index}")

    return does


class Undrawn:
    """A sampler of which nothing can be drawn."""

    def __init__(self, kind):
        self.kind = kind

    def __iter__(self):
        return map(raise_at(0, self.kind), [0])


def exit_at(bad):
    """What ends the process for one value."""

    def does(index):
        if index == bad:
            os._exit(3)

    return does


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_moment_of_a_map_style_run_is_seen_in_order(num_workers):
    """The moments of each batch are all there and in the order that design and torch give them."""
    loader = DataLoader(Rows(10), batch_size=3, num_workers=num_workers)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert trace.order.tolist() == [0, 1, 2, 3]
    assert trace.size.tolist() == [3, 3, 3, 1]
    assert trace.worker.tolist() == ([0, 1, 0, 1] if num_workers else [-1] * 4)
    assert (trace.status == RETURNED).all()
    line = ["sent", "started", "collating", "fetched", "received", "returned", "finished"]
    for earlier, later in pairwise(line):
        assert (getattr(trace, earlier) <= getattr(trace, later)).all()
    assert (trace.requested < trace.returned).all()
    assert np.isnan(trace.arrived).all() == bool(num_workers)
    assert 0 == trace.epochs.started[0] < trace.epochs.primed[0] < trace.epochs.ended[0]
    assert trace.end == trace.epochs.ended[0] >= trace.finished.max()
    assert trace.samples.index.tolist() == list(range(10))
    assert trace.samples.batch.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert (trace.samples.fetched - trace.samples.started >= 0.002).all()


def test_processor_time_is_seen_where_it_is_spent():
    """CPU time of samples, of workers and of the main process is near what user code computes."""

    def spin(_):
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass

    loader = DataLoader(Rows(4, seconds=0.001, does=spin), batch_size=2, num_workers=1)
    trace = observe(loader, step=spin)
    assert (np.abs(trace.sample_cpu - 0.01) < 0.005).all()
    assert (trace.cpu_fetched - trace.cpu_started >= 0.02).all()
    assert (trace.cpu_requested[1:] - trace.cpu_returned[:-1] >= 0.01).all()


def test_all_columns_have_one_entry_a_batch():
    """Whatever is seen of batches has the length of the trace, and of samples, that of those."""
    trace = observe(DataLoader(Rows(5), batch_size=2, num_workers=2))
    for column in fields(trace):
        values = getattr(trace, column.name)
        if isinstance(values, np.ndarray):
            assert len(values) == (5 if column.name in SAMPLE_COLUMNS else 3), column.name


def test_the_notes_of_a_trace_tell_how_it_came_to_be():
    """The overhead, the settings, and the versions are found in the trace's meta."""
    meta = observe(DataLoader(Rows(4), batch_size=2, num_workers=2)).meta
    assert meta.engine == "observed"
    assert meta.problem is None
    assert meta.versions["torch"] == metadata.version("torch")
    assert "a sample" in meta.notes["overhead"]
    assert "a batch" in meta.notes["overhead"]
    assert meta.scenario.loader == Loader(batch_size=2, num_workers=2, prefetch_factor=2)
    assert meta.scenario.dataset == MapDataset(4)


def test_an_own_sampler_is_found_in_the_settings():
    """Orders that are no plain sequence or shuffle are kept as the indices that were drawn."""
    trace = observe(DataLoader(Rows(4), batch_size=2, sampler=[3, 1, 2, 0]))
    assert trace.meta.scenario.loader.sampler == (3, 1, 2, 0)
    trace = observe(DataLoader(Rows(4), batch_sampler=[[3], [1, 2]]))
    assert trace.meta.scenario.loader.batch_sampler == ((3,), (1, 2))
    trace = observe(DataLoader(Rows(4), shuffle=True))
    assert trace.meta.scenario.loader.shuffle


def test_without_samples_all_else_is_seen():
    """`samples=False` leaves out the samples and nothing else."""
    trace = observe(DataLoader(Rows(6), batch_size=3, num_workers=2), samples=False)
    assert trace.samples is None
    assert trace.size.tolist() == [3, 3]
    assert not np.isnan(trace.started + trace.fetched).any()


class Point:
    def __init__(self, rows):
        self.rows = rows


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "collate",
    [lambda rows: {"rows": rows}, tuple, Point, lambda rows: None],
    ids=["dict", "tuple", "class", "None"],
)
def test_the_step_sees_what_collate_made(collate, num_workers):
    """Batches reach the step as the user's collate_fn returned them, of whatever type."""
    loader = DataLoader(Rows(4), batch_size=2, num_workers=num_workers, collate_fn=collate)
    _, seen = watched(loader)
    for batch, expected in zip(seen, [collate([0, 1]), collate([2, 3])], strict=True):
        assert type(batch) is type(expected)
        assert getattr(batch, "rows", batch) == getattr(expected, "rows", expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_batch_sampler(num_workers):
    """A batch sampler's batches, of any lengths, are those seen; `len(loader)` still works."""
    lists = [[3], [0, 1, 2], [2, 2]]
    loader = DataLoader(Rows(4), batch_sampler=lists, num_workers=num_workers)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == lists
    assert trace.size.tolist() == [1, 3, 2]
    assert trace.samples.index.tolist() == [3, 0, 1, 2, 2, 2]


def test_one_call_for_a_batch():
    """`__getitems__` is called as torch would, and its samples share the times of the call."""
    loader = DataLoader(Batches(4), batch_size=2, num_workers=2)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[0, 10], [20, 30]]
    assert trace.samples.index.tolist() == [0, 1, 2, 3]
    assert len(set(trace.samples.started)) == 2
    assert trace.meta.scenario.dataset.batched


def test_the_samples_of_a_subset_are_seen_one_by_one():
    """torch's Subset only loops in `__getitems__`, so its samples are still timed singly."""
    loader = DataLoader(Subset(Rows(9), [7, 5, 3, 1]), batch_size=2, num_workers=2)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[7, 5], [3, 1]]
    assert len(set(trace.samples.started)) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_single_samples(num_workers):
    """Without a batch size, each sample is a batch of one, of its own type."""
    loader = DataLoader(Rows(4), batch_size=None, num_workers=num_workers)
    trace, seen = watched(loader)
    assert seen == [0, 1, 2, 3]
    assert trace.size.tolist() == [1, 1, 1, 1]
    loader = DataLoader(Stream(0, 3), batch_size=None, num_workers=num_workers // 2)
    trace, seen = watched(loader)
    assert seen == [0, 1, 2]
    assert trace.status[3] == ENDED


def test_iterable_style_data_without_workers():
    """An iterator in the main process ends with a batch number that says so."""
    trace, seen = watched(DataLoader(Stream(0, 5), batch_size=2))
    assert [batch.tolist() for batch in seen] == [[0, 1], [2, 3], [4]]
    assert statuses(trace) == ["returned"] * 3 + ["ended"]
    assert trace.size.tolist() == [2, 2, 1, 0]
    assert trace.samples.index.tolist() == [-1] * 5


def test_shards_set_by_worker_init_fn():
    """Users' worker_init_fn sees and changes their own dataset; the ends of shards are seen."""
    loader = DataLoader(Stream(0, 10), batch_size=2, num_workers=2, worker_init_fn=shard)
    trace, seen = watched(loader)
    assert sorted(row for batch in seen for row in batch.tolist()) == list(range(10))
    by_worker = [trace.size[(trace.worker == w) & (trace.status == RETURNED)] for w in (0, 1)]
    assert [sizes.tolist() for sizes in by_worker] == [[2, 2, 2, 1], [2, 1]]
    assert (trace.status == ENDED).sum() == 2
    assert set(trace.status) <= {RETURNED, ENDED, SKIPPED}
    assert not trace.size[(trace.status == ENDED) | (trace.status == SKIPPED)].any()
    assert np.isnan(trace.started[trace.status == SKIPPED]).all()
    assert trace.meta.scenario.dataset.sharding == (7, 3)


def test_iterable_shards_agree_with_the_simulation():
    """Fates, sizes and workers of all batches of a sharded stream are those simulated."""
    loader = DataLoader(Stream(0, 10), batch_size=2, num_workers=2, worker_init_fn=shard)
    trace = observe(loader, step=lambda batch: time.sleep(0.02))
    simulated = simulate(
        Scenario(
            loader=trace.meta.scenario.loader,
            dataset=type(trace.meta.scenario.dataset)(
                10, sharding=(7, 3), fetch=(Stage("read", wait=Constant(0.002)),)
            ),
            consumer=Consumer(step=Constant(0.02)),
        )
    )
    assert trace.status.tolist() == simulated.status.tolist()
    assert trace.worker.tolist() == simulated.worker.tolist()
    assert trace.size.tolist() == simulated.size.tolist()
    assert trace.order.tolist() == simulated.order.tolist()


def test_shards_by_worker_info_and_drop_last():
    """A dataset that asks for its worker gets it; partial batches are dropped by each worker."""
    loader = DataLoader(Split(0, 10), batch_size=2, num_workers=2, drop_last=True)
    trace, seen = watched(loader)
    assert sorted(row for batch in seen for row in batch.tolist()) == list(range(8))
    assert (trace.status == ENDED).sum() == 2


def test_drop_last():
    """The last partial batch of a map-style dataset is not even sent."""
    trace = observe(DataLoader(Rows(5), batch_size=2, num_workers=2, drop_last=True))
    assert trace.size.tolist() == [2, 2]


def test_workers_that_persist():
    """Persistent workers are the same processes in the second epoch, and gone afterwards."""
    pids = []
    loader = DataLoader(
        Rows(8),
        batch_size=2,
        num_workers=2,
        persistent_workers=True,
        collate_fn=lambda r: os.getpid(),
    )
    trace = observe(loader, step=pids.append, epochs=2)
    assert len(set(pids)) == 2
    assert trace.epochs.first.tolist() == [0, 4]
    assert trace.worker.tolist() == [0, 1] * 4
    assert (trace.status == RETURNED).all()
    assert loader._iterator is None
    for pid in set(pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_left_early(persistent):
    """After `batches` batches an epoch is left; what was sent is pending, or later discarded."""
    loader = DataLoader(Rows(20), batch_size=2, num_workers=2, persistent_workers=persistent)
    trace, seen = watched(loader, batches=2, epochs=2)
    assert len(seen) == 4
    assert trace.order.tolist() == [0, 1, 6, 7]
    assert trace.epochs.first.tolist() == [0, 6]
    left = DISCARDED if persistent else PENDING
    assert trace.status[2:6].tolist() == [left] * 4
    assert trace.status[8:].tolist() == [PENDING] * 4


@pytest.mark.parametrize("in_order", [True, False])
def test_out_of_order(in_order):
    """Batches are numbered as sent and listed as returned, even out of order."""
    loader = DataLoader(Rows(8, slow=0), batch_size=1, num_workers=2, in_order=in_order)
    trace, seen = watched(loader)
    assert trace.order.tolist() == [batch.item() for batch in seen]
    assert (trace.order.tolist() == list(range(8))) == in_order
    assert trace.worker[0] == 0
    index = trace.samples.index
    assert index.tolist() == list(range(8))
    assert trace.samples.worker.tolist() == trace.worker.tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_random_order_as_without_watching(num_workers):
    """Generators, the loader's own and the global one, are used as without observation."""

    def loader():
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(2)
        return DataLoader(
            Rows(12, 0.0),
            batch_size=3,
            shuffle=True,
            num_workers=num_workers,
            generator=generator,
            collate_fn=lambda rows: (rows, torch.rand(1).item()),
        )

    plain = loader()
    expected = [batch for _ in range(2) for batch in plain]
    after = torch.rand(1)
    _, seen = watched(loader(), epochs=2)
    assert seen == expected
    assert torch.equal(torch.rand(1), after)


def test_the_users_loader_is_left_as_it_was():
    """Observation changes no attribute of the loader, and it can be used afterwards."""
    loader = DataLoader(Rows(4), batch_size=2, num_workers=2, worker_init_fn=print)
    loader.worker_init_fn = None
    before = dict(vars(loader))
    observe(loader)
    assert vars(loader) == before
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_processes_that_are_spawned():
    """With spawn everything is pickled to the workers, and seen all the same."""
    loader = DataLoader(
        Stream(0, 10),
        batch_size=2,
        num_workers=1,
        multiprocessing_context="spawn",
        worker_init_fn=shard,
    )
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[0, 1], [2, 3], [4, 5], [6]]
    assert trace.worker[trace.order].tolist() == [0] * 4
    assert trace.meta.scenario.loader.multiprocessing_context == "spawn"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_in_fetching_ends_the_trace(num_workers):
    """What was seen until a sample raised is kept, and the batch at fault is named."""
    dataset = Rows(12, does=raise_at(7))
    trace, seen = watched(DataLoader(dataset, batch_size=3, num_workers=num_workers))
    assert len(seen) == 2
    problem = trace.meta.problem
    assert (problem.kind, problem.batch) == ("fetch", 2)
    assert problem.message == "ValueError: no row 7"
    assert problem.time >= trace.finished[1]
    assert trace.status[:3].tolist() == [RETURNED, RETURNED, FAILED]
    assert trace.size[2] == 0
    assert np.isnan(trace.fetched[2])
    assert not np.isnan(trace.started[2])
    assert np.isnan(trace.epochs.ended[0])


def test_an_error_gives_credit_back_as_a_batch_does():
    """Torch sends another batch before it raises: no more than the window are under way."""
    trace = observe(DataLoader(Rows(30, does=raise_at(0)), batch_size=3, num_workers=2))
    assert (len(trace), trace.meta.problem.batch) == (5, 0)
    assert credit(trace).max == 4


def test_an_exception_in_collating_ends_the_trace():
    """An exception of collate_fn is told from one of the dataset."""
    trace = observe(DataLoader(Rows(4), batch_size=2, num_workers=2, collate_fn=raise_at([2, 3])))
    assert (trace.meta.problem.kind, trace.meta.problem.batch) == ("collate", 1)


def test_an_exception_in_starting_a_worker_ends_the_trace():
    """An exception of worker_init_fn answers for that worker's first batch."""
    loader = DataLoader(Rows(8), batch_size=2, num_workers=2, worker_init_fn=raise_at(1))
    trace = observe(loader)
    assert (trace.meta.problem.kind, trace.meta.problem.batch) == ("worker_init_fn", 1)
    assert trace.meta.problem.message == "ValueError: no row 1"
    assert trace.order.tolist() == [0]


def test_an_exception_in_the_sampler_ends_the_trace():
    """A sampler that breaks is named as such."""

    def lists():
        yield [0]
        raise OSError("no more")

    trace = observe(DataLoader(Rows(2), batch_sampler=lists()))
    assert trace.meta.problem.kind == "sampler"
    assert trace.meta.problem.message == "OSError: no more"


def test_an_exception_in_the_step_is_the_users():
    """What the user's step raises is raised to the user."""
    with pytest.raises(ValueError, match="no row"):
        observe(DataLoader(Rows(2)), step=lambda batch: raise_at(0)(batch.item()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interruption_keeps_what_was_seen(num_workers, tmp_path):
    """Ctrl-C is raised on, and with it comes the trace until then, which survives a file."""

    def step(batch):
        if int(batch[0]) >= 9:
            raise KeyboardInterrupt

    loader = DataLoader(Rows(24), 3, num_workers=num_workers)
    with pytest.raises(Interrupted) as caught:
        observe(loader, step=step)
    seen = caught.value.seen
    assert list(seen.order) == [0, 1, 2, 3]
    assert seen.meta.problem.kind == "interrupt"
    save(seen, tmp_path / "run.npz")
    assert difference(seen, load_trace(tmp_path / "run.npz")) is None


def test_an_epoch_is_left_when_the_time_is_up():
    """After so many seconds an epoch is left, and the settings say after how many batches."""
    loader = DataLoader(Rows(24), 3)
    seen = observe(loader, step=lambda batch: time.sleep(0.02), seconds=0.01, epochs=2)
    assert seen.meta.scenario.consumer.stop_after == 1
    assert len(seen.order) == 2


def test_a_worker_that_dies():
    """A killed worker ends the trace; what it did until then is kept, the rest is pending."""
    dataset = Rows(16, does=exit_at(5))
    trace = observe(DataLoader(dataset, batch_size=2, num_workers=2))
    problem = trace.meta.problem
    assert (problem.kind, problem.batch) == ("worker", 2)
    assert "exited unexpectedly" in problem.message
    assert trace.worker[:4].tolist() == [0, 1, 0, 1]
    assert trace.status[2] == PENDING
    assert not np.isnan(trace.started[2])
    assert trace.samples.index[trace.samples.batch == 2].tolist() == [4]


def test_a_loader_that_times_out():
    """torch's timeout ends the trace."""
    loader = DataLoader(Rows(2, seconds=0.7), num_workers=1, timeout=0.05)
    problem = observe(loader).meta.problem
    assert (problem.kind, problem.batch) == ("timeout", -1)


class Doubling(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield 2 * batch


class Detached(DataLoader):
    def __iter__(self):
        return iter([1, 2])


class Endless(DataLoader):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.running = super().__iter__()

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.running)


class Splits:
    """What loaders of its own kind are found in, as fastai's DataLoaders."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, number):
        raise IndexError(number)


class Holding:
    """Not a DataLoader, as WebLoader or timm's PrefetchLoader."""

    def __init__(self, dataset):
        self.inner = [None, DataLoader(dataset)]


class Around(DataLoader):
    """Iterates another DataLoader, as accelerate's."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.inner = DataLoader(dataset)

    def __iter__(self):
        yield from self.inner


class Ahead(DataLoader):
    """Takes a batch before it gives the one before."""

    def __iter__(self):
        batches = super().__iter__()
        held = next(batches)
        for batch in batches:
            yield held
            held = batch
        yield held


class Threaded(DataLoader):
    """A thread takes the batches, as MONAI's ThreadDataLoader; it is never ahead here."""

    def __iter__(self):
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as pool:
            while (batch := pool.submit(next, batches, None).result()) is not None:
                yield batch


class Cut(DataLoader):
    """Takes one batch more than it gives."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 2:
                return
            yield batch


class Kept(DataLoader):
    """Makes its iterator by itself, as torchdata's StatefulDataLoader."""

    def __iter__(self):
        return self._get_iterator()


class Transforming(DataLoader):
    """Has an iterator around torch's that works on batches, as PyG's NeighborLoader."""

    def _get_iterator(self):
        return Transformed(super()._get_iterator())


class Transformed:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return self

    def __next__(self):
        return 2 * next(self.batches)

    def _reset(self, loader, first_iter=False):
        self.batches._reset(loader, first_iter)


class Repeating(DataLoader):
    """Gives each batch twice."""

    def __iter__(self):
        for batch in super().__iter__():
            yield from (batch, batch)


class Helped(Rows):
    """Loads by a process of its own, as torchio's Queue."""

    def __getitem__(self, index):
        get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
        return index


class Threads(SpawnContext):
    """Its workers are threads, as MONAI's can be."""

    Process = threading.Thread


class Reading(Rows):
    """Takes its samples from a loader."""

    def __init__(self, rows):
        super().__init__(len(rows))
        self.batches = iter(DataLoader(rows))


class Asking(DataLoader):
    """Asks for the class of its dataset, as litdata's."""

    def __iter__(self):
        assert isinstance(self.dataset, Rows)
        assert not isinstance(self.dataset, IterableDataset)
        return super().__iter__()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_iterator_of_its_own_is_watched(num_workers):
    """Where a class hands on an iterator that did not come from DataLoader's own __iter__."""
    trace, seen = watched(Kept(Rows(6), batch_size=2, num_workers=num_workers), epochs=2)
    assert [batch.tolist() for batch in seen] == 2 * [[0, 1], [2, 3], [4, 5]]
    assert trace.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert not np.isnan(trace.epochs.primed).any()


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}],
    ids=["alone", "workers", "persistent"],
)
def test_an_iterator_around_torchs_gets_plain_batches(settings):
    """What it does to batches counts as the beginning of the step, and how long is kept."""
    trace, seen = watched(Transforming(Rows(6), batch_size=2, **settings), epochs=2)
    assert [batch.tolist() for batch in seen] == 2 * [[0, 2], [4, 6], [8, 10]]
    assert trace.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(trace.entered, trace.returned)
    assert not np.isnan(trace.epochs.primed).any()
    facts = json.loads(trace.meta.notes["machine"])
    assert facts["own"] > 0
    assert facts["trained"]


def test_what_a_loop_of_the_loaders_own_takes_is_told():
    """If it is more than a trifle; nothing is, where torch's loop is the only one."""
    trace, _ = watched(Transforming(Rows(4), batch_size=2))
    for own, said in ((0.3 * trace.end, True), (0.001 * trace.end, False)):
        facts = json.loads(trace.meta.notes["machine"]) | {"own": own}
        meta = structs.replace(trace.meta, notes={"machine": json.dumps(facts)})
        told = run_text(replace(trace, meta=meta))
        assert ("The loader's own __iter__ takes " in told) is said
    plain = observe(DataLoader(Rows(4), batch_size=2))
    assert "own" not in json.loads(plain.meta.notes["machine"])


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        (DataLoader, {"step": lambda batch: raise_at(4)(batch.item())}, ValueError),
        (DataLoader, {"step": lambda batch: raise_at(4, KeyboardInterrupt)(batch.item())}, None),
        (partial(DataLoader, sampler=Undrawn(ValueError)), {}, ValueError),
        (partial(DataLoader, sampler=Undrawn(KeyboardInterrupt)), {}, None),
        (Ahead, {}, ObserveError),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_no_worker_outlives_what_it_writes_into(kind, settings, error, persistent):
    """Whatever ends the loop, they are gone with it, though somebody still holds the exception."""
    loader = kind(Rows(24), 1, num_workers=2, persistent_workers=persistent)
    with pytest.raises(error or KeyboardInterrupt) as caught:
        observe(loader, **settings)
    assert caught.tb is not None
    assert not active_children()


def test_processes_of_a_dataset_are_seen_to():
    """A loader that only waits for others is not taken for one that does nothing."""
    try:
        with pytest.raises(ObserveError, match=r"\.Helped, loads by 1 process of its own"):
            observe(DataLoader(Helped(3)))
    finally:
        for child in active_children():
            child.terminate()


def again_and_again(sampler):
    """A sampler without end, of the class by which such a one goes."""
    return _RepeatSampler(sampler)


class _RepeatSampler:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from self.sampler


class Reusing(DataLoader):
    """Has workers that go on into the next epoch, as timm's and ultralytics' have."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        object.__setattr__(self, "batch_sampler", again_and_again(self.batch_sampler))
        self.iterator = None

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        if self.iterator is None:
            self.iterator = self._get_iterator()
        for _ in range(len(self)):
            yield next(self.iterator)


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_without_end_are_known(workers):
    """An epoch has its own batches, though those of the next are fetched, too."""
    trace, seen = watched(Reusing(Rows(8), batch_size=2, num_workers=workers), epochs=2)
    assert [batch.tolist() for batch in seen] == 2 * [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert trace.epochs.first.tolist() == [0, 4]
    scenario = trace.meta.scenario
    assert scenario.loader.endless
    assert (scenario.loader.batch_size, scenario.loader.batch_sampler) == (2, None)
    found = simulate(scenario)
    assert (found.order.tolist(), len(found)) == (trace.order.tolist(), len(trace))


class Files(IterableDataset):
    """Two files of four samples, each of which one worker reads, as Hugging Face's data sets do."""

    num_shards = 2

    def __iter__(self):
        info = get_worker_info()
        for file in range(info.id, 2, info.num_workers):
            yield from range(4 * file, 4 * file + 4)


Files.__module__ = "datasets.iterable_dataset"


def split_by_worker(source):
    """Named as webdataset's."""


class SimpleShardList:
    urls = ("a", "b", "c")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_whose_size_is_changed_meanwhile_are_known_as_they_came(workers):
    """As bs-scheduler does it: the sampler has another size after the third step, a window late."""
    loader = DataLoader(Rows(60), batch_size=4, num_workers=workers)
    steps = []

    def step(batch):
        steps.append(batch)
        if len(steps) == 3:
            loader.batch_sampler.batch_size = 8

    seen = observe(loader, step=step)
    late = 3 + 2 * workers
    sizes = [4] * late + [8] * ((60 - 4 * late) // 8)
    sizes += [60 - sum(sizes)] * (sum(sizes) < 60)
    assert seen.size[seen.order].tolist() == sizes
    scenario = seen.meta.scenario
    assert [len(batch) for batch in scenario.loader.batch_sampler] == sizes
    assert simulate(scenario).size.tolist() == sizes


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_files_that_are_dealt_are_known(workers):
    """However many workers there are then, each file goes to one of them."""
    trace = observe(DataLoader(Files(), batch_size=2, num_workers=workers))
    dataset = trace.meta.scenario.dataset
    assert (dataset.shards, dataset.sharding) == ((4, 4), "none")
    assert [len(dataset.shard(w, 3)) for w in range(3)] == [4, 4, 0]


def test_files_of_webdataset():
    """Those of its list, if workers share them out, and the data set ends with them."""
    stream = SimpleNamespace(pipeline=[SimpleShardList(), split_by_worker], repetitions=1)
    assert shards.count(stream) == 3
    assert shards.count(SimpleNamespace(pipeline=[SimpleShardList()], repetitions=1)) is None
    assert shards.count(SimpleNamespace(**vars(stream) | {"repetitions": 9})) is None
    assert shards.count(Stream(0, 4)) is None
    assert shards.sizes(5, [7, 4]) == (3, 2, 2, 2, 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_lists_of_indices_in_place_of_indices(num_workers):
    """Torch's idiom for datasets that fetch whole batches: a BatchSampler as the sampler."""
    sampler = BatchSampler(SequentialSampler(range(7)), 3, drop_last=False)
    loader = DataLoader(Several(7), batch_size=None, sampler=sampler, num_workers=num_workers)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[0, 1, 2], [3, 4, 5], [6]]
    assert trace.size.tolist() == [3, 3, 1]
    assert trace.samples.index.tolist() == [*range(7)]
    scenario = trace.meta.scenario
    assert (scenario.loader.batch_size, scenario.dataset.batched) == (3, True)
    assert simulate(scenario).size.tolist() == [3, 3, 1]


class Several(Rows):
    def __getitem__(self, indices):
        return torch.tensor(indices)


def test_a_batch_sampler_of_torchs_is_its_settings():
    """So that a run that was left early stands for all of the epoch."""
    sampler = BatchSampler(RandomSampler(range(50)), 4, drop_last=True)
    scenario = observe(DataLoader(Rows(50), batch_sampler=sampler), batches=2).meta.scenario
    assert (scenario.loader.batch_size, scenario.loader.drop_last) == (4, True)
    assert scenario.loader.shuffle


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_class_of_the_dataset_is_the_users(context):
    """For whoever asks `isinstance`, in the main process and after pickling."""
    loader = Asking(Rows(4, does=abs), batch_size=2, num_workers=1, multiprocessing_context=context)
    trace, seen = watched(loader)
    assert [batch.tolist() for batch in seen] == [[0, 1], [2, 3]]
    assert trace.meta.problem is None
    assert trace.samples.index.tolist() == [0, 1, 2, 3]


def test_what_a_loader_takes_for_itself_is_not_returned():
    """A batch that the loader's loop takes when it ends was given to nobody."""
    trace, seen = watched(Cut(Rows(12), batch_size=2, num_workers=2))
    assert len(seen) == 2
    assert trace.order.tolist() == [0, 1]
    assert not np.isnan(trace.finished[trace.order]).any()


def test_threads_that_go_on_write_nothing_when_it_is_over(tmp_path):
    """What was the number of a file of records may be another's by then."""
    probe = Probe(tmp_path, samples=True)
    probe.open(-1)
    probe.close()
    others = [os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in "ab"]
    probe.serialised(0, UNSEEN, UNSEEN)
    probe.take(0)
    assert probe.each(Rows(2), [1]) == [1]
    for other in others:
        assert os.fstat(other).st_size == 0
        os.close(other)


def made_of(data):
    """What is unpickled as a `Reduced`."""
    return Reduced(data)


class Reduced:
    """Says itself what it is pickled as, as PyG's Batch."""

    def __init__(self, data):
        self.hidden = {"x": data, "again": data[1:]}

    def __reduce__(self):
        return made_of, (self.hidden["x"],)


@pytest.mark.parametrize(
    ("data", "tensors", "size"),
    [
        (torch.zeros(10), 1, 40),
        ([torch.zeros(10), {"x": torch.zeros(3, dtype=torch.int64)}], 2, 64),
        (Reduced(torch.zeros(1000)), 1, 4000),
        (torch.zeros(100)[:2], 1, 400),
        (list(torch.zeros(10, 10)), 10, 400),
        (torch.nn.Parameter(torch.zeros(10)), 1, 40),
        (torch.eye(5).to_sparse(), 2, 5 * 4 + 10 * 8),
        (np.zeros(1000), 0, 0),
    ],
)
def test_tensors_are_counted_as_pickling_finds_them(data, tensors, size):
    """Whatever class they are in; of a view, all that it shares; each storage once."""
    found = payload_of(data, 10)
    assert (found.tensors, found.tensor_bytes) == (tensors, size)
    rest = len(pickle.dumps(data)) if not tensors else 0
    assert rest <= found.pickled_bytes < rest + 400


def test_tensors_that_come_with_samples_are_told_from_those_of_all():
    """One of all samples has a row for each; of a list of samples, none has as many."""
    assert payload_of({"image": torch.zeros(8, 3), "label": torch.zeros(8)}, 8).listed == 0
    boxes = [{"image": torch.zeros(3, 9), "boxes": torch.zeros(n, 4)} for n in range(4)]
    assert payload_of([*boxes, torch.zeros(4)], 4).listed == 8


def asleep(seconds):
    """What a `Heavy` is pickled as."""
    time.sleep(seconds)
    return Heavy(seconds)


class Heavy:
    """Takes so many seconds to pickle, and as many to unpickle."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __reduce__(self):
        time.sleep(self.seconds)
        return asleep, (self.seconds,)


def heavy(samples):
    """A `collate_fn`."""
    return Heavy(0.02)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_all_of_the_pickling_is_seen(context):
    """On both sides of the pipe, from the first byte of a batch to the last."""
    settings = {"collate_fn": heavy, "num_workers": 1, "multiprocessing_context": context}
    trace = observe(DataLoader(Rows(4, does=abs), 2, **settings))
    assert (trace.serialising >= trace.fetched).all()
    assert (trace.serialised - trace.serialising >= 0.02).all()
    assert (trace.rebuilding >= trace.serialised).all()
    assert (trace.received - trace.rebuilding >= 0.02).all()


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("late", [0.0, 0.05])
@pytest.mark.parametrize("length", [2, 7, 20])
def test_word_of_an_ended_iterator_gives_credit_back(length, late, persistent):
    """Of a window of 4 no more are ever under way, however many workers end early, or how late."""
    stream = Split(0, length, late)
    loader = DataLoader(stream, batch_size=1, num_workers=2, persistent_workers=persistent)
    trace = observe(loader, epochs=2)
    assert (trace.status == ENDED).any()
    assert credit(trace).max <= 4


def test_a_users_own_kind_of_loader():
    """A subclass of DataLoader still does with its batches what it does."""
    trace, seen = watched(Doubling(Rows(4), batch_size=2, num_workers=2))
    assert [batch.tolist() for batch in seen] == [[0, 2], [4, 6]]
    assert trace.order.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([1, 2], "loader: expected a torch DataLoader, got list"),
        ({"a": DataLoader(Rows(2))}, r"got dict; its \['a'\] is one that can be watched"),
        ((batch for batch in DataLoader(Rows(2))), "generator; watch the loader that it takes its"),
        (Stream(0, 2), "Stream; watch one over it"),
        (SimpleNamespace(loader=[{"train": DataLoader(Rows(2))}]), "got types.SimpleNamespace$"),
        (Splits(Rows(2)), "Splits; watch one with the same dataset"),
        (Detached(Rows(2)), "Detached cannot be watched: its __iter__ is not DataLoader's; watch "),
        (Repeating(Rows(2)), "its __iter__ makes several batches of one; watch a torch DataLoader"),
        (
            Endless(Rows(2)),
            r"Endless cannot be watched: its workers already run \(see its .run",
        ),
        (Holding(Rows(2)), r"got tests.+\.Holding; its \.inner\[1\] is one that can be watched$"),
        (
            Around(Rows(2)),
            r"Around cannot be watched: its __iter__ .+; watch its \.inner, a ",
        ),
        (
            DataLoader(Rows(2), num_workers=1, multiprocessing_context=Threads()),
            r"its workers are no processes \(see its .multiprocessing_context\)",
        ),
        (DataLoader(Reading(Rows(2))), r"\.Reading, has a loader of its own \(see its \.batches\)"),
        (Ahead(Rows(6)), r"Ahead cannot be watched: its __iter__ has taken 2 batches where it gi"),
        (
            Threaded(Rows(2)),
            "Threaded cannot be watched: a thread of its own takes batches; wa",
        ),
    ],
)
def test_what_cannot_be_watched_is_refused(loader, message):
    """A loader that cannot be watched is refused in one line that says why."""
    with pytest.raises(ObserveError, match=message):
        observe(loader)


def test_bad_numbers_are_refused():
    """The numbers of batches and epochs must make sense."""
    with pytest.raises(ScenarioError, match="batches: expected an integer of at least 1"):
        observe(DataLoader(Rows(2)), batches=0)
    with pytest.raises(ScenarioError, match="epochs: expected an integer of at least 1"):
        observe(DataLoader(Rows(2)), epochs=0)


def test_progress_counts_batches():
    """`progress` is told of every batch finished."""
    told = []
    observe(DataLoader(Rows(4, 0.0), batch_size=2), epochs=2, progress=told.append)
    assert told == [1, 1, 1, 1]


def test_tags_are_pinned_as_batches_are():
    """Torch's pin-memory code reaches the batch inside the tag, custom types included."""

    class Custom:
        pinned = False

        def pin_memory(self):
            self.pinned = True
            return self

    tagged = pin_memory(Tagged(3, {"inside": Custom()}))
    assert tagged.batch == 3
    assert tagged.data["inside"].pinned


def test_errors_in_one_line():
    """Of an exception with torch's traceback in it, the line that says what went wrong is kept."""
    wrapped = (
        "ValueError: Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most"
        " recent call last):\n  File x, line 1\n    boom()\nValueError: boom\nmore of it"
    )
    assert one_line(wrapped) == "ValueError: boom"
    assert one_line("ValueError: boom") == "ValueError: boom"


def test_the_demonstration_of_the_notes():
    """24 rows, batch 3, 2 workers: torch and the simulation deal, fetch and take as long alike.

    The simulated rows take as long as the real ones did, since a machine oversleeps: torch is no
    faster than that. How much slower it is, its fidelity tells.
    """

    def simulated(wait):
        return simulate(
            Scenario(
                loader=Loader(batch_size=3, num_workers=2, prefetch_factor=2),
                dataset=MapDataset(24, fetch=(Stage("read", wait=wait),)),
            ),
            samples=True,
        )

    expected = simulated(Constant(0.04))
    loader = DataLoader(Rows(24, 0.04), batch_size=3, num_workers=2, prefetch_factor=2)
    seen = observe(loader)
    assert seen.order.tolist() == expected.order.tolist()
    assert seen.worker.tolist() == expected.worker.tolist()
    for worker in (0, 1):
        fetched = [t.samples.index[t.samples.worker == worker] for t in (expected, seen)]
        assert fetched[0].tolist() == fetched[1].tolist()
    rows = seen.samples.fetched - seen.samples.started
    assert (rows >= 0.04).all()
    total = simulated(Recorded(tuple(rows.tolist()))).returned.max()
    assert seen.returned.max() - seen.started.min() > 0.99 * total
