"""What watches inside the processes of a loader, through the objects that users give it.

The dataset, `collate_fn` and `worker_init_fn` are wrapped; a `Probe` in each process writes
down what they do. Which batch it was comes along: the number of an index list goes beside it, where
torch hands both to the dataset; else a list that is sent to a worker says its number when it is
unpickled there, and leaves only the plain list. A batch carries its number back in `Tagged`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from resource import RUSAGE_SELF, getrusage
from time import monotonic, process_time, thread_time
from typing import Any

from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from dlsim.validation.observing.cpu_time import UNSEEN, Reading, ThreadClock
from dlsim.validation.observing.probe import COLLATE, COLLATED, INIT, RAISED, READY, Probe

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

    `rebuilding` is when its unpickling began, and the CPU seconds that the thread which does it had
    used until then; `rebuilt`: just after. `pinning` and `pinned`: what the thread that copies it
    into pinned memory had used before and after.
    """

    rebuilding = rebuilt = float("nan"), float("nan")
    pinning = pinned = UNSEEN

    def __init__(self, batch: int, data: Any) -> None:
        self.batch, self.data = batch, data

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as a list is, each item when the one before has been: of Python's protocols the
        # only one that comes back to what is pickled.
        return arriving, (self.batch,), None, self._pickled()

    def _pickled(self) -> Iterator[Any]:
        """The items."""
        began, used = monotonic(), thread_time()
        yield self.data
        yield None
        if _here is not None:
            _here.serialised(self.batch, began, monotonic(), thread_time() - used)

    def extend(self, items: list[Any]) -> None:
        """They have been unpickled."""
        self.data, _ = items
        self.rebuilt = monotonic(), thread_time()

    def pin_memory(self) -> Tagged:
        """What torch's pin-memory code makes of the batch alone, tagged again."""
        began = of_this_thread()
        self.data = pin_memory(self.data)  # type: ignore[no-untyped-call]
        self.pinning, self.pinned = began, of_this_thread()
        return self


def arriving(batch: int) -> Tagged:
    """The tagged batch in the main process, whose data is about to be unpickled."""
    tagged = object.__new__(Tagged)
    tagged.batch, tagged.rebuilding = batch, (monotonic(), thread_time())
    return tagged


ForkingPickler.register(Tagged, Tagged.__reduce__)  # else looked for in vain before it is asked
_clocks = threading.local()


def of_this_thread() -> Reading:
    """What the calling thread has used until now."""
    try:
        clock: ThreadClock = _clocks.own
    except AttributeError:
        clock = _clocks.own = ThreadClock()
    return clock()


class Collate:
    """The user's `collate_fn`, timed; what it returns is tagged."""

    def __init__(self, collate_fn: Callable[[Any], Any], probe: Probe) -> None:
        self._collate_fn = collate_fn
        self._probe = probe

    def __call__(self, samples: Any) -> Tagged:
        """The tagged batch of `samples`."""
        probe = self._probe
        began = probe.settle()
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
        began = _here.settle()
        if self._init_fn is not None:
            try:
                self._init_fn(worker)
            except Exception:
                _here.done(RAISED, began, what=INIT)
                raise
        _here.done(READY, began, what=getrusage(RUSAGE_SELF).ru_minflt)


def size_of(indices: Any) -> int:
    """The number of samples that an index list asks for; 1 for a single index."""
    try:
        return len(indices)
    except TypeError:
        return 1
