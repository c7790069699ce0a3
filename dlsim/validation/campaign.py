"""Many real runs, kept on disk as they come: made once, and predicted as often as one likes.

A folder holds `journal.jsonl`, a line for each run, and `runs/`, those that were observed. A
campaign that was interrupted, however roughly, goes on where it stopped.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from torch.utils.data import DataLoader

from dlsim.engine.simulation import versions
from dlsim.scenario import Costs
from dlsim.trace import save
from dlsim.trace.observation import Observation
from dlsim.validation.accounts import accounts
from dlsim.validation.grid import Configuration
from dlsim.validation.machine import usable_cores
from dlsim.validation.observing import observe
from dlsim.validation.transport import probe
from dlsim.validation.trials import pause, spoilt, try_out
from dlsim.whatif.journal import Journal

JOURNAL, RUNS = "journal.jsonl", "runs"
ATTEMPTS = 3  # at a run that others disturb

Step: TypeAlias = Callable[[Any], object]
Making: TypeAlias = Callable[[Configuration], tuple[DataLoader[Any], Step | None]]


@contextmanager
def journal(folder: Path, target: str) -> Iterator[Journal]:
    """The journal of the campaign in `folder`, which is of the loader `target`."""
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL, {"target": target}, "validation") as kept:
        if "machine" not in kept.rows:
            kept.write("machine", {"cores": usable_cores(), "versions": versions("torch")})
        yield kept


def run_all(
    folder: Path,
    target: str,
    runs: Iterable[tuple[Configuration, int]],
    make: Making,
    *,
    seconds: float = float("inf"),
    batches: int | None = None,
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs`, each in its round, that `folder` does not have; False: not all.

    `make` makes a loader and its step; nothing more is begun after `seconds`. A run that others
    disturbed is repeated, at most twice. `progress` is told before each run.
    """
    ends = time.monotonic() + seconds
    with journal(folder, target) as kept, warnings.catch_warnings():
        # Torch thinks that more workers than cores are too many; here they are meant.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        for configuration, number in runs:
            progress(configuration)
            name = f"{configuration.key}, round {number}"
            for attempt in range(attempts(kept.rows.get(name)), ATTEMPTS):
                if time.monotonic() > ends:
                    return False
                row = run(folder, kept, configuration, make, name, batches)
                row |= {"configuration": asdict(configuration), "attempts": attempt + 1}
                kept.write(name, row)
                if not row["spoilt"]:
                    break
    return True


def attempts(row: dict[str, Any] | None) -> int:
    """How many attempts at a run are done with: all of them once one went undisturbed."""
    if row is None:
        return 0
    return int(row["attempts"]) if row["spoilt"] else ATTEMPTS


def run(
    folder: Path,
    kept: Journal,
    configuration: Configuration,
    make: Making,
    name: str,
    batches: int | None,
) -> dict[str, Any]:
    """One run, as a row of the journal; with what else of the machine is needed to predict it."""
    loader, step = make(configuration)
    if configuration.step and (paused := f"step {configuration.step}") not in kept.rows:
        kept.write(paused, {"seconds": pause(configuration.step)})
    if not configuration.observed:
        trial = try_out(loader, step, batches)
        return {**trial.row(), "spoilt": trial.spoilt}
    at = time.time()
    seen = observe(loader, step=step, batches=batches)
    file = f"{name}.npz".replace("/", " ")
    save(seen, folder / RUNS / file)
    problem = seen.meta.problem
    if problem is not None:
        return {"file": file, "at": round(at), "spoilt": False, "problem": problem.message}
    path = accounts(seen).path
    if (transport := f"transport {path}") not in kept.rows:
        kept.write(transport, msgspec.to_builtins(probe(path)))
    return {"file": file, "at": round(at), **disturbance(seen)}


def disturbance(seen: Observation) -> dict[str, Any]:
    """What others took of the machine during an observed run, in cores, and whether too much."""
    machine = json.loads(seen.meta.notes.get("machine", "{}"))
    others = machine.get("foreign", float("nan")) + machine.get("stolen", float("nan"))
    return {"others": round(others, 4), "spoilt": spoilt(others, seen.end)}


def transport(rows: dict[Any, Any], path: str) -> Costs | None:
    """What moving batches costs on the machine of a campaign, if that was found out."""
    found = rows.get(f"transport {path}")
    return None if found is None else msgspec.convert(found, Costs)
