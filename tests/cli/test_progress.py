"""What is said while a command works."""

from __future__ import annotations

import math
from collections.abc import Callable
from unittest import mock

import pytest

import dlsim
from dlsim.cli import progress
from dlsim.cli.progress import Course, Shown, counting, span, working
from dlsim.engine import simulate
from dlsim.engine.effort import announcing, seconds_of
from dlsim.engine.progress import Progress, advance, expecting, watched
from dlsim.whatif.extent import shortened

SCENARIO = dlsim.Scenario(
    loader=dlsim.Loader(batch_size=2, num_workers=3),
    dataset=dlsim.MapDataset(300, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(0.01))]),
    consumer=dlsim.Consumer(step=dlsim.Constant(0.01)),
)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that goes on when it is told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_nothing_is_said_of_what_is_soon_done(pass_time, capsys) -> None:
    """Within the first second nothing is said; then one line, and the next much later."""
    shown = Shown("simulating")
    for seconds in (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 5.0, 5.0):
        pass_time(seconds)
        shown.look("on its way")
    assert capsys.readouterr().err == 2 * "dlsim: simulating: on its way\n"


def test_on_a_terminal_one_line_is_kept_up_to_date(pass_time, monkeypatch, capsys) -> None:
    """On a terminal the line is written again and again, and goes when the work is done."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with counting("watching", "batches", 4) as more:
        for _ in range(3):
            pass_time(2.0)
            more(1)
    first, second, third, blank, end = capsys.readouterr().err.removeprefix("\r").split("\r")
    assert first == "dlsim: watching: 1 of 4 batches, about 6 s left"
    assert second == "dlsim: watching: 2 of 4 batches, about 4 s left"
    assert third == "dlsim: watching: 3 of 4 batches, about 2 s left"
    assert (blank.strip(), len(blank), end) == ("", len(third), "")


def test_what_is_left_follows_from_the_pace(pass_time) -> None:
    """Before anything is done what was known beforehand is told, then what the pace comes to."""
    with watched() as known:
        shown = Shown("simulating")
        course = Course(shown, known)
        known.heard = course.begin
        with expecting(10.0, prior=6.0):
            pass_time(2.0)
            assert course.state() == "0 % done, about 4 s left"
            advance(1.0)
            assert course.state() == "10 % done, about 5 s left"  # by the pace that was known
            pass_time(6.0)
            advance(1.0)
            assert course.state() == "20 % done, about 34 s left"  # mostly by that which is seen
            pass_time(15.0)
            assert course.state() == "20 % done, about 19 s left"
        assert course.state() == "23 s so far"
        with expecting(10.0, prior=6.0):
            pass_time(7.0)
            assert course.state() == "30 s so far"
        with expecting(20.0, prior=12.0):
            pass_time(13.0)
            assert course.state() == "43 s so far, longer than expected"


def test_what_comes_before_the_first_piece_is_no_pace(pass_time) -> None:
    """However long code is compiled, or processes start: it is no pace of what follows."""
    with watched() as known:
        course = Course(Shown("simulating"), known)
        known.heard = course.begin
        with expecting(200.0, prior=4.0, loading=2.0, compiling=True):
            pass_time(3.0)
            assert course.state() == ("compiling first, once for each installation; about 1 s left")
            pass_time(10.0)
            assert course.state() == "compiling first, once for each installation"
            advance(2.0)
            assert course.state() == "1 % done, about 2 s left"
            pass_time(0.1)
            advance(2.0)
            assert course.state() == "2 % done, about 2 s left"  # a piece in 0.1 s, of 98
            pass_time(9.9)
            advance(98.0)
            assert course.state() == "51 % done, about 8 s left"


def test_what_will_take_long_is_said_before_it_begins(pass_time, capsys) -> None:
    """Of what takes an hour it is said at once, and what llvmlite would make of it."""
    long = dlsim.replace(SCENARIO, {"dataset.length": 10**9})
    no_llvmlite = mock.patch("dlsim.engine.effort.installed", return_value=False)
    with no_llvmlite, working(), announcing(3600.0, long):
        said = capsys.readouterr().err
    assert said.startswith("dlsim: simulating takes about 1 h; with llvmlite 4 min (pip install")
    lightning = dlsim.replace(long, {"consumer.loop": "lightning"})  # not compiled anyway
    with no_llvmlite, working(), announcing(3600.0, lightning):
        said = capsys.readouterr().err
    assert said == "dlsim: simulating takes about 1 h\n"


def test_compiling_is_said(pass_time, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use of compiled code says that it compiles, and how long that takes."""
    pytest.importorskip("llvmlite")
    monkeypatch.setattr("dlsim.engine.effort.compiles_first", lambda kernel: True)
    monkeypatch.setattr("dlsim.engine.effort.worth_compiling", lambda seconds, kernel: True)
    with watched() as known:
        course = Course(Shown("simulating"), known)
        known.heard = course.begin
        with announcing(200.0, SCENARIO):
            pass_time(3.0)
            assert course.state() == (
                "compiling first, once for each installation; about 12 s left"
            )
            advance(1.0)
            assert "compiling" not in course.state()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("engine", ["llvmlite", "no llvmlite"])
def test_what_is_announced_is_done(jobs: int, engine: str) -> None:
    """All that replications were announced as is told, whoever simulates, in whatever process."""
    if engine == "llvmlite":
        pytest.importorskip("llvmlite")
    found = [] if engine == "llvmlite" else [mock.patch("dlsim.engine.compiled.find_spec")]
    for each in found:
        each.start().return_value = None
    try:
        with watched() as known, expecting(math.inf, prior=0.0):
            dlsim.replicate(SCENARIO, 4, jobs=jobs)
            assert known.done == pytest.approx(4 * seconds_of(SCENARIO))
    finally:
        for each in found:
            each.stop()


def test_a_run_tells_of_itself() -> None:
    """A single simulation announces itself, and tells of its batches on the way."""
    told = []
    with watched() as known:
        known.heard = lambda: told.append(known.expected)
        simulate(SCENARIO, engine="simpy", progress=lambda batches: told.append(known.done))
    assert told[0] == pytest.approx(seconds_of(SCENARIO))
    assert told[1:] == sorted(told[1:])
    assert len(told) == 151
    assert known.done == known.expected


def test_an_explanation_is_announced_once() -> None:
    """What a question takes in all is announced before the first simulation, and once."""
    told = []
    with watched() as known:
        known.heard = lambda: told.append(known.done)
        dlsim.explain(SCENARIO, 5)
        assert told[0] == 0.0
        assert len(told) <= 3  # single runs that look at memory announce themselves
        assert known.expected >= 5 * seconds_of(shortened(SCENARIO))


def test_spans() -> None:
    """Spans are told as people say them."""
    spans = [0.2, 40, 119, 360, 5400, 3 * 86400]
    assert [span(each) for each in spans] == ["1 s", "40 s", "119 s", "6 min", "2 h", "3 days"]


def test_progress_without_anybody_watching() -> None:
    """Nothing is kept where nobody watches."""
    with expecting(1.0, prior=1.0):
        advance(0.5)
    assert Progress().done == 0.0
