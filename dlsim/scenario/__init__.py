"""What is asked: scenarios, their parts, distributions, TOML in and out.

In: a TOML file, or keyword arguments. Out: a `Scenario`, which is checked, and never changes. Read
`model.py`, then its parts: `loader.py`, `dataset.py`, `consumer.py`, `machine.py`, `job.py`,
`validation.py`; `distributions.py` has what chance decides. `tree.py` finds and changes keys,
`files.py` reads and writes, `fitting.py` says whether parts fit each other, `dealing.py` who gets
which samples, and `keys.py` what each key means, from the docstrings of these.
"""

from dlsim.scenario.catalogue import Catalogue, Instance, load_catalogue
from dlsim.scenario.consumer import Consumer
from dlsim.scenario.dataset import Dataset, Download, IterableDataset, MapDataset, Stage
from dlsim.scenario.distributions import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Mixture,
    Pareto,
    Recorded,
    Uniform,
)
from dlsim.scenario.errors import DlsimError, ScenarioError
from dlsim.scenario.failure import Failure
from dlsim.scenario.files import dump, dumps, load
from dlsim.scenario.job import Differs, Job, RemoteStorage
from dlsim.scenario.loader import Loader
from dlsim.scenario.machine import Cost, Costs, Machine, Storage
from dlsim.scenario.model import Scenario
from dlsim.scenario.pipeline import Pipeline, load_pipeline
from dlsim.scenario.starts import Start
from dlsim.scenario.steps import On
from dlsim.scenario.tree import from_tree, get, replace, schema, to_tree
from dlsim.scenario.validation import Validation

__all__ = [
    "Catalogue",
    "Constant",
    "Consumer",
    "Cost",
    "Costs",
    "Dataset",
    "Differs",
    "Distribution",
    "DlsimError",
    "Download",
    "Empirical",
    "Exponential",
    "Failure",
    "Gamma",
    "Instance",
    "IterableDataset",
    "Job",
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
    "Start",
    "Storage",
    "Uniform",
    "Validation",
    "dump",
    "dumps",
    "from_tree",
    "get",
    "load",
    "load_catalogue",
    "load_pipeline",
    "replace",
    "schema",
    "to_tree",
]
