"""What commands say of a scenario beside each other: each check fails where two disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest

import dlsim
from dlsim import Scenario
from dlsim.report import run_text
from dlsim.report.sweep_text import sweep_text
from dlsim.scenario.errors import DlsimError
from dlsim.testing import assert_fits, assert_stall_below
from dlsim.trace import account, metrics, summarize
from dlsim.trace.telling import limit, sentence
from dlsim.trace.work import in_an_epoch, told
from dlsim.whatif import Explanation, advise, compare, explain, replicate, sweep
from dlsim.whatif.parallel import replication_seed
from dlsim.whatif.space import space

RUNS = 2


def agree(scenario: Scenario) -> Explanation:
    """Whatever is asked of `scenario`: how idle, for what, and what limits is the same.

    Returns what `explain` finds. All see the same two runs, so that numbers must be equal, not only
    alike.
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
    swept = sweep(scenario, {"loader.num_workers": [workers]}, RUNS, jobs=1)
    stall = _mean(stalls)
    assert swept["stall"][0] == pytest.approx(stall, **same)
    versus = compare(scenario, scenario, RUNS)
    assert versus.a["stall"] == pytest.approx(stalls, **same)

    explained = explain(scenario, RUNS)
    assert explained.runs["stall"] == pytest.approx(stalls, **same)
    causes = {cause for found in accounts for cause in found.idle}
    passed = [found for found in accounts if found.elapsed > 0]
    mean = {c: float(np.mean([a.shares.get(c, 0.0) for a in passed])) for c in causes}
    assert explained.stall == pytest.approx(stall, **same)
    assert {cause: share.mean for cause, share in explained.idle.items()} == pytest.approx(
        mean, **same
    )
    if explained.shares and not math.isnan(explained.stall):
        said = sentence(mean, stall)
        assert explained.limit == limit(mean, stall)
        came = any(len(trace.order) or trace.meta.problem for trace in traces)
        first = str(explained).splitlines()[0]
        assert said in first if came else first.startswith("No batch is returned.")
        table = sweep_text(swept, ["loader.num_workers"], [scenario], list(versus.idle[:1]))
        assert versus.idle[1] == pytest.approx(mean, **same)
        if versus.gain.count:
            assert f"A: {said}. It takes" in str(versus)
            assert f"\n{said}.\n" in table or table.startswith("No configuration")
            assert explained.limit in table.splitlines()[-1]
    for gain in explained.gains:
        assert gain.change.scenario != scenario  # what is set is no change
    best = explained.best
    assert best is None or best.sure
    lost = told(scenario, in_an_epoch(scenario))
    assert lost in str(explained)
    return explained


def _mean(values: Sequence[float]) -> float:
    """The mean of runs in which time passes; of the others, no share of it can be told."""
    return float(metrics.mean(np.array(values)))


def holds_what_it_promises(scenario: Scenario, share: float) -> None:
    """A target that advice calls held is held by the runs of those settings, and the other way."""
    try:
        found = advise(scenario, max_stall=share, workers=range(3), prefetch=(1, 2), maximum=8)
    except DlsimError:
        return  # nothing is returned, or nothing fits
    runs = replicate(found.best.scenario, found.verdict.runs)
    stall, ended = _mean(runs["stall"]), bool(runs["failed"].any())
    assert found.verdict.means["stall"] == pytest.approx(stall, abs=1e-6, nan_ok=True)
    assert found.chosen is None or stall <= share + 1e-9
    assert not (ended and found.chosen)
    assert (found.explanation is None) == (ended or found.chosen is not None)
    assert found.ended or not ended


def gains_what_is_said(scenario: Scenario, explained: Explanation) -> None:
    """What `explain` calls the change that helps most gains as much where it is compared."""
    best = explained.best
    if best is not None:
        beside = compare(scenario, best.change.scenario, RUNS).gain
        assert beside.mean == pytest.approx(best.gain.mean, rel=1e-6, abs=1e-9)


def fits_alike(scenario: Scenario) -> None:
    """A run, an explanation, a sweep and a test agree on whether batches fit."""
    fits = space(scenario).fits
    assert space(scenario, dlsim.simulate(scenario)).fits is fits
    machine = scenario.machine
    if (machine.memory, machine.shm, machine.descriptors) == (None, None, None):
        return
    if fits is False:
        with pytest.raises(AssertionError):
            assert_fits(scenario)
    else:
        assert_fits(scenario)


def asserts_what_is_so(scenario: Scenario, share: float) -> None:
    """`assert_stall_below` passes where the mean is surely below, and only there."""
    found = replicate(scenario, RUNS).interval("stall")
    margin = 0.0 if math.isnan(found.half_width) else found.half_width
    with patch("dlsim.testing.help_for", return_value=""):  # what would help takes long to find
        try:
            assert_stall_below(scenario, share, replications=RUNS)
            passed = True
        except AssertionError:
            passed = False
    assert passed == (found.mean + margin < share)
