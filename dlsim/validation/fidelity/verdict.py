"""What comes of a validation as data: how wrong predictions were, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from dlsim.scenario import IterableDataset
from dlsim.trace.summary import percent
from dlsim.validation.fidelity.errors import NEAR, SPREADS, Case, Replayed
from dlsim.validation.fidelity.tables import middle

SHOWN = 3
ENOUGH = 0.9  # of the real runs are held by their intervals; of few, one less


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How wrong predictions of a loader were; all figures but counts are shares.

    `passed`: every configuration is within `tolerance` (or 1.5 times the spread of its real runs),
    and nine of ten real runs are within their intervals. `error`, `worst_error`, `wait_error`:
    median and worst of the absolute error of an epoch's time, median of that of the 95th percentile
    of waits. `bias`: the median error with its sign. `spread`: of real runs of one configuration.
    `held`, `half_width`: real runs within their 95 % interval, and its median half-width. `replay`:
    the worst error of watched runs simulated with their own costs. `beyond`: the configurations
    beyond the tolerance. `matched`: what was varied and held; `assumed`: what was taken to be so
    and not tried; `limitations`: what keeps the verdict from saying more.
    `disturbed`: others disturbed all real runs. NaN where nothing tells.
    """

    loader: str
    passed: bool
    configurations: int
    runs: int
    error: float
    worst_error: float
    bias: float
    wait_error: float
    spread: float
    held: float
    half_width: float
    replay: float
    tolerance: float
    beyond: tuple[str, ...]
    matched: tuple[str, ...]
    assumed: tuple[str, ...]
    limitations: tuple[str, ...]
    disturbed: bool = False

    def __str__(self) -> str:
        """In two lines: whether predictions hold, and by how much they are off."""
        configurations = f"{self.configurations} configuration{'s' * (self.configurations != 1)}"
        first = (
            f"Predictions of {self.loader} hold: of {configurations} all are within "
            f"{percent(self.tolerance)} or {SPREADS:g} times what real runs differ by."
        )
        if self.disturbed:
            first = (
                f"Nothing is known of how far predictions of {self.loader} hold: others disturbed "
                "all real runs. Validate again when the machine is quiet."
            )
        elif self.beyond:
            first = (
                f"Predictions of {self.loader} miss {len(self.beyond)} of {configurations} by more "
                f"than {percent(self.tolerance)} and {SPREADS:g} times what real runs differ by: "
                f"{'; '.join(self.beyond[:SHOWN])}{'; …' * (len(self.beyond) > SHOWN)}."
            )
        elif not self.passed:
            first = (
                f"Predictions of {self.loader} cannot be relied on: {percent(self.held)} of the "
                "real runs are within their 95 % intervals."
            )
        sign = "+" if self.bias >= 0 else ""
        return (
            f"{first}\nThey are {percent(self.error)} off in the median ({sign}"
            f"{percent(self.bias)} with its sign), {percent(self.worst_error)} at worst; intervals "
            f"hold {percent(self.held)} of {self.runs} real runs."
        )

    def json(self) -> bytes:
        """As JSON, indented; null for what is not known."""
        known = {k: None if v != v else v for k, v in asdict(self).items()}
        return msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n"


def verdict(loader: str, cases: Sequence[Case], replays: Sequence[Replayed]) -> Verdict:
    """The verdict of all `cases`, those that were calibrated on included: they are matched."""
    clean = [case for case in cases if case.clean]
    told = clean or list(cases)
    errors = np.abs([case.error for case in told])
    beyond = [case.configuration.key for case in told if case.beyond]
    runs = sum(len(case.measured) for case in told)
    held = sum(case.held for case in told)
    return Verdict(
        loader=loader,
        passed=bool(clean) and not beyond and held >= min(ENOUGH * runs, runs - 1),
        configurations=len(told),
        runs=runs,
        error=float(np.median(errors)),
        worst_error=float(errors.max()),
        bias=float(np.median([case.error for case in told])),
        wait_error=middle([abs(case.wait_error) for case in told]),
        spread=middle([case.spread for case in told]),
        held=held / runs,
        half_width=float(np.median([case.half_width for case in told])),
        replay=max((abs(one.error) for one in replays), default=float("nan")),
        tolerance=NEAR,
        beyond=tuple(beyond),
        matched=tuple(_varied(told)),
        assumed=tuple(_assumed(told[0])),
        limitations=tuple(_limitations(cases)),
        disturbed=not clean,
    )


def _varied(cases: Sequence[Case]) -> list[str]:
    """Settings of which more than one value was tried, with the values."""
    found = []
    for key in ("num_workers", "prefetch_factor", "batch_size", "step"):
        values = {getattr(case.configuration, key) for case in cases} - {None}
        if len(values) > 1:
            found.append(f"{key}: {', '.join(f'{value:g}' for value in sorted(values))}")
    return found


def _assumed(case: Case) -> list[str]:
    """What predictions take to be so, whatever the runs were."""
    scenario: Any = case.prediction.scenario
    found = ["samples take as long in every epoch as in those watched"]
    if scenario.machine.cores is not None:
        found.append(f"{scenario.machine.cores:g} cores, as here")
    if scenario.machine.background:
        found.append(f"others use {scenario.machine.background:.2g} cores, as while it was watched")
    if isinstance(scenario.dataset, IterableDataset):
        found.append("an iterable-style dataset's samples are shared out as while it was watched")
    if scenario.consumer.device != "cpu":
        found.append("the step takes as long whatever the workers do")
    return found


def _limitations(cases: Sequence[Case]) -> list[str]:
    """What keeps a verdict from saying more."""
    found = []
    if any(not case.clean for case in cases):
        found.append("some configurations were never run undisturbed, and do not count")
    if any(len(case.measured) < 2 for case in cases):
        found.append("configurations that were run once have no spread")
    if all(case.seen for case in cases):
        found.append("every configuration was calibrated on: nothing was foreseen")
    missed = {str(check) for case in cases for check in case.prediction.checks if not check.close}
    return [*found, *sorted(missed)]
