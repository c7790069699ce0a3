"""How far predictions are off, in tables: one row for each configuration, or each workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from dlsim.scenario.units import duration
from dlsim.trace.summary import percent
from dlsim.validation.fidelity.errors import Case, Replayed

NAN = float("nan")
Line = tuple[str, ...]


def case_lines(cases: Sequence[Case]) -> list[Line]:
    """A heading and a line for each configuration: predicted, measured, error, spread."""
    lines: list[Line] = [
        ("", "predicted", "95 %", "measured", "error", "spread", "runs", "wait p95", "measured")
    ]
    for case in cases:
        epoch = case.prediction.epoch
        lines.append(
            (
                case.configuration.key + (" =" if case.seen else ""),
                duration(epoch.value),
                f"{duration(epoch.low)} to {duration(epoch.high)}",
                duration(case.epoch),
                signed(case.error) + ("" if case.held == len(case.measured) else " !"),
                percent(case.spread),
                runs(case),
                duration(case.prediction.wait_p95.value),
                duration(case.wait_p95),
            )
        )
    return lines


def runs(case: Case) -> str:
    """The number of real runs that count; of those that others disturbed."""
    if not case.clean:
        return f"{len(case.measured)} ~"
    return str(len(case.measured)) + (f" (-{case.disturbed})" if case.disturbed else "")


HEADING = (
    "workload",
    "n",
    "median",
    "90th pct.",
    "worst",
    "wait p95",
    "held",
    "half-width",
    "score",
    "spread",
    "choice",
)


def workload_lines(cases: Sequence[Case]) -> list[Line]:
    """A heading and a line for each workload, and one for all together.

    Columns: configurations; median, 90th percentile and worst of the absolute relative error of
    the epoch; median of that of the 95th percentile of waits; share of the real runs' epochs in
    the predicted intervals, median half-width and mean score of these; median spread of real
    runs; by how much the configuration chosen by prediction is slower than the best one measured,
    at most.
    """
    lines: list[Line] = [HEADING]
    cases = foreseen(cases)
    by_name = sorted(cases, key=lambda case: case.configuration.workload)
    for name, group in groupby(by_name, key=lambda case: case.configuration.workload):
        lines.append(summary(name, list(group)))
    if len(lines) > 2:
        lines.append(summary("all", cases))
    return lines


def foreseen(cases: Sequence[Case]) -> list[Case]:
    """Those that tell how good predictions are."""
    return [case for case in cases if case.clean and not case.seen]


def summary(name: str, cases: Sequence[Case]) -> Line:
    """The line of some cases."""
    errors = np.abs([case.error for case in cases])
    runs = sum(len(case.measured) for case in cases)
    return (
        name,
        str(len(cases)),
        percent(float(np.median(errors))),
        percent(float(np.quantile(errors, 0.9))),
        percent(float(errors.max())),
        percent(middle(np.abs([case.wait_error for case in cases]).tolist())),
        percent(sum(case.held for case in cases) / runs),
        percent(float(np.median([case.half_width for case in cases]))),
        percent(float(np.mean([case.interval_score for case in cases]))),
        percent(middle([case.spread for case in cases])),
        percent(regret(cases)),
    )


def replay_lines(replays: Sequence[Replayed]) -> list[Line]:
    """A heading and a line for each workload, and for all: how far replays are off."""
    lines: list[Line] = [("workload", "n", "median", "worst", "timeline")]
    by_name = sorted(replays, key=lambda one: one.configuration.workload)
    groups = [
        (name, list(group))
        for name, group in groupby(by_name, key=lambda one: one.configuration.workload)
    ]
    for name, group in [*groups, ("all", by_name)] if len(groups) > 1 else groups:
        errors = np.abs([one.error for one in group])
        drift = max(one.drift for one in group)
        lines.append(
            (
                name,
                str(len(group)),
                percent(float(np.median(errors))),
                percent(float(errors.max())),
                percent(drift),
            )
        )
    return lines


def regret(cases: Sequence[Case]) -> float:
    """How much slower the configurations that prediction chooses are than the best ones measured.

    Relative, at most over workloads and steps; NaN where there is nothing to choose from.
    """

    def task(case: Case) -> tuple[str, float]:
        return case.configuration.workload, case.configuration.step

    found = [NAN]
    for _, group in groupby(sorted(cases, key=task), key=task):
        options = list(group)
        chosen = min(options, key=lambda case: case.prediction.epoch.value)
        best = min(case.epoch for case in options)
        found += [chosen.epoch / best - 1] if len(options) > 1 else []
    return float(np.nanmax(found)) if len(found) > 1 else NAN


@dataclass(frozen=True)
class Aim:
    """A figure that predictions `reached`, which should be at least and at most so much: shares."""

    name: str
    reached: float
    at_most: float
    at_least: float = 0.0

    @property
    def wanted(self) -> str:
        """Between what it should be."""
        if not self.at_least:
            return percent(self.at_most)
        return f"{percent(self.at_least)} to {percent(self.at_most)}"

    @property
    def found(self) -> str:
        """What was reached, and whether that is enough, in words."""
        if self.reached != self.reached:
            return "not known"
        met = self.at_least <= self.reached <= self.at_most
        return percent(self.reached) + ("" if met else ", missed")


def aims(cases: Sequence[Case], replays: Sequence[Replayed]) -> list[Aim]:
    """The figures aimed at, whether they were reached or not."""
    cases = foreseen(cases)
    errors = [abs(case.error) for case in cases]
    beyond = [case.beyond for case in cases]
    waits = [abs(case.wait_error) for case in cases]
    runs = sum(len(case.measured) for case in cases)
    held = sum(case.held for case in cases) / runs if runs else NAN
    again = [abs(one.error) for one in replays]
    return [
        Aim("replay: median error of the epoch", middle(again), 0.01),
        Aim("replay: worst error of the epoch", max(again, default=NAN), 0.04),
        Aim("replay: timeline apart", max((one.drift for one in replays), default=NAN), 0.02),
        Aim("prediction: median error of the epoch", middle(errors), 0.03),
        Aim("prediction: 90th percentile", quantile(errors, 0.9), 0.08),
        Aim("beyond 8 % and 1.5 times the spread", float(np.mean(beyond)) if cases else NAN, 0.08),
        Aim("prediction: median error of the p95 wait", middle(waits), 0.15),
        Aim("choice: slower than the best", regret(cases), 0.02),
        Aim("real runs within the 95 % interval", held, 0.97, at_least=0.9),
        Aim("median half-width of the interval", middle([c.half_width for c in cases]), 0.12),
    ]


def aim_lines(suites: Mapping[str, Sequence[Aim]]) -> list[Line]:
    """A heading and a line for each figure aimed at, with a column for each of the `suites`."""
    return [
        ("aim", "wanted", *suites),
        *(
            (same[0].name, same[0].wanted, *(aim.found for aim in same))
            for same in zip(*suites.values(), strict=True)
        ),
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of some values; NaN of none."""
    return float(np.quantile(values, share)) if len(values) else NAN


def middle(values: Sequence[float]) -> float:
    """The median of the known values; NaN if none is known."""
    known = [value for value in values if value == value]
    return float(np.median(known)) if known else NAN


def signed(share: float) -> str:
    """A share in percent, with its sign."""
    return ("+" if share >= 0 else "") + percent(share)


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a table in Markdown, its first column to the left."""
    rule = ("---", *["---:"] * (len(lines[0]) - 1))
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def legend(cases: Sequence[Case]) -> str:
    """What the signs and columns mean, as far as they occur."""
    lines = [
        "error: predicted / measured - 1 of an epoch's time; the median of the real runs counts.",
        "held: real runs within the predicted 95 % interval; ! marks where one is not.",
        "half-width: of that interval, relative to the prediction; score: its interval score,",
        "the width and 40 times by how far runs lie outside, relative to the measured time.",
        "spread: the range of the real runs, relative to their median.",
        "choice: by how much what prediction chooses is slower than the best measured.",
    ]
    if any(case.disturbed for case in cases):
        lines.append("(-1): a run was disturbed by others and is left out.")
    if not all(case.clean for case in cases):
        lines.append("~: others disturbed all runs; they are left out of the table by workload.")
    if any(case.seen for case in cases):
        lines.append("=: runs of the same were calibrated on; left out of the table by workload.")
    return "\n".join(lines)
