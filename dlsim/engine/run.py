"""What everything in one simulation shares."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from dlsim.engine.record import Recorder
from dlsim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation: its clock, what is simulated, and where it is written down."""

    env: simpy.Environment
    scenario: Scenario
    seed: int
    recorder: Recorder
