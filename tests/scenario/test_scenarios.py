from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dlsim
from dlsim.engine import simulate, simulate_job
from tests.documents import output

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"

# What each expected output is the output of.
COMMANDS = {
    "multiworkers.out": ["multiworkers.py"],
    "multiworkers-iterable.out": ["multiworkers.py", "--iterable"],
    "multiworkers-row.out": ["multiworkers.py", "--policy", "row"],
    "measured_waits.out": ["measured_waits.py"],
    "head_of_line.out": ["head_of_line.py"],
    "slow_rank.out": ["slow_rank.py"],
    "tutorial.out": ["tutorial.py"],
}


def printed_by(script: str, *options: str) -> str:
    """What a script prints."""
    return output("python", f"scenarios/{script}", *options)


@pytest.mark.parametrize("expected", sorted(COMMANDS))
def test_output(expected: str) -> None:
    """Each script prints what lies beside it."""
    assert printed_by(*COMMANDS[expected]) == (SCENARIOS / expected).read_text(encoding="utf-8")


def test_nothing_is_forgotten() -> None:
    """Every script has an expected output, and every expected output a script."""
    scripts = {path.name for path in SCENARIOS.glob("*.py")}
    assert scripts == {command[0] for command in COMMANDS.values()}
    assert {path.name for path in SCENARIOS.glob("*.out")} == COMMANDS.keys()


def test_step() -> None:
    """With --step, lines come as ENTER is pressed, and the end of input is no error."""
    command = [sys.executable, str(SCENARIOS / "multiworkers.py"), "--step"]
    done = subprocess.run(command, capture_output=True, text=True, input="\n\n", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("A row takes 1 s to fetch")
    assert len(done.stdout) < len(printed_by("multiworkers.py"))


def test_beside_torch() -> None:
    """With --torch, a real DataLoader does what the simulated one does."""
    pytest.importorskip("torch")
    printed = printed_by("multiworkers.py", "--torch")
    assert "The simulation schedules as seen: same order, workers and samples" in printed


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.name)
def test_files(path: Path, tmp_path: Path) -> None:
    """Each scenario file loads, says what it is, survives dumping, and can be simulated."""
    scenario = dlsim.load(path)
    assert scenario.name
    dlsim.dump(scenario, tmp_path / "dumped.toml")
    assert dlsim.load(tmp_path / "dumped.toml") == scenario
    ranks = simulate_job(scenario).ranks if scenario.is_job else [simulate(scenario)]
    assert all(trace.meta.problem is None for trace in ranks)
    assert all(len(trace.order) >= 100 for trace in ranks)
