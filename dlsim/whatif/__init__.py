"""What to do about it: replications, sweeps, closed-form bounds, explanations, advice.

In: a scenario, and a question about it. Out: an answer in values, with how sure it is, that prints
itself in words. Read `replicate.py` and `parallel.py`, by which all simulate many times, then
`sweep.py` and `versus.py`; `bounds.py`, of what `demand.py` says, needs no simulation. `explain.py`
tries the single `changes.py`. `advising.py` judges `candidates.py` in `cheapest.py`, and `rent.py`
machines; `extent.py` says how much of a run is simulated for either.
"""

from dlsim.whatif.advice import Advice
from dlsim.whatif.advising import advise
from dlsim.whatif.bounds import Bounds, bounds, disagrees
from dlsim.whatif.controls import gained, paired
from dlsim.whatif.designs import Between, configurations
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.explain import explain
from dlsim.whatif.explanation import Explanation, Gain
from dlsim.whatif.loaders import Loaders, loaders
from dlsim.whatif.parallel import measure, replication_seed
from dlsim.whatif.rent import rent
from dlsim.whatif.rental import Offer, Rental
from dlsim.whatif.replicate import Replications, replicate
from dlsim.whatif.statistics import Interval, interval, mser5
from dlsim.whatif.steady import Steady, steady_state
from dlsim.whatif.sweep import sweep
from dlsim.whatif.versus import Versus, compare

__all__ = [
    "Advice",
    "Between",
    "Bounds",
    "Explanation",
    "Gain",
    "Interval",
    "Loaders",
    "Offer",
    "Rental",
    "Replications",
    "Steady",
    "Versus",
    "WhatIfError",
    "advise",
    "bounds",
    "compare",
    "configurations",
    "disagrees",
    "explain",
    "gained",
    "interval",
    "loaders",
    "measure",
    "mser5",
    "paired",
    "rent",
    "replicate",
    "replication_seed",
    "steady_state",
    "sweep",
]
