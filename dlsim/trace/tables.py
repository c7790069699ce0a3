"""Traces as tables: CSV, one row for each batch; of a job, of each batch of each rank.

A table has all of a trace but its samples and `meta`, each number as exactly as Python has it. What
is not known is empty. An epoch without batches has a row of its own, in which the batch is.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dlsim.scenario.files import replacing
from dlsim.trace.columns import parts
from dlsim.trace.files import check
from dlsim.trace.job import JobTrace
from dlsim.trace.trace import MOMENTS, STATUSES, Epochs, Floats, Meta, Trace, TraceError

EPOCH_MOMENTS = ("started", "primed", "ended")
COLUMNS = (
    *("batch", "epoch", "worker", "size", "status", "place"),
    *MOMENTS,
    *(f"epoch_{name}" for name in EPOCH_MOMENTS),
)
OF_RANKS = ("rank", *COLUMNS, "stepped")
ENGINE = "csv"
NAN = float("nan")

Row: TypeAlias = tuple[Any, ...]
Parse: TypeAlias = Callable[[str], Any]


def write_csv(trace: Trace, path: str | Path) -> None:
    """Write one row for each batch of `trace` to the CSV file `path`.

    Columns: batch, epoch, worker, size, status (its name), place (in the order returned), every
    moment in seconds, and those of the epoch. Raises `TraceError` when it cannot be written.
    """
    _write(path, COLUMNS, _rows(trace))


def write_job_csv(job: JobTrace, path: str | Path) -> None:
    """Write one row for each batch of each rank to the CSV file `path`.

    Columns: rank, those of `write_csv`, and stepped. Raises `TraceError` when it cannot be written.
    """
    ranks = (_rows_of_rank(rank, trace) for rank, trace in enumerate(job.ranks))
    _write(path, OF_RANKS, chain.from_iterable(ranks))


def _write(path: str | Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with (
        replacing(Path(path), TraceError) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _rows_of_rank(rank: int, trace: Trace) -> Iterator[Row]:
    stepped = [] if trace.stepped is None else _known(trace.stepped)
    for row in _rows(trace):
        yield rank, *row, stepped[row[0]] if stepped and row[0] != "" else ""


def _rows(trace: Trace) -> Iterator[Row]:
    """A row for each batch, and for each epoch without any, by epochs."""
    columns = (_known(getattr(trace.epochs, name)) for name in EPOCH_MOMENTS)
    epochs: list[Row] = [*zip(*columns, strict=True)]
    without = {*range(len(epochs))} - {*trace.epoch_of(np.arange(len(trace))).tolist()}
    nothing = [""] * (len(COLUMNS) - len(EPOCH_MOMENTS) - 2)
    empty = (("", epoch, *nothing, *epochs[epoch]) for epoch in sorted(without))
    yield from merge(_rows_of_batches(trace, epochs), empty, key=itemgetter(1))


def _rows_of_batches(trace: Trace, epochs: Sequence[Row]) -> Iterator[Row]:
    place = np.full(len(trace), -1)
    place[trace.order] = np.arange(len(trace.order))
    for part in parts(0, len(trace)):
        batches = np.arange(part.start, part.stop)
        of = trace.epoch_of(batches).tolist()
        yield from zip(
            batches.tolist(),
            of,
            trace.worker[part].tolist(),
            trace.size[part].tolist(),
            [STATUSES[status] for status in trace.status[part].tolist()],
            ["" if at < 0 else at for at in place[part].tolist()],
            *(_known(getattr(trace, name)[part]) for name in MOMENTS),
            *zip(*(epochs[epoch] for epoch in of), strict=True),
            strict=True,
        )


def _known(moments: Floats) -> list[Any]:
    """Seconds, and nothing for those that are not known."""
    return ["" if moment != moment else moment for moment in moments.tolist()]


def read_csv(path: str | Path) -> Trace | JobTrace:
    """The trace in the CSV file at `path`, or the job, as `write_csv` or `write_job_csv` wrote it.

    Raises `TraceError`, with the line, for what is no such table, is cut short, or cannot be.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: expected a table of batches, got no text") from None
    lines = text.splitlines()
    head, *rows = csv.reader(lines) if lines else [[]]
    if tuple(head) not in (COLUMNS, OF_RANKS):
        got = ", ".join(head)[:60]
        raise TraceError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {got!r}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            expected = f"expected {len(head)} values, got {len(row)}"
            raise TraceError(f"{path}: line {number}: damaged or cut short: {expected}")
    if not rows or not text.endswith("\n"):
        raise TraceError(f"{path}: cut short")
    numbered = [*enumerate(rows, 2)]
    if tuple(head) == COLUMNS:
        return _trace_of(_Rows(path, head, numbered))
    ranks = []
    for rank, (theirs, mine) in enumerate(groupby(numbered, key=lambda row: row[1][0])):
        if theirs != str(rank):
            raise TraceError(f"{path}: rank: expected 0, 1, ..., each once, got {theirs}")
        ranks.append(_trace_of(_Rows(path, head, [*mine])))
    return JobTrace(ranks=tuple(ranks), meta=_meta(path))


def _meta(path: str | Path) -> Meta:
    return Meta(engine=ENGINE, notes={"source": str(path)})


class _Rows:
    """The rows that one trace has in a table, with the numbers of their lines."""

    def __init__(
        self, path: str | Path, head: Sequence[str], rows: Sequence[tuple[int, list[str]]]
    ) -> None:
        self.path, self.head, self.rows = path, head, rows
        self.cells = {name: [row[at] for _, row in rows] for at, name in enumerate(head)}

    @property
    def of_batches(self) -> _Rows:
        """Those that are not of epochs without batches."""
        there = [row for row, batch in zip(self.rows, self.cells["batch"], strict=True) if batch]
        return _Rows(self.path, self.head, there)

    def values(self, name: str, parse: Parse, unknown: float | None = None) -> list[Any]:
        """What is in a column; `unknown` where a cell is empty, if it may be."""
        found = []
        for (line, _), cell in zip(self.rows, self.cells[name], strict=True):
            try:
                found.append(unknown if not cell and unknown is not None else parse(cell))
            except ValueError:
                expected = f"{name}: expected {EXPECTED[parse]}, got {cell!r}"
                raise TraceError(f"{self.path}: line {line}: {expected}") from None
        return found

    def moments(self, name: str) -> Floats:
        """Seconds, where they are known."""
        return np.array(self.values(name, float, NAN), np.float64)


def _whole(cell: str) -> int:
    value = int(cell)
    if not -(2**31) <= value < 2**31:
        raise ValueError
    return value


def _fate(cell: str) -> int:
    return STATUSES.index(cell)


EXPECTED: dict[Parse, str] = {
    float: "seconds",
    _whole: "a whole number",
    _fate: f"one of {', '.join(STATUSES)}",
}


def _trace_of(rows: _Rows) -> Trace:
    """The trace that has these rows. Raises `TraceError` if none has."""
    batches = rows.of_batches
    of, place = rows.values("epoch", _whole), np.array(batches.values("place", _whole, -1), int)
    order = np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :]
    _numbered(rows.path, "epoch", [epoch for epoch, _ in groupby(of)])
    _numbered(rows.path, "batch", batches.values("batch", _whole))
    _numbered(rows.path, "place", place[order].tolist())
    epochs = range(of[-1] + 1)
    begins = np.searchsorted(of, epochs)
    met = "stepped" in rows.head and any(batches.cells["stepped"])
    moments: dict[str, Any] = {name: batches.moments(name) for name in MOMENTS}
    trace = Trace(
        **moments,
        worker=np.array(batches.values("worker", _whole), np.int32),
        size=np.array(batches.values("size", _whole), np.int32),
        status=np.array(batches.values("status", _fate), np.uint8),
        order=order,
        epochs=Epochs(
            first=np.searchsorted(batches.values("epoch", _whole), epochs),
            **{name: rows.moments(f"epoch_{name}")[begins] for name in EPOCH_MOMENTS},
        ),
        meta=_meta(rows.path),
        stepped=batches.moments("stepped") if met else None,
    )
    try:
        check(trace)
    except ValueError as error:
        raise TraceError(f"{rows.path}: {error}") from None
    return trace


def _numbered(path: str | Path, name: str, found: Sequence[int]) -> None:
    """Raise `TraceError` unless these are 0, 1, and so on."""
    if [*found] != [*range(len(found))]:
        raise TraceError(f"{path}: {name}: expected 0, 1, ... in order, each once")
