from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import dlsim
from dlsim.cli import main
from dlsim.show.film import film
from dlsim.show.lesson import answered
from dlsim.show.lesson_page import lesson_page
from dlsim.show.lessons import lessons
from dlsim.show.quotes import WORDS, rules
from dlsim.show.resources import document
from dlsim.trace import metrics, stays

ROWS = lessons()["rows"].films["24 rows"]


def places(made, upto):
    """Where each batch is after so many frames."""
    there = {move.batch: move.to for move in made.start}
    for frame in made.frames[:upto]:
        there |= {move.batch: move.to for move in frame.moves}
    return {batch: to for batch, to in there.items() if to != "gone"}


def test_rules_are_those_of_the_documentation() -> None:
    """Every rule is found by its words, once, with the line where it stands in docs/model.md."""
    lines = document("model.md").read_text(encoding="utf-8").splitlines()
    numbers = [rule.number for rule in rules().values()]
    assert sorted(numbers) == sorted(set(numbers)) == list(range(1, len(WORDS) + 1))
    for rule in rules().values():
        line = lines[rule.line - 1]
        assert line.startswith(f"{rule.number}. ")
        assert rule.text.startswith(line.partition(". ")[2])


def test_the_note_as_a_film() -> None:
    """At 7 s of the 24 rows, next() is called for batch 1, and the batch sent is batch 5, to 1."""
    made = film(dlsim.simulate(ROWS, samples=True))
    said = [frame.say for frame in made.frames if frame.time == "7 s" and frame.rule != "work"]
    assert said == [
        "the step on batch 0 ends",
        "next() is called, for batch 1",
        "batch 1 is received",
        "batch 5 is sent to worker 1",
        "next() returns batch 1",
    ]
    frame = next(each for each in made.frames if each.say == "batch 5 is sent to worker 1")
    assert "next() is about to return batch 1" in frame.why
    assert frame.rule == "credit"
    assert max(frame.credit for frame in made.frames) == made.window == 4


def test_the_credit_of_the_film_is_the_metric() -> None:
    """Sent and not returned, counted frame by frame, ends each moment where the metric has it."""
    for lesson in lessons().values():
        for trace in lesson.traces():
            frames = film(trace).frames
            level = stays.credit(trace)
            last = {frame.at: frame.credit for frame in frames}
            for at, credit in list(last.items())[:-1]:
                expected = level.counts[np.searchsorted(level.times, at, side="right") - 1]
                assert credit == expected, (lesson.name, at)


def test_a_film_may_begin_anywhere() -> None:
    """From any batch on, the film is what the film of the whole run is there."""
    trace = dlsim.simulate(ROWS, samples=True)
    whole = film(trace)
    for batch in range(1, 8):
        part = film(trace, batch, most=20)
        first = whole.frames.index(part.frames[0])
        assert part.frames == whole.frames[first : first + len(part.frames)]
        assert places(part, 0) == places(whole, first)
        assert part.credit == whole.frames[first - 1].credit
        assert any(frame.say.startswith(f"batch {batch} is sent") for frame in part.frames)


@pytest.mark.parametrize("name", list(lessons()))
def test_lessons(name: str) -> None:
    """A lesson has three questions, all facts filled in; its films end with nothing on the way."""
    lesson = lessons()[name]
    traces = lesson.traces()
    asked = answered(lesson, traces)
    assert len(asked) == 3
    assert not re.search(r"[{}]|nan", str(asked))
    for trace, question in zip(traces, lesson.questions, strict=False):
        made = film(trace)
        assert made.whole
        assert places(made, len(made.frames)) == {}
        assert question.at[0] < len(traces)
        assert question.at[1] <= made.last


@pytest.mark.parametrize("name", list(lessons()))
def test_a_lesson_as_a_file(name: str) -> None:
    """A lesson is one small file that loads nothing, with every event as text."""
    page = lesson_page(lessons()[name])
    assert len(page.encode()) < 400_000
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )
    for shown in data["films"]:
        for frame in shown["film"]["frames"]:
            assert frame["rule"] in data["rules"]
            assert f"<li>{frame['time']}: {frame['say']}" in page


def test_what_answers_say_is_so() -> None:
    """The facts that answers state besides are those of the films."""
    films = {name: lesson.traces() for name, lesson in lessons().items()}
    rows = films["rows"][0]
    assert metrics.waits(rows)[1:].sum() == 0
    assert rows.arrived[2] == 6
    assert not (rows.sent == 6).any()
    assert len({trace.end for trace in films["prefetch"]}) == 1
    in_order, old, new = films["order"]
    assert in_order.returned[in_order.order].max() > old.returned[old.order].max()
    assert old.returned[old.order].max() > new.returned[new.order].max()
    without, with_them = films["epoch"]
    assert with_them.end < without.end
    fast, slow = films["barrier"]
    assert fast.stepped[0] == 2
    assert (fast.finished == slow.finished).all()
    twice, once = films["duplicates"]
    assert twice.size[twice.order].sum() == 2 * once.size[once.order].sum() == 24


def test_teach(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command lists lessons, tells one in words, and writes one as a page; also a scenario."""
    assert main(["teach"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(lessons())
    assert main(["teach", "rows"]) == 0
    told = capsys.readouterr().out
    assert "3 s  batch 4 is sent to worker 0. next() is about to return batch 0" in told
    assert "(rule 2)" in told
    page = tmp_path / "lesson.html"
    assert main(["teach", "order", "--html", str(page)]) == 0
    assert "One slow worker" in page.read_text()
    dlsim.dump(ROWS, tmp_path / "mine.toml")
    assert main(["teach", str(tmp_path / "mine.toml"), "--html", str(page)]) == 0
    assert "<title>mine</title>" in page.read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "lesson: expected one of rows, "),
        (["rows", "--html", "/nowhere/a.html"], "/nowhere/a.html: cannot be written: "),
        (["--html", "lesson.html"], "teach: expected a lesson to write, one of rows, "),
        (["missing.toml"], "missing.toml: cannot be read: "),
    ],
)
def test_what_cannot_be_taught(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lesson that is not there, or cannot be written, is refused in one line."""
    assert main(["teach", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dlsim: {message}")
    assert error.count("\n") == 1


def test_a_film_of_a_run_in_which_nothing_returns(tmp_path: Path) -> None:
    """A run that an error ends before its first batch is a lesson, too, as text and as a page."""
    path = tmp_path / "nothing.toml"
    path.write_text(
        "[loader]\nnum_workers = 1\ntimeout = 0.1\n[consumer]\nstep = 1\n"
        '[dataset]\nkind = "map"\nlength = 3\nfetch = [{ name = "read", wait = 1 }]\n'
    )
    assert main(["teach", str(path)]) == 0
    assert main(["teach", str(path), "--html", str(tmp_path / "nothing.html")]) == 0
