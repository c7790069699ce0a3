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
from time import process_time
from typing import Any

from dlsim.validation.observing.cpu_time import NOTHING, Reading, ThreadClock

MAIN = -1  # the worker number of the main process

# Began, ended, cpu, queued, used; batch, what, worker, process, kind. CPU is seconds of the
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
# worker_init_fn, or the dataset's __iter__, has returned; before the next batch. what: pages of
# memory that were new to the worker until then, -1 after __iter__
READY = 7

ROOM = mmap.ALLOCATIONGRANULARITY * RECORD.size  # bytes of a file that are mapped at a time

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
        self._file = self._feeder = -1
        self._clock: ThreadClock  # of the thread that fetches
        self._records: mmap.mmap  # where it writes next, without a system call
        self._filled = 0  # bytes of them

    def open(self, worker: int) -> None:
        """Begin the files of this process."""
        self._author = worker, os.getpid()
        self._clock = ThreadClock()
        path = self.directory / f"worker{worker}-process{os.getpid()}"
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        feeder = path.with_suffix(".feeder")
        self._feeder = os.open(feeder, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._extend()

    def close(self) -> None:
        """End the files of this process; what is still told, by a thread that goes on, is dropped.

        The numbers of the files may soon be others'.
        """
        self.write = self.serialised = dropped  # type: ignore[method-assign]
        self._records.close()
        os.close(self._file)
        os.close(self._feeder)

    def _extend(self) -> None:
        """Make room in the file; a record of kind 0 is none.

        Zeros are written, not skipped: where the disk is full, here an exception says so, while
        writing to memory that no disk has room for would kill the process.
        """
        begin = os.lseek(self._file, 0, os.SEEK_END)
        os.write(self._file, bytes(ROOM))
        self._records, self._filled = mmap.mmap(self._file, ROOM, offset=begin), 0

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
        if self._filled == ROOM:
            self._extend()
        RECORD.pack_into(
            self._records,
            self._filled,
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
        self._filled += RECORD.size

    def serialised(self, batch: int, spent: Reading, ended: float) -> None:
        """A record that `batch` was pickled, by whichever thread."""
        numbers = batch, -1, *self._author, SERIALISED
        record = RECORD.pack(spent.time, ended, spent.cpu, spent.queued, 0.0, *numbers)
        os.write(self._feeder, record)

    def begin(self) -> Reading:
        """What this thread has used until now."""
        return self._clock()

    def done(self, kind: int, began: Reading, used: float = 0.0, what: int = -1) -> None:
        """A record of what began at `began` and ends now."""
        self.write(kind, began, self._clock(), used, what)

    def take(self, batch: int) -> None:
        """This process begins to work on `batch`."""
        self.batch, self.count = batch, 0
        now = self._clock.full()
        self.write(TAKEN, NOTHING._replace(time=now.time), now, process_time())

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

    def batch_of(self, call: Callable[[Any], Any], indices: Any) -> Any:
        """`call(indices)`, timed: of a dataset, for all samples of a batch."""
        began = self.begin()
        try:
            values = call(indices)
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
        now, count = self._clock(), len(indices)
        self.count += count
        if self.samples:
            for index in indices:
                self.write(SAMPLE, began, now, 0.0, as_integer(index), count)


def dropped(*told: object, **more: object) -> None:
    """Nothing is written."""


def as_integer(index: Any) -> int:
    """A dataset index as a 64-bit integer; -1 where it is something else."""
    try:
        number = operator.index(index)
    except TypeError:
        return -1
    return number if abs(number) < 1 << 63 else -1
