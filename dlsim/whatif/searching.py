"""How long a search for settings takes, as far as that can be said before it begins."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from dlsim.engine.effort import LOOKING, announcing, ranks, seconds_of
from dlsim.engine.progress import watching
from dlsim.engine.ranks import fair_share
from dlsim.scenario import Scenario
from dlsim.whatif.candidates import candidates
from dlsim.whatif.extent import shortened
from dlsim.whatif.feasibility import FIRST
from dlsim.whatif.question import Question

# About so many simulations are made for a target, and without one; of short runs more.
SEARCHED, SEARCHED_ALL = 50, 100
EACH = 8  # of so many candidates, one is looked at


def searching(scenario: Scenario, question: Question) -> AbstractContextManager[None]:
    """Tell who watches how long the search takes, if anybody does.

    Candidates take unequally long, by their windows. Of a job that takes long, most that is asked
    is asked of one rank alone.
    """
    if watching() is None:
        return nullcontext()
    asked = question.prefetch, question.max_memory, question.batch_sizes
    options = [o.scenario for o in candidates(scenario, question.ranges[0], *asked)][::EACH]
    costly = any(question.judge(0).costly(option) for option in options)
    some = [shortened(fair_share(option) if costly else option) for option in options]
    seconds = sum(map(seconds_of, some)) / len(some)
    looking = LOOKING * sum(map(ranks, some)) / len(some)
    tries = SEARCHED if question.targets else SEARCHED_ALL
    whole = FIRST * max(map(seconds_of, map(shortened, options))) if costly else 0.0
    return announcing(
        tries * seconds + whole, some[-1], jobs=question.jobs, besides=tries * looking
    )
