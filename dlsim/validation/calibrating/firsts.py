"""What the first batch of each process takes beyond others: threads are started, modules imported.

It is told apart from what every batch takes, as a run with more workers has more first batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.trace.trace import Floats


def beyond(values: Floats, first: Any) -> tuple[Floats, Floats]:
    """By how much the `first` ones of some values exceed the typical other one; and all without it.

    `first` selects them. Nothing where there are no others to compare with, or one is not known.
    """
    others = np.ones(len(values), bool)
    others[first] = False
    known = values[others & ~np.isnan(values)]
    usual = float(np.median(known)) if len(known) else np.inf
    more: Floats = np.maximum(np.nan_to_num(values[first]) - usual, 0.0)
    left = values.copy()
    left[first] -= more
    return more, left
