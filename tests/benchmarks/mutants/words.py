"""Words of a command line that nobody meant, or that ask for what cannot be."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

from dlsim.cli.commands import COMMANDS as FUNCTIONS
from dlsim.scenario.keys import described
from dlsim.scenario.shipped import shipped
from tests.benchmarks.mutants.described import COMMANDS, filled
from tests.benchmarks.mutants.trees import VALUES, Case, inline, scenario_keys

WORDS = (
    "\0", "x\0y.toml", "a" * 5000, "\ud800", "\udcff", "--seed", "-1", "--", "--loader.num-workers",
    "1e400", "9" * 5000, "nan", "--vary", "loader.num_workers=1:3", "loader.num_workers=3:1", "x=",
    "loader.num_workers=" + "1," * 2000 + "1", "loader.num_workers=1:" + "9" * 5000,
    "--replications", "0", "--max-stall", "5%", "200%",
    "--plot", "/dev/null/x.png", "/", ".", "", "x.npz", "--out", "-o", "--jobs", "a\nb", "\x1b[2J",
)  # fmt: skip
GLOBS = (
    "*",
    "**",
    "?",
    "[",
    "[!",
    "]",
    "[a-",
    "\\",
    "(",
    "+",
    ".",
    "--",
    "-",
    "İ",
    "ß",
    "a" * 3000,
)
DEEPER = ("dataset.fetch.1", "dataset.fetch.0.wait.mean", f"dataset.fetch.{'9' * 5000}.wait")
RATES = (0, -1, 1e-300, 5e-324, 1e300, 1e308, "nan", "inf", "x", "", 1, 517.5)
COUNTS = (-1, 3, 10**6, 2**64, "x", "", 1.5)


def option_case(rng: random.Random, folder: Path) -> Case:
    """A command with options that nobody meant."""
    if rng.random() < 0.1:
        command = rng.choice([["keys"], ["new", "{folder}/made.toml"], ["teach"], ["schema"]])
        args = [word.format(folder=folder) for word in command]
    else:
        args = filled(rng.choice(COMMANDS), folder / "sound.toml", folder)
    for _ in range(rng.randrange(1, 4)):
        if rng.random() < 0.5:
            args += [rng.choice(own_options(args[0])), inline(rng.choice(VALUES))]
        else:
            args.insert(rng.randrange(len(args) + 1), rng.choice(WORDS))
    return args, {}


def own_options(name: str) -> list[str]:
    """The options of a command, but for how many processes it starts."""
    named = {function.__name__: function for function in FUNCTIONS}
    if name not in named:
        return ["--help"]
    parameters = inspect.signature(named[name]).parameters.values()
    names = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    taken = [each.strip("_").replace("_", "-") for each in names if each != "jobs"]
    return [f"--{each}" for each in taken] or ["--help"]


def change_case(rng: random.Random, folder: Path) -> Case:
    """A command with keys of the scenario as options, or one that begins a scenario with them."""
    if rng.random() < 0.3:
        args = ["new", *rng.choice([[], [str(folder / "made.toml")]])]
        args += rng.choice([[], ["--from", rng.choice(list(shipped()))]])
    else:
        args = filled(rng.choice(COMMANDS), folder / "sound.toml", folder)
    for _ in range(rng.randrange(1, 3)):
        key = rng.choice([*scenario_keys(), *DEEPER])
        value = rng.choice([*VALUES, *scenario_keys().get(key, ())])
        args += [f"--{key}", inline(value)]
    return args, {}


def keys_case(rng: random.Random, folder: Path) -> Case:
    """A question for keys, with parts of their names and signs that stand for others."""
    names = [key.name for key in described()]
    parts = []
    for _ in range(rng.randrange(1, 5)):
        name = rng.choice(names)
        begin = rng.randrange(len(name))
        parts.append(rng.choice([name[begin:], name[:begin], rng.choice(GLOBS)]))
    if rng.random() < 0.1:
        parts.append(rng.choice(WORDS))
    return ["keys", "".join(parts)], {}


def table_case(rng: random.Random, folder: Path) -> Case:
    """A table of throughputs, some of which cannot be."""
    speed = rng.choice([1.0, 500.0, 1e6])
    rates: dict[object, object] = {
        workers: round(speed * min(max(workers, 0.7), 6) * rng.uniform(0.9, 1.1), 4)
        for workers in rng.sample([0, 1, 2, 4, 8, 16, 64], rng.randrange(1, 5))
    }
    if rng.random() < 0.6:
        rates[rng.choice(list(rates))] = rng.choice(RATES)
    if rng.random() < 0.3:
        rates[rng.choice(COUNTS)] = speed
    table = ",".join(f"{workers}={rate}" for workers, rate in rates.items())
    args = ["calibrate", "--throughput", table, "-o", str(folder / "made.toml")]
    for name in rng.sample(["--batch-size", "--cores", "--step", "--sample-bytes"], 2):
        if rng.random() < 0.5:
            args += [name, inline(rng.choice(VALUES))]
    return args, {}
