from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

import dlsim
from dlsim.engine.compiled import installed
from dlsim.engine.effort import decided, seconds_of
from dlsim.engine.progress import watched
from dlsim.whatif import Between, WhatIfError, configurations, replicate, sweep
from dlsim.whatif.extent import ends_in_step
from dlsim.whatif.journal import Journal
from dlsim.whatif.parallel import run_all
from dlsim.whatif.tables import write_table
from tests.benchmarks.kills import BASE, PROGRAM, killed

pytestmark = pytest.mark.usefixtures("one_engine")
VARY = {"loader.num_workers": range(1, 4), "consumer.step": [0.5, 1.0]}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two tables are equal to the last bit."""
    return list(one) == list(other) and all(
        np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_are_replications(compiled: bool) -> None:
    """A row has its configuration, and the mean and half-width of each metric of `replicate`."""
    changes = {"loader.num_workers": 2, "consumer.step": 1.0}
    with decided(compiled and installed()):
        table = sweep(BASE, VARY, 5, jobs=1, seed=3)
        found = replicate(dlsim.replace(BASE, changes), 5, seed=3)
    assert table["loader.num_workers"].tolist() == [1, 1, 2, 2, 3, 3]
    assert table["consumer.step"].tolist() == [0.5, 1.0] * 3
    for metric in found.metrics:
        expected = found.interval(metric)
        np.testing.assert_array_equal(table[metric][3], expected.mean)
        np.testing.assert_array_equal(table[f"{metric}_half_width"][3], expected.half_width)


def test_what_varies_is_simulated_more_often() -> None:
    """Eight times where that tells the speed to 0.5 %; else more often, all of which count."""
    case = dlsim.replace(BASE, {"dataset.length": 4000, "consumer.step": dlsim.Constant(0.5)})
    table = sweep(case, {"loader.num_workers": [1, 2, 8]}, None, jobs=1)
    made, mean = table["replications"].tolist(), table["samples_per_s"]
    assert made[0] == 30
    assert made[2] == 8
    for row, workers in enumerate((1, 2, 8)):
        found = replicate(dlsim.replace(case, {"loader.num_workers": workers}), made[row])
        assert mean[row] == found["samples_per_s"].mean()
        first = found.first(8).interval("samples_per_s").half_width
        wide = max(first * (8 / made[row]) ** 0.5, found.interval("samples_per_s").half_width)
        assert table["samples_per_s_half_width"][row] == pytest.approx(wide)
        assert made[row] == 30 or wide <= 0.005 * mean[row]
    assert same(table, sweep(case, {"loader.num_workers": [1, 2, 8]}, None, jobs=2))


def test_workers_in_step_are_simulated_often() -> None:
    """Runs of workers that stay in step differ by whole rounds: eight that are alike do not tell.

    So there are 30 of them at first, whether these would call for more or not.
    """
    read = dlsim.Gamma(1.0, 0.01)
    case = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=4),
        dataset=dlsim.MapDataset(200, fetch=[dlsim.Stage("read", wait=read)]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.2)),
    )
    vary = {"consumer.step": [0.2, 0.5]}
    assert sweep(case, vary, None, jobs=1)["replications"].tolist() == [30, 8]
    assert ends_in_step(case)
    assert not ends_in_step(dlsim.replace(case, {"dataset.fetch.0.wait": dlsim.Gamma(1.0, 0.8)}))
    assert not ends_in_step(dlsim.replace(case, {"dataset.length": 200_000}))


def test_what_is_announced_is_of_all_settings() -> None:
    """How long a sweep takes is told from its settings, not from the scenario it begins with."""
    vary = {"dataset.length": [24, 240, 2400]}
    with watched() as known, decided(False):
        told: list[float] = []
        known.heard = lambda: told.append(known.expected)
        sweep(BASE, vary, 2, jobs=1)
    cases = [dlsim.replace(BASE, {"dataset.length": length}) for length in (24, 240, 2400)]
    assert told[0] == pytest.approx(2 * sum(map(seconds_of, cases)))


def test_processes_do_not_change_numbers() -> None:
    """One process and two give identical tables."""
    assert same(sweep(BASE, VARY, 50, jobs=1), sweep(BASE, VARY, 50, jobs=2))


def test_dask_does_not_change_numbers() -> None:
    """The same call on a Dask cluster of two worker processes gives an identical table."""
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    from joblib import parallel_config

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        parallel_config(backend="dask"),
    ):
        assert len(cluster.scheduler_info["workers"]) == 2
        found = sweep(BASE, VARY, 50)
    assert same(found, sweep(BASE, VARY, 50, jobs=1))


def test_progress() -> None:
    """Progress counts simulations, up to all of them."""
    told: list[tuple[int, int]] = []
    sweep(BASE, VARY, 100, jobs=1, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 600)
    assert told[-1] == (600, 600)
    assert told == sorted(told)
    told.clear()
    sweep(BASE, VARY, None, jobs=1, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (180, 180)  # also if some were needless
    assert told == sorted(told)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_files_load_as_they_are(tmp_path: Path, suffix: str) -> None:
    """The file has the columns and values of the table, as pandas and polars read it."""
    polars = pytest.importorskip("polars", reason="the extra frames is not installed")
    out = tmp_path / f"sweep.{suffix}"
    table = sweep(BASE, VARY, 3, jobs=1, out=out)
    frame = getattr(polars, f"read_{suffix}")(out)
    assert set(frame.columns) == set(table)  # of JSON, polars sorts them
    for name in ("loader.num_workers", "stall", "stall_half_width"):
        np.testing.assert_array_equal(frame[name].to_numpy(), table[name])
    if suffix != "parquet":  # pandas leaves Parquet to other libraries
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        frame = getattr(pandas, f"read_{suffix}")(out)
        np.testing.assert_allclose(frame["stall"], table["stall"], rtol=1e-9)


@pytest.mark.parametrize(("jobs", "kills"), [(1, 3), (2, 2)])
def test_killed_sweeps_go_on(
    tmp_path: Path, jobs: int, kills: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed at any moment and started again, a sweep loses nothing and repeats nothing."""
    assert killed(tmp_path, 40, jobs, kills) > 0
    assert not capfd.readouterr().err  # whatever tidies up behind them is silent


def test_finished_rows_are_not_simulated_again(tmp_path: Path) -> None:
    """A sweep that was finished is read from its journal, and its table is written anew."""
    out = tmp_path / "sweep.json"
    whole = sweep(BASE, VARY, 5, jobs=1, out=out)
    out.unlink()
    told: list[int] = []
    again = sweep(BASE, VARY, 5, jobs=1, out=out, progress=lambda done, _: told.append(done))
    assert told == [30]
    assert same(again, whole)
    assert out.exists()


@pytest.mark.parametrize("cut", [1, 40, 3000])
def test_damaged_last_row(tmp_path: Path, cut: int) -> None:
    """A last line that was cut short is detected, and only what it held is computed again."""
    out = tmp_path / "sweep.csv"
    whole = sweep(BASE, VARY, 5, jobs=1, out=out)
    journal = tmp_path / "sweep.csv.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[:-cut])
    assert same(sweep(BASE, VARY, 5, jobs=1, out=out), whole)
    assert same(sweep(BASE, VARY, 5, jobs=1, out=out), whole)


def test_damaged_row_in_the_middle(tmp_path: Path) -> None:
    """A row whose numbers were changed does not check, and is computed again."""
    out = tmp_path / "sweep.csv"
    whole = sweep(BASE, VARY, 5, jobs=1, out=out)
    journal = tmp_path / "sweep.csv.journal"
    lines = journal.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace("1", "7", 1)
    journal.write_text("".join(lines))
    told: list[int] = []
    again = sweep(BASE, VARY, 5, jobs=1, out=out, progress=lambda done, _: told.append(done))
    assert told[0] == 25
    assert same(again, whole)


def test_journal_of_another_sweep(tmp_path: Path) -> None:
    """The journal of another sweep is refused in one line that says what differs; it stays."""
    out = tmp_path / "sweep.csv"
    sweep(BASE, VARY, 5, jobs=1, out=out)
    before = (out.read_bytes(), (tmp_path / "sweep.csv.journal").read_bytes())
    for changed, what in (
        ((BASE, VARY, 6), "replications"),
        ((BASE, {"loader.num_workers": [1]}, 5), "keys"),
        ((BASE, VARY | {"consumer.step": [0.5, 1.5]}, 5), "values"),
        ((dlsim.replace(BASE, {"epochs": 2}), VARY, 5), "scenario"),
    ):
        with pytest.raises(WhatIfError, match=rf"another sweep \(not the same {what}\)"):
            sweep(*changed, jobs=1, out=out)
    assert before == (out.read_bytes(), (tmp_path / "sweep.csv.journal").read_bytes())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Neither a table of unknown origin nor a file that is no journal is overwritten."""
    out = tmp_path / "sweep.csv"
    out.write_text("mine\n")
    with pytest.raises(WhatIfError, match="no journal says that it is this sweep's"):
        sweep(BASE, VARY, 5, jobs=1, out=out)
    journal = tmp_path / "sweep.csv.journal"
    journal.write_text("mine\n")
    with pytest.raises(WhatIfError, match="expected the journal of a sweep, got another file"):
        sweep(BASE, VARY, 5, jobs=1, out=out)
    assert out.read_text() == journal.read_text() == "mine\n"


def test_two_sweeps_at_once(tmp_path: Path) -> None:
    """While a sweep is writing its journal, another process is refused."""
    pytest.importorskip("fcntl", reason="this system has no file locks of that kind")
    path = tmp_path / "sweep.csv.journal"
    program = (
        "import sys, pathlib; from dlsim.whatif.journal import Journal\n"
        "try: Journal(pathlib.Path(sys.argv[1]), {})\n"
        "except Exception as error: print(error)"
    )
    with Journal(path, {}):
        found = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
        )
    assert found.stdout == f"{path}: another sweep is writing to it now\n"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("sweep.txt", "expected a name that ends in one of .parquet, .csv, .json"),
        ("missing/sweep.csv", "cannot be written: No such directory"),
        ("directory.csv", "cannot be written: Is a directory"),
    ],
)
def test_unwritable_files(tmp_path: Path, out: str, message: str) -> None:
    """Where no table could be written, nothing is simulated, and one line says why."""
    (tmp_path / "directory.csv").mkdir()
    with pytest.raises(WhatIfError, match=f"{out}: {message}"):
        sweep(BASE, VARY, 5, jobs=1, out=tmp_path / out, progress=pytest.fail)


def test_full_disk(tmp_path: Path) -> None:
    """When a row cannot be written any more, one line says so; with room, the sweep goes on."""
    pytest.importorskip("resource", reason="this system has no limits of that kind")
    out = tmp_path / "sweep.csv"
    program = (
        "import resource, sys; from tests.whatif.test_sweep import BASE, VARY\n"
        "from dlsim.engine.effort import decided; from dlsim.whatif import sweep\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        "    with decided(False): sweep(BASE, VARY, 5, jobs=1, out=sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(f"{out}.journal: cannot be written: File too large; ")
    assert found.stdout.endswith(" of 6 rows are kept: sweep again to go on\n")
    told: list[int] = []
    again = sweep(BASE, VARY, 5, jobs=1, out=out, progress=lambda done, _: told.append(done))
    assert told[0] > 0
    assert same(again, sweep(BASE, VARY, 5, jobs=1))


def test_full_disk_for_the_table(tmp_path: Path) -> None:
    """A table that cannot be written whole does not appear, and one line says why."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / f".sweep.csv.{os.getpid()}.tmp").symlink_to(full)
    with pytest.raises(WhatIfError, match=r"sweep\.csv: cannot be written: No space left"):
        write_table({"a": np.arange(3)}, tmp_path / "sweep.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "vary: expected at least one key, got none"),
        ({"loader.num_workers": []}, "loader.num_workers: expected at least one value, got none"),
        (
            {"loader.num_workers": 4},
            "loader.num_workers: expected a list or range of values, got 4",
        ),
        (
            {"loader.num_workers": [1, 2, 1]},
            "loader.num_workers: expected different values, got 1 twice",
        ),
        ({"loader.nworkers": [1]}, "loader.nworkers=1: loader.nworkers: no such key"),
        ({"consumer.step": Between(0, 1)}, "consumer.step: expected a list of values for a grid"),
    ],
)
def test_what_cannot_be_swept(vary: dict[str, Any], message: str) -> None:
    """A key that does not exist, or an empty range, is refused before anything is simulated."""
    with pytest.raises(WhatIfError) as error:
        sweep(BASE, vary, 5, jobs=1, progress=pytest.fail)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_configurations_that_cannot_be() -> None:
    """A combination that torch refuses is named, before anything is simulated."""
    vary = {"loader.batch_size": [2, None], "loader.drop_last": [True]}
    with pytest.raises(WhatIfError) as error:
        sweep(BASE, vary, 5, jobs=1, progress=pytest.fail)
    assert str(error.value) == (
        "loader.batch_size=None, loader.drop_last=True: loader.drop_last: needs a batch_size"
    )


@pytest.mark.parametrize("design", ["sobol", "lhs"])
def test_space_filling_designs(design: Any) -> None:
    """Sampled configurations are spread evenly over lists and ranges; only the seed moves them."""
    vary = {"loader.num_workers": range(1, 9), "consumer.step": Between(1.0, 3.0)}
    found = configurations(BASE, vary, design, 32)
    assert found == configurations(BASE, vary, design, 32)
    assert found != configurations(BASE, vary, design, 32, seed=1)
    workers = np.bincount([row["loader.num_workers"] for row in found])
    assert workers[1:].tolist() == [4] * 8
    steps = np.histogram([row["consumer.step"] for row in found], 8, (1.0, 3.0))[0]
    assert steps.tolist() == [4] * 8


def test_few_points_of_a_large_list() -> None:
    """Points of a design that choose the same values make one row."""
    found = configurations(BASE, {"loader.num_workers": [1, 2]}, "sobol", 16)
    assert sorted(row["loader.num_workers"] for row in found) == [1, 2]


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    """Truth values stay such, and distributions and none are given as text."""
    vary = {
        "loader.in_order": [True, False],
        "dataset.collate": [None, dlsim.Constant(0.1)],
    }
    table = sweep(BASE, vary, 2, jobs=1, out=tmp_path / "sweep.csv")
    assert table["loader.in_order"].tolist() == [True, True, False, False]
    assert table["dataset.collate"].tolist()[0] == "none"
    assert json.loads(table["dataset.collate"][1]) == {"kind": "constant", "value": 0.1}


def test_giving_up_is_silent() -> None:
    """Results that nobody waits for any longer are given up without a word."""
    results = run_all(divmod, ((number, 7) for number in range(1000)), 2)
    assert next(results) in [divmod(number, 7) for number in range(1000)]
    results.close()


def _blocked(number: int) -> set[signal.Signals]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_processes_are_deaf() -> None:
    """Ctrl-C reaches the process that has started the others, not them while they start."""
    get_reusable_executor().shutdown()  # of other tests
    found = list(run_all(_blocked, ((number,) for number in range(8)), 2))
    assert all(signal.SIGINT in each for each in found)
    assert signal.SIGINT not in _blocked(0)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A journal that cannot be written ends a sweep in one line."""

    class Full(io.BufferedRandom):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            if not self.raw.closed:
                self.raw.close()
                self.flush()

    def opened(path: Path, mode: str) -> Full:
        return Full(io.FileIO(path, mode.replace("b", "")))

    monkeypatch.setattr("dlsim.whatif.journal.open", opened, raising=False)
    with pytest.raises(WhatIfError, match="journal: cannot be written: No space left on device"):
        sweep(BASE, VARY, 1, jobs=1, out=tmp_path / "sweep.csv")


def test_lost_worker_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker process that is killed ends the sweep in one line; it goes on from there."""
    out = tmp_path / "sweep.csv"
    with monkeypatch.context() as patched:
        patched.setattr("dlsim.whatif.rows._simulate", _killed)
        with pytest.raises(WhatIfError, match=r"a worker process was lost .* rows are kept"):
            sweep(BASE, VARY, 80, jobs=2, out=out)
    assert same(sweep(BASE, VARY, 80, jobs=2, out=out), sweep(BASE, VARY, 80, jobs=1))


def test_nothing_outlives_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """Processes of a sweep end soon after the one that started them was killed."""
    psutil = pytest.importorskip("psutil")
    out, journal = tmp_path / "sweep.csv", tmp_path / "sweep.csv.journal"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out), "2000", "2"])
    while not journal.exists() or journal.stat().st_size < 5_000:
        assert process.poll() is None
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def _killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_without_workers_goes_without_what_needs_them() -> None:
    """A sweep from no worker on leaves out there what torch refuses, and has no row twice."""
    base = dlsim.replace(BASE, {"loader.prefetch_factor": 4, "loader.persistent_workers": True})
    table = sweep(base, {"loader.num_workers": [0, 1]}, replications=1)
    assert table["loader.num_workers"].tolist() == [0, 1]
    both = {"loader.num_workers": [1, 0, 2], "loader.prefetch_factor": [1, 2]}
    rows = [tuple(row.values()) for row in configurations(base, both)]
    assert rows == [(1, 1), (1, 2), (0, None), (2, 1), (2, 2)]
