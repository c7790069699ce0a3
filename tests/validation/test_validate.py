from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.cli import main
from dlsim.cli.validation import report
from dlsim.scenario import Constant, DlsimError
from dlsim.validation.calibrating.predict import Estimate, Prediction
from dlsim.validation.fidelity import campaign, errors, grid, own_loader, tables
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.held_out import HELD_OUT, PACKAGES
from dlsim.validation.fidelity.trials import HOST, OTHERS, PACE, Trial, spoilt, timed, with_settings
from dlsim.validation.fidelity.verdict import verdict
from dlsim.validation.fidelity.workloads import WORKLOADS
from dlsim.validation.observing import machine
from dlsim.whatif.errors import WhatIfError
from tests.cli.test_cli import but_progress
from tests.modules import module_here

SOURCE = """
import os, time
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Rows(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, index):
        time.sleep(0.001)
        return index


class Raises(Rows):
    def __getitem__(self, index):
        if index == 40:
            raise ValueError("no such row")
        return super().__getitem__(index)


class Dies(Rows):
    def __getitem__(self, index):
        if index == 40:
            os._exit(3)
        return super().__getitem__(index)


class Local(Rows):
    def __init__(self):
        self.key = lambda index: index


def make():
    return DataLoader(Rows(), 5)


def step(batch):
    time.sleep(0.02)


def bad_step(batch):
    raise ValueError("no such label")


def raises():
    return DataLoader(Raises(), 5)


def dies():
    return DataLoader(Dies(), 5)


def few():
    return DataLoader(Rows(), 30)


def local():
    return DataLoader(Local(), 5, num_workers=1, multiprocessing_context="spawn")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module, `their_loaders`, in the current directory."""
    with module_here(tmp_path, monkeypatch, "their_loaders", SOURCE):
        yield tmp_path


class Rows(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index


# The grid


def test_the_suite_is_a_seeded_selection():
    """At least 120 real runs, the same every time, of every workload and number of workers."""
    runs = grid.plan(WORKLOADS, 10, 3)
    assert runs == grid.plan(WORKLOADS, 10, 3)
    measured = [configuration for configuration, _ in runs if not configuration.observed]
    assert len(set(measured)) == 120
    assert len(measured) == 360
    for workload in WORKLOADS:
        mine = {c for c in measured if c.workload == workload.name}
        assert {c.num_workers for c in mine} == {0, 1, 2, 4, 8}
        assert {c.batch_size for c in mine} == set(workload.sizes)


def test_a_larger_selection_holds_the_smaller_one():
    """What was run for a quick look counts for the whole suite as well."""
    for workload in WORKLOADS:
        assert grid.selection(workload, 10)[:3] == grid.selection(workload, 3)
    assert set(grid.plan(WORKLOADS, 3, 2)) <= set(grid.plan(WORKLOADS, 10, 3))


def test_observed_runs_begin_every_round():
    """What slowly changes on the machine changes for the runs calibrated on as well."""
    runs = grid.plan(WORKLOADS, 2, 2, all_observed=False)[:12]
    assert [configuration.observed for configuration, _ in runs] == ([True] * 4 + [False] * 2) * 2


# Real runs


def test_a_trial_tells_when_batches_were_returned():
    """An unobserved run has an epoch time, and moments of each batch in order."""
    trial = timed(DataLoader(Rows(), 3), lambda batch: time.sleep(0.01))
    assert len(trial.returned) == 4
    moments = np.column_stack((trial.requested, trial.returned)).ravel()
    assert (np.diff(moments) >= 0).all()
    assert trial.epoch > trial.returned[-1] + 0.01
    assert Trial.of(json.loads(json.dumps(trial.row()))).returned == pytest.approx(
        trial.returned, abs=1e-6
    )
    assert len(timed(DataLoader(Rows(), 3), batches=2).returned) == 2


@pytest.mark.parametrize(
    ("foreign", "stolen", "who"),
    [(0.01, 0.02, ""), (0.5, 0.0, OTHERS), (0.5, 0.5, OTHERS), (0.01, 0.5, HOST)],
)
def test_who_disturbed_a_run(foreign, stolen, who):
    """Programs beside are told from a host that gave the hardware to others."""
    assert spoilt(foreign, stolen, 2.0, 2.0) == who
    assert spoilt(8 * foreign, 8 * stolen, 0.25, 16.0) == who


def test_settings_of_a_copy():
    """A loader is run with other workers, with torch's rules for them, and is left alone."""
    loader = DataLoader(Rows(), 3, shuffle=True)
    many = with_settings(loader, num_workers=2)
    assert (many.num_workers, many.prefetch_factor) == (2, 2)
    assert sorted(value for batch in many for value in batch.tolist()) == list(range(12))
    none = with_settings(DataLoader(Rows(), 3, num_workers=2, timeout=9), num_workers=0)
    assert (none.prefetch_factor, none.persistent_workers) == (None, False)
    assert len(list(none)) == 4
    assert loader.num_workers == 0


# Campaigns

CHEAP = [(Configuration("", None, 0), number) for number in range(3)]


def made(folder: Path, runs=CHEAP, **options: object) -> tuple[bool, int]:
    """Whether the campaign is complete, and how many loaders it made."""
    count = 0

    def make(configuration):
        nonlocal count
        count += 1
        return DataLoader(Rows(), 3, num_workers=configuration.num_workers), None

    def carry_out(*one):
        return campaign.run(folder, "rows", make, *one)

    return campaign.run_all(folder, "rows", runs, carry_out, **options), count


@pytest.fixture
def quiet(monkeypatch):
    """A machine on which nobody else does anything, as far as is known."""
    monkeypatch.setattr(machine, "others", lambda before, after: (0.0, 0.0))
    monkeypatch.setattr(campaign, "PACES", {})


@pytest.mark.usefixtures("quiet")
def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    """Runs that a folder has are not made again; what a crash cut short is."""
    assert made(tmp_path, seconds=-1.0) == (False, 0)
    assert made(tmp_path, CHEAP[:2]) == (True, 2)
    assert made(tmp_path) == (True, 1)
    assert made(tmp_path) == (True, 0)
    journal = tmp_path / campaign.JOURNAL
    journal.write_bytes(journal.read_bytes()[:-40])
    assert made(tmp_path) == (True, 1)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("taken", "attempts", "left"), [((0.0, 9.0), 9, OTHERS), ((9.0, 0.0), 9, "")]
)
def test_disturbed_runs_are_repeated(tmp_path, monkeypatch, taken, attempts, left):
    """Three times at most; what the host takes every time belongs to the run."""
    monkeypatch.setattr(machine, "others", lambda before, after: taken)
    assert made(tmp_path) == (True, attempts)
    rows = [row for row in errors.read(tmp_path).values() if "before" in row]
    assert [len(row["before"]) for row in rows] == [2, 2, 2]
    assert {row["spoilt"] for row in rows} == {left}


def test_runs_at_another_pace_are_disturbed():
    """What the machine usually does is the median of the campaign; a quarter off is not it."""
    rows = {number: {"pace": [1.0, pace], "spoilt": ""} for number, pace in enumerate((1, 1.1, 3))}
    typical = campaign.typical_paces(rows)
    assert typical["pace"] == 1.0
    assert [campaign.disturbed(row, typical) for row in rows.values()] == ["", "", PACE]
    assert campaign.disturbed({"pace": [1.0, 0.7], "spoilt": ""}, typical) == PACE
    assert campaign.disturbed({"pace": [1.0, 3.0], "spoilt": OTHERS}, typical) == OTHERS


@pytest.mark.usefixtures("quiet")
def test_a_folder_belongs_to_one_loader(tmp_path):
    """Runs of different loaders are not mixed."""
    made(tmp_path)
    with pytest.raises(WhatIfError, match="belongs to another validation"):
        campaign.run_all(tmp_path, "other", CHEAP, lambda configuration: None)


# Figures


def case(workers: int, predicted: float, *measured: float, step: float = 0.0) -> errors.Case:
    """A configuration predicted within 10 %, and its real epochs."""
    epoch = Estimate(predicted, predicted / 1.1, predicted * 1.1)
    return errors.Case(
        configuration=Configuration("work", 4, workers, step=step),
        prediction=Prediction(
            scenario=None, epoch=epoch, throughput=epoch, wait_p95=epoch, trace=None
        ),
        measured=tuple(
            Trial(
                epoch=seconds,
                requested=np.zeros(2),
                returned=np.full(2, predicted),
                foreign=0.0,
                stolen=0.0,
                at=0.0,
                spoilt="",
            )
            for seconds in measured
        ),
    )


def test_errors_are_relative_to_the_median():
    """Predicted 2.2 s of 2.0, 1.9 and 2.4 s measured: 10 % off, spread 25 %, two runs held."""
    found = case(1, 2.2, 2.0, 1.9, 2.4)
    assert found.error == pytest.approx(0.1)
    assert found.spread == pytest.approx(0.25)
    assert found.held == 2
    assert found.wait_error == pytest.approx(0.0)


def test_undisturbed_runs_are_calibrated_on_before_those_of_the_same_settings():
    """Of each number of workers: nobody disturbed it, the same batch size, the same step."""

    def row(batch_size, workers, step=0.0, spoilt=""):
        configuration = Configuration("work", batch_size, workers, step=step, observed=True)
        return {"file": "run.npz", "configuration": asdict(configuration), "spoilt": spoilt}

    rows = {
        "small": row(4, 2),
        "large": row(8, 2),
        "large, disturbed": row(8, 1, spoilt=OTHERS),
        "small, one": row(4, 1),
        "small, with steps": row(4, 2, step=0.1),
        "none, disturbed": row(4, 0, spoilt=OTHERS),
    }
    wanted = Configuration("work", 8, 4)
    assert errors.calibrated_on(rows, wanted, (2, 1, 0)) == [
        "large",
        "small, one",
        "none, disturbed",
    ]
    wanted = Configuration("work", 4, 4, step=0.1)
    assert errors.calibrated_on(rows, wanted, (2,)) == ["small, with steps"]


def test_steps_that_were_slept_in_are_not_those_of_a_loop_without_any():
    """Of undisturbed runs only some with a step may be left: other settings have none all the same.

    Where no run slept, steps are what the loop does by itself, and are left as they were watched.
    """
    rows = {"step 0.1": {"seconds": 0.1002}}
    plain = Configuration("work", 4, 2, observed=True)
    slept = replace(plain, step=0.1)
    wanted = Configuration("work", 4, 8)

    def step(wanted, watched):
        return errors.changes_to(wanted, [watched, plain], rows).get("consumer.step")

    assert step(wanted, slept) == Constant(0.0)
    assert step(replace(wanted, step=0.1), slept) == Constant(0.1002)
    assert step(replace(wanted, step=0.1), plain) == Constant(0.1002)
    assert step(wanted, plain) is None


def test_a_report_of_disturbed_runs_says_that_none_counts(capsys):
    """There are no tables of nothing."""
    report([replace(case(1, 1.0, 1.1), clean=False)], [])
    printed = capsys.readouterr().out
    assert "predictions: none counts" in printed
    assert "observed runs replayed: none counts" in printed
    assert "~: others disturbed all runs" in printed


def test_the_choice_is_compared_with_the_best_measured():
    """Prediction chooses four workers at each step; at one of them, eight are 10 % faster."""
    cases = [
        case(4, 1.0, 1.1),
        case(8, 1.2, 1.0),
        case(4, 1.0, 1.0, step=0.5),
        case(8, 1.2, 1.3, step=0.5),
    ]
    assert tables.regret(cases) == pytest.approx(0.1)
    assert tables.regret(cases[2:]) == pytest.approx(0.0)
    assert np.isnan(tables.regret(cases[:1]))


def test_tables_have_a_line_for_each_workload():
    """Median, percentile and worst are of absolute errors, and are written in percent."""
    lines = tables.workload_lines([case(1, 1.1, 1.0, 1.0), case(2, 0.7, 1.0, 1.0)])
    assert lines[1][:5] == ("work", "2", "20.0 %", "28.0 %", "30.0 %")
    assert tables.markdown(lines).splitlines()[1].startswith("| --- | ---: |")


def test_cases_that_others_disturbed_do_not_count():
    """They are listed with a mark that is explained, and make no line of a workload."""
    clean, disturbed = case(1, 1.1, 1.0), replace(case(2, 9.0, 1.0), clean=False)
    assert tables.workload_lines([clean, disturbed])[1][:2] == ("work", "1")
    assert tables.case_lines([clean, disturbed])[2][6] == "1 ~"
    assert "~: others disturbed all runs" in tables.legend([clean, disturbed])
    assert tables.workload_lines([disturbed]) == [tables.HEADING]


def test_what_was_calibrated_on_is_not_foreseen():
    """A configuration that was itself observed is listed with a mark, and counts for no error."""
    foreseen, seen = case(4, 1.1, 1.0), replace(case(2, 1.0, 1.0), seen=True)
    assert tables.workload_lines([foreseen, seen])[1][:3] == ("work", "1", "10.0 %")
    assert tables.case_lines([seen])[1][0].endswith(" =")
    assert "=: runs of the same were calibrated on" in tables.legend([seen])
    assert {aim.found for aim in tables.aims([seen], [])} == {"not known"}


def test_an_interval_is_scored_by_its_width_and_by_what_it_misses():
    """1.0 s predicted as 0.91 to 1.1 s: of 1.0 and 1.2 s the second is 0.1 s outside."""
    found = case(1, 1.0, 1.0, 1.2)
    width = 1.1 - 1 / 1.1
    assert found.half_width == pytest.approx(width / 2)
    assert found.interval_score == pytest.approx((width + 40 * 0.1 / 2) / 1.1)


def test_aims_say_what_is_missed():
    """Of ten runs all lie in their intervals, which are narrow: too many; and one is far off."""
    cases = [case(1, 1.0, 1.0)] * 9 + [case(2, 1.0, 1.09)]
    found = {aim.name: aim for aim in tables.aims(cases, [])}
    assert found["real runs within the 95 % interval"].found == "100.0 %, missed"
    assert found["real runs within the 95 % interval"].wanted == "90.0 % to 97.0 %"
    assert found["prediction: median error of the epoch"].found == "0.0 %"
    assert found["replay: worst error of the epoch"].found == "not known"
    lines = tables.aim_lines({"one": tables.aims(cases, []), "other": tables.aims([], [])})
    assert lines[0] == ("aim", "wanted", "one", "other")
    assert lines[-1][2:] == ("9.5 %", "not known")


def assumed(case: errors.Case, **changes: object) -> errors.Case:
    """The same of a scenario that a verdict can look at."""
    plain = dlsim.Scenario(loader=dlsim.Loader(), dataset=dlsim.MapDataset(40))
    scenario = dlsim.replace(plain, changes)
    return replace(case, prediction=replace(case.prediction, scenario=scenario))


def test_a_verdict_says_what_holds_and_what_it_rests_on():
    """Of three configurations one is 20 % off, though its runs differ by 2 %: predictions miss."""
    cases = [
        assumed(case(1, 1.05, 1.0, 1.0), **{"machine.cores": 2}),
        assumed(case(2, 1.2, 1.0, 1.02), **{"machine.cores": 2}),
        assumed(case(4, 0.98, 1.0, 1.01), **{"machine.cores": 2}),
    ]
    found = verdict("train.py:make", cases, [])
    assert not found.passed
    assert found.beyond == ("work, workers 2, batch 4",)
    assert found.error == pytest.approx(0.05)
    assert found.bias == pytest.approx(0.05)
    assert (found.configurations, found.runs, found.held) == (3, 6, pytest.approx(4 / 6))
    assert found.matched == ("num_workers: 1, 2, 4",)
    assert "2 cores, as here" in found.assumed
    read = json.loads(found.json())
    assert read["replay"] is None
    assert read["beyond"] == ["work, workers 2, batch 4"]
    said = str(found)
    assert said.startswith("Predictions of train.py:make miss 1 of 3 configurations by more than 8")
    assert verdict("train.py:make", cases[::2], []).passed


def test_an_error_that_real_runs_differ_by_is_none():
    """Runs that differ by 15 % may be missed by one and a half times as much."""
    found = verdict("mine", [assumed(case(2, 1.08, 1.0, 1.15, 1.0))], [])
    assert found.passed
    assert str(found).startswith("Predictions of mine hold: of 1 configuration all are within")
    disturbed = replace(assumed(case(1, 1.0, 1.0)), clean=False)
    assert not verdict("mine", [disturbed], []).passed
    for one in (disturbed, replace(assumed(case(1, 1.0, 9.0)), clean=False)):
        said = str(verdict("mine", [one], []))
        assert said.startswith("Nothing is known of how far predictions of mine hold: others dist")
    assert any(
        "never run undisturbed" in said for said in verdict("m", [disturbed], []).limitations
    )


@pytest.mark.parametrize("workload", HELD_OUT, ids=lambda workload: workload.name)
def test_held_out_workloads_work(tmp_path, workload):
    """Each gives batches in the process itself and from two workers."""
    for package in PACKAGES:
        pytest.importorskip(package)
    size = workload.sizes[1]
    for settings in ({}, {"num_workers": 2}):
        assert next(iter(workload.loader(tmp_path, batch_size=size, **settings))) is not None


def test_the_held_out_suite_names_what_is_missing(monkeypatch, capsys, tmp_path):
    """Its packages are few people's; which of them are missing is said before anything is run."""
    monkeypatch.setattr("dlsim.cli.validation.find_spec", lambda name: name != "av" or None)
    assert main(["validate", "--suite", "held-out", "-o", str(tmp_path / "runs")]) == 2
    assert "validate --suite held-out needs av, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# The command


@pytest.mark.usefixtures("quiet")
def test_predictions_beside_real_runs(module, capsys):
    """Every configuration is listed, the picture is drawn, and a report needs no run again."""
    command = ["validate", "their_loaders:make", "--workers", "1,3", "--rounds", "2", "-o", "runs"]
    assert main([*command, "--jobs", "1", "--plot", "v.png"]) == 0
    said = capsys.readouterr().out
    assert said.count("\nworkers 1 =") == said.count("\nworkers 3") == 1
    assert "~" not in said
    assert (module / "v.png").stat().st_size > 10_000
    again = ["validate", "-o", "runs", "--report-only", "--jobs", "1", "--verdict", "v.json"]
    assert main(again) == 0
    assert capsys.readouterr().out == said
    verdict = json.loads((module / "v.json").read_text())
    assert verdict["loader"] == "their_loaders:make"
    assert main([*again, "--check"]) == (0 if verdict["passed"] else 1)
    capsys.readouterr()
    (replayed,) = {round(one.drift) for one in errors.replays(module / "runs")}
    assert replayed == 0


@pytest.mark.usefixtures("quiet")
def test_each_run_is_in_a_process_that_did_nothing_before(module):
    """It imports the user's module itself, and whatever its first sample imports with it."""
    source = module / "their_loaders.py"
    source.write_text(source.read_text() + "\nopen('imported', 'a').write(f'{os.getpid()}\\n')\n")
    command = ["validate", "their_loaders:make", "--workers", "0", "--observed", "0", "-o", "runs"]
    assert main([*command, "--rounds", "2", "--jobs", "1"]) == 0
    processes = (module / "imported").read_text().split()
    assert len({*processes}) == len(processes) >= 4  # more where one was repeated
    assert str(os.getpid()) not in processes


@pytest.mark.usefixtures("quiet")
def test_runs_with_the_user_s_own_step(module, capsys):
    """What --step names is called with each batch; how long it takes is seen, and foreseen."""
    command = ["validate", "their_loaders:make", "--workers", "1", "--rounds", "1", "-o", "runs"]
    assert main([*command, "--jobs", "1", "--step", "their_loaders:step"]) == 0
    (found,) = errors.cases(module / "runs", replications=3)
    assert 0.02 <= found.prediction.scenario.consumer.step.mean <= found.epoch / 12
    capsys.readouterr()
    assert main(command) == 2
    assert "belongs to another validation (not the same target)" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "observe", "diagnose"])
def test_a_step_that_fails(module, capsys, command):
    """One line says why, and where in the user's code."""
    assert main([command, "their_loaders:make", "--step", "their_loaders:bad_step"]) == 2
    (said,) = but_progress(capsys.readouterr().err)
    assert "their_loaders:bad_step: ValueError: no such label (" in said
    assert main([command, "their_loaders:make", "--step", "long"]) == 2
    assert "or a function as train.py:step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "message", "saved"),
    [
        ("raises", "workers 2, observed: ValueError: no such row; {file} has what was seen", 1),
        ("dies", "exited unexpectedly", 1),
        ("few", "expected at least 5 batches to calibrate, got 2; {file} has what was seen", 1),
        ("local", "workers 2, observed: AttributeError: Can't pickle local object", 0),
    ],
)
def test_a_run_that_fails(module, capsys, target, message, saved):
    """One line says which run failed and why; what was seen until then is in a file."""
    assert main(["validate", f"their_loaders:{target}", "-o", "runs"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    file = "runs/runs/workers 2, observed, round 0.npz"
    assert message.format(file=file) in said[0]
    assert len(list((module / "runs/runs").iterdir())) == saved
    if saved:
        assert f"{file} has what was seen" in said[0]
        assert main(["compare", file, file]) == 0


def test_an_unobserved_run_that_fails(module):
    """An exception in a worker of an unobserved run is said in one line, with its configuration."""
    load, runs = (
        partial(own_loader.loaded, "their_loaders:raises", None),
        [(Configuration("", None, 1), 0)],
    )
    with pytest.raises(DlsimError, match=r"^mine: workers 1: ValueError: no such row") as caught:
        own_loader.run_own(module / "runs", "mine", load, runs, batches=None)
    assert "\n" not in str(caught.value)


def test_a_run_whose_process_is_ended():
    """One line says of which run, where something ends its process from outside."""
    with pytest.raises(DlsimError, match=r"^mine: workers 1: its process was ended$"):
        campaign.afresh("mine: workers 1", os._exit, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "1,x"], "--workers: expected integers of at least 0, as 1,2,4, got '1,x'"),
        (["--prefetch", "0"], "--prefetch: expected integers of at least 1, as 1,2,4, got '0'"),
        (["--step", "soon"], "--step: "),
        (["--report-only"], "journal.jsonl: cannot be read: No such file or directory"),
    ],
)
def test_bad_options(module, capsys, options, message):
    """What cannot be asked is refused in one line before anything runs."""
    assert main(["validate", "their_loaders:make", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (module / "validation").exists()


@pytest.mark.usefixtures("quiet")
def test_an_interruption_loses_nothing(module):
    """After Ctrl-C one line says where the runs are; all that were finished are there."""
    command = ["validate", "their_loaders:make", "--workers", "0", "-o", "runs", "--jobs", "1"]
    assert main([*command, "--rounds", "1"]) == 0
    journal = module / "runs" / campaign.JOURNAL
    kept = journal.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "dlsim", *command, "--rounds", "1000"],
        stderr=subprocess.PIPE,
        cwd=module,
        env={**os.environ, "PYTHONPATH": str(Path(campaign.__file__).parents[3])},
        text=True,
        # where Ctrl-C is ignored, children ignore it too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and b"round 2" not in journal.read_bytes():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    # An interrupted torch may add what it could not tidy up.
    assert "dlsim: the runs until now are kept in runs; go on with the same command\n" in said
    assert "dlsim: interrupted\n" in said
    assert journal.read_bytes().startswith(kept)
    assert any("round 1" in name for name in errors.read(module / "runs"))
