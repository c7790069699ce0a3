"""What dlsim writes: files whole or not at all, and stdout whatever it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import dlsim
from dlsim.trace import write_csv
from tests.cli.test_cli import refused, shell, small

__all__ = ["small"]  # a fixture

TRACE = dlsim.simulate(
    dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(length=8))
)


def no_room(*args: Any, **kwargs: Any) -> None:
    """What writing does when the disk is full."""
    raise OSError(28, "No space left on device")


def test_pipes_are_written_to(tmp_path: Path) -> None:
    """A pipe or a device is written to, and stays what it is: no file takes its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()))
    reader.start()
    write_csv(TRACE, pipe)
    reader.join(timeout=60)
    assert len(texts[0].splitlines()) == 1 + len(TRACE)
    assert pipe.is_fifo()


def test_links_stay_links(tmp_path: Path) -> None:
    """Writing to a link replaces the file that it leads to."""
    link, file = tmp_path / "latest.npz", tmp_path / "run.npz"
    link.symlink_to(file)
    dlsim.save(TRACE, link)
    assert link.is_symlink()
    assert len(dlsim.load_trace(file)) == len(TRACE)


def test_no_half_written_scenario(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room for a scenario, the file that was there stays, and nothing else."""
    scenario, before = dlsim.load(small), small.read_bytes()
    monkeypatch.setattr(Path, "write_text", no_room)
    with pytest.raises(dlsim.ScenarioError, match=r"cannot be written: No space left on device$"):
        dlsim.dump(scenario, small)
    assert small.read_bytes() == before
    assert list(small.parent.iterdir()) == [small]


def test_no_half_written_picture(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When there is no room for a picture, none is left, and that is said in one line."""

    def half(self: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        no_room()

    monkeypatch.setattr(Figure, "savefig", half)
    for command in ("run", "explain"):
        said = refused(capsys, command, small, "--plot", small.parent / "a.png")
        assert said.endswith("a.png: cannot be written: No space left on device")
    assert list(small.parent.iterdir()) == [small]


def test_no_permission(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one may not write, that is said before anything is simulated."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(dlsim, "simulate", None)
    said = refused(capsys, "run", small, "--csv", small.parent / "a.csv")
    assert said.endswith("a.csv: cannot be written: no permission to write there")


def test_a_table_is_no_trace(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace does not go into a file that is named like a table."""
    said = refused(capsys, "run", small, "--out", small.parent / "a.csv")
    assert said.endswith("a.csv: expected a name ending in .npz")
    assert not (small.parent / "a.csv").exists()


@pytest.mark.parametrize(("output", "status"), [(">/dev/full", 2), (">&-", 0), ("2>&-", 0)])
def test_output_that_cannot_be(small: Path, output: str, status: int) -> None:
    """Where stdout takes nothing, or either is closed, there is no traceback."""
    command = f"exec {sys.executable} -m dlsim run {small} {output}"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status
    full = "dlsim: output cannot be written: No space left on device"
    said = [line for line in done.stderr.splitlines() if "simulating:" not in line]
    assert said == ([full] if status else [])


def test_characters_that_stdout_lacks(small: Path) -> None:
    """Where stdout has ASCII only, everything is said, with ? for what it lacks."""
    done = subprocess.run(
        shell("explain", str(small), "--name", "Übung"),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert " ? " in done.stdout


@pytest.mark.parametrize(
    "command",
    ["observe loader.py:make", "diagnose run.npz", "validate", "calibrate run.npz -o a.toml"],
)
def test_without_torch(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs torch says how to have it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    cure = "(in a clone of dlsim: pip install '.[validate]')"
    name = command.split()[0]
    assert refused(capsys, *command.split()) == (
        f"{name} needs torch, which is not installed {cure}"
    )
