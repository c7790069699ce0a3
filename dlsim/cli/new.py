"""`dlsim new`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_torch, check_writable, is_profile, is_written, watching
from dlsim.cli.parsing import NO_CHANGES, Changes, File, Text, UsageError
from dlsim.cli.progress import tell, working
from dlsim.cli.stepping import step_of
from dlsim.cli.whatif import quantity_of
from dlsim.scenario import DlsimError, Scenario, ScenarioError, from_tree
from dlsim.scenario.commented import commented, condensed
from dlsim.scenario.files import changed, replacing
from dlsim.scenario.keys import EACH, described
from dlsim.scenario.shipped import shipped
from dlsim.scenario.units import duration

NewFile: TypeAlias = Annotated[File, arg(metavar="[FILE]")]
Source: TypeAlias = Annotated[Text, arg(name="from", metavar="SOURCE")]

# What is taken for granted until it is said otherwise.
START = {
    "name": "my training",
    "dataset": {
        "kind": "map",
        "length": 50_000,
        "sample_bytes": "600 kB",
        "fetch": [{"name": "load", "cpu": "5 ms", "wait": "0 s"}],
    },
    "loader": {"batch_size": 32, "num_workers": 4, "shuffle": True},
    "consumer": {"step": "0.1 s"},
    "machine": {"cores": "none", "shm": "none"},
}
QUESTIONS = (
    "name",
    "dataset.kind",
    "dataset.length",
    "dataset.sample_bytes",
    "dataset.fetch.0.cpu",
    "dataset.fetch.0.wait",
    "loader.batch_size",
    "loader.num_workers",
    "consumer.step",
    "machine.cores",
    "machine.shm",
)
ITERABLE = {"loader.shuffle": "false", "dataset.sharding": "split"}  # what goes with that kind


def new(
    out: Positional[NewFile] = None,
    *,
    from_: Source = None,
    step: str = "0 s",
    seconds: str = "15 s",
    changes: Changes = NO_CHANGES,
) -> None:
    """Write a scenario file to begin with, in which every key is explained.

    Example: dlsim new my.toml --dataset.length 50000 --consumer.step "0.2 s"

    On a terminal it asks what is not given; without FILE, it prints. Every key of the scenario is
    an option: see dlsim keys.

    Args:
        out: Where to write it; a file that is not there yet.
        from_: Begin with a scenario that comes with dlsim, as imagenet_a100, or another file.
            With a DataLoader of yours that is watched, as train.py:make_loader (needs torch).
            With what torch.profiler saw (.json, .json.gz).
        step: Of a DataLoader: sleep so long for each batch, in place of the training step.
            Or call with each batch what train.py:step names.
        seconds: Of a DataLoader: watch so long at most.
    """
    check_new(out)
    if from_ is None:
        text = begun(changes)
    elif ":" in from_:
        text = watched(from_, step, seconds, changes)
    elif is_profile(Path(from_)):
        text = profiled(Path(from_), changes)
    else:
        text = copied(from_, changes)
    if out is None:
        print(text, end="")
        return
    with replacing(out, DlsimError) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"{is_written(out)}; all keys: dlsim keys")


def check_new(out: Path | None) -> None:
    """Raise `DlsimError` for a file that is there already, or is no scenario's."""
    check_writable(out)
    if out is not None and out.exists():
        raise DlsimError(f"{out}: expected a new file, and this one exists")
    if out is not None and out.suffix != ".toml":
        raise DlsimError(f"{out}: expected a name ending in .toml")


def begun(changes: Mapping[str, str]) -> str:
    """A file of what is given, asked for, or else taken for granted."""
    if changes.get("dataset.kind", "map").strip('"') == "iterable":
        changes = {**ITERABLE, **changes}
    scenario = changed(from_tree(START), changes)
    if sys.stdin.isatty():
        scenario = asked(scenario, [key for key in QUESTIONS if key not in changes])
    return commented(scenario, ["All of it is to be changed: these are no measurements."])


def asked(scenario: Scenario, questions: Iterable[str]) -> Scenario:
    """The scenario with the answers; an empty one keeps what is there, the end of input, the rest.

    What is no answer is said, and asked again.
    """
    known = {key.name: key for key in described()}
    print("ENTER takes what is in brackets; any key can be changed later.", file=sys.stderr)
    for name in questions:
        about = known[name.replace(".0.", f".{EACH}.")]
        now = said(scenario, name)
        print(f"\n{about.meaning} For example {about.example}", file=sys.stderr)
        while True:
            print(f"{name} [{now}] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
            if not answer:
                print(file=sys.stderr)
                return scenario
            if not answer.strip():
                break
            changes = {name: answer.strip()}
            if name == "dataset.kind" and answer.strip().strip('"') == "iterable":
                changes |= ITERABLE
            try:
                scenario = changed(scenario, changes)
                break
            except ScenarioError as error:
                print(error, file=sys.stderr)
    return scenario


def said(scenario: Scenario, key: str) -> str:
    """What a file says at a key."""
    *_, last = key.split(".")
    lines = commented(scenario).splitlines()
    return next(
        (line.partition(" = ")[2] for line in lines if line.startswith(f"{last} = ")), "none"
    )


def copied(source: str, changes: Mapping[str, str]) -> str:
    """A file that there is, as it is; with changes, what it says then."""
    path = shipped().get(source, Path(source))
    if path.suffix != ".toml":
        raise UsageError(
            f"new: --from: expected one of {', '.join(shipped())}, a file (.toml, .json), or a "
            f"loader such as train.py:make_loader, got {source!r}"
        )
    scenario = dlsim.load(path)
    if not changes:
        return path.read_text(encoding="utf-8-sig")
    given = ", ".join(f"{key}={text}" for key, text in changes.items())
    return commented(changed(scenario, changes), [f"As {source}, with {given}."])


def watched(target: str, step: str, seconds: str, changes: Mapping[str, str]) -> str:
    """A file of what a DataLoader was seen to do on this machine."""
    check_torch("new --from")
    from dlsim import validation

    _, training = step_of("new", step)
    limit = quantity_of("seconds", seconds, "duration")
    loader = validation.load_target(target)
    tell(f"watching the loader for {duration(limit or 0.0)} at most")
    with watching(target) as advance:
        seen = validation.observe(loader, step=training, seconds=limit, progress=advance)
    with working("finding out what moving batches costs here"):
        found = validation.calibration(seen)
    head = [f"{target}, as it was on this machine in {len(seen.order)} batches."]
    head += [f"{name}: {fit}" for name, fit in found.fits.items()]
    return commented(changed(condensed(found.scenario), changes), head)


def profiled(path: Path, changes: Mapping[str, str]) -> str:
    """A file of what torch.profiler saw, as far as that tells."""
    from dlsim.trace import read_profiler
    from dlsim.validation import fit_profile

    given = changed(from_tree(START), changes)
    workers = given.loader.num_workers if "loader.num_workers" in changes else None
    found = fit_profile(read_profiler(path), num_workers=workers)
    scenario = changed(condensed(found.scenario), changes)
    return commented(scenario, [f"From {path}:", *found.told(scenario).splitlines()])
