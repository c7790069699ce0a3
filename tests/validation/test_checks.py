from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dlsim
from dlsim.cli import main
from dlsim.scenario import Constant, Costs, Exponential, Stage
from dlsim.validation import calibration, predict
from dlsim.validation.calibrating.checks import Check, checks, missed
from tests.validation.test_replay import watched


def seen_with(workers: int, dataset: dlsim.MapDataset | dlsim.IterableDataset, **changes: object):
    """A run as if watched, nothing of which costs a core."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=workers), dataset=dataset
    )
    return watched(dlsim.simulate(dlsim.replace(scenario, changes), samples=True))


ROWS = dlsim.MapDataset(80, fetch=[Stage("read", wait=Constant(0.01))])
STREAM = dlsim.IterableDataset(80, (30, 50), [Stage("read", wait=Constant(0.01))])


@pytest.mark.parametrize(
    "runs",
    [
        [seen_with(2, ROWS)],
        [seen_with(1, ROWS), seen_with(4, ROWS), seen_with(0, ROWS)],
        [seen_with(2, ROWS, **{"consumer.stop_after": 6}), seen_with(2, ROWS, epochs=3)],
        [seen_with(2, STREAM)],
        [seen_with(2, ROWS, **{"consumer.step": Constant(0.03)}), seen_with(1, ROWS)],
    ],
    ids=["one", "several", "left early", "shards", "with steps and without"],
)
def test_what_is_all_understood_is_given_back(runs):
    """Each run, with its own settings, is simulated at its own speed."""
    found = calibration(*runs, transport=Costs())
    every = (*found.checks, *(found.alone.checks if found.alone else ()))
    assert sorted(check.workers for check in every) == sorted(
        run.meta.scenario.loader.num_workers for run in runs
    )
    assert all(abs(check.off) < 0.01 for check in every)
    assert missed(every) == 0.0
    assert found.scenario.consumer.step.mean == pytest.approx(
        runs[0].meta.scenario.consumer.step.mean, abs=1e-6
    )
    assert "not understood" not in " ".join(map(str, every))


def test_a_miss_is_said_and_makes_predictions_less_sure():
    """Beyond 3 % the interval is as much wider; within, a miss is nobody's business."""
    found = calibration(seen_with(2, ROWS), transport=Costs())
    off = replace(found, checks=(Check(workers=2, seen=100.0, simulated=80.0),))
    near = replace(found, checks=(Check(workers=2, seen=100.0, simulated=98.0),))
    widths = [
        np.log(p.epoch.high / p.epoch.low) for p in (predict(c, {}) for c in (found, near, off))
    ]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] > widths[0] + 2 * np.log(1.25)
    assert "(+25.0% of its time): something is not understood" in str(predict(off, {}))
    assert "watched with num_workers=2" in str(predict(near, {}))


def test_the_command_prints_the_checks(tmp_path: Path, capsys):
    """`calibrate` says of each run how near its simulation is."""
    paths = [str(tmp_path / f"{workers}.npz") for workers in (1, 2)]
    for path, workers in zip(paths, (1, 2), strict=True):
        dlsim.save(seen_with(workers, ROWS), path)
    assert main(["calibrate", *paths, "-o", str(tmp_path / "scenario.toml")]) == 0
    said = capsys.readouterr().out
    assert "watched with num_workers=1: " in said
    assert "watched with num_workers=2: " in said


def test_chance_is_averaged():
    """Of samples whose times are drawn, several runs are simulated."""
    seen = seen_with(2, dlsim.MapDataset(80, fetch=[Stage("read", wait=Exponential(0.01))]))
    found = calibration(seen, transport=Costs()).scenario
    (check,) = checks(found, [(seen, found.consumer)])
    assert abs(check.off) < 0.01
