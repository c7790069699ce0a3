"""Which settings are the fastest: by bounds that hold, and few simulations."""

from __future__ import annotations

import numpy as np
import pytest

import dlsim
from dlsim.engine import simulate
from dlsim.trace import summarize
from dlsim.whatif.as_drawn import as_drawn
from dlsim.whatif.candidates import candidates
from dlsim.whatif.fastest import fastest, limit
from dlsim.whatif.feasibility import FIRSTS, Budget, Judge
from dlsim.whatif.question import Question, targets


def reading(**changes: object) -> dlsim.Scenario:
    """Workers that read from one disk, which is what limits; images differ much in size."""
    size = dlsim.Gamma(1e6, 0.5)
    return dlsim.replace(
        dlsim.Scenario(
            loader=dlsim.Loader(batch_size=4, num_workers=2),
            dataset=dlsim.MapDataset(400, fetch=[dlsim.Stage("read", read_bytes=size)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.002)),
            machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=1e9)),
            epochs=3,
        ),
        changes,
    )


def test_of_a_run_its_own_bound_holds() -> None:
    """With the means of what was drawn, no run of one worker is faster than its bound, or far."""
    scenario = reading(**{"loader.num_workers": 1})
    for seed in range(5):
        speed = summarize(simulate(scenario, seed)).samples_per_s
        most = limit(as_drawn(scenario, scenario, (seed,)))
        assert speed <= most * (1 + 1e-9)
        assert speed == pytest.approx(most, rel=0.01)


def test_what_was_drawn_is_that_of_the_runs() -> None:
    """Bytes, waits, and steps have the means of the runs; what is no chance stays as it is."""
    scenario = reading(**{"consumer.step": dlsim.Exponential(0.002), "epochs": 1})
    found = as_drawn(scenario, scenario, (3,))
    trace = simulate(scenario, 3)
    assert found.consumer.step.mean == pytest.approx(
        float(np.mean(trace.finished - trace.returned))
    )
    assert found.dataset.fetch[0].read_bytes != scenario.dataset.fetch[0].read_bytes
    constant = reading(**{"dataset.fetch.0.read_bytes": dlsim.Constant(1e6)})
    assert as_drawn(constant, constant, (3,)) == constant


def test_an_epoch_has_a_beginning_and_an_end() -> None:
    """Each epoch begins with a first batch, and ends with a step after all has been read."""
    scenario = reading(**{"dataset.fetch.0.read_bytes": dlsim.Constant(1e6)})
    assert 1200 / limit(scenario) == pytest.approx(3 * (100 * 0.004 + 0.002))
    slow = dlsim.replace(scenario, {"consumer.step": 0.01})
    assert 1200 / limit(slow) == pytest.approx(3 * (0.004 + 100 * 0.01))


def test_few_are_looked_at_where_bounds_tell() -> None:
    """Where one comes as near to its bound as chance lets it, no others are simulated."""
    judge: Judge = Question().judge(100)
    options = candidates(reading(), range(17), (1, 2, 4, 8))
    found = fastest(options, judge)
    assert not found.rivals
    assert sum(judge.seen(option.scenario) for option in options) <= 3


def test_first_runs_have_an_end_too() -> None:
    """When first runs have taken all they may, what was not simulated is not."""
    options = candidates(reading(), range(1, 5), (1, 2))
    spent, overdrawn = (Question().judge(8, Budget(left)) for left in (0.0, -FIRSTS))
    for judge, runs in ((spent, 3), (overdrawn, 0)):
        verdict = judge.verdict(options[0].scenario, targets(max_stall=0.05))
        assert (verdict.runs, verdict.holds, judge.seen(options[0].scenario)) == (
            *(runs, False),
            runs > 0,
        )
