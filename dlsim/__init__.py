"""dlsim simulates how PyTorch's DataLoader schedules its work.

import dlsim

scenario = dlsim.load("scenarios/imagenet_a100.toml")
trace = dlsim.simulate(scenario, seed=0)
print(dlsim.summarize(trace))
"""

from dlsim.engine import simulate
from dlsim.scenario import (
    Constant,
    Consumer,
    Costs,
    DlsimError,
    Empirical,
    Exponential,
    Failure,
    Gamma,
    IterableDataset,
    Loader,
    Lognormal,
    Machine,
    MapDataset,
    Mixture,
    Pareto,
    Recorded,
    Scenario,
    ScenarioError,
    Stage,
    Uniform,
    dump,
    load,
    replace,
    schema,
)

__version__ = "0.1.0"

__all__ = [
    "Constant",
    "Consumer",
    "Costs",
    "DlsimError",
    "Empirical",
    "Exponential",
    "Failure",
    "Gamma",
    "IterableDataset",
    "Loader",
    "Lognormal",
    "Machine",
    "MapDataset",
    "Mixture",
    "Pareto",
    "Recorded",
    "Scenario",
    "ScenarioError",
    "Stage",
    "Uniform",
    "dump",
    "load",
    "replace",
    "schema",
    "simulate",
]
