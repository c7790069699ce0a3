"""How long each question takes, from a fresh process, for every scenario in `scenarios`.

    python -m tests.benchmarks.answers --only advise

Prints a row for each command, slowest last: the seconds it took, those of CPU, and its first line.
Where llvmlite is installed, `--plain` simulates as where it is not.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
GOAL = 20.0  # seconds
QUESTIONS = (
    "run {scenario}",
    "explain {scenario}",
    "compare {scenario} --loader.num-workers 6",
    "sweep {scenario} --vary loader.num_workers=1:16",
    "sweep {scenario} --vary loader.num_workers=1:16 --vary loader.prefetch_factor=1,2,4",
    "advise {scenario}",
    "advise {scenario} --max-stall 5%",
    "advise {scenario} --max-stall 1%",
    "advise {scenario} --max-stall 0.05%",
    "advise {scenario} --min-au 90%",
    "report {scenario} --html {folder}/report.html",
)
# What every Python process loads that finds it: there is no llvmlite then.
HIDDEN = """
from importlib import util
found = util.find_spec
util.find_spec = lambda name, package=None: None if name == "llvmlite" else found(name, package)
"""


class Answer(NamedTuple):
    """What a command took, in seconds, and the first line it said."""

    command: str
    seconds: float
    cpu: float
    first: str


def asked(only: str, plain: bool) -> Iterator[Answer]:
    """The answers to the commands that match `only`."""
    with tempfile.TemporaryDirectory() as folder:
        if plain:
            Path(folder, "sitecustomize.py").write_text(HIDDEN, encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((folder, str(ROOT)))}
        for scenario in sorted(Path("scenarios").glob("*.toml")):
            for question in QUESTIONS:
                command = question.format(scenario=scenario, folder=folder)
                if re.search(only, command):
                    before, began = os.times(), time.perf_counter()
                    call = [sys.executable, "-m", "dlsim", *command.split()]
                    done = subprocess.run(
                        call, capture_output=True, text=True, cwd=ROOT, env=environment
                    )
                    taken, after = time.perf_counter() - began, os.times()
                    cpu = sum(after[2:4]) - sum(before[2:4])
                    said = (done.stdout or done.stderr).splitlines() or [""]
                    yield Answer(command.replace(f"{folder}/", ""), taken, cpu, said[0])


def main() -> None:
    """Ask, and print what each question took; exit status 1 if any took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="commands that this pattern is found in")
    parser.add_argument("--plain", action="store_true", help="as where llvmlite is not installed")
    options = parser.parse_args()
    late = 0
    for answer in asked(options.only, options.plain):
        late += answer.seconds > GOAL
        print(f"{answer.seconds:6.1f} s  {answer.cpu:6.1f} s CPU  {answer.command}", flush=True)
        print(f"      {answer.first}", flush=True)
    sys.exit(1 if late else 0)


if __name__ == "__main__":
    main()
