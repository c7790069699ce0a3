"""The specification: SimPy processes, one file for each thing that a DataLoader is made of.

In: a scenario and its random numbers, by `run.py`. Out: the moments of every batch, written down by
`record.py`. Read `dispatcher.py` (who gets the next batch) first, then along a batch's way:
`sampler.py`, `worker.py`, `fetch.py`, `buffer.py`, `consumer.py`, `training.py`. What is shared on
a machine comes last: `cores.py`, `storage.py`, `transport.py`; `clock.py` orders what happens at
one moment.
"""
