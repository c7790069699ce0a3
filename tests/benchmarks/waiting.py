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


# Samples that only compute are simulated a batch at a time. Those that are read before are not:
# with them answers took half a minute and more, in earlier versions.
TRAINING = "scenarios/imagenet_a100.toml"
DECODE = '[[dataset.fetch]]\nname = "decode"'
READ = """[[dataset.fetch]]
name = "read"
read_bytes = { kind = "lognormal", mean = "110 kB", cv = 0.5 }

"""
MACHINE = """
[machine]
cores = {cores}
price_per_hour = {price}
"""
DISK = """
[machine.storage]
bandwidth = 1e9
"""
QUESTIONS = {
    "advise --max-stall 5%": ("advise", "--max-stall", "5%"),
    "explain": ("explain",),
    "sweep of 6 numbers of workers": (
        *("sweep", "--vary", "loader.num_workers=2:12:2"),
        *("--jobs", "1"),
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
    """Rows: processor time of answers, once each, over that of another version without numba.

    And what they take without llvmlite, which a plain install has had since.
    """
    with TemporaryDirectory() as folder:
        scenarios, catalogue, on_disk = _training(Path(folder))
        rent = ("rent", scenarios[0], "--machines", catalogue, "--only", "ours*")
        which = "which of three machines to rent, of 4, 8 and 16 cores: ImageNet"
        yield _answered(which, "≤ 0.1", other, rent, ("advise", *scenarios))
        for name, (command, *options) in QUESTIONS.items():
            asked = (command, on_disk, *options)
            yield _answered(f"{name}: ImageNet from a disk, 8 cores", "≤ 0.2", other, asked, asked)


def _answered(name: str, goal: str, other: Path | None, here: Words, there: Words) -> str:
    """A row: what is asked `here`, and of the other version, `there`."""
    spent(ROOT, "-m", "dlsim", *here)  # what is compiled is, once
    taken = {ROOT: [spent(ROOT, "-m", "dlsim", *here)[0]]}
    if other is not None:
        taken[other] = [spent(other, "-c", WITHOUT, *there)[0]]
    without = spent(ROOT, "-c", WITHOUT, *here)[0]
    row = f"{_row(name, taken, other, goal)} {three_digits(without)} s |"
    print(row, file=sys.stderr, flush=True)
    return row


def _training(folder: Path) -> tuple[list[str], str, str]:
    """The same training on each machine, a catalogue of them, and a training from a disk."""
    training = (ROOT / TRAINING).read_text(encoding="utf-8")
    catalogue, scenarios = 'currency = "USD"\n', []
    for cores, price in MACHINES.items():
        catalogue += RENT.format(cores=cores, price=price)
        scenarios.append(folder / f"ours-{cores}.toml")
        machine = MACHINE.format(cores=cores, price=price)
        scenarios[-1].write_text(training + machine, encoding="utf-8")
    machines, on_disk = folder / "machines.toml", folder / "disk.toml"
    machines.write_text(catalogue, encoding="utf-8")
    read = training.replace(DECODE, READ + DECODE)
    on_disk.write_text(read + MACHINE.format(cores=8, price=1.8) + DISK, encoding="utf-8")
    return [str(path) for path in scenarios], str(machines), str(on_disk)


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
