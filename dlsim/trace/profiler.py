"""What torch.profiler saw of a DataLoader: the wait of every `next()`, and the steps between.

Torch records each `next()` as a slice, also the one that finds the end of the epoch and returns
no batch. That one is told from the others by what follows: the next `iter(loader)`, which draws
a seed on the same thread, or nothing at all.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dlsim.trace.chrome import ITER, WITH_WORKERS, WITHOUT_WORKERS
from dlsim.trace.trace import RETURNED, Epochs, Meta, Trace, TraceError

ENGINE = "torch.profiler"
GZIP = b"\x1f\x8b"
# The operators of `torch.empty(()).random_().item()`, with which iter() draws a seed.
SEED = ("aten::empty", "aten::random_", "aten::item")
NAN = float("nan")
NEXTS = (WITH_WORKERS, WITHOUT_WORKERS)


class Event(msgspec.Struct, gc=False):
    """One entry of a Chrome trace: what is needed of it. Times are microseconds."""

    ph: str = ""
    name: str = ""
    cat: str = ""
    pid: int | str | None = None
    tid: int | str | None = None
    ts: float = NAN
    dur: float = 0.0
    args: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def end(self) -> float:
        """When it is over, in microseconds."""
        return self.ts + self.dur


class _Distributed(msgspec.Struct):
    rank: int | None = None
    world_size: int | None = None


class ChromeFile(msgspec.Struct):
    """What is read of a Chrome trace; `otherData` is what dlsim told about one it wrote."""

    traceEvents: list[Event]
    distributedInfo: _Distributed = msgspec.field(default_factory=_Distributed)
    baseTimeNanoseconds: float = 0.0
    otherData: Any = None

    @property
    def ranks(self) -> int | None:
        """Of how many ranks it is, each a process, if it is of a job; else None."""
        found = self.otherData.get("ranks") if isinstance(self.otherData, dict) else None
        return found if isinstance(found, int) else None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A profile: its `trace`, when that begins (`zero`) and all `events`; microseconds.

    Times of events count from `base`. `rank`, `world`: which rank of how many it says it is.
    """

    path: Path
    trace: Trace
    zero: float
    base: float
    events: Sequence[Event]
    rank: int | None
    world: int | None


class _Args(msgspec.Struct):
    batch: int | None = None


@dataclass
class _Epoch:
    """One pass over the loader; `end` is the `next()` that found its end, where it was seen."""

    started: float
    nexts: list[Event]
    end: Event | None = None
    after: float = NAN  # the end of what the thread did after the last `next()`


def read_profiler(path: str | Path) -> Trace:
    """The waits and steps of the DataLoader in the torch.profiler trace at `path`.

    Known of each batch are `requested`, `returned` and `finished`, in seconds since the first
    epoch began (where that was not recorded, since the first `next()`); all other moments are
    NaN, sizes 0 and workers -1. A step ends when the next `next()` is called. A pass that is
    profiled from the middle counts as an epoch; with persistent workers and no shuffling, epochs
    leave no trace of where they begin, and count as one, with a wait more for each.

    `path` may be compressed. If several threads, or loaders with and without workers, were
    profiled, the one with the most batches is taken. Also reads what `write_chrome` wrote. Raises
    `TraceError` for a file that cannot be read, is damaged, or has no such slices.
    """
    return profile(Path(path)).trace


def profile(path: Path) -> Profile:
    """The profile at `path`, as `read_profiler` reads it."""
    file = chrome_file(path)
    events = file.traceEvents
    if file.ranks is not None:
        raise TraceError(
            f"{path}: expected a single run, got a job of {file.ranks} ranks"
            " (dlsim.trace.read_job_chrome)"
        )
    kinds = Counter((e.pid, e.tid, e.name) for e in events if e.name in NEXTS and e.ph == "X")
    if not kinds:
        raise TraceError(
            f"{path}: no DataLoader in it: expected slices named "
            "enumerate(DataLoader)#_...Iter.__next__, got none"
        )
    (pid, tid, name), _ = kinds.most_common(1)[0]
    lane = [e for e in events if e.ph == "X" and e.pid == pid and e.tid == tid and e.ts == e.ts]
    lane.sort(key=lambda event: (event.ts, -event.dur))
    epochs = _epochs(lane, name)
    if not any(epoch.nexts for epoch in epochs):
        raise TraceError(f"{path}: no batch in it: the only next() found the end")
    notes = {"source": str(path)}
    if name == WITH_WORKERS:
        notes["workers"] = "their number is not recorded"
    if len(kinds) > 1:
        notes["left out"] = f"{sum(kinds.values()) - kinds[pid, tid, name]} next() of other loaders"
    epochs = [epoch for epoch in epochs if epoch.nexts]
    base = file.baseTimeNanoseconds / 1e3
    return Profile(
        path=path,
        trace=_trace(epochs, notes),
        zero=base + epochs[0].started,
        base=base,
        events=events,
        rank=file.distributedInfo.rank,
        world=file.distributedInfo.world_size,
    )


def chrome_file(path: Path) -> ChromeFile:
    """What is in the file, an object with `traceEvents` or a bare list of them.

    Raises `TraceError` if it cannot be read, or has neither.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TraceError(f"{path}: damaged or cut short") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if content.lstrip()[:1] == b"[":
            return ChromeFile(msgspec.json.decode(content, type=list[Event]))
        return msgspec.json.decode(content, type=ChromeFile)
    except msgspec.ValidationError as error:
        raise TraceError(f"{path}: expected a Chrome trace: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: damaged, cut short, or no JSON: {error}") from None
    except RecursionError:
        raise TraceError(f"{path}: expected a Chrome trace, got lists in lists in lists") from None


def _epochs(lane: Sequence[Event], name: str) -> list[_Epoch]:
    """What the loop did, pass by pass; `lane` is what its thread did, by time."""
    # they do not nest: of two that begin at once, the one that took no time came first
    nexts = sorted((e for e in lane if e.name == name), key=lambda e: (e.ts, e.dur))
    begins = _begins(lane, nexts)
    bounds = np.searchsorted([event.ts for event in nexts], begins).tolist()
    if not bounds or bounds[0] > 0:
        begins, bounds = [nexts[0].ts, *begins], [0, *bounds]
    ours = any(batch_of(event) is not None for event in nexts)
    if ours:  # what finds the end of an epoch may take no time, nor may the next one to begin
        bounds[1:] = [
            place + (event.ts == begin and event.dur == 0 and batch_of(event) is None)
            for place, begin in zip(bounds[1:], begins[1:], strict=True)
            for event in nexts[place : place + 1]
        ]
    found = []
    for number, first in enumerate(bounds):
        last = number + 1 == len(bounds)
        epoch = _Epoch(begins[number], nexts[first : None if last else bounds[number + 1]])
        until = np.inf if last else begins[number + 1]
        if epoch.nexts:
            _close(epoch, lane, until, last, ours)
        found.append(epoch)
    return found


def _begins(lane: Sequence[Event], nexts: Sequence[Event]) -> list[float]:
    """When `iter(loader)` was called; of several seeds drawn between two `next()`, the first."""
    times = [event.ts for event in lane if event.name == ITER]
    operators = [event for event in lane if event.name.startswith("aten::")]
    names = ["", *(event.name for event in operators)]
    times += [
        event.ts
        for at, event in enumerate(operators)
        # randint() draws in the same way, but as a part of itself
        if tuple(names[at + 1 : at + 4]) == SEED and not names[at].startswith("aten::randint")
    ]
    times.sort()
    following = np.searchsorted([event.ts for event in nexts], times)
    firsts: dict[int, float] = {}
    for time, place in zip(times, following.tolist(), strict=True):
        inside = place > 0 and time < nexts[place - 1].end  # drawn by the dataset
        if place < len(nexts) and not inside:
            firsts.setdefault(place, time)
    return list(firsts.values())


def _close(epoch: _Epoch, lane: Sequence[Event], until: float, last: bool, ours: bool) -> None:
    """Tell the `next()` that found the end of the epoch from those that returned a batch."""
    final = epoch.nexts[-1]
    after = [e.end for e in lane if final.end <= e.ts < until and e.end <= until]
    if ours:
        ends = [event for event in epoch.nexts if batch_of(event) is None]
        epoch.end = ends[-1] if ends else None
        epoch.nexts = [event for event in epoch.nexts if batch_of(event) is not None]
    elif not last or not after:
        epoch.end = epoch.nexts.pop()
    if epoch.end is None:
        epoch.after = max(after, default=NAN)


def batch_of(event: Event) -> int | None:
    """The number of the batch that a `next()` returned, where dlsim wrote it down."""
    try:
        return msgspec.json.decode(event.args, type=_Args).batch
    except msgspec.DecodeError:
        return None


def _trace(epochs: Sequence[_Epoch], notes: dict[str, str]) -> Trace:
    requested: list[float] = []
    returned: list[float] = []
    finished: list[float] = []
    first: list[int] = []
    ended: list[float] = []
    for epoch in epochs:
        first.append(len(requested))
        requested += [event.ts for event in epoch.nexts]
        returned += [event.end for event in epoch.nexts]
        finished += [event.ts for event in epoch.nexts[1:]]
        finished.append(epoch.end.ts if epoch.end else epoch.after)
        over = epoch.end.end if epoch.end else epoch.after
        ended.append(over if over == over else epoch.nexts[-1].end)
    zero, count = epochs[0].started, len(requested)
    unknown = np.full(count, NAN)
    return Trace(
        sent=unknown,
        started=unknown,
        fetched=unknown,
        arrived=unknown,
        received=unknown,
        requested=(np.array(requested) - zero) / 1e6,
        returned=(np.array(returned) - zero) / 1e6,
        finished=(np.array(finished) - zero) / 1e6,
        worker=np.full(count, -1, np.int32),
        size=np.zeros(count, np.int32),
        status=np.full(count, RETURNED, np.uint8),
        order=np.arange(count),
        epochs=Epochs(
            first=np.array(first),
            started=(np.array([epoch.started for epoch in epochs]) - zero) / 1e6,
            primed=np.full(len(epochs), NAN),
            ended=(np.array(ended) - zero) / 1e6,
        ),
        meta=Meta(engine=ENGINE, notes=notes),
    )
