"""Other loaders beside torch's, under the same random numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dlsim
from dlsim.whatif import Interval, WhatIfError, loaders
from dlsim.whatif.loaders import Loaders


def of(**loader: object) -> dlsim.Scenario:
    """Samples of which some take long, on three workers."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"num_workers": 3, **loader}),
        dataset=dlsim.MapDataset(120, fetch=[dlsim.Stage("decode", cpu=dlsim.Lognormal(0.1, 2.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.01)),
    )


def test_rows_are_the_scenario_under_other_rules() -> None:
    """Each row is what its own scenario gives; torch's is first, whatever the scenario has."""
    found = loaders(of(dispatch="shared", slots=5), 3)
    rows = {row.name: row for row in found.rows}
    assert found.rows[0].name == "torch, in order"
    assert found.rows[0].gain.mean == 0
    alone = dlsim.replicate(rows["stealing"].runs.scenario, 3)
    assert rows["stealing"].samples_per_s == pytest.approx(alone["samples_per_s"].mean())
    assert rows["stealing"].runs.scenario.loader.window == 6
    assert not found.not_for
    saved = loaders(of(stateful=True), 2)
    assert not saved.not_for
    assert not saved.rows[0].runs.scenario.loader.stateful


def test_what_must_be_so() -> None:
    """A lock costs as much as it is held; none is as processes; order costs something."""
    rows = {row.name: row.samples_per_s for row in loaders(of(), 3).rows}
    assert rows["threads, lock 1"] < rows["threads, lock 0.3"] < rows["threads, lock 0"]
    assert rows["threads, lock 0"] == pytest.approx(rows["torch, in order"])
    assert rows["torch, in order"] < rows["one shared queue (torchdata.nodes)"]
    assert rows["SPDL, in order"] < rows["SPDL, any order"]


@pytest.mark.parametrize(
    ("torchs", "queues", "answer"),
    [
        (0.3, 0.302, "torch, any order: +30.0 ± 0.1 %. That is in_order=False; no other loader"),
        (0.3, 0.4, "refill on arrival: +40.0 ± 0.1 %. Torch itself gains +30.0 ± 0.1 % with in"),
        (0.0005, 0.4, "refill on arrival: +40.0 ± 0.1 %."),
        (0.0, 0.005, ""),
    ],
)
def test_the_answer_comes_first(torchs: float, queues: float, answer: str) -> None:
    """Who gains most is said, torch's own setting where it is nearly as good, or that none does."""
    row, *_ = loaders(of(), 1).rows
    names = "torch, in order", "torch, any order", "refill on arrival"
    gains = [Interval(gain, 0.001, 3) for gain in (0.0, torchs, queues)]
    rows = [replace(row, name=name, gain=gain) for name, gain in zip(names, gains, strict=True)]
    first, blank, *_ = str(Loaders(rows, {})).splitlines()
    said = f"Most is gained by {answer}" if answer else "No other loader surely gains 1 % here."
    assert first.startswith(said)
    assert not blank


def test_no_gain_has_a_plus() -> None:
    """What is slower by rounding, or by less than is shown, is no loss."""
    first, second, *_ = loaders(of(), 1).rows
    rows = [first, replace(second, gain=Interval(-1e-5, 0.001, 3))]
    assert "+0.0 %" in str(Loaders(rows, {}))
    assert "-0.0 %" not in str(Loaders(rows, {}))


def test_what_is_not_for_a_scenario_is_said() -> None:
    """Workers of an iterable-style dataset share no queue; without workers nothing can be said."""
    stream = dlsim.replace(of(), {"dataset": dlsim.IterableDataset(60, sharding="split")})
    found = loaders(stream, 2)
    assert "one shared queue (torchdata.nodes)" in found.not_for
    assert "Not for this scenario (loader.dispatch: expected turns or dealt" in str(found)
    with pytest.raises(WhatIfError, match=r"num_workers: expected workers"):
        loaders(dlsim.replace(of(), {"loader.num_workers": 0}))
