"""The account: every second of a run, for the accelerator busy, or for one cause of idleness.

The accelerator (on the CPU, the step) is busy while a step is computed (`dlsim.trace.busy`). Time
in validation is apart: what that waits for, its own trace tells. Every other second is put down to
the cause that the critical path names for it: what then kept the run from being over sooner kept
the accelerator from its work, too. The path names causes for busy seconds as well, so that its
shares answer another question than the account: not what the accelerator waits for, but on what
each second of the run hung.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario import Scenario
from dlsim.trace import metrics
from dlsim.trace.causes import COPY, LOOP, STEP, greatest, grouped, ranked
from dlsim.trace.columns import distinct_values, new_column
from dlsim.trace.critical_path import Spent, walked_back
from dlsim.trace.fetch_parts import fetch_shares
from dlsim.trace.telling import sentence
from dlsim.trace.trace import Floats, Integers, Trace


@dataclass(frozen=True)
class Account:
    """Where the time of a run went, in seconds.

    `elapsed` is `busy`, `validation` and all of `idle` together.

    `idle`: by cause, the greatest first, none without time (`dlsim.trace.causes`). `path`: by
    cause, too, what the critical path hung on.
    """

    elapsed: float
    busy: float
    idle: dict[str, float]
    path: dict[str, float]
    validation: float = 0.0

    @property
    def stall(self) -> float:
        """The share of time that is idle; NaN if no time passes."""
        return 1 - metrics.utilisation(self.busy + self.validation, self.elapsed)

    @property
    def apart(self) -> float:
        """The share of time in validation; 0 where there is none."""
        return self.validation / self.elapsed if self.validation else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The share of the elapsed time that each cause keeps the accelerator idle."""
        return {cause: seconds / self.elapsed for cause, seconds in self.idle.items()}

    @property
    def hung(self) -> dict[str, float]:
        """The share of the critical path that hung on each cause, the greatest first."""
        whole = sum(self.path.values())
        return {cause: each / whole for cause, each in ranked(self.path).items() if each > 0}

    @property
    def groups(self) -> dict[str, float]:
        """The same with all parts of a cause together, the greatest first."""
        return ranked(grouped(self.shares))

    @property
    def sentence(self) -> str:
        """How long training is idle, and for what, without a full stop."""
        return sentence(self.shares, self.stall)

    @property
    def cause(self) -> str:
        """What keeps the accelerator idle most, parts together; "" if nothing does."""
        return greatest(self.idle)


def account(trace: Trace, clock: Callable[[Floats], Floats] | None = None) -> Account:
    """Where every second of `trace` went: busy, in validation, or idle by cause.

    With a `clock`, which maps moments to others in the same order, seconds are those between these.
    Of a trace of which no step was observed, all of the time is put down to causes, and `busy` is
    NaN.
    """
    (began, ended), apart = _steps(trace), metrics.validations(trace)
    parts, beside = fetch_shares(trace), _beside_computing(trace.meta.scenario)
    idle, hung = Spent(parts, {STEP: {beside: 1.0}}), Spent(parts)
    busy = validation = elapsed = 0.0
    for path in walked_back(trace):
        if not path:
            continue
        bounds = np.array([path[-1].begin, *(piece.end for piece in reversed(path))])
        some = slice(np.searchsorted(ended, bounds[0]), np.searchsorted(began, bounds[-1], "right"))
        steps = began[some], ended[some]
        moments = distinct_values(
            np.concatenate((bounds, *steps, *apart)).clip(bounds[0], bounds[-1])
        )
        seconds = np.diff(moments if clock is None else clock(moments))
        begins = moments[:-1]
        computing, validating = _during(begins, *steps), _during(begins, *apart)
        piece = np.searchsorted(bounds, begins, "right") - 1
        names = [each.cause for each in reversed(path)]
        neither = ~computing & ~validating
        idle.add(names, _by(piece[neither], seconds[neither], len(names)))
        hung.add(names, _by(piece, seconds, len(names)))
        busy += float(seconds[computing].sum())
        validation += float(seconds[validating & ~computing].sum())
        elapsed += float(seconds.sum())
    unseen = len(trace.order) > 0 and not len(ended)
    known = metrics.NAN if unseen else busy
    return Account(elapsed, known, ranked(idle.seconds), hung.seconds, validation)


def _during(moments: Floats, began: Floats, ended: Floats) -> NDArray[np.bool_]:
    """Whether each of the `moments` is in one of the times, which do not overlap."""
    return np.searchsorted(began, moments, "right") > np.searchsorted(ended, moments, "right")


def _steps(trace: Trace) -> tuple[Floats, Floats]:
    """When steps began and ended to be computed, in order, as far as that is known."""
    found, counts, (begin, end) = new_column((2, len(trace.order))), [0, 0], metrics.span(trace)
    for _, *moments in metrics.computed(trace):
        for row, some in enumerate(moments):
            known = metrics.known(some).clip(begin, end)
            found[row, counts[row] : counts[row] + len(known)] = known
            counts[row] += len(known)
    return found[0, : counts[0]], found[1, : counts[1]]


def _by(piece: Integers, seconds: Floats, count: int) -> Floats:
    """The seconds of each of so many pieces."""
    return np.bincount(piece, seconds, count).astype(np.float64)


def _beside_computing(scenario: Scenario | None) -> str:
    """What the accelerator is kept idle by, outside `next()`, while a batch is trained on."""
    return COPY if scenario is not None and scenario.copying(1.0) else LOOP
