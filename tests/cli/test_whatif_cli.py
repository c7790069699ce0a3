from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.cli import main
from dlsim.cli.sweeping import going_on, values_of
from dlsim.cli.whatif import share_of
from dlsim.report.metric_axes import axis_of
from dlsim.report.sweep_plots import heat_map, pareto_front, sweep_curve
from dlsim.report.why_plots import account_bars, comparison_picture, side, side_bars
from dlsim.scenario import DlsimError
from dlsim.trace.summary import Summary, give_or_take
from dlsim.whatif import Between, advise, sweep
from tests.cli.test_cli import SMALL, refused


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a small scenario."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def drawn(axes: Any) -> bytes:
    """The picture as PNG."""
    file = io.BytesIO()
    axes.get_figure(root=True).savefig(file, format="png", dpi=50)
    return file.getvalue()


def test_sweep(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sweep` says what is fastest, prints a row for each configuration, writes and draws."""
    out, plot = tmp_path / "sweep.csv", tmp_path / "sweep.png"
    options = ["--vary", "loader.num_workers=1:3", "--vary", "loader.prefetch_factor=1,2"]
    options += ["--replications", "2", "--jobs", "1", "--out", str(out), "--plot", str(plot)]
    assert main(["sweep", str(small), *options, "--consumer.step", "0.25"]) == 0
    first, idle, second, empty, *lines = capsys.readouterr().out.splitlines()
    assert first == (
        "Take num_workers=3, prefetch_factor=1: 2.526 ± 0 samples/s; it is the fastest."
    )
    assert idle.startswith("Training is idle 78.9 % of the time: ")
    assert second.startswith("Does it fit? ")
    assert empty == ""
    assert lines[0].split()[:3] == ["num_workers", "prefetch_factor", "samples/s"]
    assert lines[7:] == ["", "Nothing is random: one simulation of each"]
    assert len(out.read_text().splitlines()) == 7
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_sweep_says_how_often_it_simulates(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where settings are simulated unequally often, it is said from how often to how often."""
    random = 'step = { kind = "exponential", mean = 0.5 }'
    small.write_text(SMALL.replace("step = 0.5", random))
    asked = ["sweep", str(small), "--jobs", "1", "--vary", "dataset.length=8,80000"]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "8 to 30 simulations of each"
    assert main([*asked, "--replications", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 simulation of each"


def test_an_interrupted_sweep_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """After Ctrl-C one line says where finished rows are, and how to go on."""
    with pytest.raises(KeyboardInterrupt), going_on(Path("sweep.csv")):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert said == "dlsim: sweep.csv.journal keeps what is finished: sweep again to go on\n"


def test_explain(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain` says first what limits and what helps, and draws where the time goes."""
    plot = tmp_path / "path.png"
    assert main(["explain", str(small), "--plot", str(plot), "--replications", "2"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Training is idle 69.2 % of the time: ")
    assert "; read twice as fast would help most: 1.9 times as fast, " in first
    assert "; of mere settings, num_workers=4 does, +" in first
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_advise(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`advise` says first which keyword arguments to paste."""
    plot = tmp_path / "front.png"
    options = ["--max-epoch", "9 s", "--max-workers", "8", "--plot", str(plot)]
    assert main(["advise", str(small), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "num_workers=4, prefetch_factor=1"
    assert lines[1].startswith("With these, an epoch takes ")
    assert lines[1].endswith("(wanted: at most 9 s). Nothing is random: one run tells.")
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sweep"], "sweep: --vary: expected KEY=VALUES such as"),
        (["sweep", "--vary", "loader.num_workers"], "sweep: --vary: expected KEY=VALUES such as"),
        (["sweep", "--vary", "loader.worker=1,2"], "loader.worker=1: loader.worker: no such key"),
        (["sweep", "--vary", "epochs=3:1"], "epochs: expected at least one value, got none"),
        (["sweep", "--vary", "epochs=1,2", "--vary", "epochs=3"], "sweep: --vary: expected each"),
        (
            ["sweep", "--vary", "consumer.step=1..2"],
            "sweep: --vary: consumer.step: expected va",
        ),
        (["sweep", "--vary", "epochs=1:3:0"], "sweep: --vary: epochs: expected steps of at least"),
        (["sweep", "--vary", "num_workers=1,2"], "num_workers=1: num_workers: no such key; did yo"),
        (["sweep", "--vary", f"epochs=1:{'9' * 5000}"], "epochs='1:999"),
        (["sweep", "--vary", "epochs=1:1000000000"], "vary: expected at most 100,000 configuratio"),
        (["sweep", "--vary", "epochs=1,2", "--jobs", "1000000"], "jobs: expected at most 10,000 p"),
        (
            ["sweep", "--vary", "epochs=1,2", "--metric", "speed"],
            "sweep: --metric: expected one o",
        ),
        (["sweep", "--vary", "epochs=1,2", "--metric", "stall"], "sweep: --metric: stall is to be"),
        (["advise", "--max-stall", "low"], "--max-stall: expected a share such as 0.01 or 1%"),
        (["advise", "--max-stall", "5"], "--max-stall: expected a share such as 0.01 or 1%, got '"),
        (["advise", "--max-workers", "-1"], "--max-workers: expected an integer of at least 0"),
        (
            ["advise", "--max-workers", "2.5"],
            "advise: --max-workers: expected an integer, got '2.5'",
        ),
        (
            ["advise", "--max-workers", "1000000000000000000000"],
            "workers: expected at most 1,025 n",
        ),
        (["loaders", "--replications", "9223372036854775808"], "replications: expected at most"),
        (["advise", "--max-epoch", "9 x"], "--max-epoch: expected a duration such as"),
    ],
)
def test_refusals(
    small: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be asked is refused in one line."""
    command, *options = args
    assert refused(capsys, command, small, *options).startswith(message)


def test_values() -> None:
    """Values are whole ranges with their ends, lists of whatever the key takes, or ranges."""
    case = dlsim.Scenario(loader=dlsim.Loader(), dataset=dlsim.MapDataset(4))
    assert values_of("loader.num-workers=1:4", case) == ("loader.num_workers", range(1, 5))
    assert values_of("epochs=2:8:3", case) == ("epochs", range(2, 9, 3))
    assert values_of("loader.in_order=true,false", case) == ("loader.in_order", [True, False])
    assert values_of("consumer.step=5 ms,0.1", case) == ("consumer.step", ["5 ms", 0.1])
    assert values_of("consumer.step=0.1..0.5", case) == ("consumer.step", Between(0.1, 0.5))
    assert (share_of("x", "1%"), share_of("x", "0.05"), share_of("x", None)) == (0.01, 0.05, None)


def test_large_numbers_are_written_out() -> None:
    """Of ten thousand samples a second on, no number needs powers of ten to be read."""
    assert give_or_take(389_284.3, 3312.0) == "389,284 ± 3,312"
    assert give_or_take(882.46, 0.41) == "882.5 ± 0.41"
    assert give_or_take(12.0, math.nan) == "12"
    assert give_or_take(math.nan, math.nan) == "-"


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """A sweep of two keys."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=1),
        dataset=dlsim.MapDataset(20, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
    )
    vary = {"loader.num_workers": range(1, 5), "loader.in_order": [True, False]}
    return sweep(case, vary, 3, jobs=1)


def test_a_curve_has_the_numbers_of_its_table() -> None:
    """The value that is ringed is told as in tables, and so are the numbers of the axis."""
    found = {"loader.num_workers": np.array([1, 2]), "samples_per_s": np.array([7000.0, 13726.4])}
    axes = sweep_curve(found, "loader.num_workers", taken=1, word="now")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["now: 13,726"]
    axes.figure.draw_without_rendering()
    assert "14,000" in [text.get_text() for text in axes.get_yticklabels()]


def test_sweep_curve(table: dict[str, Any]) -> None:
    """A curve has the table's values, percent where they are shares, and names with units."""
    axes = sweep_curve(table, "loader.num_workers", "stall", by="loader.in_order")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("num_workers", "stall (% of the time)")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "in_order = True",
        "in_order = False",
    ]
    line = axes.containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), 100 * table["stall"][::2])
    assert drawn(axes)
    text = sweep_curve(table, "loader.in_order")  # a key that is no number
    assert [label.get_text() for label in text.get_xticklabels()] == ["False", "True"]


def test_what_is_no_mean_has_no_interval(small: Path, capsys: Any) -> None:
    """Memory, of which there is one value, can be drawn, too; three keys are refused at once."""
    picture = small.with_name("sweep.png")
    vary = ["--vary", "loader.num_workers=1,2", "--dataset.sample-bytes", "1 MB"]
    words = ["sweep", str(small), *vary, "--replications", "1", "--plot", str(picture)]
    assert main([*words, "--metric", "memory"]) == 0
    assert capsys.readouterr().out.endswith("\nNothing is random: one simulation of each\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    more = ["--vary", "epochs=1,2", "--vary", "loader.prefetch_factor=1,2"]
    assert refused(capsys, *words, *more) == (
        "sweep: --plot: expected one or two keys to vary, got 3"
    )


@pytest.mark.parametrize(
    "command", [["run"], ["explain"], ["sweep", "--vary", r"name=$\foo$,b", "--replications", "1"]]
)
def test_dollars_are_dollars(small: Path, command: list[str]) -> None:
    """Names with dollars are drawn as they are, and not taken for formulas."""
    name, *options = command
    stage = ["--dataset.fetch.0.name", r"read $\foo$"]
    titled = [] if options else ["--name", r"$\foo$ and $5"]
    picture = small.with_name("dollars.svg")
    words = [name, str(small), *options, *titled, *stage, "--plot", str(picture)]
    assert main(words) == 0
    assert picture.read_bytes()


def test_heat_map(table: dict[str, Any]) -> None:
    """A heat map has each value in its cell, and says what it is in which unit."""
    axes = heat_map(table, "loader.num_workers", "loader.in_order")
    assert [text.get_text() for text in axes.texts[:4]] == [
        f"{value:.3g}" for value in table["samples_per_s"][1::2]
    ]
    assert drawn(axes)
    assert axes.get_xlabel() == "num_workers"
    taken = heat_map(table, "loader.num_workers", "loader.in_order", taken=0)
    assert taken.get_xlabel() == "num_workers (framed: take)"
    assert not taken.patches[0].get_clip_on()  # whole at the edges, too
    large = {**table, "samples_per_s": 10_000 * table["samples_per_s"]}
    most = f"{large['samples_per_s'][1]:,.0f}"
    assert heat_map(large, "loader.num_workers", "loader.in_order").texts[0].get_text() == most


def test_axes_have_units() -> None:
    """Each metric that is a time, a share or a size has its unit, and bytes one that fits."""
    units = {"duration": "(s)", "percent": "%", "_bytes": "(MiB)"}
    sizes = np.array([2.0**19, 2.0**21])
    for metric, field in Summary.__dataclass_fields__.items():
        assert units.get(field.metadata["show"].__name__, "") in axis_of(metric, sizes)[1], metric
    assert axis_of("memory", 1024 * sizes) == (2.0**-30, "memory of batches on their way (GiB)")
    assert axis_of("memory", np.array([np.nan]))[0] == 1.0
    assert axis_of("steady_stall", sizes) == (100.0, "stall (% of the time), warmed up")


def test_columns_that_are_not_there(table: dict[str, Any]) -> None:
    """A picture of a column that the table does not have is refused in one line."""
    with pytest.raises(DlsimError, match=r"^speed: no such column; known: loader.num_workers, "):
        sweep_curve(table, "loader.num_workers", "speed")


def test_values_with_units_lie_in_their_order() -> None:
    """Values with units lie from the least to the greatest, "none" behind, named as they were."""
    names = ["1 GB/s", "200 MB/s", "none", "500 MB/s"]
    table = {"machine.storage.bandwidth": np.array(names), "samples_per_s": np.arange(4.0)}
    axes = sweep_curve(table, "machine.storage.bandwidth")
    ordered = ["200 MB/s", "500 MB/s", "1 GB/s", "none"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ordered
    assert axes.containers[0].lines[0].get_ydata().tolist() == [1.0, 3.0, 0.0, 2.0]
    table["epochs"] = np.array([1, 1, 1, 1])
    heat = heat_map(table, "machine.storage.bandwidth", "epochs")
    assert [label.get_text() for label in heat.get_xticklabels()] == ordered
    assert [text.get_text() for text in heat.texts] == ["1", "3", "0", "2"]


def test_account_bars() -> None:
    """Each cause has its share of idle time and of the critical path, the greatest idle on top."""
    axes = account_bars(
        {"fetch: read": 0.5, "first batch": 0.1}, {"step": 0.25, "fetch: read": 0.75}
    )
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["busy: step", "fetch: read", "first batch"]
    shares = ["40.0 %", "25.0 %", "50.0 %", "75.0 %", "10.0 %"]
    assert [text.get_text() for text in axes.texts] == shares
    assert drawn(axes)


def test_a_picture_of_two(small: Path, capsys: Any) -> None:
    """`compare --plot` draws what a sample takes of both, in milliseconds, and both their waits."""
    one = dlsim.simulate(dlsim.load(small))
    other = dlsim.simulate(dlsim.replace(dlsim.load(small), {"loader.num_workers": 1}))
    axes = side_bars(
        [side(name, run, batches=False) for name, run in (("A", one), ("B", other))], "sample"
    )
    for name, run in (("A", one), ("B", other)):
        time = 1e3 / dlsim.summarize(run).samples_per_s
        assert f" {time:.3g} ms" in [text.get_text() for text in axes.texts], name
    figure = comparison_picture(one, other, ("first", "second"), "B is faster.")
    assert figure.get_suptitle() == "A: first\nB: second"
    picture = small.with_name("two.svg")
    words = ["compare", str(small), "--loader.num-workers", "1", "--plot", str(picture)]
    assert main([*words, "--replications", "2"]) == 0
    assert capsys.readouterr().out.startswith("A is faster than B")
    assert b"<svg" in picture.read_bytes()


def test_pareto_picture(small: Path) -> None:
    """Every configuration of the front is drawn, and the advised one has a ring."""
    found = advise(dlsim.load(small), max_epoch=9.0, workers=range(6))
    axes = pareto_front(found.front, found.chosen)
    assert len(axes.lines) == len(found.front) + 1
    assert drawn(axes)


@pytest.mark.parametrize(
    "changes",
    [["--dataset.length", "0"], ["--dataset.fetch", "[]", "--consumer.step", "0"]],
    ids=["no samples", "no time"],
)
def test_nothing_to_say(small: Path, changes: list[str], capsys: Any) -> None:
    """Where no batch is returned, or no time passes, every command says so."""
    for command, said in (
        (["explain"], "No time passes"),
        (["report"], "No time passes"),
        (["sweep", "--vary", "loader.num_workers=1,2"], "No configuration returns anything"),
    ):
        name, *options = command
        assert main([name, str(small), *changes, *options]) == 0
        assert capsys.readouterr().out.startswith(said)
    assert "expected one" in refused(capsys, "advise", small, *changes)


@pytest.mark.parametrize(
    "command",
    [["sweep", "--vary", "loader.num_workers=0:2", "--jobs", "1"], ["compare"], ["explain"]],
    ids=lambda command: command[0],
)
def test_an_error_that_ends_runs_is_named(
    small: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where runs return nothing since a timeout strikes, commands say so, and not only 0."""
    name, *options = command
    assert main([name, str(small), *options, "--loader.timeout", "1 ms"]) == 0
    said = capsys.readouterr().out
    assert "timed out" in said or "timeout" in said


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["run", "--max-stall", "50%"], 0),
        (["run", "--max-stall", "50%", "--check"], 1),
        (["run", "--max-stall", "70%", "--check"], 0),
        (["run", "--machine.shm", "1 KiB", "--dataset.sample-bytes", "1 KiB", "--check"], 1),
        (["run", "--job.ranks", "2", "--max-stall", "50%", "--check"], 1),
        (["run", "--job.ranks", "2", "--max-stall", "80%", "--check"], 0),
        (["run", "--job.ranks=2", "--machine.shm=1", "--dataset.sample-bytes=9", "--check"], 1),
        (["explain", "--replications", "2", "--max-stall", "50%", "--check"], 1),
        (["compare", "--loader.num-workers", "8", "--max-stall", "50%", "--check"], 0),
        (["compare", "--loader.num-workers", "1", "--max-stall", "50%", "--check"], 1),
        (["advise", "--max-stall", "1%", "--max-workers", "1", "--check"], 1),
    ],
)
def test_check(small: Path, command: list[str], status: int) -> None:
    """With --check, the exit status is 1 where a target is missed, or batches do not fit."""
    assert main([command[0], str(small), *command[1:]]) == status


def test_explain_keeps_an_order_that_is_asked_for(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """in_order=False is not offered to who says --loader.in-order true."""
    asked = ["explain", str(small), "--replications", "2"]
    assert main(asked) == 0
    assert "in_order=False" in capsys.readouterr().out
    assert main([*asked, "--loader.in-order", "true"]) == 0
    assert "in_order=False" not in capsys.readouterr().out


def test_a_step_that_grows_is_swept_with_the_batch_size(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`consumer.step_per_sample` makes the step of three samples three times as long."""
    grows = ["--consumer.step", "0 s", "--consumer.step-per-sample", "2 s"]
    asked = ["sweep", str(small), "--vary", "loader.batch_size=1,3", "--jobs", "1", *grows]
    assert main(asked) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "A step takes 2 s for each sample of the batch."
    rates = [float(line.split()[1]) for line in lines[-4:-2]]
    assert rates[1] == pytest.approx(0.5, abs=0.1)
    assert rates[0] == pytest.approx(0.5, abs=0.1)


def test_a_sweep_can_be_checked(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` ends with 1 where no configuration holds the target, and says which comes near."""
    asked = ["sweep", str(small), "--vary", "loader.num_workers=1,2,4", "--jobs", "1", "--check"]
    assert main([*asked, "--max-stall", "60%"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("Held by num_workers=4: training is idle ")
    assert main([*asked, "--max-stall", "1%"]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("Missed by all, least by num_workers=4: training is idle ")
    assert main([*asked, "--dataset.sample-bytes", "1 MiB", "--machine.shm", "1 MiB"]) == 1
    assert "No configuration fits." in capsys.readouterr().out


def test_how_many_accelerators_a_storage_feeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of more ranks, the most that hold the target: 100 B/s are enough for 5 of 20 B/s each."""
    path = tmp_path / "storage.toml"
    path.write_text(
        'loader = { num_workers = 2 }\nconsumer = { step = "0.5 s", stop_after = 300 }\n'
        'dataset = { kind = "map", length = 3000, fetch = [{ name = "read", read_bytes = 10 }] }\n'
        "machine.storage = { bandwidth = 100 }\n"
    )
    asked = ["sweep", str(path), "--vary", "job.ranks=3:7", "--jobs", "1", "--max-stall", "10%"]
    assert main(asked) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("Held by job.ranks=5, 5 accelerators: training is idle ")


def test_a_sweep_of_batch_sizes_says_that_the_step_stays(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A larger batch has the same step, unless that is swept too, and the first line says so."""
    assert main(["sweep", str(small), "--vary", "loader.batch_size=1,3", "--jobs", "1"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        "The step is 500 ms on average whatever the batch size; consumer.step_per_sample makes "
        "it grow."
    )
