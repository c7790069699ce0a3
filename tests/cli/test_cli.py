from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dlsim
from dlsim.cli import main
from dlsim.cli.commands import COMMANDS
from dlsim.cli.parsing import Command, without_changes
from dlsim.engine.compiled import jit
from dlsim.trace import difference

SMALL = """
name = "small"
[loader]
batch_size = 3
num_workers = 2
[dataset]
kind = "map"
length = 24
[[dataset.fetch]]
name = "read"
wait = "1 s"
[consumer]
step = 0.5
"""


PROGRESS = re.compile(
    r"dlsim: (watching the loader for .+"
    r"|.+ takes about .+"
    r"|.+: (.+ so far.*|\d+ % done.*|compiling first, .+|\d+( of \d+)? [a-z]+(, about .+ left)?))"
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a small scenario."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line on stderr with which a command refuses, having printed nothing else.

    But for lines of progress, of which there are as many as the machine is slow.
    """
    assert main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (last,) = but_progress(err)
    assert last.startswith("dlsim: ")
    return last.removeprefix("dlsim: ")


def but_progress(err: str) -> list[str]:
    """What stderr holds besides how far something is, and how long it will take."""
    return [line for line in err.splitlines() if not PROGRESS.fullmatch(line)]


def test_run_reports(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` prints what to make of the run, the configuration, the metrics, and nothing else."""
    assert main(["run", str(small), "--engine", "simpy"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Training is idle 69.2 % of the time: ")
    assert "\n\nsmall (engine simpy, seed 0)\n2 workers, prefetch 2 (window 4)" in out
    assert "1.85 samples/s" in out
    assert "where the time goes" in out
    assert err == ""


def test_run_writes_files(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` writes the trace, the table and the picture it is asked for."""
    trace, table, picture = (tmp_path / name for name in ("a.npz", "a.csv", "a.png"))
    options = ["--seed", "7", "-o", str(trace), "--csv", str(table), "--plot", str(picture)]
    assert main(["run", str(small), *options]) == 0
    loaded = dlsim.load_trace(trace)
    simulated = dlsim.simulate(dlsim.load(small), 7, samples=True)
    assert difference(loaded, simulated) is None
    assert len(table.read_text().splitlines()) == 1 + 8
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_run_narrates(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `-v`, the events come first, in order of time."""
    assert main(["run", str(small), "-v"]) == 0
    events, _, _ = capsys.readouterr().out.partition("\n\n")
    lines = events.splitlines()
    assert "  0.000 s  batch 0 is sent to worker 0" in lines
    times = [float(line.split(" s ")[0]) for line in lines]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--loader.num-workers", "8"], "loader.num_workers", 8),
        (["--loader.num_workers=8"], "loader.num_workers", 8),
        (["--loader.in-order", "false"], "loader.in_order", False),
        (["--loader.prefetch-factor", "none"], "loader.prefetch_factor", None),
        (["--consumer.step", "200 ms"], "consumer.step", dlsim.Constant(0.2)),
        (["--consumer.step.value", "0.2"], "consumer.step", dlsim.Constant(0.2)),
        (["--dataset.fetch.0.wait.value", "5 ms"], "dataset.fetch.0.wait", dlsim.Constant(0.005)),
        (
            ["--dataset.fetch.0.wait", '{kind = "gamma", mean = "5 ms", cv = 0.5}'],
            "dataset.fetch.0.wait",
            dlsim.Gamma(0.005, 0.5),
        ),
        (["--dataset.length", "1_000"], "dataset.length", 1000),
        (["--epochs", "3"], "epochs", 3),
        (["--torch", "2.10"], "torch", "2.10"),
        (["--name", "2"], "name", "2"),
        (["--policy", "row"], "policy", "row"),
    ],
)
def test_every_key_is_an_option(
    small: Path, tmp_path: Path, words: list[str], key: str, value: object
) -> None:
    """Any key of the scenario is an option, before or after the file, its value as in TOML."""
    out = tmp_path / "run.npz"
    for line in ([str(small), *words], [*words, str(small)]):
        assert main(["run", *line, "--out", str(out)]) == 0
        scenario = dlsim.load_trace(out).meta.scenario
        assert scenario is not None
        assert dlsim.scenario.get(scenario, key) == value


def test_options_that_are_no_keys_are_left_alone() -> None:
    """Only options with a dot or the name of a part of a scenario are taken for its keys."""
    words = ["x.toml", "--seed", "3", "--loader.num-workers", "-1", "--epochs=2", "-v"]
    assert without_changes(words) == (
        ["x.toml", "--seed", "3", "-v"],
        {"loader.num_workers": "-1", "epochs": "2"},
    )
    assert without_changes(words, ["epochs"])[0] == ["x.toml", "--seed", "3", "--epochs=2", "-v"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--loader.num-workers", "many"], "loader.num_workers: expected an integer, got 'many'"),
        (["--loader.num-workers", "-1"], "expected an integer of at least 0, got -1"),
        (["--loader.nom-workers", "1"], "loader.nom_workers: no such key; did you mean num_"),
        (["--consumer.step", "3 parsec"], "in ns, us, ms, s, min, h, d), got '3 parsec'"),
        (["--dataset.fetch.3.wait", "1"], "dataset.fetch.3.wait: expected a number below 1"),
        ([f"--dataset.fetch.{'9' * 5000}.wait", "1"], "dataset.fetch.9"),
        (["--torch", f"2.{'9' * 5000}"], "torch: expected a release such as "),
        (["--failures", "[2]", "--failures.0.at", "1"], "failures.0.at: no such key (0 is 2)"),
        (
            ["--torch", "2.5", "--loader.in-order", "false"],
            "loader.in_order: torch 2.5 has no such",
        ),
        (["--loader.num-workers"], "--loader.num-workers: expected a value, got nothing"),
        (["--loader.shuffle", "--seed", "1"], "--loader.shuffle: expected a value, got --seed"),
        (["--seed", "x"], "run: --seed: expected an integer, got 'x'"),
        (["--seed", "-1"], "seed: expected an integer of at least 0, got -1"),
        (["--sed", "1"], "run: no such option: --sed; did you mean --seed?"),
        (["--num-workers", "1"], "run: no such option: --num-workers; did you mean --loader.num-w"),
        (["--workers", "1"], "did you mean --loader.workers or --loader.num-workers?"),
        (["--stop-after", "1"], "did you mean --consumer.stop-after?"),
        (["--engine", "steam"], "run: invalid choice 'steam'"),
        (["more"], "run: no such argument: more"),
        (["--plot", "run.doc"], "run.doc: expected a name ending in one of ."),
        (["--out", "nowhere/run.npz"], "nowhere/run.npz: cannot be written: there is no directory"),
        (["--csv", "."], ".: cannot be written: it is a directory"),
    ],
)
def test_wrong_options(
    small: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    """What is wrong with an option is said in one line that names it; the exit status is 2."""
    assert complaint in refused(capsys, "run", small, *words)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "expected a TOML file, got bytes that are no text"),
        (b"loader", "expected TOML: expected '=' after a key"),
        (b"[loader]\nbatch = 3\n[dataset]\nkind='map'\nlength=1", "loader.batch: no such key"),
        (b"[loader]\n[dataset]\nkind='map'\nlength=-1", "dataset.length: expected an integer of"),
        (
            b"[loader]\n[dataset]\nkind='list'",
            "dataset.kind: expected one of map, iterable, got 'l",
        ),
        (b"[loader]", "dataset: expected a value, got nothing"),
        (b"", "expected a value, got nothing"),
    ],
)
def test_wrong_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, complaint: str
) -> None:
    """What is wrong with a scenario file is said in one line: file, key, expected, given."""
    path = tmp_path / "wrong.toml"
    if content is not None:
        path.write_bytes(content)
    out = tmp_path / "run.npz"
    said = refused(capsys, "run", path, "--out", out)
    assert said.startswith(f"{path}: ")
    assert complaint in said
    assert not out.exists()


def test_directory_for_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory is no scenario, and is said to be none."""
    assert refused(capsys, "run", tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_too_large(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that does not fit into memory ends with one line, too."""

    def too_large(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(dlsim, "simulate", too_large)
    assert "not enough memory" in refused(capsys, "run", small)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command is answered with those there are."""
    assert refused(capsys, "walk", "x.toml").startswith("command: expected one of new, run, ")
    assert refused(capsys, "rnu", "x.toml").endswith("got 'rnu'; did you mean run?")


def test_a_pipeline_is_no_scenario(
    capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    """Who gives a command the other kind of file is told which command takes it."""
    file = tmp_path / "pipe.toml"
    file.write_text('like = "spdl-0.8"\nlength = 9\n[[links]]\nkind = "pipe"\n')
    said = f"{file}: expected a scenario, got a pipeline, which dlsim pipeline takes"
    assert refused(capsys, "run", file) == said
    said = f"{small}: expected a pipeline, got a scenario, which dlsim run takes"
    assert refused(capsys, "pipeline", small) == said


def test_a_scenario_that_comes_with_dlsim_goes_by_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong with an option is said of the name that was given, and of no file in dlsim."""
    said = refused(capsys, "run", "imagenet_a100", "--machine.cores", "-3")
    assert said.startswith("imagenet_a100 with options: machine.cores: expected a number above 0")


def test_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """A command without its argument says which one it needs."""
    assert refused(capsys, "run") == "run: expected SCENARIO, got nothing"


def test_keys_only_for_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that reads no scenario refuses its keys."""
    assert "reads no scenario" in refused(capsys, "schema", "--loader.num-workers", "3")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_commands(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    """Help, also what `dlsim` alone prints, has a line for each command, and an example."""
    assert main(args) == 0
    out = capsys.readouterr().out
    for command in ("run", "observe", "compare", "schema"):
        assert f"\n  {command} " in out
    assert "example: dlsim run" in out


@pytest.mark.parametrize("command", ["run", "observe", "compare", "schema"])
def test_help_of_commands(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The help of a command says what it answers, with an example."""
    assert main([command, "--help"]) == 0
    assert f"Example: dlsim {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_help_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """Help fits the terminal, but for examples; what may be left out has no odd default."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command.__name__, "--help"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if not line.startswith(("Example: ", "usage: "))]
    assert max(map(len, lines)) <= 80
    assert not [word for word in ("None", "False", "(default: )") if word in out]
    simulates = "changes" in inspect.signature(command).parameters
    assert ("Every key of the scenario is an option" in " ".join(out.split())) == simulates


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dlsim {dlsim.__version__}\n"


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """`schema` prints the JSON Schema."""
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(dlsim.schema()))


def test_compare(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare` takes traces and scenarios, and says whether they are the same."""
    trace = tmp_path / "run.npz"
    assert main(["run", str(small), "--out", str(trace)]) == 0
    capsys.readouterr()
    assert main(["compare", str(trace), str(small)]) == 0
    assert "Every moment of both is the same." in capsys.readouterr().out
    assert main(["compare", str(trace), str(small), "--loader.num-workers", "4"]) == 0
    out = capsys.readouterr().out
    assert "samples_per_s" in out
    assert "First difference: " in out


def test_compare_scenarios(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two scenarios, or of one and a change, the first two lines say which is better."""
    assert main(["compare", str(small), "--loader.num-workers", "4"]) == 0
    out = capsys.readouterr().out
    first, second, *_ = out.splitlines()
    assert first.startswith("B is faster than A: B makes 62.5 % more samples/s (nothing is")
    assert second.startswith(
        "A: Training is idle 69.2 % of the time: 46.2 % for fetching samples, 23.1 % for"
    )
    assert out.endswith(f"A  {small}\nB  {small} with loader.num_workers=4\n")
    assert main(["compare", str(small), str(small), "--loader.num-workers", "3"]) == 0
    changed = f"{small} with loader.num_workers=3"
    assert capsys.readouterr().out.endswith(f"A  {changed}\nB  {changed}\n")
    assert main(["compare", str(small), str(small), "--replications", "3"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "A and B are as fast as each other: nothing is random."
    message = "compare: expected B, or a scenario and what to change in it"
    assert refused(capsys, "compare", small) == message
    assert refused(capsys, "compare", tmp_path / "a.npz", "--epochs", "2") == message


def test_scenarios_that_come_with_dlsim(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes with dlsim goes by its name; of what is not there, it is said what is near."""
    monkeypatch.chdir(small.parent)
    assert main(["run", "imagenet_a100", "--consumer.stop-after", "8"]) == 0
    assert "ResNet-50" in capsys.readouterr().out
    assert refused(capsys, "run", "small").endswith("small: no such file; did you mean small.toml?")
    assert refused(capsys, "explain", "imagenet_a10.toml").endswith(
        "imagenet_a100 comes with dlsim: give that name alone"
    )


def test_values_that_are_no_text(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value of bytes that are no text is refused as one."""
    said = refused(capsys, "run", small, "--loader.num-workers", "\udcff")
    assert said.endswith("expected text, got '\\udcff'")


def test_ranges_with_a_dash(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A range as people write it is refused with the way it is to be written."""
    said = refused(capsys, "sweep", small, "--vary", "loader.num_workers=1-4")
    assert "expected 1:4 for all from 1 to 4, or values such as 1,2,4, got '1-4'" in said


def test_compare_wrong_file(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is neither a scenario nor a trace is refused."""
    assert "expected a trace" in refused(capsys, "compare", small, __file__)


MAKER = """
from torch.utils.data import DataLoader
def make():
    return DataLoader(list(range(12)), batch_size=3, num_workers=2)
"""


def test_observe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`observe` watches a real loader, and its trace can be compared with a scenario."""
    pytest.importorskip("torch")
    module, trace = tmp_path / "maker_for_observe.py", tmp_path / "seen.npz"
    module.write_text(MAKER)
    assert main(["observe", f"{module}:make", "--step", "1 ms", "-o", str(trace)]) == 0
    assert "12 samples in 4 batches" in capsys.readouterr().out
    seen = dlsim.load_trace(trace)
    assert seen.meta.scenario is not None
    scenario = tmp_path / "like.toml"
    dlsim.dump(seen.meta.scenario, scenario)
    assert main(["compare", str(scenario), str(trace)]) == 0
    assert "The simulation schedules as seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("length", "said", "batches"),
    [
        ("None", "does not say how many batches it has, and may never end: it is left after", 100),
        ("6", "was left as it goes on after the 3 batches that it says it has (--batches N", 4),
    ],
)
def test_observe_ends(length: str, said: str, batches: int, tmp_path: Path, capsys) -> None:
    """A loader whose sampler never ends is left, and it is said after how many batches, and why."""
    pytest.importorskip("torch")
    name = f"without_end_{batches}"
    (tmp_path / f"{name}.py").write_text(WITHOUT_END.format(length=length))
    trace = tmp_path / "seen.npz"
    assert main(["observe", f"{tmp_path / name}.py:make", "-o", str(trace)]) == 0
    assert said in capsys.readouterr().err
    assert len(dlsim.load_trace(trace).order) == batches


WITHOUT_END = """
from torch.utils.data import DataLoader, Sampler
class Endless(Sampler):
    def __iter__(self):
        while True:
            yield from range(6)
    def __len__(self):
        return {length}
def make():
    return DataLoader(list(range(6)), batch_size=2, sampler=Endless())
"""


def test_observe_wrong_target(capsys: pytest.CaptureFixture[str]) -> None:
    """A target that leads to no loader is refused in one line, as is a bad step."""
    pytest.importorskip("torch")
    assert "nosuchmodule:make: cannot be" in refused(capsys, "observe", "nosuchmodule:make")
    assert "--step: expected a duration" in refused(capsys, "observe", "m:make", "--step", "long")


def shell(*args: str) -> list[str]:
    """The command line that runs dlsim in a process of its own."""
    return [sys.executable, "-m", "dlsim", *args]


def test_as_a_module(small: Path) -> None:
    """`python -m dlsim` is the same program, whose errors leave no traceback."""
    done = subprocess.run(shell("run", str(small)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(shell("run", "nosuch.toml"), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "dlsim: nosuch.toml: cannot be read: No such file or directory\n"


def test_what_loads_sees_no_arguments_of_dlsim(tmp_path: Path) -> None:
    """A script that reads its own command line, in which all is optional, can be watched."""
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(
        "import argparse\nfrom torch.utils.data import DataLoader\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--rows', type=int, default=8)\n"
        "loader = DataLoader(range(parser.parse_args().rows))\n"
    )
    command = shell("observe", "train.py:loader", "--batches", "4")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, "4 samples in 4 batches" in done.stdout) == (0, True)


def test_closed_pipe(small: Path) -> None:
    """When whoever reads the output stops reading, dlsim stops, and says nothing."""
    command = shell("run", str(small), "-v", "--dataset.length", "30_000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode().splitlines()
    assert all(line.startswith("dlsim: simulating") for line in said)
    assert process.returncode == 141


def test_interrupt(small: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a run with one line and status 130."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    endless = ["--dataset.length", "1_000_000_000", "--engine", "simpy"]
    command = shell("run", str(pipe), *endless)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell starts its background jobs deaf to Ctrl-C, and the tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        with open(pipe, "w") as file:  # waits until dlsim reads the scenario
            file.write(SMALL)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"", 130)
    *said, last = err.decode().splitlines()
    assert last == "dlsim: interrupted"
    assert all(line.startswith("dlsim: simulating") for line in said)


def test_where_compiled_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where dlsim is read-only, with one's caches; where nothing can be kept, it runs as well."""
    jit._sources()  # of the files as they are
    monkeypatch.setattr(jit, "__file__", "/proc/none/jit.py")
    monkeypatch.setenv("DLSIM_CACHE_DIR", "/proc/none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jit._home() == tmp_path / "dlsim"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert jit._home() is None
    assert not jit.kept("loop.run")

    @jit.compiled
    def twice(number: int) -> int:
        return 2 * number

    assert twice(21) == 42


def test_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`keys` lists all keys with defaults, and tells all of those named, or of their meaning."""
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("loader.num_workers = 0  ") for line in lines)
    assert all(len(line) <= 100 for line in lines)
    assert main(["keys", "machine.storage.band"]) == 0
    assert capsys.readouterr().out == (
        "machine.storage.bandwidth\n"
        "  Bytes a second, shared equally among all reads under way; none: unlimited.\n"
        "  bytes a second or none; default none\n"
        '  for example bandwidth = "2 GB/s"\n'
    )
    assert main(["keys", "collate_fn"]) == 0
    assert "dataset.collate\n" in capsys.readouterr().out
    assert "did you mean num_workers?" in refused(capsys, "keys", "num_wrkers")
