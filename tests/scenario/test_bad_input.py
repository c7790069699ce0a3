"""What people get wrong with real loaders and files of real runs: one line each, nothing lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dlsim
from dlsim.cli import main
from dlsim.validation.observing import target
from tests.cli.test_cli import refused
from tests.modules import module_here

SOURCE = """
import os, time
from torch.utils.data import DataLoader, Dataset, IterableDataset


class Rows(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return self.row(index)

    def row(self, index):
        return index


class Raises(Rows):
    def row(self, index):
        if index == 30:
            raise ValueError("no such row")
        return index


class Dies(Rows):
    def row(self, index):
        if index == 30:
            os._exit(1)
        return index


class Hangs(Rows):
    def row(self, index):
        if index == 30:
            time.sleep(60)
        return index


class Local(Rows):
    def __init__(self):
        self.row = lambda index: index


class Empty(IterableDataset):
    def __iter__(self):
        return iter(())


def make(dataset=Rows, **settings):
    return DataLoader(dataset(), 4, num_workers=2, **settings)


def raises():
    return make(Raises)


def dies():
    return make(Dies)


def hangs():
    return make(Hangs)


def few():
    return DataLoader(Rows(), 20, num_workers=2)


def empty():
    return make(Empty)


def spawned():
    return make(Local, multiprocessing_context="spawn")


def broken():
    raise OSError("no such disk")


def number():
    return 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a user's module, `bad_loaders`."""
    with module_here(tmp_path, monkeypatch, "bad_loaders", SOURCE):
        yield tmp_path


@pytest.mark.parametrize("command", ["observe", "validate"])
@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("nothing", "bad_loaders has no nothing"),
        ("number", "expected a torch DataLoader, got int"),
        ("broken", "OSError: no such disk"),
        ("spawned", "Can't pickle local object"),
    ],
)
def test_loaders_that_do_not_start(here, capsys, command, loader, message):
    """A factory or a start that fails is said in one line; no file is left."""
    out = {"observe": "out.npz", "validate": "out"}[command]
    said = refused(capsys, command, f"bad_loaders:{loader}", "-o", out)
    assert said.startswith(f"bad_loaders:{loader}")
    assert message in said
    assert not list(here.glob("**/*.npz"))


# Torch does not close what a dead worker was connected with.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("loader", "message", "batches"),
    [("raises", "ValueError: no such row", 7), ("dies", "exited unexpectedly", None)],
)
def test_what_was_seen_before_an_error_is_kept(here, capsys, loader, message, batches):
    """An exception or a death in a worker ends the observation, and what was seen is written."""
    assert main(["observe", f"bad_loaders:{loader}", "-o", "seen.npz"]) == 0
    assert message in capsys.readouterr().out
    seen = dlsim.load_trace("seen.npz")
    assert len(seen.order) <= 7 if batches is None else len(seen.order) == batches


@pytest.mark.parametrize("command", ["observe", "validate"])
def test_a_loader_that_hangs(here, capsys, monkeypatch, command):
    """Where no batch comes for long, that is said instead of waiting for ever."""
    monkeypatch.setattr(target, "HANGS", 1.0)
    assert "no batch for 1 s: it hangs" in refused(capsys, command, "bad_loaders:hangs")


def test_epochs_of_what_is_watched(here, capsys):
    """`--epochs` is an option of observe, though scenarios have such a key."""
    assert main(["observe", "bad_loaders:few", "--epochs", "2", "-o", "seen.npz"]) == 0
    assert len(dlsim.load_trace("seen.npz").epochs.started) == 2
    assert "Does it fit?" not in capsys.readouterr().out  # the size of samples was not observed
    assert "epochs: expected an integer of at least 1, got 0" in refused(
        capsys, "observe", "bad_loaders:few", "--epochs", "0"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "bad_loaders.py"], "bad_loaders.py: cannot be written: bad_loaders.py is a file"),
        (["-o", "bad_loaders.py/runs"], "bad_loaders.py is a file"),
        (["--rounds", "0"], "--rounds: expected an integer of at least 1, got 0"),
        (["--minutes", "nan"], "--minutes: expected a number of at least 0, got nan"),
    ],
)
def test_validations_that_cannot_be(here, capsys, options, message):
    """What a validation cannot do is said before any run is made."""
    assert message in refused(capsys, "validate", "bad_loaders:few", *options)
    assert [path.name for path in here.iterdir()] == ["bad_loaders.py"]


@pytest.mark.parametrize(("loader", "batches"), [("few", 2), ("empty", 0)])
def test_too_few_batches(here, capsys, loader, batches):
    """Neither calibrating nor validating makes much of little; what was seen is kept."""
    main(["observe", f"bad_loaders:{loader}", "-o", "seen.npz"])
    capsys.readouterr()
    message = f"expected at least 5 batches to calibrate, got {batches}"
    assert f"seen.npz: {message}" in refused(capsys, "calibrate", "seen.npz", "-o", "scenario.toml")
    more = "; watch several epochs" if batches else ""
    assert f"seen.npz: {message}{more}" in refused(capsys, "diagnose", "seen.npz")
    assert not Path("scenario.toml").exists()
    assert message in refused(capsys, "validate", f"bad_loaders:{loader}", "-o", "runs")
    (kept,) = here.glob("runs/**/*.npz")
    assert len(dlsim.load_trace(kept).order) == batches


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "damaged or cut short"),
        (lambda content: b"name: run\n", "expected a trace as dlsim saves it"),
        (lambda content: b"", "expected a trace as dlsim saves it"),
    ],
    ids=["cut short", "another file", "empty"],
)
@pytest.mark.parametrize("command", [["calibrate"], ["compare", "seen.npz"]])
def test_files_that_are_no_traces(here, capsys, damage, message, command):
    """A file that is not a whole trace is refused by all that reads traces; nothing is written."""
    seen = Path("seen.npz")
    dlsim.save(dlsim.simulate(dlsim.Scenario(loader=dlsim.Loader(), dataset=ROWS)), seen)
    seen.write_bytes(damage(seen.read_bytes()))
    options = ["-o", "scenario.toml"] if command == ["calibrate"] else []
    said = refused(capsys, *command, "seen.npz", *options)
    assert said.startswith("seen.npz: ")
    assert message in said
    assert not Path("scenario.toml").exists()


def test_a_trace_of_another_version(here, capsys):
    """A format that this version does not know is named."""
    dlsim.save(dlsim.simulate(dlsim.Scenario(loader=dlsim.Loader(), dataset=ROWS)), "seen.npz")
    with np.load("seen.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez("seen.npz", **{**arrays, "format": np.array(99)})
    said = refused(capsys, "calibrate", "seen.npz", "-o", "scenario.toml")
    assert "seen.npz: trace format 99; this version of dlsim reads format" in said


def test_a_trace_that_was_not_observed(here, capsys):
    """A simulated run has nothing to calibrate on, which is said in one line."""
    dlsim.save(dlsim.simulate(dlsim.Scenario(loader=dlsim.Loader(), dataset=ROWS)), "seen.npz")
    said = refused(capsys, "calibrate", "seen.npz", "-o", "scenario.toml")
    assert "seen.npz: expected a run that dlsim observe watched, got another trace" in said


ROWS = dlsim.MapDataset(length=8)
