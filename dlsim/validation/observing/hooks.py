"""What watches inside the processes of a loader, through the objects that users give it.

The dataset, `collate_fn` and `worker_init_fn` are wrapped; each process writes what they do, one
fixed-size record at a time, to a file of its own, so that what was seen outlives a killed worker.
Which batch it was comes along by pickle: an index list sent to a worker says its number when it
is unpickled there, and leaves only the plain list; a batch carries its number back in `Tagged`.
"""

from __future__ import annotations

import operator
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from dlsim.validation.observing.cpu_time import UNSEEN, QueueClock, Reading, reading

MAIN = -1  # the worker number of the main process

# Began, ended, cpu, queued, used; batch, what, kind, worker, process. CPU is seconds of the
# thread between began and ended, queued those it waited for a core; used: CPU of all threads of
# the process so far.
RECORD = struct.Struct("=dddddqqqqq")

# Kinds of record; `what` means something else in each.
TAKEN = 1  # the index list is unpickled; cpu and queued: of the thread so far
SAMPLE = 2  # what: dataset index, -1 if it has none; used: nothing
COLLATED = 3  # collate_fn was called; what: the number of samples
EXHAUSTED = 4  # the iterator has nothing more
RAISED = 5  # what: which of POINTS raised an exception
SERIALISED = 6  # a finished batch was pickled, mostly by the feeder thread
READY = 7  # worker_init_fn, or the dataset's __iter__, has returned; before the next batch

POINTS = ("fetch", "collate", "worker_init_fn")
FETCH, COLLATE, INIT = range(3)


class Probe:
    """What one process writes down, and which batch it is at.

    A probe travels to workers as part of what it watches, unopened.
    """

    def __init__(self, directory: Path, *, samples: bool) -> None:
        self.directory = directory
        self.samples = samples
        self.batch = -1
        self.count = 0
        self._author = MAIN, 0
        self._file = -1
        self._queued: QueueClock

    def open(self, worker: int) -> None:
        """Begin the file of this process."""
        self._author = worker, os.getpid()
        self._queued = QueueClock()
        path = self.directory / f"worker{worker}-process{os.getpid()}"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """End the file of this process."""
        os.close(self._file)

    def write(
        self,
        kind: int,
        spent: Reading,
        ended: float,
        used: float,
        what: int,
        batch: int | None = None,
    ) -> None:
        """One record of `batch`, or the one being worked on; in the kernel's hands at once."""
        os.write(
            self._file,
            RECORD.pack(
                spent.time,
                ended,
                spent.cpu,
                spent.queued,
                used,
                self.batch if batch is None else batch,
                what,
                kind,
                *self._author,
            ),
        )

    def begin(self) -> Reading:
        """What this thread has used until now."""
        return reading(self._queued)

    def done(self, kind: int, began: Reading, used: float = 0.0, what: int = -1) -> None:
        """A record of what began at `began` and ends now."""
        now = reading(self._queued)
        self.write(kind, began.until(now), now.time, used, what)

    def take(self, batch: int) -> None:
        """This process begins to work on `batch`."""
        self.batch, self.count = batch, 0
        now = self.begin()
        self.write(TAKEN, now, now.time, process_time(), -1)

    def item(self, dataset: Any, index: Any) -> Any:
        """`dataset[index]`, timed."""
        began = self.begin()
        try:
            value = dataset[index]
        except Exception:
            self.done(RAISED, began, what=FETCH)
            raise
        self.fetched((index,), began)
        return value

    def items(self, dataset: Any, indices: Any) -> Any:
        """`dataset.__getitems__(indices)`, timed."""
        began = self.begin()
        try:
            values = dataset.__getitems__(indices)
        except Exception:
            self.done(RAISED, began, what=FETCH)
            raise
        self.fetched(indices, began)
        return values

    def iterating(self, dataset: Any) -> Iterator[Any]:
        """`iter(dataset)`, timed."""
        began = self.begin()
        iterator: Iterator[Any] = iter(dataset)
        self.done(READY, began)
        return iterator

    def following(self, iterator: Iterator[Any]) -> Any:
        """`next(iterator)`, timed."""
        began = self.begin()
        try:
            value = next(iterator)
        except StopIteration:
            self.done(EXHAUSTED, began)
            raise
        except Exception:
            self.done(RAISED, began, what=FETCH)
            raise
        self.fetched((None,), began)
        return value

    def fetched(self, indices: Sequence[Any], began: Reading) -> None:
        """The samples of `indices` were fetched in one call, and share its CPU time equally."""
        now, count = reading(self._queued), len(indices)
        self.count += count
        if self.samples:
            spent = began.until(now)
            share = Reading(began.time, spent.cpu / count, spent.queued / count)
            for index in indices:
                self.write(SAMPLE, share, now.time, 0.0, as_integer(index))


_here: Probe | None = None  # of this worker process: unpickling has no other way to find it


def arrive(batch: int, indices: Any) -> Any:
    """The index list of `batch` has come out of a worker's index queue."""
    if _here is not None:
        _here.take(batch)
    return indices


class Task:
    """An index list on its way to a worker, where the plain list comes out."""

    def __init__(self, batch: int, indices: Any, sent: set[int]) -> None:
        self._parts = batch, indices
        self._sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        self._sent.add(self._parts[0])
        return arrive, self._parts


class Tagged:
    """A batch on its way to the main process: its number, how it was rebuilt there, and pinned.

    `rebuilding` is what the thread that unpickles it had used just before, `rebuilt` just after;
    `pinning` and `pinned` likewise of the thread that copies it into pinned memory.
    """

    rebuilding = rebuilt = pinning = pinned = UNSEEN

    def __init__(self, batch: int, data: Any) -> None:
        self.batch, self.data = batch, data

    def __reduce__(self) -> tuple[Any, ...]:
        pickling = Pickling(self.batch)
        return rebuilt, (Began(pickling), self.batch, self.data, Ended(pickling))

    def pin_memory(self) -> Tagged:
        """What torch's pin-memory code makes of the batch alone, tagged again."""
        began = of_this_thread()
        self.data = pin_memory(self.data)  # type: ignore[no-untyped-call]
        self.pinning, self.pinned = began, of_this_thread()
        return self


class Pickling:
    """The pickling of one batch by one thread of a worker."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.began = UNSEEN


class Began:
    """Comes before a batch's data where it is pickled, and where it is unpickled."""

    def __init__(self, pickling: Pickling) -> None:
        self._pickling = pickling

    def __reduce__(self) -> tuple[Any, ...]:
        self._pickling.began = of_this_thread()
        return of_this_thread, ()


class Ended:
    """Comes after a batch's data where it is pickled."""

    def __init__(self, pickling: Pickling) -> None:
        self._pickling = pickling

    def __reduce__(self) -> tuple[Any, ...]:
        if _here is not None:
            now = of_this_thread()
            spent = self._pickling.began.until(now)
            _here.write(SERIALISED, spent, now.time, 0.0, -1, batch=self._pickling.batch)
        return type(None), ()


def rebuilt(began: Reading, batch: int, data: Any, ended: None) -> Tagged:
    """The tagged batch in the main process, all of whose data has just been unpickled."""
    tagged = Tagged(batch, data)
    tagged.rebuilding, tagged.rebuilt = began, of_this_thread()
    return tagged


_clocks = threading.local()


def of_this_thread() -> Reading:
    """What the calling thread has used until now."""
    if not hasattr(_clocks, "queued"):
        _clocks.queued = QueueClock()
    return reading(_clocks.queued)


class Collate:
    """The user's `collate_fn`, timed; what it returns is tagged."""

    def __init__(self, collate_fn: Callable[[Any], Any], probe: Probe) -> None:
        self._collate_fn = collate_fn
        self._probe = probe

    def __call__(self, samples: Any) -> Tagged:
        """The tagged batch of `samples`."""
        probe = self._probe
        began = probe.begin()
        try:
            data = self._collate_fn(samples)
        except Exception:
            probe.done(RAISED, began, what=COLLATE)
            raise
        probe.done(COLLATED, began, process_time(), probe.count)
        return Tagged(probe.batch, data)


class WorkerInit:
    """Begins the watch in a worker, then calls the user's `worker_init_fn`, if any."""

    def __init__(self, init_fn: Callable[[int], object] | None, probe: Probe, dataset: Any) -> None:
        self._init_fn = init_fn
        self._probe = probe
        self._dataset = dataset

    def __call__(self, worker: int) -> None:
        """What the start of `worker` asks for, in its process."""
        global _here
        _here = self._probe
        _here.open(worker)
        # User code that asks for its dataset gets its own. The wrapper passes attributes on, in
        # case a release keeps the information in another way.
        with suppress(AttributeError, TypeError):
            object.__setattr__(get_worker_info(), "dataset", self._dataset)
        began = _here.begin()
        if self._init_fn is not None:
            try:
                self._init_fn(worker)
            except Exception:
                _here.done(RAISED, began, what=INIT)
                raise
        _here.done(READY, began)


def as_integer(index: Any) -> int:
    """A dataset index as a 64-bit integer; -1 where it is something else."""
    try:
        number = operator.index(index)
    except TypeError:
        return -1
    return number if abs(number) < 1 << 63 else -1


def size_of(indices: Any) -> int:
    """The number of samples that an index list asks for; 1 for a single index."""
    try:
        return len(indices)
    except TypeError:
        return 1
