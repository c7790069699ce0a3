"""What to do about it: replications, sweeps, closed-form bounds, explanations, advice."""

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
