"""dlsim simulates how PyTorch's DataLoader schedules its work.

import dlsim

scenario = dlsim.load("scenarios/imagenet_a100.toml")
trace = dlsim.simulate(scenario, seed=0)
print(dlsim.summarize(trace))

Nothing is loaded until it is used, so that `import dlsim` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsim.engine import simulate, simulate_job, simulate_pipeline
    from dlsim.scenario import (
        Catalogue,
        Constant,
        Consumer,
        Cost,
        Costs,
        Differs,
        DlsimError,
        Empirical,
        Exponential,
        Failure,
        Gamma,
        Instance,
        IterableDataset,
        Job,
        Loader,
        Lognormal,
        Machine,
        MapDataset,
        Mixture,
        On,
        Pareto,
        Pipeline,
        Recorded,
        RemoteStorage,
        Scenario,
        ScenarioError,
        Stage,
        Storage,
        Uniform,
        Validation,
        dump,
        load,
        load_catalogue,
        load_pipeline,
        replace,
        schema,
    )
    from dlsim.trace import (
        JobTrace,
        Trace,
        load_job,
        load_trace,
        memory,
        overflow,
        save,
        save_job,
        summarize,
    )
    from dlsim.whatif.advising import advise
    from dlsim.whatif.explain import explain
    from dlsim.whatif.rent import rent
    from dlsim.whatif.replicate import replicate
    from dlsim.whatif.sweep import sweep
    from dlsim.whatif.versus import compare

__version__ = "0.1.0"

_ROOMS = ("engine", "report", "scenario", "show", "testing", "trace", "validation", "whatif")
_HOMES = {
    "engine": ("simulate", "simulate_job", "simulate_pipeline"),
    "trace": (
        "JobTrace",
        "Trace",
        "load_job",
        "load_trace",
        "memory",
        "overflow",
        "save",
        "save_job",
        "summarize",
    ),
    "whatif": ("advise", "compare", "explain", "rent", "replicate", "sweep"),
}  # and all other names are at home in dlsim.scenario

__all__ = [
    "Catalogue",
    "Constant",
    "Consumer",
    "Cost",
    "Costs",
    "Differs",
    "DlsimError",
    "Empirical",
    "Exponential",
    "Failure",
    "Gamma",
    "Instance",
    "IterableDataset",
    "Job",
    "JobTrace",
    "Loader",
    "Lognormal",
    "Machine",
    "MapDataset",
    "Mixture",
    "On",
    "Pareto",
    "Pipeline",
    "Recorded",
    "RemoteStorage",
    "Scenario",
    "ScenarioError",
    "Stage",
    "Storage",
    "Trace",
    "Uniform",
    "Validation",
    "advise",
    "compare",
    "dump",
    "explain",
    "load",
    "load_catalogue",
    "load_job",
    "load_pipeline",
    "load_trace",
    "memory",
    "overflow",
    "rent",
    "replace",
    "replicate",
    "save",
    "save_job",
    "schema",
    "simulate",
    "simulate_job",
    "simulate_pipeline",
    "summarize",
    "sweep",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"dlsim.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((room for room, names in _HOMES.items() if name in names), "scenario")
    found: object = getattr(import_module(f"dlsim.{home}"), name)
    globals()[name] = found  # so that it is looked for once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
