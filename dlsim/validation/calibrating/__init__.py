"""From watched runs to a scenario, and from there to predictions with intervals.

In: observations. Out: the scenario that stands for them (`scenario.py`, `calibrate`), how sure each
of its numbers is (`cost_errors.py`), and what other settings would do, with intervals
(`predict.py`). Read `costs.py` first: every second of a watched run in its account (`accounts.py`);
`steps.py`, `lifetimes.py`, `collating.py`, `crowding.py`, `spinning.py` and `transport.py` are
kinds of cost of their own, `fitting.py` turns durations into a distribution. Of the accounts,
`work.py` makes stages and the training step, `moving.py` what starting workers and moving batches
cost. `replay.py` simulates a watched run with its own durations; `throughput.py` makes a scenario
from a table of throughputs alone.
"""
