"""A copy of a user's loader that lets itself be watched, and what the main process sees of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import get_ident
from time import monotonic, process_time
from types import GeneratorType
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dlsim.scenario import DlsimError
from dlsim.validation.observing.accelerator import StepClock
from dlsim.validation.observing.cpu_time import QueueClock, reading
from dlsim.validation.observing.hooks import (
    Collate,
    Tagged,
    Task,
    WorkerInit,
    size_of,
)
from dlsim.validation.observing.payload import Payload, payload_of
from dlsim.validation.observing.probe import Probe
from dlsim.validation.observing.wrapped_dataset import WatchedIterable, WatchedMap

LOOKED_AT = 8  # batches of each epoch whose payload is looked at


class ObserveError(DlsimError):
    """A loader that cannot be watched."""


class Failure(NamedTuple):
    """An exception ended the loop: all of its text, and when."""

    text: str
    time: float


class Draw(NamedTuple):
    """An index list was drawn from the sampler: when, and how many samples it asks for."""

    time: float
    size: int


class Return(NamedTuple):
    """A `next()` returned a batch.

    Seconds so far: `cpu_*`, the main process's CPU; `thread_*`, its main thread's; `queued_*`,
    those that the main thread waited for a core. `rebuilding`: the moment the batch's message is
    unpickled, which is over at `received`; `rebuild_cpu` and `rebuild_queued`: what the thread that
    does it used for it, and waited for a core. `pinning`, `pinned`, `pin_cpu` and `pin_queued`:
    likewise, of copying it into pinned memory; `pin_thread`: what that thread had used until
    `pinned`.
    """

    batch: int
    rebuilding: float
    rebuild_cpu: float
    rebuild_queued: float
    received: float
    pinning: float
    pinned: float
    pin_cpu: float
    pin_queued: float
    pin_thread: float
    requested: float
    returned: float
    cpu_requested: float
    cpu_returned: float
    thread_requested: float
    thread_returned: float
    queued_requested: float
    queued_returned: float


@dataclass
class Log:
    """What the main process sees. A batch number counts the index lists drawn, over all epochs.

    `sent`: the batches whose index lists went to a worker; `first`, `started`, `primed`, `left`
    (the last `next()` or step is over) and `ended` (the workers are gone, too): one for each
    epoch. `entered`, `finished`: when the host began and left each step; `released`: when it went
    on after meeting other ranks, if it did; `device`: when the accelerator, by `clock`, began and
    ended it, NaN if not known. `payloads`: what the first batches of each epoch are made of;
    `takers`: the threads that called `next()`. Every change is one append, as torch may raise an
    exception anywhere when a worker dies.
    """

    draws: list[Draw] = field(default_factory=list)
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
    in_step: bool = False
    sampler_raised: bool = False
    failure: Failure | None = None


class Sampling:
    """The user's sampler or batch sampler; what is drawn from it is timed and numbered."""

    def __init__(self, sampler: Any, log: Log, probe: Probe | None) -> None:
        self._sampler = sampler
        self._log = log
        self._probe = probe

    def __iter__(self) -> Iterator[Any]:
        return Drawing(iter(self._sampler), self._log, self._probe)

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


class Drawing:
    """An iterator over index lists. `probe` is the main process's, where there are no workers."""

    def __init__(self, lists: Iterator[Any], log: Log, probe: Probe | None) -> None:
        self._lists = lists
        self._log = log
        self._probe = probe

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        log = self._log
        try:
            indices = next(self._lists)
        except StopIteration:
            raise
        except Exception:
            log.sampler_raised = True
            raise
        batch = len(log.draws)
        log.draws.append(Draw(monotonic(), size_of(indices)))
        if self._probe is None:
            return Task(batch, indices, log.sent)
        log.sent.add(batch)
        self._probe.take(batch)
        return indices


class Returning:
    """An iterator over the user's batches; each `next()` is timed, and tags are taken off."""

    def __init__(self, batches: Iterator[Any], log: Log) -> None:
        self._batches = batches
        self._log = log
        self._queued = QueueClock()
        self._to_look_at = LOOKED_AT

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._log.takers.add(get_ident())
        used, asked = process_time(), reading(self._queued)
        tagged = next(self._batches)
        got = reading(self._queued)
        if not isinstance(tagged, Tagged):
            raise ObserveError("loader: its batches do not come from its collate_fn")
        rebuilding = tagged.rebuilding.until(tagged.rebuilt)
        pinning = tagged.pinning.until(tagged.pinned)
        self._log.returns.append(
            Return(
                batch=tagged.batch,
                rebuilding=rebuilding.time,
                rebuild_cpu=rebuilding.cpu,
                rebuild_queued=rebuilding.queued,
                received=tagged.rebuilt.time,
                pinning=pinning.time,
                pinned=tagged.pinned.time,
                pin_cpu=pinning.cpu,
                pin_queued=pinning.queued,
                pin_thread=tagged.pinned.cpu,
                requested=asked.time,
                returned=got.time,
                cpu_requested=used,
                cpu_returned=process_time(),
                thread_requested=asked.cpu,
                thread_returned=got.cpu,
                queued_requested=asked.queued,
                queued_returned=got.queued,
            )
        )
        if self._to_look_at > 0:
            self._to_look_at -= 1
            self._log.payloads[tagged.batch] = payload_of(tagged.data)
        return tagged.data


class Watching(DataLoader[Any]):
    """The loader that is run in place of the user's.

    It stands behind the user's own class, if that is not DataLoader itself, so that whatever an
    `__iter__` there does with its batches, it does with untagged ones.
    """

    _log: Log

    def __iter__(self) -> Any:
        batches = super().__iter__()
        self._log.primed.append(monotonic())
        return Returning(batches, self._log)


def watch(loader: DataLoader[Any], probe: Probe, log: Log) -> DataLoader[Any]:
    """A loader that does what `loader` does, with its settings and random generators, watched.

    `loader` itself is left alone, but for its samplers and generators, which are the same.
    Raises `ObserveError` where that cannot be done.
    """
    check(loader)
    dataset: Any = loader.dataset
    iterable = isinstance(dataset, IterableDataset)
    watched = object.__new__(watching_class(type(loader)))
    vars(watched).update(
        vars(loader),
        dataset=WatchedIterable(dataset, probe) if iterable else WatchedMap(dataset, probe),
        collate_fn=Collate(loader.collate_fn, probe),
        worker_init_fn=WorkerInit(loader.worker_init_fn, probe, dataset),
        _iterator=None,
        _log=log,
    )
    # Only this one is drawn from: torch's `_index_sampler`.
    drawn_from = "sampler" if loader.batch_sampler is None else "batch_sampler"
    main = probe if loader.num_workers == 0 else None
    vars(watched)[drawn_from] = Sampling(getattr(loader, drawn_from), log, main)
    return watched


def check(loader: object) -> None:
    """Raise `ObserveError` unless `loader` can be watched."""
    if not isinstance(loader, DataLoader):
        raise ObserveError(f"loader: {no_loader(loader)}")
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        raise ObserveError("loader: datapipes cannot be watched, as torch takes them apart")
    for key, value in vars(loader).items():
        if isinstance(value, _BaseDataLoaderIter) and key != "_iterator":
            raise ObserveError(
                f"loader: {named(loader)} cannot be watched: its workers already run (see its "
                f".{key}); {way_out(loader)}"
            )


def named(found: object) -> str:
    """The class of what was `found`, with its module: many are called DataLoader."""
    kind = type(found)
    known = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


def no_loader(found: object) -> str:
    """That what was `found` is no DataLoader, and which attribute of it is one, if any."""
    inside = held(found)
    hint = f"; its {inside} is one that can be watched" if inside else ""
    return f"expected a torch DataLoader, got {named(found)}{hint}"


def way_out(loader: object) -> str:
    """What can be watched in place of a `loader` that cannot."""
    inside = held(loader)
    if inside:
        return f"watch its {inside}, a plain one"
    return "watch a torch DataLoader with the same arguments"


def held(found: object) -> str:
    """The attribute of `found` that holds a DataLoader, as `.name` or `.name[0]`; "" for none."""
    for name, value in getattr(found, "__dict__", {}).items():
        if isinstance(value, DataLoader):
            return f".{name}"
        if isinstance(value, (list, tuple)):
            places = [i for i, each in enumerate(value) if isinstance(each, DataLoader)]
            if places:
                return f".{name}[{places[0]}]"
    return ""


def watching_class(kind: type[DataLoader[Any]]) -> type[DataLoader[Any]]:
    """The class for a watched copy of an instance of `kind`."""
    if kind is DataLoader:
        return Watching

    def begin(self: Any) -> Iterable[Any]:
        epochs = len(self._log.primed)
        batches = kind.__iter__(self)
        if len(self._log.primed) > epochs or isinstance(batches, GeneratorType):
            return batches
        # An iterator of its own over batches that still have their tags.
        self._log.primed.append(monotonic())
        return Returning(batches, self._log)

    # What a user's __del__ tidies away belongs to the user's loader, not to the copy.
    own = {"__iter__": begin, "__del__": lambda self: None, "__module__": kind.__module__}
    return type(kind.__qualname__, (kind, Watching), own)
