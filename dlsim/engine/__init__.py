"""How it unfolds: a scenario and a seed come in, a trace goes out.

Read `processes/` first: the SimPy processes, which are the readable specification. `compiled/` is
their fast twin, equal moment for moment. Neither imports the other; what both go by is in
`facts.py` (where no time passes), `draws.py` (chance) and `samples.py` (what fetching takes).
`simulation.py` chooses one, and runs it; `job.py`, where many ranks train together. `pipeline.py`
and `pipelines/` are what is no DataLoader: chains of stages, as SPDL and torchdata.nodes have them.
"""

from dlsim.engine.job import simulate_job
from dlsim.engine.pipeline import simulate_pipeline
from dlsim.engine.simulation import outcome, outcomes, replications, simulate

__all__ = ["outcome", "outcomes", "replications", "simulate", "simulate_job", "simulate_pipeline"]
