from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.engine.effort import effort
from dlsim.trace import summarize
from dlsim.trace.critical_path import shares
from dlsim.whatif import replicate
from dlsim.whatif.extent import SHARE, measured, part_of, shortened
from tests.strategies import scenarios

METRICS = ("samples_per_s", "batches_per_s", "elapsed", "batches", "epoch_time")
METRICS += ("wait_mean", "wait_p95", "stall", "au")


def scenario(length: int = 8000, **changes: Any) -> dlsim.Scenario:
    """Two workers that are a little too slow for the step."""
    read = dlsim.Gamma(1.0, 0.5)
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=read)]),
        consumer=dlsim.Consumer(step=dlsim.Gamma(0.9, 0.2)),
        **changes,
    )


@settings(max_examples=60)
@given(scenarios(torch_only=False).filter(lambda case: case.consumer.stop_after is None))
def test_what_is_simulated_whole_is_measured_as_it_is(case: dlsim.Scenario) -> None:
    """Of a run that was not shortened, the figures are those of the trace."""
    trace = dlsim.simulate(case)
    row = measured(case, shares=True)(trace)
    summary = summarize(trace).as_dict()
    assert {name: row[name] for name in METRICS} == pytest.approx(
        {name: summary[name] for name in METRICS}, nan_ok=True
    )
    found = {name.removeprefix(SHARE): row[name] for name in row if name.startswith(SHARE)}
    assert found == pytest.approx(shares(trace))


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_part_stands_for_the_whole(workers: int, epochs: int) -> None:
    """A twentieth of a long run has the figures of the whole, start-up counted once an epoch."""
    case = dlsim.replace(scenario(epochs=epochs), {"loader.num_workers": workers})
    case = dlsim.replace(case, {"costs.worker_start": 20.0})
    part = shortened(case, 200 * epochs)
    assert part.consumer.stop_after == pytest.approx(200, rel=0.05)
    whole = replicate(case, 5, measured=measured(case, shares=True))
    found = replicate(part, 60, measured=measured(case, shares=True))
    for name in METRICS:
        expected = float(whole[name].mean())
        close = 0.1 if name == "wait_p95" else 0.02  # of few batches, a percentile is rough
        assert found[name].mean() == pytest.approx(expected, rel=close, abs=0.01), name
    named = [name for name in whole.metrics if name.startswith(SHARE)]
    for name in named:
        expected = float(np.nan_to_num(whole[name]).mean())
        assert np.nan_to_num(found[name]).mean() == pytest.approx(expected, rel=0.1, abs=0.02)
    assert sum(np.nan_to_num(found[name][0]) for name in named) == pytest.approx(1, abs=1e-9)


def test_leaving_a_loop_early_does_not_count() -> None:
    """Time from the last step until the loop is left is no part of the run."""
    case = dlsim.replace(scenario(400), {"consumer.stop_after": 20})
    trace = dlsim.simulate(case)
    row = measured(case)(trace)
    assert trace.end > row["elapsed"] == np.nanmax(trace.finished)


def test_what_was_prefetched_does_not_count() -> None:
    """Persistent workers finish a window before the next epoch only if the loop was left early."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=4, prefetch_factor=8, persistent_workers=True),
        dataset=dlsim.MapDataset(400, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.1), stop_after=100),
    )
    one, three = (
        measured(case)(dlsim.simulate(dlsim.replace(case, {"epochs": epochs}))) for epochs in (1, 3)
    )
    assert three["elapsed"] == pytest.approx(3 * one["elapsed"])
    assert three["stall"] == pytest.approx(one["stall"])


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset.length": 200},
        {"failures": [{"where": "fetch", "at": 5}]},
        {"consumer.step": dlsim.Recorded([0.5] * 4000)},
        {"machine.storage.cache": 10.0, "epochs": 2},
    ],
)
def test_what_is_not_shortened(changes: dict[str, Any]) -> None:
    """Short runs, and runs of which one part is unlike another, are simulated whole."""
    case = dlsim.replace(scenario(), changes)
    assert shortened(case, 200) == case
    assert part_of(case, case) == ""


def test_effort_grows_with_what_there_is_to_do() -> None:
    """More batches, samples, epochs, or a shared machine are more effort; a part is less."""
    small = effort(scenario(800))
    assert effort(scenario(8000)) > 5 * small
    assert effort(scenario(800, epochs=2)) == 2 * small
    assert effort(scenario(800, machine=dlsim.Machine(cores=2))) > small
    part = shortened(scenario(), 400)
    assert effort(part) <= 400
    assert part_of(part, scenario()) == " of the first 392 of 4,000 batches"
