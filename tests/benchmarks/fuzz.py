"""Thousands of bad inputs: each is answered, or refused in one line, and nothing else.

    python -m tests.benchmarks.fuzz --count 10000 --seed 1 [--only scenarios,traces,options]

Scenario files, traces, journals, profiles and options are made from sound ones by random changes;
commands run on them in this process. A failure is any of: an exception, an exit status but 0 (an
answer), 1 (a target missed) or 2 (refused), a refusal that is not one line of a readable length, a
warning or anything else on stderr beside an answer, "nan" or "inf" in an answer, more than
`PATIENCE` seconds of a processor, a file that is left half-written. What tells how far a command is
(`dlsim.cli.progress`) is none.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from tqdm import tqdm

import dlsim
from dlsim.cli import main as dlsim_main
from dlsim.trace.chrome import write_chrome

PATIENCE = 20  # seconds of a processor
PROGRESS = re.compile(r"dlsim: (simulating|drawing|fitting|finding out)[^\n]*(so far|left|takes )")
BASE: dict[str, Any] = {
    "loader": {"batch_size": 4, "num_workers": 2},
    "dataset": {
        "kind": "map",
        "length": 40,
        "fetch": [{"name": "read", "wait": {"kind": "gamma", "mean": "5 ms", "cv": 0.5}}],
        "sample_bytes": "100 KiB",
    },
    "consumer": {"step": "10 ms"},
}
MORE: tuple[tuple[str, Any], ...] = (
    ("epochs", 2),
    ("machine", {"cores": 2, "shm": "64 MiB", "storage": {"bandwidth": "1 GB"}}),
    ("costs", {"worker_start": "10 ms", "receive": {"message": "1 ms"}}),
    ("loader", {"batch_size": 4, "num_workers": 2, "persistent_workers": True}),
    ("loader", {"batch_size": 4, "num_workers": 2, "timeout": 0.004}),
    ("loader", {"batch_size": 4}),
    ("failures", [{"where": "fetch", "at": 11}]),
    ("dataset", {"kind": "iterable", "length": 40, "sharding": "none"}),
    ("dataset", {"kind": "iterable", "length": 40, "sharding": [10, 30]}),
    ("torch", "2.6"),
    ("job", {"ranks": 2}),
    ("job", {"ranks": 2, "nodes": 2, "sync": "epoch", "differs": [{"rank": 1, "loader": 2}]}),
    ("job", {"ranks": 2, "storage": {"bandwidth": "1 GB"}}),
    ("loader", {"batch_size": 4, "num_workers": 2, "endless": True}),
    ("loader", {"batch_size": 4, "num_workers": 2, "workers": "threads"}),
    ("loader", {"batch_size": 4, "num_workers": 2, "in_order": False}),
    ("consumer", {"step": "10 ms", "loop": "lightning"}),
    ("consumer", {"step": "10 ms", "stop_after": 3, "on_error": "continue"}),
    ("consumer", {"step": "1 ms", "on": [{"accelerator": "A100", "step": "5 ms"}]}),
)
VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 100, 2**63, 2**64, 10**30, 0.0, -0.0, 0.5, 1e-300, 5e-324, 1e15, 1e16,
    1e308, float("inf"), float("nan"), True, False, "", "x", "5 ms", "1e99999999999999999999 s",
    "-1 s", "2 GB/s", "5%", "ä\u202e", "a\nb", "\x1b[31m", "x" * 10_000, [], [1], [0, 0], [[0]],
    [2**64], {}, {"kind": "constant", "value": -0.0}, {"kind": "exponential", "mean": 0.0},
    {"kind": "lognormal", "mean": 0.1, "cv": 30}, {"kind": "pareto", "mean": 1, "shape": 1.01},
    {"kind": "empirical", "values": [0, 1]}, {"kind": "recorded", "values": [1.0]},
    {"kind": "mixture", "parts": [], "weights": []},
)  # fmt: skip
WORDS = (
    "\0", "x\0y.toml", "a" * 5000, "\ud800", "\udcff", "--seed", "-1", "--", "--loader.num-workers",
    "1e400", "9" * 5000, "nan", "--vary", "loader.num_workers=1:3", "loader.num_workers=3:1", "x=",
    "loader.num_workers=" + "1," * 2000 + "1", "--replications", "0", "--max-stall", "5%", "200%",
    "--plot", "/dev/null/x.png", "/", ".", "", "x.npz", "--out", "-o", "--jobs", "a\nb", "\x1b[2J",
)  # fmt: skip

Case = tuple[str, list[str], dict[str, Any]]


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree, also of those that hold others."""
    if path:
        yield path
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def changed(rng: random.Random, known: list[str]) -> dict[str, Any]:
    """A scenario's tree, some values changed, left out, or put where they do not belong."""
    tree = json.loads(json.dumps(BASE))
    for key, value in rng.sample(MORE, rng.randrange(3)):
        tree[key] = json.loads(json.dumps(value))
    for _ in range(rng.randrange(1, 3)):
        if rng.random() < 0.4:
            *parents, last = rng.choice(known).split(".")
            place = tree
            for name in parents:
                place = place.setdefault(name, {}) if isinstance(place, dict) else {}
            if isinstance(place, dict):
                place[last] = rng.choice(VALUES)
            continue
        *parents, last = rng.choice(list(leaves(tree)))
        place = tree
        for name in parents:
            place = place[name]
        if rng.random() < 0.1:
            del place[last]
        else:
            place[last] = rng.choice(VALUES)
    return tree


def scenario_case(rng: random.Random, folder: Path) -> Case:
    """A command on a changed scenario."""
    from dlsim.scenario.tree import keys

    tree = changed(rng, list(keys()))
    path = folder / "case.toml"
    with contextlib.suppress(ValueError, TypeError):  # what TOML cannot hold
        path.write_text(tomli_w.dumps(tree), encoding="utf-8", errors="replace")
    command = rng.choice(COMMANDS)
    return "scenario", filled(command, path, folder), tree


COMMANDS = (
    ["run"],
    ["run", "--plot", "{folder}/run.png"],
    ["run", "-v", "--trace", "{folder}/r.json", "-o", "{folder}/r.npz", "--csv", "{folder}/r.csv"],
    ["explain"],
    ["sweep", "--vary", "loader.num_workers=1:3", "--jobs", "1"],
    ["compare", "--loader.num-workers", "3"],
    ["advise", "--max-stall", "5%"],
    ["advise"],
    ["report", "--html", "{folder}/report.html"],
    ["compare", "{scenario}", "{folder}/sound.toml"],
    ["explain", "--plot", "{folder}/explain.png"],
    ["new", "{folder}/made.toml", "--from", "{scenario}", "--epochs", "2"],
    ["rent", "--only", "p4d*"],
    ["run", "--profiles", "{folder}/profiles", "--trace", "{folder}/r.json.gz"],
    ["sweep", "--vary", "loader.prefetch_factor=1,2", "--plot", "{folder}/s.png", "--jobs", "1"],
    ["teach"],
    ["teach", "--html", "{folder}/lesson.html"],
)  # fmt: skip


def filled(command: list[str], path: Path, folder: Path) -> list[str]:
    """The words of a command on the scenario at `path`, by default its first argument."""
    name, *words = command
    words = words if "{scenario}" in words else ["{scenario}", *words]
    return [name, *(word.format(folder=folder, scenario=path) for word in words)]


def trace_case(rng: random.Random, folder: Path) -> Case:
    """A command on a damaged trace, journal or profile."""
    kind = rng.choice(["npz", "journal", "profile"])
    what = {"npz": damaged_npz, "journal": damaged_journal, "profile": damaged_profile}[kind]
    args, told = what(rng, folder)
    return kind, args, told


def damaged_npz(rng: random.Random, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Arrays of another length, type, or with values that cannot be."""
    path = folder / "case.npz"
    with np.load(folder / rng.choice(["sound.npz", "job.npz"])) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(list(arrays))
    array = arrays[name]
    how = rng.choice(["short", "long", "type", "value", "gone", "bytes"])
    if how == "gone":
        del arrays[name]
    elif how == "short":
        arrays[name] = array[: len(array) // 2] if array.ndim else array
    elif how == "long":
        arrays[name] = np.concatenate([array, array]) if array.ndim else array
    elif how == "type":
        arrays[name] = array.astype(rng.choice(["f4", "i1", "U3", "c16", "?"]))
    elif array.ndim and len(array):
        if array.dtype.kind == "f":
            worst = [np.inf, -np.inf, np.nan, 1e300, -1.0]
        else:
            limits = np.iinfo(array.dtype)
            worst = [limits.max, limits.min, min(200, limits.max)]
        arrays[name] = array = array.copy()
        array[rng.randrange(len(array))] = rng.choice(worst)
    np.savez(path, **arrays)
    if how == "bytes":
        content = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content)[: rng.randrange(1, len(content))])
    command = rng.choice(
        [
            ["compare", str(path), str(folder / "sound.npz")],
            ["compare", str(folder / "sound.npz"), str(path)],
            ["report", str(path), "--html", str(folder / "report.html")],
            ["calibrate", str(path), "-o", str(folder / "made.toml")],
        ]
    )
    return command, {"array": name, "how": how}


def damaged_journal(rng: random.Random, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Rows, with their checksums, that no sweep has written."""
    sound = (folder / "sound.csv.journal").read_text().splitlines()
    entry = json.loads(rng.choice(sound[1:]))
    row = dict(entry["row"])
    how = rng.choice(["lacks", "text", "list", "number", "nested", "null", "identity"])
    if how == "lacks":
        del row[rng.choice(list(row))]
    elif how in ("text", "null"):
        row[rng.choice(list(row))] = "x" if how == "text" else None
    number, kept = entry["number"], row
    if how == "list":
        kept = rng.choice([[], [1], "x", 3, None])
    elif how == "number":
        number = rng.choice([-1, 10**6, "x", [], {}, 1.5, None, True])
    crc = zlib.crc32(json.dumps([number, kept]).encode())
    line = json.dumps({"number": number, "row": kept, "crc": crc})
    if how == "nested":
        line = '{"number": 0, "crc": 1, "row": ' + "[" * 5000 + "]" * 5000 + "}"
    lines = [*sound, line]
    if how == "identity":
        lines[0] = rng.choice(["{}", "[]", "[" * 5000, '{"format": [1]}', "\x00"])
    (folder / "case.csv.journal").write_text("\n".join(lines) + "\n")
    return [
        "sweep", str(folder / "sound.toml"), "--vary", "loader.num_workers=1:3", "--jobs", "1",
        "--replications", "3", "--out", str(folder / "case.csv"),
    ], {"how": how}  # fmt: skip


def damaged_profile(rng: random.Random, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Chrome traces with other values, or no JSON."""
    content = json.loads((folder / "sound.json").read_text())
    events = content["traceEvents"]
    how = rng.choice(["value", "value", "value", "nested", "cut", "gone"])
    for _ in range(rng.randrange(1, 30)):
        event = rng.choice(events)
        if how == "gone":
            event.pop(rng.choice(list(event)), None)
        elif how == "value":
            key = rng.choice(list(event) or ["ts"])
            event[key] = rng.choice(
                [None, -1, 1e300, "x", [], {}, 0, 5e-324, "enumerate(DataLoader)"]
            )
    text = json.dumps(content)
    if how == "nested":
        text = '{"traceEvents": ' + "[" * 100_000
    if how == "cut":
        text = text[: rng.randrange(len(text))]
    path = folder / "case.json"
    path.write_text(text)
    command = rng.choice(
        [
            ["compare", str(path), str(folder / "sound.npz")],
            ["report", str(path), "--html", str(folder / "report.html")],
            ["calibrate", str(path), "-o", str(folder / "made.toml")],
            ["explain", str(path)],
        ]
    )
    return command, {"how": how}


def option_case(rng: random.Random, folder: Path) -> Case:
    """A command with options that nobody meant."""
    command = rng.choice(COMMANDS)
    if rng.random() < 0.1:
        command = rng.choice([["keys"], ["new", "{folder}/made.toml"], ["teach"], ["schema"]])
        args = [word.format(folder=folder) for word in command]
    else:
        args = filled(command, folder / "sound.toml", folder)
    for _ in range(rng.randrange(1, 4)):
        args.insert(rng.randrange(len(args) + 1), rng.choice(WORDS))
    return "option", args, {}


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
    if status != 2 and re.search(r"(?<![A-Za-z./_])(nan|inf)(?![A-Za-z/_.])", out.getvalue()):
        line = re.search(r".*(?<![A-Za-z./_])(nan|inf)(?![A-Za-z/_.]).*", out.getvalue())
        return f"in an answer: {line[0][:100] if line else ''!r}"
    return None


CASES: dict[str, Callable[[random.Random, Path], Case]] = {
    "scenarios": scenario_case,
    "traces": trace_case,
    "options": option_case,
}


def prepare(folder: Path) -> None:
    """Sound files, of which damaged ones are made."""
    path = folder / "sound.toml"
    path.write_text(tomli_w.dumps(BASE))
    trace = dlsim.simulate(dlsim.load(path), samples=True)
    dlsim.save(trace, folder / "sound.npz")
    write_chrome(trace, folder / "sound.json")
    job = dlsim.simulate_job(dlsim.replace(dlsim.load(path), {"job.ranks": 2}))
    dlsim.save_job(job, folder / "job.npz")
    args = ["--vary", "loader.num_workers=1:3", "--jobs", "1", "--replications", "3"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert dlsim_main(["sweep", str(path), *args, "--out", str(folder / "sound.csv")]) == 0


def fuzz(kind: str, count: int, seed: int) -> collections.Counter[str]:
    """How often each fault was found in `count` cases; the first of each is printed."""
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        prepare(folder)
        before = {path.name for path in folder.iterdir()}
        for number in tqdm(range(count), desc=kind, disable=not sys.stderr.isatty()):
            rng = random.Random(f"{seed} {kind} {number}")
            for path in folder.iterdir():
                if path.name not in before:
                    path.unlink() if path.is_file() else None
            _, args, told = CASES[kind](rng, folder)
            wrong = fault(args)
            left = [p.name for p in folder.iterdir() if ".tmp" in p.name or p.name.startswith(".")]
            wrong = wrong or (f"half-written: {left}" if left else None)
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
    failed = False
    for kind in options.only.split(","):
        found = fuzz(kind, options.count, options.seed)
        print(f"{kind}: {sum(found.values())} of {options.count} ended badly")
        failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    main()
