"""How it unfolds: the SimPy processes, which are the readable specification."""

from dlsim.engine.simulation import outcome, replications, simulate

__all__ = ["outcome", "replications", "simulate"]
