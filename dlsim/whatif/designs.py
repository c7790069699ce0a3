"""Which configurations a sweep tries: every combination, or a sample spread evenly over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np

from dlsim.scenario import DlsimError, Scenario, replace
from dlsim.scenario.distributions import Floats
from dlsim.scenario.errors import shown
from dlsim.scenario.loader import WITHOUT_WORKERS
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.parallel import check_counts

Design: TypeAlias = Literal["grid", "sobol", "lhs"]
Configuration: TypeAlias = dict[str, Any]
WORKERS = "loader.num_workers"
ALONE = {f"loader.{key}": value for key, value in WITHOUT_WORKERS.items()}
MOST = 100_000  # configurations of a sweep


@dataclass(frozen=True)
class Between:
    """Any number from `low` up to `high`: what a space-filling design may vary a key over."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


def configurations(
    scenario: Scenario,
    vary: Mapping[str, Iterable[Any] | Between],
    design: Design = "grid",
    samples: int | None = None,
    seed: int = 0,
) -> list[Configuration]:
    """The values of the dotted keys in `vary`, in each configuration of the `design`, in order.

    `"grid"`: every combination, the last key varying fastest. `"sobol"` and `"lhs"`: `samples`
    points of a scrambled Sobol sequence or a Latin hypercube (`scipy.stats.qmc`), spread over the
    lists of values and the ranges `Between`; points that coincide count once.
    Without workers there is no prefetch factor, nor anything else that needs them: of the
    configurations that differ in these, there is one.

    Raises `WhatIfError` for what cannot be swept, and `ScenarioError` for a configuration that
    cannot be: nothing is simulated before all are known to be sound.
    """
    sizes = [len(each) for each in vary.values() if isinstance(each, Sized)]
    if (design == "grid" and math.prod(sizes) > MOST) or any(size > MOST for size in sizes):
        raise WhatIfError(
            f"vary: expected at most {MOST:,} configurations, got {math.prod(sizes):,}"
        )
    values = {key: _values(key, choices) for key, choices in vary.items()}
    if not values:
        raise WhatIfError("vary: expected at least one key, got none")
    if design == "grid":
        found = _grid(values, samples)
    elif design in ("sobol", "lhs"):
        if samples is None:
            raise WhatIfError(f"samples: expected how many configurations design {design!r} makes")
        check_counts(samples=samples)
        if samples > MOST:
            raise WhatIfError(f"samples: expected at most {MOST:,}, got {samples:,}")
        found = _spread(values, _points(design, len(values), samples, seed))
    else:
        raise WhatIfError(f"design: expected grid, sobol or lhs, got {design!r}")
    if WORKERS in values:
        found = _different(
            {**each, **{key: value for key, value in ALONE.items() if key in each}}
            if each[WORKERS] == 0
            else each
            for each in found
        )
    for configuration in found:
        configured(scenario, configuration)
    return found


def configured(scenario: Scenario, configuration: Configuration) -> Scenario:
    """`scenario` in one configuration. Raises `WhatIfError` that names the configuration.

    One without workers goes without what needs them, whatever `scenario` has.
    """
    alone = ALONE if configuration.get(WORKERS) == 0 else {}
    try:
        return replace(scenario, {**alone, **configuration})
    except DlsimError as error:
        where = ", ".join(f"{key}={shown(value)}" for key, value in configuration.items())
        raise WhatIfError(f"{where}: {error}") from None


def _values(key: str, choices: Iterable[Any] | Between) -> Sequence[Any] | Between:
    if isinstance(choices, Between):
        if not choices.low < choices.high:
            raise WhatIfError(f"{key}: expected a range from low to high, got {choices}")
        return choices
    if isinstance(choices, (str, Mapping)) or not isinstance(choices, Iterable):
        raise WhatIfError(f"{key}: expected a list or range of values, got {shown(choices)}")
    values = [value.item() if isinstance(value, np.generic) else value for value in choices]
    if not values:
        raise WhatIfError(f"{key}: expected at least one value, got none")
    with suppress(TypeError):  # lists and the like, which are compared one by one
        if len(set(values)) == len(values):
            return values
    for at, value in enumerate(values):
        if value in values[:at]:
            raise WhatIfError(f"{key}: expected different values, got {shown(value)} twice")
    return values


def _grid(
    values: Mapping[str, Sequence[Any] | Between], samples: int | None
) -> list[Configuration]:
    if samples is not None:
        raise WhatIfError("samples: a grid has every combination; expected design sobol or lhs")
    for key, choices in values.items():
        if isinstance(choices, Between):
            raise WhatIfError(
                f"{key}: expected a list of values for a grid, got {choices}; "
                "ranges need design sobol or lhs"
            )
    lists = [choices for choices in values.values() if not isinstance(choices, Between)]
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*lists)]


def _points(design: Design, dimensions: int, samples: int, seed: int) -> Floats:
    """`samples` points in the unit cube."""
    from scipy.stats import qmc

    rng = np.random.default_rng(seed)
    if design == "lhs":
        points: Floats = qmc.LatinHypercube(dimensions, seed=rng).random(samples)
        return points
    # a Sobol sequence is balanced in powers of two; the first so many of the next one are used
    exponent = max(samples - 1, 0).bit_length()
    points = qmc.Sobol(dimensions, seed=rng).random_base2(exponent)
    return points[:samples]


def _spread(values: Mapping[str, Sequence[Any] | Between], points: Floats) -> list[Configuration]:
    return _different(
        {
            key: choices.low + float(at) * (choices.high - choices.low)
            if isinstance(choices, Between)
            else choices[int(at * len(choices))]
            for (key, choices), at in zip(values.items(), point, strict=True)
        }
        for point in points
    )


def _different(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Each of them once, in their order."""
    found: dict[str, Configuration] = {}
    for each in configurations:
        found.setdefault(repr(each), each)
    return list(found.values())
