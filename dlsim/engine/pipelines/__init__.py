"""Pipelines of stages, on the clock, cores and storage of the SimPy engine, and on that only.

In goes a `Pipeline`, out comes what happened to each item. Read `run.py` (what a stage takes),
then `spdl.py`, `nodes.py` and `grain.py` (who begins what when).
"""
