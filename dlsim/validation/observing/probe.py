"""What each process of a watched loader writes down: records of one size, in files of its own.

What was written outlives a killed worker.
"""

from __future__ import annotations

import mmap
import operator
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from time import monotonic, process_time
from typing import Any

from dlsim.validation.observing.cpu_time import JUST, NOTHING, Reading, ThreadClock

MAIN = -1  # the worker number of the main process

# Began, ended, cpu, queued, used; batch, what, worker, process, kind. CPU is seconds of the
# thread between began and ended, queued those it waited for a core; used: CPU of all threads of
# the process so far.
RECORD = struct.Struct("=dddddqqqqq")

# Kinds of record; `what` means something else in each.
TAKEN = 1  # the index list is unpickled; cpu and queued: of the thread so far
SAMPLE = 2  # what: dataset index, -1 if it has none; used: nothing
SAMPLES = 8  # so many, `what`, were fetched one after another; each is a SAMPLE when read
BATCHED = 9  # so many were fetched by one call; each is a SAMPLE of that time when read
COLLATED = 3  # collate_fn was called; what: the number of samples
EXHAUSTED = 4  # the iterator has nothing more
RAISED = 5  # what: which of POINTS raised an exception
SERIALISED = 6  # a finished batch was pickled, mostly by the feeder thread
# worker_init_fn, or the dataset's __iter__, has returned; before the next batch. what: pages of
# memory that were new to the worker until then, -1 after __iter__
READY = 7

# In a file beside, of each sample: when it was there, 0 if it never was, and its dataset index.
FETCHED = struct.Struct("=dq")
NO_INDEX = -1
ROOM = mmap.ALLOCATIONGRANULARITY  # entries of a file that are mapped at a time
# Seconds of samples one after another after which the system is asked what they used, which takes
# some microseconds; after each of them, where the thread was last seen to have been off the cores.
TOGETHER = 1e-3

POINTS = ("fetch", "collate", "worker_init_fn")
FETCH, COLLATE, INIT = range(3)


class Pages:
    """A file of entries of one size, in which the next ones are written without a system call.

    It grows by whole pages of entries that are `none`, which are written, not skipped: where the
    disk is full, here an exception says so, while writing to memory that no disk has room for would
    kill the process.
    """

    def __init__(self, path: Path, kind: struct.Struct, none: bytes) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        self._kind, self._none = kind, none
        self.extend()

    def extend(self, entries: int = 1) -> None:
        """Go on in new pages with room for `entries`, or more."""
        begin = os.lseek(self._file, 0, os.SEEK_END)
        self.room = -(-entries // ROOM) * ROOM
        os.write(self._file, self._none * self.room)
        self._memory = mmap.mmap(self._file, self.room * len(self._none), offset=begin)
        self.filled = 0  # entries of `room`

    def write(self, *values: float) -> None:
        """The next entry."""
        if self.filled == self.room:
            self.extend()
        self._kind.pack_into(self._memory, self.filled * self._kind.size, *values)
        self.filled += 1

    def column(self, kind: str, number: int) -> memoryview[Any]:
        """The values of all entries at this place in them, in these pages; all are of 64 bits."""
        values: memoryview[Any] = memoryview(self._memory).cast(kind)  # type: ignore[call-overload]
        return values[number :: len(self._none) // 8]

    def close(self) -> None:
        """End it. Who still writes into a column writes into memory that goes with it."""
        del self._memory
        os.close(self._file)


class Probe:
    """What one process writes down, and which batch it is at.

    A probe travels to workers as part of what it watches, unopened.

    Of each sample the time is written down at once. What the thread used is asked after several,
    and divided among them by how long each took: one that waits is long, and has most of it.
    """

    def __init__(self, directory: Path, *, samples: bool) -> None:
        self.directory = directory
        self.samples = samples
        self.batch = -1
        self.count = 0
        self._author = MAIN, 0
        self._clock: ThreadClock  # of the thread that fetches
        self._records: Pages
        self._samples: Pages
        self._fed: Pages  # records by other threads
        self._feeding: Lock
        self._times: memoryview[float]  # of the samples
        self._indices: memoryview[int]
        self._settled = 0  # samples until what the thread used was asked last
        self._since = NOTHING  # when that was
        self._within = TOGETHER  # seconds after which it is asked again
        self._due = 0.0  # when that is

    def open(self, worker: int) -> None:
        """Begin the files of this process."""
        self._author = worker, os.getpid()
        self._clock = ThreadClock()
        path = self.directory / f"worker{worker}-process{os.getpid()}"
        none = bytes(RECORD.size)
        self._records = Pages(path, RECORD, none)
        self._fed, self._feeding = Pages(path.with_suffix(".feeder"), RECORD, none), Lock()
        none = FETCHED.pack(0.0, NO_INDEX)
        self._samples = Pages(path.with_suffix(".samples"), FETCHED, none)
        self._times, self._indices = self._samples.column("d", 0), self._samples.column("q", 1)

    def close(self) -> None:
        """End the files of this process; what is still told, by a thread that goes on, is dropped.

        The numbers of the files may soon be others'.
        """
        self.samples = False
        self.take = self.write = self.serialised = dropped  # type: ignore[method-assign]
        del self._times, self._indices
        for pages in (self._records, self._samples, self._fed):
            pages.close()

    def write(
        self, kind: int, began: Reading, now: Reading, used: float = 0.0, what: int = -1
    ) -> None:
        """A record of what the thread that fetches did from `began` to `now`.

        In the kernel's hands at once.
        """
        spent = max(now.cpu - began.cpu, 0.0), now.queued - began.queued
        numbers = self.batch, what, *self._author, kind
        self._records.write(began.time, now.time, *spent, used, *numbers)

    def serialised(self, batch: int, began: float, ended: float, cpu: float) -> None:
        """A record that `batch` was pickled, by whichever thread."""
        with self._feeding:
            self._fed.write(began, ended, cpu, 0.0, 0.0, batch, -1, *self._author, SERIALISED)

    def settle(self) -> Reading:
        """What this thread has used until now, and until then for samples that were noted."""
        now, since = self._clock(), self._since
        noted = self._samples.filled - self._settled
        if noted:
            self.write(SAMPLES, since, now, what=noted)
            self._settled += noted
            off = now.time - since.time - (now.cpu - since.cpu)
            self._within = TOGETHER if off < JUST else JUST
        self._since, self._due = now, now.time + self._within
        return now

    def done(self, kind: int, began: Reading, used: float = 0.0, what: int = -1) -> None:
        """A record of what began at `began` and ends now."""
        self.write(kind, began, self._clock(), used, what)

    def take(self, batch: int) -> None:
        """This process begins to work on `batch`."""
        time, cpu, queued = self.settle()
        self.batch, self.count = batch, 0
        numbers = batch, -1, *self._author, TAKEN
        self._records.write(time, time, cpu, queued, process_time(), *numbers)

    def each(self, dataset: Any, indices: Iterable[Any]) -> list[Any]:
        """`dataset[index]` of each, one after another, timed."""
        wanted, values = [*indices], list[Any]()
        try:
            if self.samples:
                self._each(dataset, wanted, values)
            else:
                values.extend([dataset[index] for index in wanted])
        except Exception:
            self.done(RAISED, self.settle(), what=FETCH)
            raise
        self.count += len(values)
        return values

    def _each(self, dataset: Any, wanted: list[Any], values: list[Any]) -> None:
        """The same into `values`; for each, no more is done than writing down when it was there."""
        pages, first = self._samples, self._expect(wanted)
        self.settle()
        times, due = self._times, self._due
        try:
            for place, index in enumerate(wanted, first):
                values.append(dataset[index])
                times[place] = now = monotonic()
                if now >= due:
                    pages.filled = place + 1
                    self.settle()
                    due = self._due
        finally:
            pages.filled = first + len(values)

    def _expect(self, wanted: list[Any]) -> int:
        """The place of the first of the samples `wanted` next; all have one, and their indices."""
        if self._samples.filled + len(wanted) > self._samples.room:
            self.settle()
            self._turn(len(wanted))
        first = self._samples.filled
        self._indices[first : first + len(wanted)] = integers(wanted)
        return first

    def _turn(self, samples: int) -> None:
        """Go on in new pages, where there is room for so many; those before are settled."""
        self._samples.extend(samples)
        self._settled = 0
        self._times, self._indices = self._samples.column("d", 0), self._samples.column("q", 1)

    def batch_of(self, call: Callable[[Any], Any], indices: Any) -> Any:
        """`call(indices)`, timed: of a dataset, for all samples of a batch."""
        began = self.settle()
        try:
            values = call(indices)
        except Exception:
            self.done(RAISED, began, what=FETCH)
            raise
        now, count = self._clock(), len(indices)
        self.count += count
        if self.samples and count:
            first = self._expect([*indices])
            self._times[first : first + count] = array("d", [now.time]) * count
            self._samples.filled = self._settled = first + count
            self.write(BATCHED, began, now, what=count)
        return values

    def iterating(self, dataset: Any) -> Iterator[Any]:
        """`iter(dataset)`, timed."""
        began = self.settle()
        iterator: Iterator[Any] = iter(dataset)
        self.done(READY, began)
        return iterator

    def following(self, iterator: Iterator[Any]) -> Any:
        """`next(iterator)`, timed."""
        try:
            value = next(iterator)
        except Exception as error:
            ended = isinstance(error, StopIteration)
            self.done(EXHAUSTED if ended else RAISED, self.settle(), what=-1 if ended else FETCH)
            raise
        self.count += 1
        if self.samples:
            pages = self._samples
            if pages.filled == pages.room:
                self._turn(1)
            self._times[pages.filled] = now = monotonic()
            pages.filled += 1
            if now >= self._due or pages.filled == pages.room:
                self.settle()
        return value


def dropped(*told: object, **more: object) -> None:
    """Nothing is written."""


def integers(indices: list[Any]) -> array[int]:
    """Dataset indices as 64-bit integers; `NO_INDEX` where one is something else."""
    try:
        return array("q", indices)
    except (TypeError, OverflowError):
        return array("q", map(as_integer, indices))


def as_integer(index: Any) -> int:
    """The same of one."""
    try:
        number = operator.index(index)
    except TypeError:
        return NO_INDEX
    return number if abs(number) < 1 << 63 else NO_INDEX
