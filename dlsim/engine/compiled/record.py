"""What is written down of a simulation, as a trace."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.engine.compiled.state import State
from dlsim.engine.facts import meets_after
from dlsim.scenario import Scenario
from dlsim.trace.columns import new_column, parts
from dlsim.trace.trace import MOMENTS, Epochs, Meta, Samples, Trace


def written_down(
    scenario: Scenario, state: State, epochs: Epochs, meta: Meta, end: float, *, samples: bool
) -> Trace:
    """What happened until the `end` (seconds)."""
    main = state.main[0]
    sent = int(main["sent"])
    columns: dict[str, Any] = {
        name: column[:sent] for name, column in zip(MOMENTS, state.moments, strict=True)
    }
    # An accelerator may have been behind the host when an error ended the loop.
    for part in parts(0, sent):
        finished = columns["finished"][part]
        finished[finished > end] = np.nan
    stepped = None
    if meets_after(scenario):  # alone, nobody is waited for
        alone = not len(state.stepped)
        stepped = columns["finished"].copy() if alone else state.stepped[0, :sent]
        stepped[stepped > end] = np.nan
    return Trace(
        **columns,
        worker=state.worker[:sent],
        size=state.size[:sent],
        status=state.status[:sent],
        order=state.order[: int(main["returned"])],
        epochs=epochs,
        meta=meta,
        samples=sample_rows(state, end) if samples else None,
        stepped=stepped,
    )


def sample_rows(state: State, end: float) -> Samples:
    """The samples begun until `end` (seconds)."""
    count = 0
    started, fetched = state.sample_moments[:, : int(state.main[0]["rows"])]
    index, batch, worker = state.sample_numbers[:, : len(started)]
    of = new_column(len(started), np.int32)
    for part in parts(0, len(started)):
        rows = part.start + np.flatnonzero(started[part] <= end)
        kept = slice(count, count + len(rows))
        for column in (index, batch, started, fetched):
            column[kept] = column[rows]
        of[kept] = worker[rows]
        late = fetched[kept]
        late[~(late <= end)] = np.nan
        count += len(rows)
    return Samples(
        index=index[:count],
        batch=batch[:count],
        worker=of[:count],
        started=started[:count],
        fetched=fetched[:count],
    )
