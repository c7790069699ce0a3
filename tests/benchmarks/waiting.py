"""What a person waits for at the command line: processor time, and memory.

With the root of another version of dlsim (`git worktree add`), the same is measured there, one
after the other in each round, and the ratio is of both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.timing import spread, three_digits

ROOT = Path(__file__).parent.parent.parent
CACHES = "DLSIM_CACHE_DIR", "NUMBA_CACHE_DIR"  # the latter: of earlier versions
LONG = """
[loader]
batch_size = 1
num_workers = 8
[dataset]
kind = "map"
length = {batches}
[[dataset.fetch]]
name = "read"
wait = {{ kind = "gamma", mean = "8 ms", cv = 0.5 }}
[consumer]
step = "1 ms"
"""
FIRST_USE = """
import dlsim
dlsim.simulate(dlsim.replace(dlsim.load({path!r}), {changes}), engine="compiled")
"""
WITHOUT = """
import sys
sys.modules["llvmlite"] = sys.modules["numba"] = None  # the latter is what other versions need
from dlsim.cli import main
sys.exit(main())
"""
COMMANDS = (
    ("run", "scenarios/imagenet_a100.toml"),
    ("explain", "scenarios/imagenet_a100.toml"),
    ("compare", "scenarios/unet3d_h100.toml", "--loader.in-order", "false"),
)


LIMITED = ("scenarios/imagenet_a100.toml", "--machine.cores", "6")
THREE = (
    "scenarios/imagenet_a100.toml",
    "scenarios/unet3d_h100.toml",
    "scenarios/cosmoflow_a100.toml",
)
# Each is asked of one file after another: earlier versions took several at once.
QUESTIONS = {
    "advise, three scenarios, limited cores": (
        [("advise", path, "--machine.cores", "8") for path in THREE],
        "≤ 0.1",
    ),
    "advise, limited cores": ([("advise", *LIMITED, "--max-stall", "5%")], "≤ 0.2"),
    "explain, limited cores": ([("explain", *LIMITED)], "≤ 0.2"),
    "sweep, limited cores": (
        [("sweep", *LIMITED, "--vary", "loader.num_workers=2:12:2", "--jobs", "1")],
        "≤ 0.2",
    ),
}
COMPARED = [("compare", "scenarios/unet3d_h100.toml", "--loader.in-order", "false")]


def spent(root: Path, *arguments: str, **environment: str) -> tuple[float, float]:
    """Seconds of processor time that Python takes with these arguments, and MB of memory."""
    known = {**os.environ, "PYTHONPATH": str(root), **environment}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=root,
        env=known,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def first_use(repeats: int, other: Path | None) -> Iterator[str]:
    """Rows: processor time of the first compiled run of an installation."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "long.toml")
        path.write_text(LONG.format(batches=100), encoding="utf-8")
        for name, changes in (
            ("in order", {}),
            ("out of order", {"loader.in_order": False}),
            ("limited cores", {"machine.cores": 2}),
        ):
            code = FIRST_USE.format(path=str(path), changes=changes)
            taken: dict[Path, list[float]] = {root: [] for root in (ROOT, other) if root}
            for _ in range(repeats):
                for root, seconds in taken.items():
                    with TemporaryDirectory() as caches:
                        seconds.append(spent(root, "-c", code, **dict.fromkeys(CACHES, caches))[0])
            yield _row(name, taken, other, "≤ 0.25")


def commands(repeats: int) -> Iterator[str]:
    """Rows: processor time of commands with llvmlite installed, over that without it."""
    for command in COMMANDS:
        here = [spent(ROOT, "-m", "dlsim", *command)[0] for _ in range(repeats + 1)][1:]
        without = [spent(ROOT, "-c", WITHOUT, *command)[0] for _ in range(repeats)]
        ratios = [one / two for one, two in zip(here, without, strict=True)]
        costs = f"{median(here):.3g} s"
        yield f"| dlsim {' '.join(command)} | {spread(ratios)} | ≤ 1.1 | {costs} |"


def questions(other: Path | None) -> Iterator[str]:
    """Rows: processor time of answers without llvmlite, once each, over that of another version."""
    for name, (asked, goal) in {**QUESTIONS, "compare": (COMPARED, "")}.items():
        taken: dict[Path, list[float]] = {}
        for root in filter(None, (ROOT, other)):
            print(f"{name}, {root.name}", end=": ", file=sys.stderr, flush=True)
            seconds = sum(spent(root, "-c", WITHOUT, *command)[0] for command in asked)
            print(f"{seconds:.3g} s", file=sys.stderr)
            taken[root] = [seconds]
        yield _row(name, taken, other, goal)


def long_commands() -> Iterator[str]:
    """Rows: memory and processor time of commands on long runs, once each."""
    with TemporaryDirectory() as folder:
        for batches, options, most in (
            (10**7, (), 300),
            (10**6, ("-v",), 250),
            (10**6, ("--out", f"{folder}/t.npz", "--trace", f"{folder}/t.json"), 250),
        ):
            path = Path(folder, "long.toml")
            path.write_text(LONG.format(batches=batches), encoding="utf-8")
            seconds, used = spent(ROOT, "-m", "dlsim", "run", str(path), *options)
            said = " ".join(option for option in options if option.startswith("-"))
            name = f"dlsim run {said}".rstrip() + f", {batches:,} batches"
            yield f"| {name} | {three_digits(used)} MB | ≤ {most} MB | {seconds:.3g} s |"


def _row(name: str, taken: dict[Path, list[float]], other: Path | None, goal: str) -> str:
    here = taken[ROOT]
    if other is None:
        return f"| {name} | | | {median(here):.3g} s |"
    ratios = [one / two for one, two in zip(here, taken[other], strict=True)]
    costs = f"{median(here):.3g} s, {median(taken[other]):.3g} s"
    return f"| {name} | {spread(ratios)} | {goal} | {costs} |"
