"""Traces in NPZ files, which keep all of a trace.

The NPZ file has one array for each array of the trace (`epochs.first`, `samples.index`, … with a
dot), `meta` as JSON, and `format`, the number of this layout. Observed traces have the columns of
`Observation` as well (`observed.sample_cpu`, …), as far as the version that observed it had them.
Those of a trace in it are named as its own, with `validation.` or `reading.` in front.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.files import replacing
from dlsim.trace.columns import put_away
from dlsim.trace.observation import ADDED, BATCH_COLUMNS, SAMPLE_COLUMNS, Observation
from dlsim.trace.trace import MOMENTS, STATUSES, Epochs, Meta, Samples, Trace, TraceError

FORMAT = 2
LATEST = 1e30  # seconds; many batches of the longest times there may be (1e15) end before
COLUMNS = {
    **dict.fromkeys(MOMENTS, np.float64),
    "worker": np.int32,
    "size": np.int32,
    "status": np.uint8,
}
EPOCHS = {"first": np.int64, **dict.fromkeys(("started", "primed", "ended"), np.float64)}
SAMPLES = {
    "index": np.int64,
    "batch": np.int64,
    "worker": np.int32,
    "started": np.float64,
    "fetched": np.float64,
}
# What zipfile and NumPy raise for damaged files (RuntimeError: "encrypted", by a flipped bit).
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError)

NESTED = "validation", "reading"  # traces in a trace

Arrays = Mapping[str, NDArray[Any]]


def save(trace: Trace, path: str | Path) -> None:
    """Write all of `trace` to the NPZ file `path`; it appears whole or not at all.

    Raises `TraceError` when it cannot be written.
    """
    with replacing(Path(path), TraceError) as unfinished, open(unfinished, "wb") as file:
        write_arrays(file, arrays_of(trace))


def write_arrays(file: IO[bytes], arrays: Arrays) -> None:
    """Write an NPZ file, one array after another."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
            put_away()


def arrays_of(trace: Trace) -> dict[str, Any]:
    """Every array that a file has of `trace`, by name."""
    arrays = {name: getattr(trace, name) for name in (*COLUMNS, "order")}
    if trace.stepped is not None:
        arrays["stepped"] = trace.stepped
    arrays |= {f"epochs.{name}": getattr(trace.epochs, name) for name in EPOCHS}
    if trace.samples is not None:
        arrays |= {f"samples.{name}": getattr(trace.samples, name) for name in SAMPLES}
    if isinstance(trace, Observation):
        seen = (*BATCH_COLUMNS, *SAMPLE_COLUMNS)
        arrays |= {f"observed.{name}": getattr(trace, name) for name in seen}
    for name in NESTED:
        theirs = getattr(trace, name)
        if theirs is not None:
            arrays |= {f"{name}.{key}": array for key, array in arrays_of(theirs).items()}
    arrays["meta"] = np.frombuffer(msgspec.json.encode(trace.meta), np.uint8)
    arrays["format"] = np.array(FORMAT)
    return arrays


def load_trace(path: str | Path) -> Trace:
    """The trace in the NPZ file at `path`, as `save` wrote it.

    Raises `TraceError` for a file that cannot be read, is damaged, holds something else, or was
    written in a format this version does not know.
    """
    arrays = read_arrays(path)
    if "job" in arrays:
        raise TraceError(f"{path}: expected a single trace, got those of a job (dlsim.load_job)")
    return trace_of(arrays, path)


def read_arrays(path: str | Path) -> Arrays:
    """Every array in the file at `path`, if dlsim wrote it. Raises `TraceError` if not."""
    try:
        with open(path, "rb") as file:
            return _arrays(file, path)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _arrays(file: IO[bytes], path: str | Path) -> Arrays:
    """Every array in the file, if it is a trace in our format."""
    if file.read(2) != b"PK":  # every zip file, so every NPZ, begins like this
        raise TraceError(f"{path}: expected a trace as dlsim saves it, got another kind of file")
    file.seek(0)
    try:
        with np.load(file, allow_pickle=False) as archive:
            if "format" not in archive or "meta" not in archive:
                raise TraceError(f"{path}: expected a trace as dlsim saves it, got other arrays")
            found = archive["format"].tolist()
            if found != FORMAT:
                raise TraceError(
                    f"{path}: trace format {found}; this version of dlsim reads format {FORMAT}"
                )
            return {name: archive[name] for name in archive.files}
    except _DAMAGED:
        raise TraceError(f"{path}: damaged or cut short") from None


def trace_of(arrays: Arrays, path: str | Path) -> Trace:
    """The trace that the arrays of a file hold. Raises `TraceError` if they hold none."""
    nested = {name: _nested(arrays, f"{name}.") for name in NESTED}
    try:
        columns = _columns(arrays, "", COLUMNS)
        sampled = any(name.startswith("samples.") for name in arrays)
        samples = _columns(arrays, "samples.", SAMPLES) if sampled else None
        kind: type[Trace] = Trace
        if any(name.startswith("observed.") for name in arrays):
            kind = Observation
            for names in (BATCH_COLUMNS, SAMPLE_COLUMNS):
                known = [n for n in names if n not in ADDED or f"observed.{n}" in arrays]
                columns |= _columns(arrays, "observed.", dict.fromkeys(known, np.float64))
            columns = dict.fromkeys(ADDED, np.full(len(columns["sent"]), np.nan)) | columns
        trace = kind(
            **columns,
            order=_columns(arrays, "", {"order": np.int64})["order"],
            epochs=Epochs(**_columns(arrays, "epochs.", EPOCHS)),
            meta=msgspec.json.decode(arrays["meta"].tobytes(), type=Meta),
            samples=Samples(**samples) if samples is not None else None,
            stepped=_columns(arrays, "", {"sent": np.float64, "stepped": np.float64})["stepped"]
            if "stepped" in arrays
            else None,
            validation=trace_of(nested["validation"], path) if nested["validation"] else None,
            reading=trace_of(nested["reading"], path) if nested["reading"] else None,
        )
        check(trace)
        return trace
    except KeyError as error:
        raise TraceError(f"{path}: expected an array {error}, got none") from None
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors, too
        raise TraceError(f"{path}: {error}") from None


def _nested(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays of a trace in a trace."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def check(trace: Trace) -> None:
    """Raise `ValueError` for a trace in which something refers to what is not there.

    Or with a moment that no run has: one may be unknown (NaN), but not infinite.
    """
    batches = len(trace)
    scenario = trace.meta.scenario
    workers = max(batches, scenario.loader.num_workers if scenario is not None else 0)
    _check_range("order", trace.order, 0, batches)
    if len(np.unique(trace.order)) < len(trace.order):
        raise ValueError("order: expected each batch once, got one twice")
    _check_range("worker", trace.worker, -1, workers)
    _check_range("size", trace.size, 0, np.iinfo(np.int32).max)
    _check_range("status", trace.status, 0, len(STATUSES))
    _check_range("epochs.first", trace.epochs.first, 0, batches + 1)
    if np.any(np.diff(trace.epochs.first) < 0) or (batches and not len(trace.epochs.first)):
        raise ValueError("epochs.first: expected epochs in order, of which the first has batch 0")
    named = {name: getattr(trace, name) for name in MOMENTS}
    named |= {f"epochs.{name}": getattr(trace.epochs, name) for name in EPOCHS if name != "first"}
    if np.isnan(trace.epochs.started).any():
        raise ValueError("epochs.started: expected when each epoch began, got an unknown moment")
    if trace.samples is not None:
        _check_range("samples.batch", trace.samples.batch, 0, batches)
        _check_range("samples.worker", trace.samples.worker, -1, workers)
        _check_range("samples.index", trace.samples.index, -(2**62), 2**62)
        named |= {
            f"samples.{name}": getattr(trace.samples, name) for name in ("started", "fetched")
        }
    if trace.stepped is not None:
        named["stepped"] = trace.stepped
    if isinstance(trace, Observation):
        named |= {name: getattr(trace, name) for name in (*BATCH_COLUMNS, *SAMPLE_COLUMNS)}
    for name, moments in named.items():
        if np.any(np.abs(moments) > LATEST):
            raise ValueError(f"{name}: expected seconds of at most {LATEST:g}, got more")


def _check_range(name: str, values: NDArray[Any], least: int, end: int) -> None:
    """Raise `ValueError` unless all `values` are in `range(least, end)`."""
    bad = values[(values < least) | (values >= end)]
    if len(bad):
        raise ValueError(f"{name}: expected numbers from {least} to {end - 1}, got {bad[0]}")


def _columns(arrays: Arrays, prefix: str, types: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The named arrays, which must have their types and be equally long."""
    columns = {name: arrays[prefix + name] for name in types}
    length = next(iter(columns.values())).size
    for name, column in columns.items():
        if column.shape != (length,) or column.dtype != types[name]:
            raise ValueError(
                f"{prefix}{name}: expected {length} values of type {np.dtype(types[name])},"
                f" got shape {column.shape} of type {column.dtype}"
            )
    return columns
