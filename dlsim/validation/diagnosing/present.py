"""What a diagnosis starts from: the settings as they are, and the machine as it was watched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dlsim.scenario import Scenario
from dlsim.trace.observation import Observation


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """The keyword arguments of the DataLoader that a diagnosis may change, as they are."""
    loader = scenario.loader
    workers = loader.num_workers
    found: dict[str, Any] = {"num_workers": workers}
    if workers:
        found["prefetch_factor"] = loader.window // workers
    if workers > 1 and not loader.in_order:
        found["in_order"] = False
    if loader.persistent_workers:
        found["persistent_workers"] = True
    return found


def facts(seen: Observation) -> dict[str, float]:
    """What is known of the machine while `seen` was watched, in numbers."""
    found: dict[str, float] = json.loads(seen.meta.notes.get("machine", "{}"))
    return found


def keywords(settings: Mapping[str, Any]) -> str:
    """Keyword arguments as they are written."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())
