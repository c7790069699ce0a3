"""What a person waits for at the command line: processor time, and memory.

With the root of another version of dlsim (`git worktree add`), the same is measured there, one
after the other in each round, and the ratio is of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias

from tests.benchmarks.timing import spread, three_digits

Words: TypeAlias = tuple[str, ...]  # of a command

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
# From a process of its own, which is small: the peak memory of a child begins with what whoever
# starts it has just then, in Linux.
MEASURING = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps((used.ru_utime + used.ru_stime, used.ru_maxrss)))
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
# Each is asked of one file after another.
QUESTIONS = {
    "advise without a target: ImageNet, UNet3D and CosmoFlow, each on 8 cores": (
        [("advise", path, "--machine.cores", "8") for path in THREE],
        "≤ 0.1",
    ),
    "advise --max-stall 5%: ImageNet on 6 cores": (
        [("advise", *LIMITED, "--max-stall", "5%")],
        "≤ 0.2",
    ),
    "explain: ImageNet on 6 cores": ([("explain", *LIMITED)], "≤ 0.2"),
    "sweep of 6 numbers of workers: ImageNet on 6 cores": (
        [("sweep", *LIMITED, "--vary", "loader.num_workers=2:12:2", "--jobs", "1")],
        "≤ 0.2",
    ),
    "compare with any order: UNet3D": (
        [("compare", "scenarios/unet3d_h100.toml", "--loader.in-order", "false")],
        "",
    ),
}
# Which of three machines to rent was asked of `advise` and three scenarios, in earlier versions.
MACHINES = {4: 1.4, 8: 1.8, 16: 2.6}  # what an hour costs, by the number of cores
RENT = """
[[machine]]
name = "ours-{cores}"
accelerators = 1
cores = {cores}
step = "435 ms"
price_per_hour = {price}
"""
RENTED = """
[machine]
cores = {cores}
price_per_hour = {price}
"""


def spent(root: Path, *arguments: str, **environment: str) -> tuple[float, float]:
    """Seconds of processor time that Python takes with these arguments, and MB of memory."""
    known = {**os.environ, "PYTHONPATH": str(root), **environment}
    measuring = [sys.executable, "-c", MEASURING, sys.executable, *arguments]
    done = subprocess.run(measuring, cwd=root, env=known, stdout=subprocess.PIPE, check=True)
    seconds, most = json.loads(done.stdout)
    return seconds, most * 1024 / 1e6


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
    with TemporaryDirectory() as folder:
        which = "which of three machines to rent: ImageNet on 4, 8 and 16 cores"
        yield _answered(which, "≤ 0.1", other, *_renting(Path(folder)))
    for name, (asked, goal) in QUESTIONS.items():
        yield _answered(name, goal, other, asked, asked)


def _answered(
    name: str, goal: str, other: Path | None, here: list[Words], there: list[Words]
) -> str:
    """A row: what is asked `here`, and of the other version, `there`."""
    taken: dict[Path, list[float]] = {}
    for root, asked in ((ROOT, here), (other, there)):
        if root is not None:
            print(f"{name}, {root.name}", end=": ", file=sys.stderr, flush=True)
            taken[root] = [sum(spent(root, "-c", WITHOUT, *command)[0] for command in asked)]
            print(f"{taken[root][0]:.3g} s", file=sys.stderr)
    return _row(name, taken, other, goal)


def _renting(folder: Path) -> tuple[list[Words], list[Words]]:
    """The commands that say which machine to rent, now and in earlier versions."""
    training = ROOT / THREE[0]
    catalogue, scenarios = 'currency = "USD"\n', []
    for cores, price in MACHINES.items():
        catalogue += RENT.format(cores=cores, price=price)
        scenarios.append(folder / f"ours-{cores}.toml")
        machine = RENTED.format(cores=cores, price=price)
        scenarios[-1].write_text(training.read_text(encoding="utf-8") + machine, encoding="utf-8")
    machines = folder / "machines.toml"
    machines.write_text(catalogue, encoding="utf-8")
    rent = ("rent", str(training), "--machines", str(machines), "--only", "ours*")
    return [rent], [("advise", *map(str, scenarios))]


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
