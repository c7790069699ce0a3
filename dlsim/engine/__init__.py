"""How it unfolds: the SimPy processes, which are the readable specification."""

from dlsim.engine.simulation import outcome, outcomes, replications, simulate

__all__ = ["outcome", "outcomes", "replications", "simulate"]
