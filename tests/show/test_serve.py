from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

import dlsim
from dlsim.cli import main
from dlsim.report.job_text import job_verdict
from dlsim.scenario.shipped import shipped
from dlsim.show.answers import QUESTIONS, answer, keywords
from dlsim.show.states import State, scenario_of
from dlsim.trace.account import account
from dlsim.trace.job_metrics import lateness
from dlsim.trace.summary import number, percent
from tests.show.serving import Served, serving

SMALL = {"preset": "imagenet_a100", "changes": {"consumer.stop_after": "40"}}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The page, served."""
    with serving() as found:
        yield found


def test_what_is_shown_is_what_is_simulated(served: Served) -> None:
    """Figures, the account and the pictures are those of `simulate` with the same seed."""
    found = served.ask("run", {**SMALL, "seed": 3})
    scenario = scenario_of(State(**SMALL))
    trace = dlsim.simulate(scenario, 3)
    summary = dlsim.summarize(trace)
    assert dict(found["figures"])["samples/s"] == number(summary.samples_per_s)
    assert found["account"][0][2] == percent(1 - account(trace).stall)
    assert sum(share for _, share, _ in found["account"]) == pytest.approx(1)
    assert found["batches"] == len(trace)
    begun, ended, batch = found["lanes"]["lanes"][1]["fetch"][0]
    assert begun == pytest.approx(trace.started[batch])
    assert ended == pytest.approx(trace.fetched[batch], rel=1e-5)
    ready = found["occupancy"]["curves"]["ready"]
    assert max(ready["counts"]) == summary.buffer_max
    assert dlsim.scenario.from_tree(tomllib.loads(found["toml"])) == scenario


def test_a_stretch_is_the_same_run(served: Served) -> None:
    """Closer, the pictures are of the same run, and only of that stretch of time."""
    whole = served.ask("run", SMALL)["lanes"]
    part = served.ask("zoom", {**SMALL, "zoom": [5.0, 8.0]})["lanes"]
    assert (part["begin"], part["end"]) == (5.0, 8.0)
    for all_of, seen in zip(whole["lanes"], part["lanes"], strict=True):
        for kind in {"wait", "step", "fetch"} & seen.keys():
            there = [bar for bar in all_of[kind] if bar[1] > 5 and bar[0] < 8]
            assert [bar[2] for bar in seen[kind]] == [bar[2] for bar in there]
            assert all(5 <= begin <= end <= 8 for begin, end, _ in seen[kind])


def test_a_job_shows_the_rank_that_is_chosen(served: Served) -> None:
    """Of a job its sentence, and the pictures of one rank; a brief answer is of the beginning."""
    state = {"preset": "node_8x_h100", "changes": {"consumer.stop_after": "40"}}
    scenario = scenario_of(State(**state))
    job = dlsim.simulate_job(scenario)
    for rank in (0, 5, 99):
        found = served.ask("run", {**state, "rank": rank})
        chosen = min(rank, 7)
        assert (found["ranks"], found["rank"]) == (8, chosen)
        assert found["samples_per_s"] == dlsim.summarize(job).samples_per_s
        assert found["sentences"][0] == job_verdict(job, lateness(job))
        batch = job.ranks[chosen].order[0]
        bar = next(bar for bar in found["lanes"]["lanes"][0]["step"] if bar[2] == batch)
        assert bar[1] == pytest.approx(job.ranks[chosen].stepped[batch], rel=1e-5)
        assert found["lanes"]["lanes"][0]["barrier"]
    brief = served.ask("run", {"preset": "node_8x_h100", "brief": True})
    assert brief["more"]
    assert brief["batches"] < 100
    assert brief["sentences"][-1].endswith("; more of it follows in a moment.")


def test_throughput_against_a_key(served: Served) -> None:
    """Throughput with other values is that of simulations; the least that is enough is named."""
    slow = {"consumer.stop_after": "40", "loader.num_workers": "8"}
    asked = {"state": {"preset": "imagenet_a100", "changes": slow}}
    key = {"key": "loader.prefetch_factor", "values": [1, 2, 4]}
    found = served.ask("against", {**asked, **key})
    speeds = [point["mean"] for point in found["points"]]
    for value, speed in zip(key["values"], speeds, strict=True):
        changes = {**slow, "loader.prefetch_factor": str(value)}
        scenario = scenario_of(State(preset="imagenet_a100", changes=changes))
        assert speed == pytest.approx(dlsim.replicate(scenario, 3)["samples_per_s"].mean())
    enough = next(k for k, speed in enumerate(speeds) if speed >= 0.99 * max(speeds))
    assert found["enough"].startswith(f"prefetch_factor={key['values'][enough]} is enough: ")
    alone = served.ask("against", {**asked, "key": "loader.num_workers", "values": [0, 8]})
    assert len(alone["points"]) == 2
    state = {"preset": "imagenet_a100", "changes": {"loader.num_workers": "0"}}
    refused = served.ask("against", {"state": state, **key})
    assert refused["error"] == "Without workers nothing is fetched ahead."


def test_an_edge_is_between_two_epochs(served: Served) -> None:
    """An epoch's edge holds the end of the first epoch and the beginning of the second."""
    assert served.ask("run", SMALL)["edge"] is None
    two = {**SMALL, "changes": {"consumer.stop_after": "40", "epochs": "2"}}
    begin, end = served.ask("run", two)["edge"]
    trace = dlsim.simulate(scenario_of(State(**two)))
    assert begin < trace.epochs.ended[0] <= trace.epochs.started[1] < end
    assert begin > trace.epochs.started[0]
    assert end < trace.epochs.ended[1]


def test_what_torch_does_not_have_is_no_keyword() -> None:
    """Keys of other loaders stand below the call that is to be pasted, not in it."""
    loader = dlsim.Loader(num_workers=2, in_order=False, dispatch="shared", endless=True)
    assert keywords(loader).splitlines() == [
        "DataLoader(dataset, num_workers=2, in_order=False)",
        "# no DataLoader of torch's: endless=True, dispatch='shared'",
    ]


def test_long_runs_are_few_numbers(served: Served) -> None:
    """Of ten thousand batches as much is sent as a screen can show, and no more."""
    changes = {"consumer.stop_after": "none", "dataset.length": "160000", "loader.batch_size": "16"}
    status, text = served.post("run", {"preset": "imagenet_a100", "changes": changes})
    assert status == 200
    found = json.loads(text)
    assert found["batches"] == 10_000
    assert len(text) < 80_000
    assert all(lane["dense"] for lane in found["lanes"]["lanes"])


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        (
            {"loader.num_workers": "0", "loader.prefetch_factor": "4"},
            "loader.prefetch_factor",
            "needs num_workers above 0",
        ),
        ({"consumer.step": "soon"}, "consumer.step", "expected a duration"),
        ({"loader.threads": "3"}, "loader.threads", "no such key"),
        ({"nothing": "3"}, "nothing", "no such key"),
    ],
)
def test_what_is_refused(served: Served, changes: dict[str, str], key: str, message: str) -> None:
    """A scenario that cannot be is refused in one line, with the key that it is about."""
    found = served.ask("run", {"preset": "imagenet_a100", "changes": changes})
    assert found["key"] == key
    assert message in found["error"]
    assert "\n" not in found["error"]


@pytest.mark.parametrize(
    "state",
    [
        {"toml": "a = = 3"},
        {"toml": "[" * 5000},
        {"toml": "[loader]"},
        {"preset": "../../../etc/passwd"},
        {"preset": "/etc/passwd"},
        {"colour": 3},
        {"seed": "many"},
        {"seed": -1, "preset": "imagenet_a100"},
    ],
)
def test_what_is_no_scenario(served: Served, state: dict[str, object]) -> None:
    """What is no scenario, or names a file, is refused in one line."""
    found = served.ask("run", state)
    assert "\n" not in found["error"].strip()


@pytest.mark.parametrize("body", [b"NaN", b'{"', b"\xff", b"3", b"[" * 100_000])
def test_what_is_no_question(body: bytes) -> None:
    """What is no JSON, or none that is asked, is refused in one line, whatever the question."""
    for question in QUESTIONS:
        error = json.loads(answer(question, body))["error"]
        assert error.startswith("not understood: ")
        assert "\n" not in error


def test_who_is_not_answered(served: Served) -> None:
    """Without the token, under another name, or for a page elsewhere, nothing is answered."""
    assert served.get(f"/?token={served.token}")[0] == 200
    assert served.get("/")[0] == served.get("/?token=wrong")[0] == 403
    assert served.get(f"/?token={served.token}", Host="evil.example")[0] == 403
    assert served.post("run", SMALL, Host="evil.example:80")[0] == 403
    assert served.post("run", SMALL, Origin="http://evil.example")[0] == 403
    assert served.post("run", SMALL, **{"x-token": "wrong"})[0] == 403
    assert served.post("nothing", {})[0] == 403
    assert served.get("/first")[0] == 403
    assert served.get("/static/page.js", Host="evil.example")[0] == 403


@pytest.mark.parametrize("path", ["../server.py", "..%2fserver.py", "%2e%2e/answers.py", "a.toml"])
def test_no_files_are_read(served: Served, path: str) -> None:
    """Nothing is served but what the page is made of."""
    assert served.get(f"/static/{path}")[0] == 404


def test_only_the_loopback_is_listened_on(served: Served) -> None:
    """The port is closed at every other address of this machine."""
    port = int(served.origin.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address")
        address = way.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex((address, port)) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_its_terminal(number: signal.Signals) -> None:
    """Ctrl-C, and the terminal's closing, end the server."""
    with serving() as found:
        assert found.get(f"/?token={found.token}")[0] == 200
        found.process.send_signal(number)
        assert found.process.wait(timeout=30) in (0, 130, -number)


def test_a_scenario_of_ones_own(tmp_path) -> None:
    """The page begins with the scenario that was named, and reads no other file."""
    mine = dlsim.replace(dlsim.load(shipped()["imagenet_a100"]), {"name": "mine"})
    dlsim.dump(mine, tmp_path / "mine.toml")
    with serving(str(tmp_path / "mine.toml")) as found:
        status, toml = found.get("/first", **{"x-token": found.token})
        assert status == 200
        assert found.ask("run", {"toml": toml, "changes": {}})["title"] == "mine"


def test_a_link_is_opened_where_it_leads() -> None:
    """A link that the page has given out makes the page begin with its state."""
    with serving("http://127.0.0.1:1/#s=abc") as found:
        assert found.link.endswith("#s=abc")


def test_two_beside_each_other(served: Served) -> None:
    """The difference of two states has an interval, that of `dlsim compare`."""
    more = {**SMALL, "changes": {**SMALL["changes"], "loader.num_workers": "6"}}
    found = served.ask("versus", {"a": SMALL, "b": more})
    expected = dlsim.compare(scenario_of(State(**SMALL)), scenario_of(State(**more)))
    assert found["text"] == str(expected)
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["better"] == "b"


def test_keyword_arguments() -> None:
    """The loader is written as a call with what is not torch's default."""
    loader = dlsim.Loader(batch_size=4, num_workers=2, in_order=False)
    assert keywords(loader) == "DataLoader(dataset, batch_size=4, num_workers=2, in_order=False)"
    assert keywords(dlsim.Loader()) == "DataLoader(dataset)"


def test_what_cannot_be_served(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    """A port that is taken, and a file that is no scenario, are refused in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--no-browser", "--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith(f"dlsim: serve: --port {port}: ")
    (tmp_path / "a.toml").write_text("loader = 3")
    assert main(["serve", str(tmp_path / "a.toml"), "--no-browser"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_serve_needs_its_extra() -> None:
    """Without starlette and uvicorn the command says how to install them."""
    code = (
        "import sys; sys.modules['uvicorn'] = None; from dlsim.cli import main; "
        "sys.exit(main(['serve', '--no-browser']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "serve needs starlette and uvicorn, which is not installed" in done.stderr
    assert ".[serve]" in done.stderr
