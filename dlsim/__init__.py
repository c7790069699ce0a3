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
    Cost,
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
    Storage,
    Uniform,
    dump,
    load,
    replace,
    schema,
)
from dlsim.trace import Trace, load_trace, memory, overflow, save, summarize
from dlsim.whatif import advise, explain, replicate, sweep

__version__ = "0.1.0"

__all__ = [
    "Constant",
    "Consumer",
    "Cost",
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
    "Storage",
    "Trace",
    "Uniform",
    "advise",
    "dump",
    "explain",
    "load",
    "load_trace",
    "memory",
    "overflow",
    "replace",
    "replicate",
    "save",
    "schema",
    "simulate",
    "summarize",
    "sweep",
]
