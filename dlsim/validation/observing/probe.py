"""What each process of a watched loader writes down: records of one size, in files of its own.

What was written outlives a killed worker.
"""

from __future__ import annotations

import mmap
import operator
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
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
COLLATED = 3  # collate_fn was called; what: the number of samples
EXHAUSTED = 4  # the iterator has nothing more
RAISED = 5  # what: which of POINTS raised an exception
SERIALISED = 6  # a finished batch was pickled, mostly by the feeder thread
# worker_init_fn, or the dataset's __iter__, has returned; before the next batch. what: pages of
# memory that were new to the worker until then, -1 after __iter__
READY = 7

# In a file beside, of each sample: when it was there, and its dataset index, -1 if it has none.
FETCHED = struct.Struct("=dq")
ROOM = mmap.ALLOCATIONGRANULARITY  # entries of a file that are mapped at a time
# Seconds of samples one after another after which the system is asked what they used, which takes
# some microseconds; after each of them, where the thread was last seen to have been off the cores.
TOGETHER = 1e-3

POINTS = ("fetch", "collate", "worker_init_fn")
FETCH, COLLATE, INIT = range(3)


class Pages:
    """A file of entries of one kind, in which the next ones are written without a system call.

    It grows by whole pages of zeros, which are written, not skipped: where the disk is full, here
    an exception says so, while writing to memory that no disk has room for would kill the process.
    """

    def __init__(self, path: Path, entry: struct.Struct) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        self.size = ROOM * entry.size  # bytes of `memory`, of which so many are filled
        self.extend()

    def extend(self) -> None:
        """Make room in the file; an entry of zeros is none."""
        begin = os.lseek(self._file, 0, os.SEEK_END)
        os.write(self._file, bytes(self.size))
        self.memory, self.filled = mmap.mmap(self._file, self.size, offset=begin), 0

    def close(self) -> None:
        """End it."""
        self.memory.close()
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
        self._feeder = -1
        self._clock: ThreadClock  # of the thread that fetches
        self._records: Pages
        self._samples: Pages
        self._since = NOTHING  # when what the thread used was asked last
        self._within = TOGETHER  # seconds after which it is asked again
        self._settled = 0  # bytes of samples until then

    def open(self, worker: int) -> None:
        """Begin the files of this process."""
        self._author = worker, os.getpid()
        self._clock = ThreadClock()
        path = self.directory / f"worker{worker}-process{os.getpid()}"
        self._records = Pages(path, RECORD)
        self._samples = Pages(path.with_suffix(".samples"), FETCHED)
        feeder = path.with_suffix(".feeder")
        self._feeder = os.open(feeder, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """End the files of this process; what is still told, by a thread that goes on, is dropped.

        The numbers of the files may soon be others'.
        """
        self.write = self.note = self.serialised = dropped  # type: ignore[method-assign]
        self._records.close()
        self._samples.close()
        os.close(self._feeder)

    def write(
        self,
        kind: int,
        began: Reading,
        now: Reading,
        used: float = 0.0,
        what: int = -1,
        shared: int = 1,
    ) -> None:
        """A record of what the thread that fetches did from `began` to `now`.

        `shared`: among how many such records its CPU time is divided. In the kernel's hands at
        once.
        """
        pages = self._records
        if pages.filled == pages.size:
            pages.extend()
        RECORD.pack_into(
            pages.memory,
            pages.filled,
            began.time,
            now.time,
            max(now.cpu - began.cpu, 0.0) / shared,
            (now.queued - began.queued) / shared,
            used,
            self.batch,
            what,
            *self._author,
            kind,
        )
        pages.filled += RECORD.size

    def note(self, now: float, index: Any = -1) -> None:
        """The sample of `index` is there."""
        pages = self._samples
        try:
            FETCHED.pack_into(pages.memory, pages.filled, now, index)
        except (struct.error, TypeError):  # it is no integer, or not of 64 bits
            FETCHED.pack_into(pages.memory, pages.filled, now, as_integer(index))
        pages.filled += FETCHED.size
        if now - self._since.time >= self._within or pages.filled == pages.size:
            self.settle()

    def settle(self) -> Reading:
        """What this thread has used until now, and until then for samples that were noted."""
        now, pages = self._clock(), self._samples
        if pages.filled > self._settled:
            noted = (pages.filled - self._settled) // FETCHED.size
            self.write(SAMPLES, self._since, now, what=noted)
            if pages.filled == pages.size:
                pages.extend()
            self._settled = pages.filled
            off = now.time - self._since.time - (now.cpu - self._since.cpu)
            self._within = TOGETHER if off < JUST else JUST
        self._since = now
        return now

    def serialised(self, batch: int, spent: Reading, ended: float) -> None:
        """A record that `batch` was pickled, by whichever thread."""
        numbers = batch, -1, *self._author, SERIALISED
        record = RECORD.pack(spent.time, ended, spent.cpu, spent.queued, 0.0, *numbers)
        os.write(self._feeder, record)

    def begin(self) -> Reading:
        """What this thread has used until now."""
        return self.settle()

    def done(self, kind: int, began: Reading, used: float = 0.0, what: int = -1) -> None:
        """A record of what began at `began` and ends now."""
        self.write(kind, began, self._clock(), used, what)

    def take(self, batch: int) -> None:
        """This process begins to work on `batch`."""
        self.batch, self.count = batch, 0
        self._since = now = self._clock.full()
        self.write(TAKEN, NOTHING._replace(time=now.time), now, process_time())

    def each(self, dataset: Any, indices: Sequence[Any]) -> list[Any]:
        """`dataset[index]` of each, one after another, timed."""
        self.begin()
        values, note = [], self.note if self.samples else dropped
        try:
            for index in indices:
                values.append(dataset[index])
                note(monotonic(), index)
        except Exception:
            self.done(RAISED, self.settle(), what=FETCH)
            raise
        self.count += len(values)
        return values

    def batch_of(self, call: Callable[[Any], Any], indices: Any) -> Any:
        """`call(indices)`, timed: of a dataset, for all samples of a batch."""
        began = self.begin()
        try:
            values = call(indices)
        except Exception:
            self.done(RAISED, began, what=FETCH)
            raise
        now, count = self._clock(), len(indices)
        self.count += count
        if self.samples:
            for index in indices:
                self.write(SAMPLE, began, now, 0.0, as_integer(index), count)
        return values

    def iterating(self, dataset: Any) -> Iterator[Any]:
        """`iter(dataset)`, timed."""
        began = self.begin()
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
            self.note(monotonic())
        return value


def dropped(*told: object, **more: object) -> None:
    """Nothing is written."""


def as_integer(index: Any) -> int:
    """A dataset index as a 64-bit integer; -1 where it is something else."""
    try:
        number = operator.index(index)
    except TypeError:
        return -1
    return number if abs(number) < 1 << 63 else -1
