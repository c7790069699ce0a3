"""The training step that an option asks for: a pause, or the user's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from dlsim.cli.parsing import UsageError
from dlsim.scenario.units import parse

Step: TypeAlias = Callable[[Any], object]


def step_of(command: str, text: str) -> tuple[float, Step | None]:
    """The seconds of a pause (0 for none), and what to call with each batch (None: nothing).

    Raises `UsageError` for what is neither a duration nor names a function, and `TargetError` where
    that cannot be had.
    """
    if ":" in text:
        from dlsim.validation import load_step

        return 0.0, load_step(text)
    try:
        seconds = parse(text, "duration")
    except ValueError as error:
        raise UsageError(f"{command}: --step: {error}, or a function as train.py:step") from None
    return seconds, (lambda batch: time.sleep(seconds)) if seconds else None
