"""The account: every second of a run, for the accelerator busy, or for one cause of idleness.

The accelerator (on the CPU, the step) is busy while a step is computed (`dlsim.trace.busy`). Every
other second is put down to the cause that the critical path names for it: what then kept the run
from being over sooner kept the accelerator from its work, too. The path names causes for busy
seconds as well, so that its shares answer another question than the account: not what the
accelerator waits for, but on what each second of the run hung.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlsim.scenario import Scenario
from dlsim.trace import metrics
from dlsim.trace.causes import COPY, FETCH, LOOP, STEP, greatest, grouped, ranked
from dlsim.trace.critical_path import critical_path
from dlsim.trace.fetch_parts import fetch_shares
from dlsim.trace.trace import Floats, Trace


@dataclass(frozen=True)
class Account:
    """Where the time of a run went, in seconds: `elapsed` is `busy` and all of `idle` together.

    `idle`: by cause, the greatest first, none without time (`dlsim.trace.causes`).
    """

    elapsed: float
    busy: float
    idle: dict[str, float]

    @property
    def stall(self) -> float:
        """The share of time that is idle; NaN if no time passes."""
        return 1 - metrics.ratio(self.busy, self.elapsed)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the elapsed time that each cause keeps the accelerator idle."""
        return {cause: seconds / self.elapsed for cause, seconds in self.idle.items()}

    @property
    def groups(self) -> dict[str, float]:
        """The same with all parts of a cause together, the greatest first."""
        return ranked(grouped(self.shares))

    @property
    def cause(self) -> str:
        """What keeps the accelerator idle most, parts together; "" if nothing does."""
        return greatest(self.idle)


def account(trace: Trace, clock: Callable[[Floats], Floats] | None = None) -> Account:
    """Where every second of `trace` went: busy, or idle by cause.

    With a `clock`, which maps moments to others in the same order, seconds are those between these.
    Of a trace of which no step was observed, all of the time is put down to causes, and `busy` is
    NaN.
    """
    path = critical_path(trace)
    names = [piece.cause for piece in path]
    bounds = np.array([piece.begin for piece in path] + [path[-1].end] if path else [])
    began, ended = (metrics.known(moments) for moments in metrics.busy(trace))
    moments = np.unique(np.concatenate((bounds, began, ended)))
    if not names or len(moments) < 2:
        return Account(0.0, 0.0, {})
    seconds = np.diff(moments if clock is None else clock(moments))
    begins = moments[:-1]
    computing = np.searchsorted(began, begins, "right") > np.searchsorted(ended, begins, "right")
    piece = np.clip(np.searchsorted(bounds, begins, "right") - 1, 0, len(names) - 1)
    lost = np.bincount(piece[~computing], seconds[~computing], len(names)).tolist()
    found: dict[str, float] = {}
    parts, beside = fetch_shares(trace), _beside_computing(trace.meta.scenario)
    for name, length in zip(names, lost, strict=True):
        divided = {FETCH: parts, STEP: {beside: 1.0}}.get(name) or {name: 1.0}
        for cause, share in divided.items():
            found[cause] = found.get(cause, 0.0) + share * length
    idle = ranked({cause: length for cause, length in found.items() if length > 0})
    unseen = len(trace.order) > 0 and not len(ended)
    busy = metrics.NAN if unseen else float(seconds[computing].sum())
    return Account(float(seconds.sum()), busy, idle)


def _beside_computing(scenario: Scenario | None) -> str:
    """What the accelerator is kept idle by, outside `next()`, while a batch is trained on."""
    return COPY if scenario is not None and scenario.copying(1.0) else LOOP
