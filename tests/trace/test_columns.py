"""Traces looked at part by part, and kept in files, against the same in memory and as one part."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.report import run_text
from dlsim.scenario import Scenario
from dlsim.trace import Trace, columns, quantiles, stays, summarize
from dlsim.trace.account import account
from dlsim.trace.critical_path import causes
from dlsim.trace.memory import uses
from tests.strategies import scenarios

ONE = 10**9  # batches in a part: all of them


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are as before after each test."""
    monkeypatch.setattr(columns, "PART", columns.PART)
    monkeypatch.setattr(columns, "LONG", columns.LONG)
    monkeypatch.setattr(quantiles, "PART", quantiles.PART)


def numbers(trace: Trace, part: int) -> dict[str, float]:
    """All that is said of a run, looked at in parts of so many batches."""
    columns.PART = quantiles.PART = part
    spent = account(trace)
    found = {f"idle {cause}": seconds for cause, seconds in spent.idle.items()}
    found |= {f"path {cause}": seconds for cause, seconds in spent.path.items()}
    found |= {f"of the path: {cause}": seconds for cause, seconds in causes(trace).items()}
    found |= {"elapsed": spent.elapsed, "busy": spent.busy} | summarize(trace).as_dict()
    for use in uses(trace):
        found |= {use.resource: use.needed, f"{use.resource} first over": use.batch}
    return found


@settings(max_examples=150, deadline=None)
@given(scenarios(torch_only=False), st.integers(0, 1000), st.integers(1, 9), st.floats(1, 9))
def test_parts_make_no_difference(scenario: Scenario, seed: int, part: int, room: float) -> None:
    """Metrics, account, path and memory of a trace in parts are those of the whole to 1e-9."""
    limits = {"dataset.sample_bytes": 1.0, "machine.shm": room, "machine.memory": 2 * room}
    trace = dlsim.simulate(dlsim.replace(scenario, limits), seed, engine="simpy")
    some, whole = numbers(trace, part), numbers(trace, ONE)
    assert some.keys() == whole.keys()
    for name, value in whole.items():
        assert some[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(scenarios(torch_only=False), st.integers(0, 1000), st.integers(1, 9))
def test_levels_have_the_extents_that_are_said(scenario: Scenario, seed: int, part: int) -> None:
    """The mean and the most of what is ready, under way or early are those of its levels."""
    trace = dlsim.simulate(scenario, seed, engine="simpy")
    for level, stay in (
        (stays.buffer, stays.ready),
        (stays.credit, stays.under_way),
        (stays.held, stays.early),
    ):
        columns.PART = part
        found, expected = stays.extent(trace, stay(trace)), level(trace)
        assert found.most == expected.max
        assert found.mean == pytest.approx(expected.mean, rel=1e-9, abs=1e-9, nan_ok=True)


def long(**changes: object) -> Scenario:
    """Some thousand batches, of which some wait for others."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=3),
        dataset=dlsim.MapDataset(6000, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(1.0, 0.8))]),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.7, 0.3)),
    )
    return dlsim.replace(scenario, changes)


def same(one: object, other: object) -> bool:
    """Whether two traces have the same in all columns, also of their epochs and samples."""
    for field in fields(one):  # type: ignore[arg-type]
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if hasattr(mine, "__dataclass_fields__"):
            assert same(mine, its)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, its)
    return True


@pytest.mark.parametrize("changes", [{}, {"loader.in_order": False}, {"machine.cores": 2.0}])
@pytest.mark.parametrize("samples", [False, True])
def test_files_make_no_difference(changes: dict[str, object], samples: bool) -> None:
    """A run whose columns are in files is the same run, and the same is said of it."""
    pytest.importorskip("llvmlite")
    scenario = long(**changes)
    whole = dlsim.simulate(scenario, 1, engine="compiled", samples=samples)
    columns.LONG, columns.PART = 64, 500
    with columns.in_files():
        filed = dlsim.simulate(scenario, 1, engine="compiled", samples=samples)
        assert columns._files
        assert same(whole, filed)
        assert run_text(filed) == run_text(whole)


def test_no_room_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk has no room for a column, one line says so."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlsim.trace.columns.TemporaryFile", full)
    with columns.in_files(), pytest.raises(dlsim.DlsimError, match="No space left on device"):
        columns.new_column(columns.LONG)


@settings(deadline=None)
@given(st.lists(st.floats(allow_infinity=False, width=64), max_size=60), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], share: float) -> None:
    """A quantile found digit by digit is NumPy's of what is known, whatever the values."""
    column = np.array(values, np.float64)
    known = column[~np.isnan(column)]
    quantiles.PART = 0
    found = quantiles.quantiles(column, [share])[0]
    at = share * (len(known) - 1)
    assert np.isnan(found) == (not len(known))
    if len(known):
        low, high = np.sort(known)[[int(at), min(int(at) + 1, len(known) - 1)]]
        assert found == pytest.approx(low + (high - low) * (at - int(at)), rel=1e-9, nan_ok=True)
