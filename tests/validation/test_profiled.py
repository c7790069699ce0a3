from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.cli import main
from dlsim.scenario import Constant, Costs, Gamma, Stage
from dlsim.trace import read_profiler, write_chrome
from dlsim.validation import fit_profile
from dlsim.validation.calibrating.accounts import CalibrateError
from tests.cli.test_cli import refused


class Rows(Dataset):
    """Each sample is waited for, much longer than anything else takes."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        time.sleep(0.02)
        return torch.zeros(4)


def profiled(path: Path, num_workers: int) -> None:
    """The profile, by the installed torch, of a loop over twenty batches of three."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in DataLoader(Rows(), 3, num_workers=num_workers):
            time.sleep(0.005)
    found.export_chrome_trace(str(path))


def simulated(path: Path, workers: int, step: float, cv: float = 0.0, **changes: object):
    """The trace of a scenario whose batches take 100 ms, as a profile has it."""
    service = Gamma(0.1, cv) if cv else Constant(0.1)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers),
        dataset=dlsim.MapDataset(120, fetch=[Stage("read", wait=service)]),
        consumer=dlsim.Consumer(step=Constant(step)),
        costs=Costs(worker_start=0.01 * (workers > 0)),
    )
    trace = dlsim.simulate(dlsim.replace(scenario, changes), samples=True)
    write_chrome(trace, path)
    return trace


@pytest.mark.parametrize("workers", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("cv", [0.0, 0.05])
@pytest.mark.parametrize("epochs", [1, 3])
def test_workers_and_their_batches_are_read_off_the_waits(tmp_path, workers, cv, epochs):
    """How many workers there are is the period of the waits; a round lasts as long as a batch."""
    path = tmp_path / "run.json.gz"
    trace = simulated(path, workers, 0.001, cv, epochs=epochs)
    found = fit_profile(read_profiler(path))
    assert found.workers == workers
    assert found.chance < 1e-6
    assert found.scenario.dataset.fetch[0].cpu.mean == pytest.approx(0.1, rel=0.05)
    assert found.scenario.consumer.step.mean == pytest.approx(0.001, rel=0.01)
    assert found.simulated == pytest.approx(trace.end, rel=0.03)


def test_without_workers_a_wait_is_a_batch(tmp_path):
    """The scenario has no workers, and the very times; so others can be simulated."""
    path = tmp_path / "run.json"
    trace = simulated(path, 0, 0.02, 0.3, **{"loader.prefetch_factor": None})
    found = fit_profile(read_profiler(path))
    assert found.workers == 0
    waits = trace.returned - trace.requested
    assert found.scenario.dataset.fetch[0].cpu.mean == pytest.approx(waits.mean(), rel=0.05)
    more = dlsim.simulate(dlsim.replace(found.scenario, {"loader.num_workers": 4}))
    assert more.end < 0.5 * trace.end


def test_one_worker_never_makes_two_batches_at_once(tmp_path):
    """Where all waits are alike there is one worker, and that is no certainty."""
    path = tmp_path / "run.json"
    simulated(path, 1, 0.01)
    found = fit_profile(read_profiler(path))
    assert found.workers == 1
    assert found.batch == pytest.approx(0.1, rel=0.01)
    assert "no two batches come together (or several" in str(found)


def test_what_a_profile_cannot_tell_is_said(tmp_path):
    """Of a loop that does not wait, and of waits without a period, nothing is read off."""
    path = tmp_path / "run.json"
    simulated(path, 4, 0.05)
    with pytest.raises(CalibrateError, match="the step limits"):
        fit_profile(read_profiler(path))
    simulated(path, 4, 0.001, 2.0)
    with pytest.raises(CalibrateError, match="no period that chance does not make"):
        fit_profile(read_profiler(path))
    found = fit_profile(read_profiler(path), num_workers=4)
    assert found.workers == 4
    assert np.isnan(found.chance)
    assert found.simulated == pytest.approx(found.seen, rel=0.1)
    with pytest.raises(CalibrateError, match="num_workers: expected at least 1, got 0"):
        fit_profile(read_profiler(path), num_workers=0)
    with pytest.raises(CalibrateError, match=r"expected one of torch\.profiler"):
        fit_profile(dlsim.simulate(found.scenario))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_profile_of_the_installed_torch(tmp_path, num_workers, capsys):
    """Commands take what torch.profiler wrote: workers, 60 ms a batch or more, what would help."""
    path, out = tmp_path / "run.json.gz", tmp_path / "scenario.toml"
    profiled(path, num_workers)
    found = fit_profile(read_profiler(path), num_workers=num_workers or None)
    assert found.workers == num_workers
    assert found.batch + 3 * found.error >= 0.06
    assert found.simulated >= found.batch
    said = ["--num-workers", str(num_workers)] if num_workers else []
    assert main(["calibrate", str(path), "-o", str(out), *said]) == 0
    assert capsys.readouterr().out.endswith(f"{out} is written. What it says: dlsim run {out}\n")
    assert dlsim.load(out).loader.num_workers == num_workers
    assert main(["explain", str(out), "--replications", "2"]) == 0
    assert "fetch: fetch" in capsys.readouterr().out  # on a busy machine, starting takes longer


@pytest.mark.parametrize("command", ["diagnose", "explain", "report"])
def test_commands_take_a_profile(command, tmp_path, capsys):
    """They say what was read off it, and what would help."""
    path = tmp_path / "run.json.gz"
    simulated(path, 3, 0.001, 0.02)
    assert main([command, str(path)]) == 0
    said = capsys.readouterr().out
    assert "workers   3, read off the period of the waits" in said
    assert "twice the workers" in said


def test_a_profile_that_does_not_tell_is_diagnosed_all_the_same(tmp_path, capsys):
    """Waits and steps are told, and why nothing more can be."""
    path = tmp_path / "run.json.gz"
    simulated(path, 4, 0.05)
    assert main(["diagnose", str(path)]) == 0
    assert "profile: the loop waits" in capsys.readouterr().out
    assert main(["diagnose", str(path), "--num-workers", "4"]) == 0
    first, action, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("Training is idle ")
    assert action.startswith("Set num_workers=4, prefetch_factor=1: training is idle ")
    assert "workers   4, as said" in rest
    (taken,) = (line for line in rest if line.startswith("assumed"))
    assert taken.endswith(
        " batches profiled (else --dataset.length); there are cores enough (else --machine.cores)"
    )
    assert main(["diagnose", str(path), "--num-workers=4", "--machine.cores=1"]) == 0
    _, action, *rest = capsys.readouterr().out.splitlines()
    assert action.startswith("No settings reach it: ")
    assert taken.removesuffix("; there are cores enough (else --machine.cores)") in rest
    assert main(["diagnose", str(path), "--num-workers=4", "--dataset.length=5000"]) == 0
    said = "assumed   a sample is a batch; there are cores enough (else --machine.cores)"
    assert said in capsys.readouterr().out.splitlines()
    assert "num_workers: expected at least 1" in refused(
        capsys, "diagnose", path, "--num-workers", 0
    )
    assert "--out go with a loader" in refused(capsys, "diagnose", path, "--step", "50 ms")
    for option in ("--num-workers", "--machine.cores"):
        said = refused(capsys, "diagnose", "a.npz", option, 1)
        assert said == f"diagnose: {option} goes with a profile; loaders and runs tell"


def test_two_profiles_are_compared_by_their_batches(tmp_path, capsys):
    """Samples are not known of them: batches tell which was faster; what is known is told."""
    for workers in (1, 3):
        simulated(tmp_path / f"{workers}.json", workers, 0.001)
    assert main(["compare", *(str(tmp_path / f"{workers}.json") for workers in (1, 3))]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("B is faster than A: A makes 9.99 batches/s, B 29")
    assert not [line for line in lines if line.split()[1:3] == ["-", "-"]]


@pytest.mark.parametrize("command", [["run"], ["advise"], ["sweep", "--vary=epochs=1:2"]])
def test_other_commands_say_which_take_a_profile(command, tmp_path, capsys):
    """In one line, with status 2."""
    path = str(tmp_path / "run.json.gz")
    assert main([command[0], path, *command[1:]]) == 2
    assert "got a profile: dlsim diagnose, calibrate, explain" in capsys.readouterr().err
