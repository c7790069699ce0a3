"""The fast twin of the SimPy processes: the same traces, from compiled loops over arrays.

`in_order.py` and `recurrence.py`: where all batches come back in order, a recurrence (by NumPy,
without llvmlite, in `dlsim.engine.in_order`).
`simulation.py` and the files named like those of the SimPy engine: everything else, one event
loop over arrays.
"""

from __future__ import annotations

from importlib.util import find_spec


def installed() -> bool:
    """Whether llvmlite is there, without which nothing can be compiled."""
    return find_spec("llvmlite") is not None
