"""Torch's own code under a virtual clock, and that of others: what the simulation must equal.

In: a scenario. Out: the trace that the installed torch makes of it, in virtual time. Read
`loader.py` (`run_virtual`), `training.py` (the loop around the loader that `new_loader.py` makes),
then `clock.py`, the context in which torch's processes run one at a time, `data.py`, what it is
given to load, and `record.py`, which writes down what they do.

SPDL and torchdata.nodes have threads of their own: `pipeline.py` (`run_virtual_pipeline`) runs
their pipelines where `threads.py` has made Python's threads, locks and event loops virtual.
"""
