"""Simulations held against torch: its own code under a virtual clock, and real runs.

Nothing is imported until it is used, so that comparing traces does not need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsim.trace.observation import Observation
    from dlsim.validation.calibrating.predict import Prediction, predict
    from dlsim.validation.calibrating.profiled import fit_profile
    from dlsim.validation.calibrating.replay import replay
    from dlsim.validation.calibrating.scenario import calibrate, calibration
    from dlsim.validation.calibrating.throughput import calibrate_throughput, fit_throughput
    from dlsim.validation.comparison import Comparison, compare
    from dlsim.validation.diagnosing.answer import Diagnosis
    from dlsim.validation.diagnosing.search import diagnose, diagnose_run, one_thread_each, try_out
    from dlsim.validation.observing.joining import join
    from dlsim.validation.observing.rank import of_job
    from dlsim.validation.observing.run import observe
    from dlsim.validation.observing.target import load_step, load_target, time_limit
    from dlsim.validation.virtual.loader import run_virtual
    from dlsim.validation.virtual.pipeline import run_virtual_pipeline

_HOMES = {
    "Comparison": "dlsim.validation.comparison",
    "Diagnosis": "dlsim.validation.diagnosing.answer",
    "Observation": "dlsim.trace.observation",
    "calibrate": "dlsim.validation.calibrating.scenario",
    "calibrate_throughput": "dlsim.validation.calibrating.throughput",
    "calibration": "dlsim.validation.calibrating.scenario",
    "compare": "dlsim.validation.comparison",
    "fit_profile": "dlsim.validation.calibrating.profiled",
    "fit_throughput": "dlsim.validation.calibrating.throughput",
    "diagnose": "dlsim.validation.diagnosing.search",
    "diagnose_run": "dlsim.validation.diagnosing.search",
    "join": "dlsim.validation.observing.joining",
    "load_step": "dlsim.validation.observing.target",
    "load_target": "dlsim.validation.observing.target",
    "observe": "dlsim.validation.observing.run",
    "of_job": "dlsim.validation.observing.rank",
    "one_thread_each": "dlsim.validation.diagnosing.search",
    "predict": "dlsim.validation.calibrating.predict",
    "Prediction": "dlsim.validation.calibrating.predict",
    "replay": "dlsim.validation.calibrating.replay",
    "run_virtual": "dlsim.validation.virtual.loader",
    "run_virtual_pipeline": "dlsim.validation.virtual.pipeline",
    "time_limit": "dlsim.validation.observing.target",
    "try_out": "dlsim.validation.diagnosing.search",
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
    "fit_profile",
    "fit_throughput",
    "join",
    "load_step",
    "load_target",
    "observe",
    "of_job",
    "one_thread_each",
    "predict",
    "replay",
    "run_virtual",
    "run_virtual_pipeline",
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
