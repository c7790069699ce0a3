"""How long commands take, over how long they said at their beginning that it would be.

    python -m tests.benchmarks.announced [--only advise,rent] [--without]

Each command on each scenario that comes with dlsim, in one process of its own, in seconds of
processor time, which do not depend on what else the machine does: all that is spent from the first
announcement on, over what was announced, of a command of several parts the sum. Nothing is
announced to people of what takes less than two seconds, and so it is not looked at here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from tempfile import TemporaryDirectory

from dlsim.scenario.shipped import shipped

CHILD = """
import json, sys, time
if {without}:
    sys.modules["llvmlite"] = None
from dlsim.cli import main, progress
said = {{}}
begin = progress.Course.begin
def heard(course):
    said.setdefault(course, (course.progress.prior, time.process_time()))
    begin(course)
progress.Course.begin = heard
status = main()
print(json.dumps([status, [*said.values()], time.process_time()]), file=sys.stderr)
"""
COMMANDS = {
    "run": (),
    "explain": (),
    "compare": ("--loader.num-workers", "6"),
    "sweep": ("--vary", "loader.num_workers=2:12:2", "--jobs", "1"),
    "advise": (),
    "advise --max-stall": ("--max-stall", "5%"),
    "loaders": (),
    "rent": (),
    "report": ("--html", "{folder}/report.html"),
}
SHOWN = 2.0  # seconds; what takes less is not told of
MOST = 2.0  # times as long, or as short, as was announced


def measured(command: str, scenario: str, *, without: bool) -> tuple[int, float, float] | None:
    """Status, and seconds announced and taken; None where nothing was announced."""
    with TemporaryDirectory() as folder:
        name, *_ = command.split()
        options = (word.format(folder=folder) for word in COMMANDS[command])
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(without=without), name, scenario, *options],
            capture_output=True,
            text=True,
            check=False,
        )
    status, said, ended = json.loads(done.stderr.splitlines()[-1])
    if not said:
        return None
    return status, sum(prior for prior, _ in said), ended - said[0][1]


def main() -> int:
    """Print a row for each command and scenario; 1 where one took much longer, or much less."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--scenarios", default=",".join(shipped()))
    parser.add_argument("--without", action="store_true", help="as if llvmlite were not installed")
    options = parser.parse_args()
    print("| command | scenario | announced | took | times |\n|---|---|---:|---:|---:|")
    failed = False
    for command in options.only.split(","):
        for scenario in options.scenarios.split(","):
            found = measured(command, scenario, without=options.without)
            if found is None:
                continue
            _, said, took = found
            if max(said, took) < SHOWN:
                continue
            wrong = not 1 / MOST <= took / said <= MOST
            failed |= wrong
            row = f"| {command} | {scenario} | {said:.1f} s | {took:.1f} s | {took / said:.2f}"
            print(f"{row}{' (!)' * wrong} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
