"""Chrome Trace Event JSON: the file, and each kind of event in it as text.

Times are microseconds, to the nanosecond.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.files import replacing
from dlsim.trace.trace import Floats, Integers, TraceError

SUFFIXES = (".json", ".json.gz")
CHUNK = 10_000  # events written at a time
LEVEL = 4  # of gzip: beyond it, files get little smaller and take much longer


class Lane(NamedTuple):
    """Where slices are drawn: a thread of a process."""

    pid: int
    tid: int


def check_name(path: Path) -> None:
    """Raise `TraceError` for the name of a file that would hold no Chrome trace."""
    if not path.name.endswith(SUFFIXES):
        raise TraceError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}")


def of_job(path: Path) -> bool:
    """Whether the Chrome trace at `path` says first of how many ranks it is."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return b'"otherData":{"ranks":' in file.read(60)
    except (OSError, EOFError, zlib.error):  # whoever reads it will say so
        return False


def write_events(
    path: Path,
    about: dict[str, object],
    events: Iterator[str],
    *,
    distributed: dict[str, object] | None = None,
) -> None:
    """Write `events` to a file that tells `about` them, and who wrote it of several ranks."""
    head = f'{{"displayTimeUnit":"ms","otherData":{json.dumps(about)},'
    if distributed is not None:
        head += f'"distributedInfo":{json.dumps(distributed)},'
    with (
        replacing(path, TraceError) as unfinished,
        open(unfinished, "wb") as file,
        _compressed(file, path) as out,
    ):
        out.write(f'{head}"traceEvents":['.encode())
        separator = "\n"
        while chunk := list(islice(events, CHUNK)):
            out.write((separator + ",\n".join(chunk)).encode())
            separator = ",\n"
        out.write(b"\n]}\n")


def _compressed(file: IO[bytes], path: Path) -> AbstractContextManager[IO[bytes]]:
    if path.suffix == ".json":
        return nullcontext(file)
    # without a time, the same trace makes the same file
    return gzip.GzipFile("", "wb", LEVEL, file, mtime=0)  # type: ignore[return-value]


def named(kind: str, lane: Lane, args: str) -> str:
    """What a lane is called, or where it stands."""
    return f'{{"ph":"M","name":"{kind}","pid":{lane.pid},"tid":{lane.tid},"args":{{{args}}}}}'


def slices(
    name: str, cat: str, lane: Lane, begins: Floats, ends: Floats, args: Iterable[str]
) -> Iterator[str]:
    """Complete events; none for an interval of which begin or end is not known."""
    head = f'{{"ph":"X","cat":"{cat}","name":"{name}","pid":{lane.pid},"tid":{lane.tid},"ts":'
    for begin, end, about in zip(nanoseconds(begins), nanoseconds(ends), args, strict=True):
        if begin is not None and end is not None:
            lasted = max(end - begin, 0)
            yield f'{head}{begin / 1000:.3f},"dur":{lasted / 1000:.3f},"args":{{{about}}}}}'


def spans(kind: str, lane: Lane, numbers: Integers, begins: Floats, ends: Floats) -> Iterator[str]:
    """Asynchronous events, which may overlap, by their numbers; none where a moment is unknown."""
    head = f'"cat":"{kind}","pid":{lane.pid},"tid":{lane.tid}'
    for number, begin, end in zip(
        numbers.tolist(), nanoseconds(begins), nanoseconds(ends), strict=True
    ):
        if begin is None or end is None:
            continue
        event = f'"name":"{kind} {number}","id":"{number}",{head},"ts":'
        yield f'{{"ph":"b",{event}{begin / 1000:.3f}}}'
        yield f'{{"ph":"e",{event}{max(begin, end) / 1000:.3f}}}'


def flow(phase: str, number: int, lane: Lane, ns: int) -> str:
    """A point of the arrow of a batch: where it starts (s), passes (t), or finishes (f)."""
    bind = ',"bp":"e"' if phase == "f" else ""  # to the slice around it, not to the next one
    return (
        f'{{"ph":"{phase}","cat":"batch","name":"batch","id":{number}{bind},'
        f'"pid":{lane.pid},"tid":{lane.tid},"ts":{ns / 1000:.3f}}}'
    )


def counts(name: str, lane: Lane, times: Floats, numbers: NDArray[Any]) -> Iterator[str]:
    """How many `batches` there are from each of some moments on, until the next."""
    head = f'{{"ph":"C","cat":"{name}","name":"{name}","pid":{lane.pid},"tid":{lane.tid},"ts":'
    for ns, number in zip(nanoseconds(times), numbers.tolist(), strict=True):
        if ns is not None:
            yield f'{head}{ns / 1000:.3f},"args":{{"batches":{number}}}}}'


def nanoseconds(seconds: Floats) -> list[int | None]:
    """Whole nanoseconds, which keep order and nesting exactly; None for what is not known."""
    return [None if s != s else s for s in np.rint(seconds * 1e9).tolist()]
