"""Thousands of bad inputs: each is answered, or refused in one line, and nothing else.

    python -m tests.benchmarks.fuzz --count 10000 --seed 1 [--only traces,options]

Files of every kind and options are made from sound ones by random changes (`mutants/`), of each
kind its share (`CASES`) of the `count`; commands run on them in this process, which has loaded all
that they need. A failure is any of: an exception, an exit status but 0 (an answer), 1 (a target
missed) or 2 (refused), a refusal that is not one line of a readable length, a warning or anything
else on stderr beside an answer, "nan" or "inf" in an answer, more than `PATIENCE` seconds of a
processor, more than `MOST_MEMORY`, a file that is left half-written or cannot be read. What tells
how far a command is (`dlsim.cli.progress`) is none.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import tomllib
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import tomli_w
from tqdm import tqdm

import dlsim
from dlsim.cli import main as dlsim_main
from dlsim.trace.chrome import write_chrome
from dlsim.trace.job_files import write_profiles
from tests.benchmarks.mutants.described import (
    BASE,
    VALIDATION,
    machines_case,
    pipeline_case,
    scenario_case,
)
from tests.benchmarks.mutants.recorded import journal_case, profile_case, trace_case
from tests.benchmarks.mutants.trees import Case
from tests.benchmarks.mutants.words import change_case, keys_case, option_case, table_case

PATIENCE = 20  # seconds of a processor
MOST_MEMORY = 2e9  # bytes that a command takes for itself
NO_NUMBER = re.compile(r"(?<![A-Za-z./_])(nan|inf)(?![A-Za-z/_.])")
PROGRESS = re.compile(
    r"dlsim: (simulating|telling|drawing|fitting|finding out)[^\n]*(so far|left|takes )"
)


class Slow(BaseException):
    """A command took longer than anyone waits."""


def fault(args: list[str]) -> str | None:
    """What is wrong with how the command ends; None if nothing is."""

    def strike(*_: object) -> None:
        raise Slow

    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGPROF, strike)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    status: int | None = None
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            status = dlsim_main(args)
    except Slow:
        return f"slow: {traceback.format_exc().splitlines()[-3].strip()}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"{type(error).__name__}: {str(error)[:80]} ({place})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    said = "".join(line for line in err.getvalue().splitlines(True) if not PROGRESS.match(line))
    if warned:
        return f"warning: {str(warned[0].message)[:100]}"
    if status not in (0, 1, 2):
        return f"status {status}"
    if status == 2 and not (said.startswith("dlsim: ") and said.count("\n") == 1):
        return f"refused in {said.count(chr(10))} lines: {said[:80]!r}"
    if status == 2 and (len(said) > 600 or not said[:-1].isprintable() or said.strip() == "dlsim:"):
        return f"refused unreadably ({len(said)} characters): {said[:60]!r}"
    if status != 2 and said.strip():
        return f"on stderr beside an answer: {said[:80]!r}"
    asked = {"nan", "inf"} & {*args}  # as the name of a file
    if status != 2 and not asked and NO_NUMBER.search(out.getvalue()):
        (line, *_) = filter(NO_NUMBER.search, out.getvalue().splitlines())
        return f"in an answer: {line[:100]!r}"
    return None


def refuse_constant(name: str) -> None:
    """JSON has neither NaN nor Infinity."""
    raise ValueError(f"{name} in JSON")


def check_whole(path: Path) -> None:
    """Raise something where the file is not what its name says, or only a part of it."""
    name, content = path.name, path.read_bytes()
    if name.endswith((".json", ".json.gz")):
        text = gzip.decompress(content) if name.endswith(".gz") else content
        json.loads(text, parse_constant=refuse_constant)
    elif name.endswith(".toml"):
        dlsim.scenario.from_tree(tomllib.loads(content.decode()))
    elif name.endswith(".npz"):
        dlsim.trace.load_run(path)
    elif name.endswith(".png") and not content.endswith(b"IEND\xaeB`\x82"):
        raise ValueError("a picture without an end")
    elif name.endswith(".html") and not content.rstrip().endswith(b"</html>"):
        raise ValueError("a page without an end")


def left_broken(paths: set[Path]) -> str | None:
    """What is wrong with the files that a command has left; None if nothing is."""
    for path in sorted(paths):
        if ".tmp" in path.name or path.name.startswith("."):
            return f"half-written: {path.name}"
        try:
            check_whole(path)
        except Exception as error:
            return f"{path.suffix} left broken: {type(error).__name__}: {str(error)[:80]}"
    return None


# What makes cases of each kind, and the kind's share: half of all are files that describe
# something, a third files that record something, a sixth options.
CASES: dict[str, tuple[Callable[[random.Random, Path], Case], int]] = {
    "scenarios": (scenario_case, 12),
    "pipelines": (pipeline_case, 3),
    "machines": (machines_case, 4),
    "traces": (trace_case, 4),
    "journals": (journal_case, 3),
    "profiles": (profile_case, 3),
    "options": (option_case, 2),
    "changes": (change_case, 1),
    "keys": (keys_case, 1),
    "tables": (table_case, 1),
}


@cache
def observed() -> dlsim.Trace:
    """What was seen of a small loader of torch's."""
    from torch.utils.data import DataLoader

    from dlsim.validation import observe

    return observe(DataLoader(list(range(40)), batch_size=4, num_workers=1))  # type: ignore


def prepare(folder: Path) -> None:
    """Sound files, of which damaged ones are made."""
    path = folder / "sound.toml"
    path.write_text(tomli_w.dumps(BASE))
    scenario = dlsim.load(path)
    on = [{"accelerator": "A100", "step": "5 ms"}]
    dlsim.dump(dlsim.replace(scenario, {"consumer.on": on}), folder / "training.toml")
    trace = dlsim.simulate(scenario, samples=True)
    dlsim.save(trace, folder / "sound.npz")
    write_chrome(trace, folder / "sound.json")
    beside = dlsim.simulate(dlsim.replace(scenario, {"validation": VALIDATION}), samples=True)
    dlsim.save(beside, folder / "validated.npz")
    dlsim.save(observed(), folder / "observed.npz")
    job = dlsim.simulate_job(dlsim.replace(scenario, {"job.ranks": 2}))
    dlsim.save_job(job, folder / "job.npz")
    write_profiles(job, folder / "ranks")
    args = ["--vary", "loader.num_workers=1:3", "--jobs", "1", "--replications", "3"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert dlsim_main(["sweep", str(path), *args, "--out", str(folder / "sound.csv")]) == 0


def files(folder: Path) -> set[Path]:
    """All files in a folder and those within."""
    return {path for path in folder.rglob("*") if path.is_file()}


def memory() -> float:
    """The most bytes that this process has had."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(kind: str, count: int, seed: int) -> collections.Counter[str]:
    """How often each fault was found in `count` cases; the first of each is printed."""
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        prepare(folder)
        sound = files(folder)
        for number in tqdm(range(count), desc=kind, disable=not sys.stderr.isatty()):
            rng = random.Random(f"{seed} {kind} {number}")
            args, told = CASES[kind][0](rng, folder)
            before, most = files(folder), memory()
            wrong = fault(args) or left_broken(files(folder) - before)
            if wrong is None and memory() > max(most, MOST_MEMORY):
                wrong = f"memory: {memory() / 1e9:.1f} GB"
            for path in files(folder) - sound:
                path.unlink()
            if wrong is None:
                continue
            if not found[wrong]:
                shown = " ".join(word[:60] for word in args).replace(name, "")
                print(
                    f"{kind} {number}: {wrong}\n    dlsim {shown!a}\n    {str(told)[:700]!a}",
                    flush=True,
                )
            found[wrong] += 1
    return found


def main() -> None:
    """Print each fault once, with its case, and how often there were any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(CASES))
    options = parser.parse_args()
    kinds = options.only.split(",")
    shares, badly = sum(CASES[kind][1] for kind in kinds), 0
    for kind in kinds:
        count = -(-options.count * CASES[kind][1] // shares)
        found = fuzz(kind, count, options.seed)
        print(f"{kind}: {found.total()} of {count} ended badly", flush=True)
        badly += found.total()
    sys.exit(badly > 0)


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    main()
