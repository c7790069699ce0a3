"""How far predictions can be trusted: real runs in, the tables of errors out.

Read `workloads.py` (what is run) and `grid.py` (with which settings), then `campaign.py`, which
keeps runs on disk as they come: those of `suite.py`, or of a user's own loader (`own_loader.py`).
`trials.py` times a run, `training_step.py` is a real step; `errors.py` holds predictions against
what was measured, and `tables.py` shows that.
"""
