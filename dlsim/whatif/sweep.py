"""Many configurations of one scenario, each replicated: one row of a table for each."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from dlsim.engine.effort import deciding
from dlsim.scenario import Scenario, to_tree
from dlsim.whatif.designs import Between, Configuration, Design, configurations, configured
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.journal import Journal
from dlsim.whatif.parallel import Row, check_counts, check_jobs
from dlsim.whatif.rows import Plan, expected, finish, planned
from dlsim.whatif.space import space
from dlsim.whatif.statistics import check_confidence
from dlsim.whatif.stretching import IDLE
from dlsim.whatif.tables import Table, check_writable, column, write_table

Progress: TypeAlias = Callable[[int, int], object]


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

    `replications=None`: 3 to 30, no more than tell samples a second to 0.5 %, and of long epochs
    only a part, which stands for the whole (see `dlsim.whatif.extent`), so that all takes some
    seconds. Where any is cut short, only the main metrics are measured. `replications` in the table
    is how many of a configuration were made.

    `causes`: with columns `idle for ...`, the share of the time for which each cause keeps training
    idle, as the first few replications tell it; these add up to `stall`, but for what chance does.

    `jobs`: processes, -1 for all cores; joblib starts them, so that inside
    `joblib.parallel_config(backend="dask")` the same call runs on a cluster. Numbers do not
    depend on where they are computed. `progress(done, total)` is told of simulations done, or found
    needless.

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
    plan = planned(scenario, rows, replications, seed, confidence, causes)
    path = Path(out) if out is not None else None
    finished: dict[int, Row] = {}
    keep: Callable[[dict[int, Row]], object] = finished.update
    with ExitStack() as stack:
        if path is not None:
            identity = _identity(plan, rows)
            journal = stack.enter_context(_journal(path, identity))
            finished, keep = journal.rows, journal.write_all
        left = [number for number in range(len(rows)) if number not in finished]
        total = len(rows) * plan.most
        report = progress or (lambda done, total: None)
        report(total - len(left) * plan.most, total)
        ahead = {number: rows[number] for number in left}
        runs, seconds = expected(plan, ahead)
        stack.enter_context(deciding(seconds, scenario, jobs=jobs, runs=runs))
        try:
            for done, ready in finish(plan, ahead, jobs):
                keep(ready)
                report(total - len(left) * plan.most + done, total)
        except WhatIfError as error:
            raise _kept(error, path, len(finished), len(rows)) from error
        table = _table(scenario, rows, finished)
        if path is not None:
            write_table(table, path)
    return table


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


def _identity(plan: Plan, rows: list[Configuration]) -> dict[str, Any]:
    """What the rows of a sweep depend on."""
    from dlsim import __version__

    return {
        "dlsim": __version__,
        "scenario": _digest(to_tree(plan.scenario)),
        "keys": list(rows[0]),
        "values": _digest([{key: _plain(value) for key, value in row.items()} for row in rows]),
        "replications": plan.most,
        "at first": plan.first,
        "stretched": plan.stretched,
        "seed": plan.seed,
        "confidence": plan.confidence,
        "causes": plan.causes,
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
