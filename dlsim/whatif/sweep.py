"""Many configurations of one scenario, each replicated: one row of a table for each."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from dlsim.engine.compiled import installed
from dlsim.engine.effort import cost, deciding, seconds_of
from dlsim.engine.facts import batches_to_simulate, left_to_chance
from dlsim.scenario import Scenario, to_tree
from dlsim.whatif.designs import Between, Configuration, Design, configurations, configured
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.extent import shortened
from dlsim.whatif.journal import Journal
from dlsim.whatif.limits import looked_into, means, shares
from dlsim.whatif.parallel import Row, check_counts, check_jobs, measure, run_all, simulations
from dlsim.whatif.replicate import columns
from dlsim.whatif.space import space
from dlsim.whatif.statistics import check_confidence, intervals
from dlsim.whatif.stretching import IDLE, impossible, measured
from dlsim.whatif.tables import Table, check_writable, column, write_table

# A task is worth sending to another process if it simulates about so many batches, on either
# engine; but there are so many tasks, if possible, that every process has some to do.
TASK_BATCHES, TASK_BATCHES_COMPILED = 5000, 100_000
FEWEST_TASKS = 32
HALF_WIDTH = "_half_width"
# Where it is not said how often to simulate: how often, and the effort of all, some seconds.
LEAST, MOST, EFFORT = 3, 30, 200_000.0

Progress: TypeAlias = Callable[[int, int], object]
# Some replications of one configuration: its number, its values, replication numbers.
Piece: TypeAlias = tuple[int, Configuration, range]


def sweep(
    scenario: Scenario,
    vary: Mapping[str, Iterable[Any] | Between],
    replications: int | None = 30,
    *,
    jobs: int = -1,
    seed: int = 0,
    out: str | Path | None = None,
    design: Design = "grid",
    samples: int | None = None,
    confidence: float = 0.95,
    causes: bool = False,
    progress: Progress | None = None,
) -> Table:
    """A table of `scenario` in every configuration of the dotted keys in `vary`, as 1-D arrays.

    A row for each configuration: the keys' values; the mean of each metric over `replications`
    (as in `replicate`); and, as `..._half_width`, the half-width of its t interval; `memory`, the
    most bytes that batches on their way take, and `memory_limit`, what there is for them (see
    `Space`). Key values that are no numbers are given as text. `design` and `samples`: see
    `configurations`.

    `replications=None`: 3 to 30, and of long epochs only a part, which stands for the whole (see
    `dlsim.whatif.extent`), so that all takes some seconds. Where any is cut short, only the main
    metrics are measured.

    `causes`: with columns `idle for ...`, the share of the time for which each cause keeps training
    idle, as the first few replications tell it; these add up to `stall`, but for what chance does.

    `jobs`: processes, -1 for all cores; joblib starts them, so that inside
    `joblib.parallel_config(backend="dask")` the same call runs on a cluster. Numbers do not
    depend on where they are computed. `progress(done, total)` is told of simulations done.

    `out` (.parquet, .csv or .json) receives the table, whole, at the end. Beside it,
    `out.journal` receives each row when it is finished: a sweep that was interrupted, however
    roughly, goes on from there when it is called again. The journal stays, to say which sweep the
    table holds: another sweep does not overwrite it.

    Raises `WhatIfError` for a sweep that cannot be, a journal of another one, or files that
    cannot be written; `ScenarioError` for a simulation that cannot be finished.
    """
    if replications is not None:
        check_counts(replications=replications)
    check_confidence(confidence)
    check_jobs(jobs)
    rows = configurations(scenario, vary, design, samples, seed)
    replications, stretched = planned(scenario, rows, replications)
    path = Path(out) if out is not None else None
    finished: dict[int, Row] = {}
    keep: Callable[[dict[int, Row]], object] = finished.update
    with ExitStack() as stack:
        if path is not None:
            identity = _identity(scenario, rows, replications, stretched, seed, confidence, causes)
            journal = stack.enter_context(_journal(path, identity))
            finished, keep = journal.rows, journal.write_all
        left = [number for number in range(len(rows)) if number not in finished]
        total = len(rows) * replications
        report = progress or (lambda done, total: None)
        report(total - len(left) * replications, total)
        some = shortened(scenario) if stretched else scenario
        runs = len(left) * (replications if left_to_chance(scenario) else 1)
        stack.enter_context(deciding(seconds_of(some) * runs, scenario, jobs=jobs, runs=runs))
        try:
            for done, ready in _finish(
                scenario,
                {n: rows[n] for n in left},
                replications,
                stretched,
                seed,
                confidence,
                causes,
                jobs,
            ):
                keep(ready)
                report(total - len(left) * replications + done, total)
        except WhatIfError as error:
            raise _kept(error, path, len(finished), len(rows)) from error
        table = _table(scenario, rows, finished)
        if path is not None:
            write_table(table, path)
    return table


def _finish(
    scenario: Scenario,
    rows: Mapping[int, Configuration],
    replications: int,
    stretched: bool,
    seed: int,
    confidence: float,
    causes: bool,
    jobs: int,
) -> Iterator[tuple[int, dict[int, Row]]]:
    """Simulate `rows`; after each task: simulations done, and the rows that it made ready.

    A row is summed up when all its replications are there, in their order.
    """
    parts: dict[int, dict[int, Row]] = {number: {} for number in rows}
    pieces = _tasks(shortened(scenario) if stretched else scenario, rows, replications, jobs)
    tasks = ((scenario, seed, stretched, causes, some) for some in pieces)
    done = 0
    for results in run_all(_simulate, tasks, jobs):
        ready = {}
        for number, first, found in results:
            mine = parts[number]
            mine |= dict(enumerate(found, first))
            done += len(found)
            if len(mine) == replications:
                all_of_it = [mine[r] for r in sorted(mine)]
                case = configured(scenario, rows[number])
                if stretched and impossible(case, columns(all_of_it)):
                    besides = looked_into(case) if causes else None
                    what = measured(case)
                    all_of_it = simulations(case, seed, range(replications), what, besides)
                few = looked_into(case).few if causes else 0
                ready[number] = _summed(all_of_it, confidence, few)
                del parts[number]
        yield done, ready


def _simulate(
    scenario: Scenario, seed: int, stretched: bool, causes: bool, pieces: list[Piece]
) -> list[tuple[int, int, list[Row]]]:
    """Of each piece: its configuration's number, its first replication, and the rows from there."""
    found = []
    for number, changes, numbers in pieces:
        case = configured(scenario, changes)
        part, besides = shortened(case), looked_into(case) if causes else None
        if stretched or besides is None or part == case:
            what, some = (measured(case), part) if stretched else (measure, case)
            rows = simulations(some, seed, numbers, what, besides)
        else:  # what limits is told by parts of long runs, which take less than their accounts
            rows = simulations(case, seed, numbers)
            first = range(numbers.start, min(numbers.stop, besides.few))
            told = simulations(part, seed, first, besides.measured)
            rows[: len(told)] = [row | idle for row, idle in zip(rows, told, strict=False)]
        found.append((number, numbers.start, rows))
    return found


def planned(
    scenario: Scenario, rows: list[Configuration], replications: int | None
) -> tuple[int, bool]:
    """How often `sweep` simulates each configuration, and whether any is not simulated whole."""
    if replications is not None:
        return replications, False
    cases = [configured(scenario, row) for row in rows]
    parts = [shortened(case) for case in cases]
    times = int(EFFORT / sum(cost(part) for part in parts))
    return min(max(times, LEAST), MOST), parts != cases


def _tasks(
    scenario: Scenario, rows: Mapping[int, Configuration], replications: int, jobs: int
) -> Iterator[list[Piece]]:
    """All pieces, gathered into tasks that are worth their transport, in order."""
    if jobs == 1:  # nothing is sent anywhere, and replications are best made together
        yield from ([(number, row, range(replications))] for number, row in rows.items())
        return
    batches = TASK_BATCHES_COMPILED if installed() else TASK_BATCHES
    most = -(-len(rows) * replications // FEWEST_TASKS)
    size = max(1, min(batches // batches_to_simulate(scenario), most))
    task: list[Piece] = []
    room = size
    for number, changes in rows.items():
        first = 0
        while first < replications:
            last = min(first + room, replications)
            task.append((number, changes, range(first, last)))
            room -= last - first
            first = last
            if room == 0:
                yield task
                task, room = [], size
    if task:
        yield task


def _summed(measured: list[Row], confidence: float, few: int) -> Row:
    """The means of all metrics, then half-widths of intervals; what limits, in the first `few`."""
    metrics = {n: values for n, values in columns(measured).items() if not n.startswith(IDLE)}
    found = intervals(np.array(list(metrics.values())), confidence)
    row = {name: each.mean for name, each in zip(metrics, found, strict=True)}
    for name, each in zip(metrics, found, strict=True):
        row[name + HALF_WIDTH] = each.half_width
    told = means(shares(IDLE, columns(measured[:few]))) if few else {}
    return row | {IDLE + cause: share for cause, share in told.items()}


def _table(scenario: Scenario, rows: list[Configuration], finished: Mapping[int, Row]) -> Table:
    table = {key: column([_plain(row[key]) for row in rows]) for key in rows[0]}
    for name in dict.fromkeys(name for number in range(len(rows)) for name in finished[number]):
        table[name] = column([finished[number].get(name, 0.0) for number in range(len(rows))])
    spaces = [space(configured(scenario, row)) for row in rows]
    table["memory"] = np.array([each.needed or math.nan for each in spaces])
    limits = np.array([each.limit for each in spaces])
    table["memory_limit"] = np.where(np.isinf(limits), math.nan, limits)
    return table


def _plain(value: Any) -> Any:
    """`value` as a table holds it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json.dumps(msgspec.to_builtins(value))


def _identity(
    scenario: Scenario,
    rows: list[Configuration],
    replications: int,
    stretched: bool,
    seed: int,
    confidence: float,
    causes: bool,
) -> dict[str, Any]:
    """What the rows of a sweep depend on."""
    from dlsim import __version__

    return {
        "dlsim": __version__,
        "scenario": _digest(to_tree(scenario)),
        "keys": list(rows[0]),
        "values": _digest([{key: _plain(value) for key, value in row.items()} for row in rows]),
        "replications": replications,
        "stretched": stretched,
        "seed": seed,
        "confidence": confidence,
        "causes": causes,
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _journal(path: Path, identity: Mapping[str, Any]) -> Journal:
    """The journal beside `path`; a table there must be this sweep's."""
    check_writable(path)
    journal = path.with_name(path.name + ".journal")
    if path.exists() and not journal.exists():
        raise WhatIfError(
            f"{path}: exists, and no journal says that it is this sweep's; move it away"
        )
    found = Journal(journal, identity)
    for number in found.rows.keys() - _whole(found.rows):
        del found.rows[number]
    return found


def _whole(rows: Mapping[Any, Mapping[str, Any]]) -> set[int]:
    """The numbers of the rows that hold what most of them do, all of it numbers."""
    if not rows:
        return set()
    metrics = {n: {m for m in row if not m.startswith(IDLE)} for n, row in rows.items()}
    ((names, _),) = Counter(map(frozenset, metrics.values())).most_common(1)
    return {
        number
        for number, row in rows.items()
        if type(number) is int
        and metrics[number] == names
        and all(type(value) in (int, float) for value in row.values())
    }


def _kept(error: WhatIfError, path: Path | None, finished: int, rows: int) -> WhatIfError:
    """`error`, and what to do about it."""
    if path is None:
        return error
    return WhatIfError(f"{error}; {finished} of {rows} rows are kept: sweep again to go on")
