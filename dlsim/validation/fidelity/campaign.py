"""Many real runs, kept on disk as they come: made once, and predicted as often as one likes.

A folder holds `journal.jsonl`, a line for each run, and `runs/`, those that were observed. A
campaign that was interrupted, however roughly, goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from torch.utils.data import DataLoader

from dlsim.engine.simulation import versions
from dlsim.engine.usable import usable_cores
from dlsim.scenario import Costs, DlsimError
from dlsim.trace import save
from dlsim.validation.calibrating.accounts import CalibrateError
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.transport import probe
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.trials import HOST, PACE, pause, spoilt, timed
from dlsim.validation.observing.machine import pace, paging
from dlsim.validation.observing.run import observe
from dlsim.validation.observing.target import remembering, tended
from dlsim.whatif.journal import Journal

JOURNAL, RUNS = "journal.jsonl", "runs"
ATTEMPTS = 3  # at a run that others disturb
PACES: Mapping[str, Callable[[], float]] = {
    "pace": pace,
    "paging": paging,
}  # measured before and after each run
# So many times the typical pace of the campaign, or its inverse: not the machine it was.
OFF = {"pace": 1.25, "paging": 1.4}


Step: TypeAlias = Callable[[Any], object]
Making: TypeAlias = Callable[[Configuration], tuple[DataLoader[Any], Step | None]]
Rows: TypeAlias = dict[str, dict[str, Any]]
CarryOut: TypeAlias = Callable[[Configuration, str, frozenset[str]], Rows]


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
    carry_out: CarryOut,
    *,
    seconds: float = float("inf"),
    progress: Callable[[Configuration], object] = lambda configuration: None,
) -> bool:
    """Make those of the `runs`, each in its round, that `folder` does not have; False: not all.

    `carry_out` makes one, as `run` does; nothing more is begun after `seconds`. A run that others
    disturbed, or while which the machine was not as fast as usual, is repeated, at most twice.
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
            while True:
                spoilt = None if row is None else disturbed(row, typical_paces(kept.rows))
                before = [] if row is None else [*row["before"], spoilt]
                if spoilt == "" or len(before) == ATTEMPTS:
                    break
                if time.monotonic() > ends:
                    return False
                paces = [measured() for measured in PACES.values()]
                found = carry_out(configuration, name, frozenset(map(str, kept.rows)))
                row = found.pop(name) | {"configuration": asdict(configuration), "before": before}
                for (kind, measured), first in zip(PACES.items(), paces, strict=True):
                    row[kind] = [first, measured()]
                if [*before, row["spoilt"]] == [HOST] * ATTEMPTS:
                    row["spoilt"] = ""
                for other, values in found.items():
                    kept.write(other, values)
                kept.write(name, row)
                check()
    return True


def afresh(name: str, function: Callable[..., Rows], *arguments: object) -> Rows:
    """What `function` returns for the arguments, in a process that did nothing yet.

    What ran before in a process decides how its memory is had, and what is imported or open, and so
    how long a run takes. Function and arguments can be pickled. Raises `DlsimError`, which says the
    `name`, where something ends the process.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as fresh:
            return fresh.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise DlsimError(f"{name}: its process was ended") from None


def typical_paces(rows: Mapping[Any, dict[str, Any]]) -> dict[str, float]:
    """The medians of the paces that the machine had before and after the runs; NaN without any."""
    found = {}
    for kind in PACES:
        paces = [pace for row in rows.values() for pace in row.get(kind, ())]
        found[kind] = float(np.median(paces)) if paces else float("nan")
    return found


def disturbed(row: dict[str, Any], typical: Mapping[str, float]) -> str:
    """Who or what disturbed the run that is `row`, if the machine's paces are else `typical`."""
    off = any(
        not usual / OFF[kind] <= pace <= OFF[kind] * usual
        for kind, usual in typical.items()
        for pace in row.get(kind, ())
    )
    return row["spoilt"] or (PACE if off else "")


def run(
    folder: Path,
    target: str,
    make: Making,
    configuration: Configuration,
    name: str,
    known: Container[str],
    batches: int | None = None,
) -> Rows:
    """One run, as a row of the journal by its `name`, and rows that are not `known` yet.

    Those are of what else of the machine is needed to predict it. `make` makes a loader and its
    step. Raises `TargetError` for what goes wrong with the loader.
    """
    with tended(f"{target}: {configuration.key}") as again:
        loader, step = make(configuration)
        rows: Rows = {}
        if configuration.step and (paused := f"step {configuration.step}") not in known:
            rows[paused] = {"seconds": pause(configuration.step)}
        if not configuration.observed:
            return rows | {name: timed(loader, step, batches, lambda batches: again()).row()}
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
        if (transport := f"transport {path}") not in known:
            rows[transport] = msgspec.to_builtins(probe(path))
        machine = json.loads(seen.meta.notes.get("machine", "{}"))
        foreign, stolen = (machine.get(key, float("nan")) for key in ("foreign", "stolen"))
        row = {
            "file": file.name,
            "at": round(at),
            "foreign": round(foreign, 4),
            "stolen": round(stolen, 4),
            "spoilt": spoilt(foreign, stolen, seen.end, usable_cores()),
        }
        return rows | {name: row}


def exchange_of(configuration: Configuration) -> str:
    """The row that says how long it takes ranks to go on once all have come.

    How they come is alike with and without workers, and with and without a step.
    """
    words = ["exchange", configuration.workload, f"ranks {configuration.ranks}"]
    words += ["workers"] if configuration.num_workers else []
    return ", ".join([*words, "step"] if configuration.step else words)


def transport(rows: dict[Any, Any], path: str) -> Costs | None:
    """What moving batches costs on the machine of a campaign, if that was found out."""
    found = rows.get(f"transport {path}")
    return None if found is None else msgspec.convert(found, Costs)
