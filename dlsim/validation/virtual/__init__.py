"""Torch's own code under a virtual clock: what the simulation must equal.

In: a scenario. Out: the trace that the installed torch makes of it, in virtual time. Read
`loader.py` (`run_virtual`), then `clock.py`, the context in which torch's processes run one at a
time, `data.py`, what it is given to load, and `record.py`, which writes down what they do.
"""
