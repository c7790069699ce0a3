"""What makes a prediction unsure, and which further run would make it surer by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log

from dlsim.trace.summary import percent
from dlsim.validation.calibrating.cost_errors import BETWEEN_RUNS
from dlsim.validation.calibrating.running import epoch, simulated
from dlsim.validation.calibrating.scenario import Calibration

WORTH_SAYING = 0.1  # of a half-width, relative; an interval as narrow needs no more runs
LITTLE = 0.005  # relative; so small an error of a cost is none
LONGER = 4  # times as long, so that what its batches tell is twice as sure
# What is not sure, by the keys of `Calibration.errors`.
WORDS = {
    "pace": "how fast the machine is, which differs from run to run",
    "placing": "where the system places the processes that hand over batches",
    "wait": "how long samples are waited for",
    "cpu": "how long samples compute",
    "take": "what taking an index list costs",
    "serialise": "what pickling a batch costs",
    "hand_over": "what handing over a batch costs",
    "receive": "what receiving a batch costs",
    "pin": "what pinning a batch costs",
    "worker_start": "how long workers take to start",
    "step": "how long steps take",
}


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """Why an interval is as wide as it is; all half-widths are relative.

    `half_width`: of the interval of an epoch's time. `alone`: what it would be, were nothing unsure
    but one of the costs (by its key in `Calibration.errors`), the greatest first. `again`: with one
    more run watched, like those there are; `longer`: with runs four times as long.
    """

    half_width: float
    alone: Mapping[str, float]
    again: float
    longer: float

    def __str__(self) -> str:
        """Empty where an interval is narrow enough."""
        if self.half_width < WORTH_SAYING or not self.alone:
            return ""
        name, width = next(iter(self.alone.items()))
        said = f"unsure by ± {percent(self.half_width)}"
        if width < self.half_width / 2:
            said += ", for no single reason"
        else:
            said += f", mostly of {WORDS[name]} (± {percent(width)} by itself)"
        narrower = min(self.again, self.longer)
        if narrower > 0.95 * self.half_width:
            return f"{said}; another observed run would hardly narrow it"
        run = (
            "one more observed run like these"
            if self.again <= self.longer
            else (f"observing {LONGER} times as many batches")
        )
        return f"{said}; {run} would make it ± {percent(narrower)}"


def doubts(
    calibration: Calibration, usual: float, spread: float, quantile: float, seed: int
) -> Doubts:
    """Why predictions of the calibrated scenario are as unsure as they are.

    `usual`: the seconds of an epoch under `seed`, were all costs as they are; `spread`: the
    standard deviation of the logarithm of them, all in all; `quantile`: so many of them its
    interval reaches. Each error is tried by itself, at one standard error, under that seed: for
    small ones what they make of the time adds up by squares.
    """

    def seconds(factors: Mapping[str, float]) -> float:
        return epoch(simulated(calibration.with_factors(factors), seed))

    parts = {
        key: abs(log(seconds({key: exp(error)}) / usual))
        for key, error in calibration.errors.items()
        if error > LITTLE and usual > 0
    }
    rest = max(spread**2 - sum(part**2 for part in parts.values()), 0.0)
    runs = calibration.runs

    def half_width(errors: Mapping[str, float], rest: float) -> float:
        reach = quantile * (rest + sum(error**2 for error in errors.values())) ** 0.5
        return (exp(reach) - exp(-reach)) / 2

    between, within = ((1 + 1 / (runs + 1)) / (1 + 1 / runs)) ** 0.5, (runs / (runs + 1)) ** 0.5
    more = {key: part * (between if key in BETWEEN_RUNS else within) for key, part in parts.items()}
    longer = {
        key: part * (1 if key in BETWEEN_RUNS else LONGER**-0.5) for key, part in parts.items()
    }
    alone = {key: half_width({key: part}, 0.0) for key, part in parts.items()}
    return Doubts(
        half_width=half_width(parts, rest),
        alone=dict(sorted(alone.items(), key=lambda item: -item[1])),
        again=half_width(more, rest),
        longer=half_width(longer, rest),
    )
