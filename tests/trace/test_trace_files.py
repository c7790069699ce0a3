from __future__ import annotations

import csv
import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.engine import simulate
from dlsim.scenario import Scenario
from dlsim.trace import Trace, TraceError, difference, load_trace, read_csv, save, write_csv
from dlsim.trace.trace import MOMENTS
from tests.strategies import scenarios


def small(**changes: Any) -> Trace:
    """Three batches of two samples."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(6, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        **changes,
    )
    return simulate(scenario, 7, samples=True)


def refusal(path: Path) -> str:
    """What `load_trace` says about a file, which must be one line that begins with its name."""
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@settings(max_examples=60)
@given(scenarios(torch_only=False))
def test_nothing_is_lost(tmp_path: Path, scenario: Scenario) -> None:
    """A trace that was saved and loaded is the same in every array, sample, epoch and word."""
    for samples in (False, True):
        trace = simulate(scenario, samples=samples)
        save(trace, tmp_path / "trace.npz")
        again = load_trace(tmp_path / "trace.npz")
        assert difference(trace, again, rtol=0) is None
        assert again.meta == trace.meta
        assert (again.samples is None) == (trace.samples is None)
    write_csv(trace, tmp_path / "trace.csv")
    table = read_csv(tmp_path / "trace.csv")
    assert isinstance(table, Trace)
    trace = dataclasses.replace(trace, meta=table.meta, samples=None)
    assert difference(trace, table, rtol=0) is None


def test_types_are_kept(tmp_path: Path) -> None:
    """Every array has the type it had."""
    trace = small()
    save(trace, tmp_path / "t")
    again = load_trace(tmp_path / "t")
    for field in dataclasses.fields(trace):
        before, after = getattr(trace, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype, field.name


def test_name_is_taken_as_given(tmp_path: Path) -> None:
    """The file has exactly the name asked for, and nothing else is left in the folder."""
    save(small(), tmp_path / "run.trace")
    write_csv(small(), str(tmp_path / "run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.trace"]


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    assert refusal(tmp_path / "none.npz") == "cannot be read: No such file or directory"


def test_directory(tmp_path: Path) -> None:
    """A folder is no trace, and is not written over."""
    assert refusal(tmp_path) == "cannot be read: Is a directory"
    with pytest.raises(TraceError, match="cannot be written: Is a directory"):
        save(small(), tmp_path)
    assert list(tmp_path.parent.glob(".*.tmp")) == []


def test_unwritable(tmp_path: Path) -> None:
    """Where nothing can be written, that is said in one line."""
    for write in (save, write_csv):
        with pytest.raises(TraceError, match=r"t: cannot be written: No such file or directory$"):
            write(small(), tmp_path / "no" / "t")


def test_truncated(tmp_path: Path) -> None:
    """However short a file was cut, it is refused."""
    path = tmp_path / "t.npz"
    save(small(), path)
    whole = path.read_bytes()
    for length in [2, 3, 10, 100, 1000, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refusal(path) == "damaged or cut short"


def test_damaged(tmp_path: Path) -> None:
    """A byte that changed anywhere is either noticed or makes no difference."""
    path = tmp_path / "t.npz"
    trace = small()
    save(trace, path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(TraceError):
            again = load_trace(path)
            assert difference(trace, again, rtol=0) is None
            assert trace.meta == again.meta


@pytest.mark.parametrize("content", [b"", b"P", b"time,batch\n1,2\n", b"\x93NUMPY rest"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is refused as such."""
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    assert refusal(path) == "expected a trace as dlsim saves it, got another kind of file"


def test_other_arrays(tmp_path: Path) -> None:
    """An NPZ file of someone else's is refused as such."""
    path = tmp_path / "t.npz"
    np.savez(path, a=np.arange(3))
    assert refusal(path) == "expected a trace as dlsim saves it, got other arrays"


def rewritten(path: Path, **changes: Any) -> None:
    """Save a trace with some arrays replaced, or left out where None."""
    save(small(), path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_other_version(tmp_path: Path) -> None:
    """A file of another format says which it is, and which can be read."""
    path = tmp_path / "t.npz"
    rewritten(path, format=np.array(1))
    assert refusal(path) == "trace format 1; this version of dlsim reads format 2"


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    """A missing, misshapen or mistyped array is named."""
    path = tmp_path / "t.npz"
    rewritten(path, fetched=None)
    assert refusal(path) == "expected an array 'fetched', got none"
    rewritten(path, size=np.zeros(1, np.int32))
    assert refusal(path).startswith("size: expected 3 values of type int32, got shape (1,)")
    rewritten(path, worker=np.zeros(3))
    assert refusal(path).startswith("worker: expected 3 values of type int32, got shape (3,)")


def test_meta_that_does_not_fit(tmp_path: Path) -> None:
    """Words about a trace that cannot be understood are refused in one line."""
    path = tmp_path / "t.npz"
    rewritten(path, meta=np.frombuffer(b'{"engine": 3}', np.uint8))
    assert "Expected `str`, got `int`" in refusal(path)


def test_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails midway, the file that was there stays, and nothing else does."""
    path = tmp_path / "t.npz"
    save(small(), path)
    before = path.read_bytes()

    def fail(file: Any, array: Any, **options: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(TraceError, match="cannot be written: No space left on device"):
        save(small(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_csv(tmp_path: Path) -> None:
    """A CSV file has a row for each batch, with its epoch, the name of its fate, all moments."""
    trace = small(epochs=2, consumer=dlsim.Consumer(stop_after=2))
    write_csv(trace, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ["batch", "epoch", "worker", "size", "status", "place", *MOMENTS]
    assert list(rows[0]) == [*keys, "epoch_started", "epoch_primed", "epoch_ended"]
    assert [row["batch"] for row in rows] == [str(b) for b in range(len(trace))]
    assert [row["epoch"] for row in rows] == ["0"] * 3 + ["1"] * 3
    assert rows[0]["status"] == "returned"
    assert rows[2]["status"] == "pending"
    assert rows[2]["returned"] == ""
    assert [row["place"] for row in rows] == ["0", "1", "", "2", "3", ""]
    assert rows[3]["epoch_started"] == rows[0]["epoch_ended"] == str(trace.epochs.ended[0])
    for name in MOMENTS:
        column = [float(row[name] or "nan") for row in rows]
        np.testing.assert_array_equal(column, getattr(trace, name))


def test_tables_that_are_none(tmp_path: Path) -> None:
    """What is cut short, changed, or something else is refused in one line, with the line in it."""
    path = tmp_path / "t.csv"
    write_csv(small(), path)
    whole = path.read_text()
    for text, complaint in (
        ("", "expected the columns batch, epoch, worker, .*, got ''"),
        ("a,b\n1,2\n", "expected the columns batch, .*, got 'a, b'"),
        (whole.splitlines()[0] + "\n", "cut short"),
        (whole[:-2], "cut short"),
        (whole[:-60], "line 4: damaged or cut short: expected 17 values, got"),
        (whole.replace("1,0,1,2,", "x,0,1,2,"), "line 3: batch: expected a whole number, got 'x'"),
        (whole.replace("1,0,1,2,", "3,0,1,2,"), "batch: expected 0, 1, ... in order, each once"),
        (whole.replace("1,0,1,2,", "1,2,1,2,"), "epoch: expected 0, 1, ... in order, each once"),
        (whole.replace("returned,1", "returned,0"), "place: expected 0, 1, ... in order"),
        (whole.replace("returned,1", "gone,1"), "line 3: status: expected one of pending, returne"),
        (whole.replace("2.0", "two", 1), "line 2: fetched: expected seconds, got 'two'"),
        (whole.replace("1,0,1,2,", "1,0,99,2,"), "worker: expected numbers from -1 to 2, got 99"),
    ):
        path.write_text(text)
        with pytest.raises(TraceError, match=f"t.csv: {complaint}"):
            read_csv(path)
    with pytest.raises(TraceError, match=r"none.csv: cannot be read: No such file"):
        read_csv(tmp_path / "none.csv")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TraceError, match="expected a table of batches, got no text"):
        read_csv(path)
