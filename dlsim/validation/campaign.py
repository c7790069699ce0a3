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
from dlsim.scenario import Costs, DlsimError
from dlsim.trace import save
from dlsim.validation.accounts import CalibrateError, accounts
from dlsim.validation.grid import Configuration
from dlsim.validation.machine import pace, usable_cores
from dlsim.validation.observing import observe
from dlsim.validation.target import remembering, tended
from dlsim.validation.transport import probe
from dlsim.validation.trials import HOST, PACE, pause, spoilt, timed
from dlsim.whatif.journal import Journal

JOURNAL, RUNS = "journal.jsonl", "runs"
ATTEMPTS = 3  # at a run that others disturb
SLOW = 1.35  # times the best pace of the campaign, from which on the machine is not what it was


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
    disturbed, or in which a core was slower than it had been, is repeated, at most twice.
    Time that the host takes away every time, it takes for what the run asks of it, such as disks,
    and that is no disturbance. `progress` is told before each run.

    Raises `DlsimError` where a run fails: what there was until then is kept.
    """
    ends = time.monotonic() + seconds
    with journal(folder, target) as kept, remembering() as check, warnings.catch_warnings():
        # Torch thinks that more workers than cores are too many; here they are meant.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        for configuration, number in runs:
            progress(configuration)
            name = f"{configuration.key}, round {number}"
            row = kept.rows.get(name)
            while row is None or (row["spoilt"] and len(row["before"]) + 1 < ATTEMPTS):
                if time.monotonic() > ends:
                    return False
                before = [] if row is None else [*row["before"], row["spoilt"]]
                slow = SLOW * best_pace(kept)
                at_first = pace()
                with tended(f"{target}: {configuration.key}") as again:
                    row = run(folder, kept, configuration, make, name, batches, again)
                row |= {"configuration": asdict(configuration), "before": before}
                row["pace"] = max(at_first, pace())
                if not row["spoilt"] and row["pace"] > slow:
                    row["spoilt"] = PACE
                if [*before, row["spoilt"]] == [HOST] * ATTEMPTS:
                    row["spoilt"] = ""
                kept.write(name, row)
                check()
    return True


def best_pace(kept: Journal) -> float:
    """The best pace that the machine was seen to have in the campaign; now, if it has no runs."""
    paces = [row["pace"] for row in kept.rows.values() if "pace" in row]
    return min(paces) if paces else pace(10)


def run(
    folder: Path,
    kept: Journal,
    configuration: Configuration,
    make: Making,
    name: str,
    batches: int | None,
    again: Callable[[], object],
) -> dict[str, Any]:
    """One run, as a row of the journal; with what else of the machine is needed to predict it.

    `again` is called for each batch.
    """
    loader, step = make(configuration)
    if configuration.step and (paused := f"step {configuration.step}") not in kept.rows:
        kept.write(paused, {"seconds": pause(configuration.step)})
    if not configuration.observed:
        return timed(loader, step, batches, lambda batches: again()).row()
    at = time.time()
    seen = observe(loader, step=step, batches=batches, progress=lambda batches: again())
    file = folder / RUNS / f"{name}.npz"
    save(seen, file)
    if seen.meta.problem is not None:
        said = seen.meta.problem.message.rstrip(".")
        raise DlsimError(f"{said}; {file} has what was seen until then")
    try:
        path = accounts(seen).path
    except CalibrateError as error:
        raise DlsimError(f"{error}; {file} has what was seen") from None
    if (transport := f"transport {path}") not in kept.rows:
        kept.write(transport, msgspec.to_builtins(probe(path)))
    machine = json.loads(seen.meta.notes.get("machine", "{}"))
    foreign, stolen = (machine.get(key, float("nan")) for key in ("foreign", "stolen"))
    return {
        "file": file.name,
        "at": round(at),
        "foreign": round(foreign, 4),
        "stolen": round(stolen, 4),
        "spoilt": spoilt(foreign, stolen, seen.end),
    }


def transport(rows: dict[Any, Any], path: str) -> Costs | None:
    """What moving batches costs on the machine of a campaign, if that was found out."""
    found = rows.get(f"transport {path}")
    return None if found is None else msgspec.convert(found, Costs)
