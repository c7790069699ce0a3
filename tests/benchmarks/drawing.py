"""How benchmarks draw random scenarios: so many, always the same under a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings


def drawn(count: int, seed: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates what `given` strategies are drawn for: it is called with `count` examples.

    None is kept, and none is made smaller when it fails.
    """
    alike = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: hypothesis.seed(seed)(alike(test))
