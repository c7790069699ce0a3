"""Simulations held against torch: its own code under a virtual clock, and real runs.

Nothing is imported until it is used, so that comparing traces does not need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsim.trace.observation import Observation
    from dlsim.validation.calibrating import calibrate, calibration
    from dlsim.validation.comparison import Comparison, compare
    from dlsim.validation.diagnosing import diagnose, diagnose_run, try_out
    from dlsim.validation.diagnosis import Diagnosis
    from dlsim.validation.observing import observe
    from dlsim.validation.prediction import Prediction, predict
    from dlsim.validation.replaying import replay
    from dlsim.validation.target import load_step, load_target, time_limit
    from dlsim.validation.throughput import calibrate_throughput
    from dlsim.validation.virtual import run_virtual

_HOMES = {
    "Comparison": "dlsim.validation.comparison",
    "Diagnosis": "dlsim.validation.diagnosis",
    "Observation": "dlsim.trace.observation",
    "calibrate": "dlsim.validation.calibrating",
    "calibrate_throughput": "dlsim.validation.throughput",
    "calibration": "dlsim.validation.calibrating",
    "compare": "dlsim.validation.comparison",
    "diagnose": "dlsim.validation.diagnosing",
    "diagnose_run": "dlsim.validation.diagnosing",
    "load_step": "dlsim.validation.target",
    "load_target": "dlsim.validation.target",
    "observe": "dlsim.validation.observing",
    "predict": "dlsim.validation.prediction",
    "Prediction": "dlsim.validation.prediction",
    "replay": "dlsim.validation.replaying",
    "run_virtual": "dlsim.validation.virtual",
    "time_limit": "dlsim.validation.target",
    "try_out": "dlsim.validation.diagnosing",
}

__all__ = [
    "Comparison",
    "Diagnosis",
    "Observation",
    "Prediction",
    "calibrate",
    "calibrate_throughput",
    "calibration",
    "compare",
    "diagnose",
    "diagnose_run",
    "load_step",
    "load_target",
    "observe",
    "predict",
    "replay",
    "run_virtual",
    "time_limit",
    "try_out",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from dlsim.scenario import DlsimError
        from dlsim.scenario.errors import lacking

        raise DlsimError(lacking(f"validation.{name}", "torch", "validate")) from None
