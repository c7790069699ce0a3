from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

import dlsim
from dlsim.cli import main
from dlsim.scenario import Constant, Cost, Costs, Exponential, Recorded, Stage
from dlsim.validation import calibration, predict
from dlsim.validation.calibrating.checks import Check, checks, missed
from dlsim.validation.calibrating.cost_errors import UNEXPLAINED
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
    """Beyond chance the interval is as much wider; within, a miss is nobody's business."""
    found = calibration(seen_with(2, ROWS), transport=Costs())
    off = replace(found, checks=(Check(workers=2, seen=100.0, simulated=80.0, chance=0.03),))
    near = replace(found, checks=(Check(workers=2, seen=100.0, simulated=98.0, chance=0.03),))
    widths = [
        np.log(p.epoch.high / p.epoch.low) for p in (predict(c, {}) for c in (found, near, off))
    ]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] > widths[0] + 2 * np.log(1.25)
    assert "(+25.0 % of its time): something is not understood" in str(predict(off, {}))
    assert "watched with num_workers=2" in str(predict(near, {}))
    usual = Check(workers=2, seen=100.0, simulated=92.0, chance=0.1)
    assert usual.close
    assert str(usual).endswith("(+8.7 % of its time): such runs differ by as much")


def test_what_chance_makes_of_runs_is_no_miss():
    """Squares of misses less those of chance: (0.09 + 0.01) / 2 - 0.04 = 0.01; else nothing."""

    def check(miss: float, chance: float) -> Check:
        return Check(workers=2, seen=np.exp(miss), simulated=1.0, chance=chance)

    assert missed([check(0.3, 0.2), check(-0.1, 0.2)]) == pytest.approx(0.1)
    assert missed([check(0.2, 0.2), check(-0.1, 0.2)]) == 0.0
    assert missed([]) == 0.0


def test_a_run_is_no_check_where_batches_are_moved_otherwise():
    """Costs of moving are told by runs whose main process is blocked, or not, as the first one's.

    Others are shown, and not counted: here receiving took ten times as long without a step.
    """
    slow, quick = (Costs(receive=Cost(message=seconds)) for seconds in (0.05, 0.005))
    step = {"consumer.step": Constant(0.03)}
    runs = [
        seen_with(1, ROWS, costs=quick, **step),
        seen_with(1, ROWS, costs=slow),
    ]
    found = calibration(*runs, transport=quick)
    first, second = found.checks
    assert first.alike
    assert not second.alike
    assert second.off < -0.1
    assert "otherwise between batches" in str(second)
    assert missed(found.checks) == 0.0 < 0.1 < missed([replace(second, alike=True)])


def test_runs_differ_from_their_mean_by_chance():
    """All of a run is computing: of a pace unsure by 12 %, one of three differs by 12 / √2 %.

    One more run than three would differ by 1 + 1/3 of the variance, one of them by 1 - 1/3. Of a
    single run nothing is left but what is never known.
    """
    seen = seen_with(1, ROWS)
    computes = (Stage("decode", cpu=Constant(0.01)),)
    found = calibration(seen, transport=Costs())
    scenario = dlsim.replace(found.scenario, {"dataset.fetch": computes, "costs": Costs()})
    errors = dict.fromkeys(found.errors, 0.0) | {"pace": 0.12}
    found = replace(found, scenario=scenario, errors=errors)
    chances = []
    for runs in (1, 3):
        (check,) = checks(replace(found, runs=runs), [(seen, scenario.consumer)])
        chances.append(check.chance)
    assert chances[0] == pytest.approx(UNEXPLAINED)
    assert chances[1] == pytest.approx(np.hypot(UNEXPLAINED, 0.12 / 2**0.5))


def test_what_watching_did_between_batches_is_no_miss():
    """Workers were looked at for 50 ms twice: such a run is simulated with that, others are not."""
    looks = np.where(np.isin(np.arange(20), (4, 16)), 0.05, 0.001)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=1),
        dataset=dlsim.MapDataset(80, fetch=[Stage("read", wait=Constant(0.0002))]),
        consumer=dlsim.Consumer(Recorded(tuple(looks.tolist()))),
    )
    trace = dlsim.simulate(scenario, samples=True)
    spent = np.zeros(len(trace))
    spent[trace.order[1:]] = np.cumsum(looks)[:-1]
    untrained = {"machine": json.dumps({"trained": 0.0, "cores": 2})}
    seen = watched(
        replace(trace, meta=msgspec.structs.replace(trace.meta, notes=untrained)),
        thread_requested=spent,
        thread_returned=spent,
    )
    found = calibration(seen, transport=Costs())
    assert found.scenario.consumer.step.mean == 0
    (check,) = found.checks
    assert abs(check.off) < 0.05  # after the last of 20 batches nothing is looked at
    (unlooked,) = checks(found, [(seen, found.scenario.consumer)])
    assert unlooked.off < -0.5


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
    found = calibration(seen, transport=Costs())
    (check,) = checks(found, [(seen, found.scenario.consumer)])
    assert abs(check.off) < 0.01
