"""One voice: what one command says of a scenario, no other one contradicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario
from dlsim.report import run_text
from dlsim.scenario.errors import DlsimError
from dlsim.trace import account, summarize
from dlsim.trace.telling import limit, sentence
from dlsim.whatif import advise, compare, explain, replicate, sweep
from dlsim.whatif.parallel import replication_seed
from tests.strategies import on_machines, scenarios
from tests.whatif.cases import CASES

RUNS = 2


def agree(scenario: Scenario) -> None:
    """Whatever is asked of `scenario`: how idle, for what, and what limits is the same.

    All see the same two runs, so that numbers must be equal, not only alike.
    """
    traces = [dlsim.simulate(scenario, replication_seed(0, run)) for run in range(RUNS)]
    accounts = [account(trace) for trace in traces]
    stalls = [found.stall for found in accounts]
    same = {"rel": 1e-6, "abs": 1e-9, "nan_ok": True}

    for trace, found in zip(traces, accounts, strict=True):
        assert summarize(trace).stall == pytest.approx(found.stall, **same)
        first = run_text(trace).splitlines()
        if len(trace.order):
            assert any(line.startswith(sentence(found.shares, found.stall)) for line in first)
    assert replicate(scenario, RUNS)["stall"] == pytest.approx(stalls, **same)
    workers = scenario.loader.num_workers
    swept = sweep(scenario, {"loader.num_workers": [workers]}, RUNS)
    assert swept["stall"][0] == pytest.approx(np.mean(stalls), **same)
    assert compare(scenario, scenario, RUNS).a["stall"] == pytest.approx(stalls, **same)

    told = explain(scenario, RUNS)
    assert told.runs["stall"] == pytest.approx(stalls, **same)
    causes = {cause for found in accounts for cause in found.idle}
    mean = {c: float(np.mean([a.shares.get(c, 0.0) for a in accounts])) for c in causes}
    assert {cause: share.mean for cause, share in told.idle.items()} == pytest.approx(mean, **same)
    if told.shares and not math.isnan(told.stall):
        assert told.limit == limit(mean, float(np.mean(stalls)))
        assert str(told).startswith(sentence(mean, float(np.mean(stalls))))
    for gain in told.gains:
        assert gain.change.scenario != scenario  # what is set is no change
    best = told.best
    assert best is None or best.sure


def holds_what_it_promises(scenario: Scenario, share: float) -> None:
    """A target that advice calls held is held by the runs of those settings, and the other way."""
    try:
        found = advise(scenario, max_stall=share, workers=range(3), prefetch=(1, 2), maximum=8)
    except DlsimError:
        return  # nothing is returned, or nothing fits
    stall = float(replicate(found.best.scenario, found.verdict.runs)["stall"].mean())
    assert found.verdict.means["stall"] == pytest.approx(stall, abs=1e-6)
    assert found.chosen is None or stall <= share + 1e-9
    assert (found.explanation is None) == (found.chosen is not None)


@settings(max_examples=40, deadline=None)
@given(scenarios(torch_only=False))
def test_random_scenarios(scenario: Scenario) -> None:
    """On random scenarios, no two commands disagree on what limits, or by how much."""
    agree(scenario)


@settings(max_examples=25, deadline=None)
@given(on_machines())
def test_random_machines(scenario: Scenario) -> None:
    """The same holds on machines where everything is shared and costs something."""
    agree(scenario)


@settings(max_examples=15, deadline=None)
@given(scenarios(), st.sampled_from([0.02, 0.2, 0.6]))
def test_random_targets(scenario: Scenario, share: float) -> None:
    """On random scenarios, no two commands disagree on whether a target is met."""
    holds_what_it_promises(scenario, share)


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    """On the cases that people reported, no two commands disagree either."""
    agree(CASES[name])
