"""How it unfolds: the SimPy processes, which are the readable specification."""

from dlsim.engine.simulation import simulate

__all__ = ["simulate"]
