from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

import dlsim
from dlsim.cli import main
from dlsim.scenario import Scenario, from_tree
from dlsim.scenario.commented import PARTS, commented, condensed
from dlsim.scenario.shipped import shipped
from dlsim.trace import write_chrome
from tests.cli.test_cli import refused
from tests.strategies import scenarios

ROOT = Path(__file__).parent.parent.parent


def loaded(text: str, folder: Path) -> Scenario:
    """The scenario that a file of this text holds."""
    path = folder / "loaded.toml"
    path.write_text(text, encoding="utf-8")
    return dlsim.load(path)


@settings(max_examples=60)
@given(scenarios(torch_only=False))
def test_commented_files_say_the_same(scenario: Scenario) -> None:
    """A file with comments and units holds the scenario that it was made of, to the last bit."""
    import tomllib

    assert from_tree(tomllib.loads(commented(scenario, ["One line.", "Another."]))) == scenario


def test_records_are_condensed() -> None:
    """Long records become as many values as one can read, with the mean that they have."""
    times = [0.001 * (1 + i % 7) for i in range(1000)]
    scenario = Scenario(
        loader=dlsim.Loader(),
        dataset=dlsim.MapDataset(1000, fetch=[dlsim.Stage("read", wait=dlsim.Recorded(times))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(1 / 3)),
    )
    short = condensed(scenario)
    wait = short.dataset.fetch[0].wait
    assert isinstance(wait, dlsim.Empirical)
    assert len(wait.values) == PARTS
    assert wait.mean == pytest.approx(sum(times) / 1000, rel=1e-3)
    assert short.consumer.step == dlsim.Constant(0.3333)


def test_new_writes_what_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, options decide, and the rest is taken for granted; comments explain."""
    path = tmp_path / "my.toml"
    options = ["--dataset.length", "5000", "--consumer.step", "0.2 s"]
    assert main(["new", str(path), *options]) == 0
    assert f"dlsim run {path}" in capsys.readouterr().out
    scenario = dlsim.load(path)
    assert scenario.dataset.length == 5000
    assert scenario.consumer.step == dlsim.Constant(0.2)
    assert '# How long training on a batch takes.\nstep = "200 ms"' in path.read_text()
    assert "this one exists" in refused(capsys, "new", path)
    assert "ending in .toml" in refused(capsys, "new", tmp_path / "my.txt")


def test_new_of_an_iterable_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An iterable-style dataset is not shuffled, and its workers share it."""
    assert main(["new", "--dataset.kind", "iterable"]) == 0
    dataset = loaded(capsys.readouterr().out, tmp_path).dataset
    assert isinstance(dataset, dlsim.IterableDataset)
    assert dataset.sharding == "split"


def test_new_from_what_is_shipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each scenario that comes with dlsim can be had by its name, as it is or changed."""
    assert shipped().keys() == {path.stem for path in (ROOT / "scenarios").glob("*.toml")}
    for name, path in shipped().items():
        assert main(["new", "--from", name]) == 0
        assert capsys.readouterr().out == path.read_text(encoding="utf-8")
        assert main(["new", "--from", name, "--loader.num-workers", "3"]) == 0
        changed = loaded(capsys.readouterr().out, tmp_path)
        assert changed == dlsim.replace(dlsim.load(path), {"loader.num_workers": 3})
    assert "cosmoflow_a100, imagenet_a100, " in refused(capsys, "new", "--from", "nothing")


def test_new_from_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile of a loader that is waited for makes a scenario of the same pace and steps."""
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("read", cpu=dlsim.Constant(0.04))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.005)),
    )
    run, path = dlsim.simulate(scenario), tmp_path / "profile.json"
    write_chrome(run, path)
    assert main(["new", "--from", str(path), "--loader.num-workers", "2"]) == 0
    text = capsys.readouterr().out
    assert "2, as said" in text
    made = loaded(text, tmp_path)
    assert made.consumer.step.mean == pytest.approx(0.005, rel=1e-3)
    again = dlsim.summarize(dlsim.simulate(made)).elapsed
    assert again == pytest.approx(dlsim.summarize(run).elapsed, rel=0.05)


def test_new_from_a_loader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A DataLoader is watched, and the file holds its settings and what its samples took."""
    pytest.importorskip("torch")
    script = tmp_path / "train.py"
    script.write_text(
        "import time\n"
        "from torch.utils.data import DataLoader\n"
        "class Rows:\n"
        "    def __len__(self): return 24\n"
        "    def __getitem__(self, index):\n"
        "        time.sleep(0.002)\n"
        "        return index\n"
        "def make_loader(): return DataLoader(Rows(), batch_size=4, num_workers=1)\n"
    )
    assert main(["new", "--from", f"{script}:make_loader", "--epochs", "2"]) == 0
    seen = loaded(capsys.readouterr().out, tmp_path)
    assert (seen.loader.batch_size, seen.loader.num_workers, seen.epochs) == (4, 1, 2)
    wait = seen.dataset.fetch[0].wait
    assert wait is not None
    assert wait.mean > 0.0015


def test_new_asks(tmp_path: Path) -> None:
    """On a terminal it asks for what is not given, again after what is no answer; ENTER agrees."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    path = tmp_path / "asked.toml"
    process = subprocess.Popen(
        [sys.executable, "-m", "dlsim", "new", str(path), "--dataset.length", "70"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    answers = ["mine", "", "large", "3 MB", "", "1 ms", "16", "2", "50 ms", "", "64 MiB"]
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    _, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    assert "dataset.sample_bytes: expected a size such as" in err
    assert "dataset.length [" not in err
    scenario = dlsim.load(path)
    assert scenario.name == "mine"
    assert scenario.dataset.sample_bytes == dlsim.Constant(3e6)
    assert scenario.dataset.length == 70
    assert (scenario.loader.batch_size, scenario.loader.num_workers) == (16, 2)
    assert scenario.machine.shm == 64 * 2**20
