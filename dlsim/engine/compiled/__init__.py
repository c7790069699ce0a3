"""The fast twin of the SimPy processes: the same traces, from compiled loops over arrays.

`in_order.py` and `recurrence.py`: where all batches come back in order, a recurrence.
`simulation.py` and the files named like those of the SimPy engine: everything else, one event
loop over arrays.
"""

from __future__ import annotations

from importlib.util import find_spec

from dlsim.scenario import Costs, Machine, Scenario


def not_covered(scenario: Scenario) -> str | None:
    """Why the compiled engine cannot run `scenario`, or None where it can."""
    if find_spec("numba") is None:
        return "needs numba, which is not installed"
    if scenario.ideal:
        return None
    used = [
        f"{part}.{key}"
        for part, plain in (("machine", Machine()), ("costs", Costs()))
        for key in plain.__struct_fields__
        if getattr(getattr(scenario, part), key) != getattr(plain, key)
        and key not in ("worker_start", "index_latency")
    ]
    if scenario.loader.pin_memory:
        used.append("loader.pin_memory")
    if scenario.consumer.device == "cpu":
        used.append("consumer.device")
    return f"does not cover {', '.join(used)}"
