"""What makes a prediction unsure, and which further run would make it surer by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlsim.scenario.distributions import Floats
from dlsim.trace.summary import percent
from dlsim.validation.calibrating.cost_errors import BETWEEN_RUNS
from dlsim.validation.calibrating.parts import TOGETHER, added

WORTH_SAYING = 0.1  # of a half-width, relative; an interval as narrow needs no more runs
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
    "begin": "how long the first sample of a worker takes",
    "step": "how long steps take",
    TOGETHER: "whether threads of libraries that wait for one another have cores at the same time; "
    "limit them to one in each worker",
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


def doubts(parts: Mapping[str, Floats], rest: Sequence[Floats], runs: int) -> Doubts:
    """Why a prediction from so many watched `runs` is as unsure as it is.

    `parts`: how far an epoch's time reaches for the error of each cost (`calibrating.parts`);
    `rest`: and for what else, whatever the costs are.
    """

    def half_width(within: float, between: float) -> float:
        scale = {key: between if key in BETWEEN_RUNS else within for key in parts}
        scale |= {TOGETHER: 1.0}
        return half_width_of(added([*(scale[key] * parts[key] for key in parts), *rest]))

    between, within = ((1 + 1 / (runs + 1)) / (1 + 1 / runs)) ** 0.5, (runs / (runs + 1)) ** 0.5
    alone = {key: half_width_of(part) for key, part in parts.items()}
    return Doubts(
        half_width=half_width(1, 1),
        alone=dict(sorted(alone.items(), key=lambda item: -item[1])),
        again=half_width(within, between),
        longer=half_width(LONGER**-0.5, 1),
    )


def half_width_of(reach: Floats) -> float:
    """Half of an interval that reaches so far below and above, as logarithms; relative."""
    below, above = reach
    return float(np.exp(above) - np.exp(-below)) / 2
