"""A copy of a user's loader that lets itself be watched, and what the main process sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from threading import get_ident
from time import monotonic, process_time
from types import GeneratorType
from typing import Any, NamedTuple

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from dlsim.validation.observing import room
from dlsim.validation.observing.accelerator import StepClock
from dlsim.validation.observing.cpu_time import Reading, ThreadClock
from dlsim.validation.observing.hooks import Collate, Tagged, Task, WorkerInit, size_of
from dlsim.validation.observing.payload import Payload, payload_of
from dlsim.validation.observing.probe import Probe
from dlsim.validation.observing.unwatchable import ObserveError, check
from dlsim.validation.observing.wrapped_dataset import WatchedBatches, WatchedIterable, WatchedMap

LOOKED_AT = 8  # batches of each epoch whose payload is looked at


class Failure(NamedTuple):
    """An exception ended the loop: all of its text, and when."""

    text: str
    time: float


class Return(NamedTuple):
    """A `next()` returned a batch.

    What the thread that called it had used when it asked and when it `got` the batch, and the CPU
    seconds of the whole process by then. The others are as in `Tagged`.
    """

    batch: int
    rebuilding: tuple[float, float]
    rebuilt: tuple[float, float]
    pinning: Reading
    pinned: Reading
    asked: Reading
    got: Reading
    cpu_requested: float
    cpu_returned: float

    @property
    def requested(self) -> float:
        """When it asked."""
        return self.asked.time

    @property
    def returned(self) -> float:
        """When it got the batch."""
        return self.got.time

    def columns(self) -> dict[str, float]:
        """The same, as the columns of a trace are called."""
        pinning = self.pinning.until(self.pinned)
        return {
            "rebuilding": self.rebuilding[0],
            "rebuild_cpu": self.rebuilt[1] - self.rebuilding[1],
            "received": self.rebuilt[0],
            "pinning": pinning.time,
            "pinned": self.pinned.time,
            "pin_cpu": pinning.cpu,
            "pin_queued": pinning.queued,
            "pin_thread": self.pinned.cpu,
            "requested": self.asked.time,
            "returned": self.got.time,
            "cpu_requested": self.cpu_requested,
            "cpu_returned": self.cpu_returned,
            "thread_requested": self.asked.cpu,
            "thread_returned": self.got.cpu,
            "queued_requested": self.asked.queued,
            "queued_returned": self.got.queued,
        }


as_return: Callable[[tuple[Any, ...]], Return] = partial(tuple.__new__, Return)  # in C


@dataclass
class Log:
    """What the main process sees. A batch number counts the index lists drawn, over all epochs.

    `draws`: when each index list was drawn from the sampler, and how many samples it asks for;
    `sent`: the batches whose index lists went to a worker; `first`, `started`, `primed`, `left`
    (the last `next()` or step is over) and `ended` (the workers are gone, too): one for each
    epoch. `entered`, `finished`: when the host began and left each step; `released`: when it went
    on after meeting other ranks, if it did; `device`: when the accelerator, by `clock`, began and
    ended it, NaN if not known. `payloads`: what the first batches of each epoch are made of;
    `takers`: the threads that called `next()`; `iterators`: how many took tags off; `own`: seconds
    of each `next()` that a loop of the loader's own, around torch's, took for itself; `children`:
    the processes there were before; `endless`: whether the sampler begins anew by itself.
    Every change is one append, as torch may raise an exception anywhere when a worker dies.
    """

    draws: list[tuple[float, int]] = field(default_factory=list)
    sent: set[int] = field(default_factory=set)
    returns: list[Return] = field(default_factory=list)
    entered: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    released: list[float] = field(default_factory=list)
    clock: StepClock = field(default_factory=StepClock)
    device: list[tuple[float, float]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    primed: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    payloads: dict[int, Payload] = field(default_factory=dict)
    takers: set[int] = field(default_factory=set)
    iterators: int = 0
    endless: bool = False
    children: list[BaseProcess] = field(default_factory=active_children)
    own: list[float] = field(default_factory=list)
    in_step: bool = False
    sampler_raised: bool = False
    failure: Failure | None = None


class Sampling:
    """The user's sampler or batch sampler; what is drawn from it is timed and numbered.

    `beside`: the number of an index list goes beside it. Else who takes the list is told:
    `probe`, the main process's, where there are no workers.
    """

    def __init__(self, sampler: Any, log: Log, probe: Probe | None, *, beside: bool) -> None:
        self._sampler = sampler
        self._log = log
        self._probe = probe
        self._beside = beside

    def __iter__(self) -> Iterator[Any]:
        return self._numbered(iter(self._sampler))

    def _numbered(self, lists: Iterator[Any]) -> Iterator[Any]:
        """Each of the lists; a generator goes on for less than a method is called."""
        draws, beside = self._log.draws, self._beside
        while True:
            try:
                indices = next(lists)
            except StopIteration:
                return
            except Exception:
                self._log.sampler_raised = True
                raise
            batch = len(draws)
            size = len(indices) if type(indices) is list else size_of(indices)
            draws.append((monotonic(), size))
            yield (batch, indices) if beside else self._told(batch, indices)

    def _told(self, batch: int, indices: Any) -> Any:
        """The list; who takes it is told the number."""
        if self._probe is None:
            return Task(batch, indices, self._log.sent)
        self._log.sent.add(batch)
        self._probe.take(batch)
        return indices

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


class Returning:
    """An iterator over the user's batches; each `next()` is timed, and tags are taken off.

    All else of it is that of torch's iterator.
    """

    def __init__(self, batches: Any, log: Log) -> None:
        self._batches = batches
        self._log = log
        self._to_look_at = LOOKED_AT
        self._clock: ThreadClock | None = None  # of the thread that takes batches: there is one
        log.iterators += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def _reset(self, *given: Any, **named: Any) -> None:
        """Workers that persist begin another epoch."""
        self._to_look_at = LOOKED_AT
        self._batches._reset(*given, **named)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        log, clock = self._log, self._clock
        log.takers.add(get_ident())
        if clock is None:
            clock = self._clock = ThreadClock()
        used, asked = process_time(), clock()
        tagged = next(self._batches)
        got = clock()
        if not isinstance(tagged, Tagged):
            raise ObserveError("loader: its batches do not come from its collate_fn")
        rebuilt = tagged.rebuilding, tagged.rebuilt, tagged.pinning, tagged.pinned
        log.returns.append(as_return((tagged.batch, *rebuilt, asked, got, used, process_time())))
        if self._to_look_at > 0:
            self._to_look_at -= 1
            _, samples = log.draws[tagged.batch]
            log.payloads[tagged.batch] = payload_of(tagged.data, samples)
        return tagged.data


class Watching(DataLoader[Any]):
    """The loader that is run in place of the user's.

    It stands behind the user's own class, if that is not DataLoader itself, so that whatever an
    `__iter__`, or an iterator, there does with its batches, it does with untagged ones.
    """

    _log: Log

    def _get_iterator(self) -> Any:
        with room.in_workers():
            return Returning(super()._get_iterator(), self._log)

    def __iter__(self) -> Any:
        batches = super().__iter__()
        self._log.primed.append(monotonic())
        return batches


def watch(loader: DataLoader[Any], probe: Probe, log: Log) -> DataLoader[Any]:
    """A loader that does what `loader` does, with its settings and random generators, watched.

    `loader` itself is left alone, but for its samplers and generators, which are the same.
    Raises `ObserveError` where that cannot be done.
    """
    check(loader)
    dataset: Any = loader.dataset
    iterable = isinstance(dataset, IterableDataset)
    watched = object.__new__(watching_class(type(loader)))
    kind = WatchedIterable if iterable else WatchedBatches if drawn_whole(loader) else WatchedMap
    vars(watched).update(
        vars(loader),
        dataset=kind(dataset, probe),
        collate_fn=Collate(loader.collate_fn, probe),
        worker_init_fn=WorkerInit(loader.worker_init_fn, probe, dataset),
        _iterator=None,
        _log=log,
    )
    # Only this one is drawn from: torch's `_index_sampler`.
    drawn_from = "sampler" if loader.batch_sampler is None else "batch_sampler"
    main = probe if loader.num_workers == 0 else None
    sampler = getattr(loader, drawn_from)
    log.endless = repeated(sampler) is not None
    beside = loader.batch_sampler is not None and not iterable
    vars(watched)[drawn_from] = Sampling(sampler, log, main, beside=beside)
    return watched


def drawn_whole(loader: DataLoader[Any]) -> bool:
    """Whether the dataset is asked for a list of indices at a time, as if each were a sample's."""
    return loader.batch_size is None and isinstance(loader.sampler, BatchSampler)


def repeated(sampler: Any) -> Any:
    """What a sampler that begins anew by itself repeats; None for another sampler.

    As timm's and ultralytics' loaders have one, and others that took it over with its name.
    """
    return sampler.sampler if type(sampler).__name__ == "_RepeatSampler" else None


def watching_class(kind: type[DataLoader[Any]]) -> type[DataLoader[Any]]:
    """The class for a watched copy of an instance of `kind`."""
    if kind is DataLoader:
        return Watching

    def make(self: Any) -> Any:
        before = self._log.iterators
        batches = kind._get_iterator(self)
        # Torchdata's loader makes an iterator without torch's.
        return batches if self._log.iterators > before else Returning(batches, self._log)

    def begin(self: Any) -> Any:
        epochs = len(self._log.primed)
        batches = kind.__iter__(self)
        if len(self._log.primed) == epochs and not isinstance(batches, GeneratorType):
            self._log.primed.append(monotonic())  # without DataLoader's own __iter__
        return batches

    # What a user's __del__ tidies away belongs to the user's loader, not to the copy.
    own = {
        "_get_iterator": make,
        "__iter__": begin,
        "__del__": lambda self: None,
        "__module__": kind.__module__,
    }
    return type(kind.__qualname__, (kind, Watching), own)
