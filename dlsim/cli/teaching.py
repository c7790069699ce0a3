"""`dlsim teach`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_writable
from dlsim.cli.parsing import File
from dlsim.scenario import DlsimError
from dlsim.scenario.files import replacing


def teach(
    lesson: Annotated[Positional[str], arg(metavar="LESSON", help_behavior_hint="")] = "",
    *,
    html: File = None,
) -> None:
    """Show step by step who sends what, who fetches what, and which rule made it so.

    Example: dlsim teach rows --html lesson.html

    Without a lesson: which ones there are. dlsim serve has the same lessons on its page.

    Args:
        lesson: The name of a lesson, or a scenario (.toml) to be made a film of.
        html: Write the lesson here, as one page with a film to play, for a browser or a course.
    """
    from dlsim.show.lesson import Lesson, answered
    from dlsim.show.lesson_page import lesson_page
    from dlsim.show.lessons import lesson as named
    from dlsim.show.lessons import lessons

    check_writable(html)
    if not lesson:
        if html is not None:
            raise DlsimError(f"teach: expected a lesson to write, one of {', '.join(lessons())}")
        width = max(map(len, lessons()))
        for name, each in lessons().items():
            print(f"{name:{width}}  {each.title}")
        return
    path = Path(lesson)
    if path.suffix == ".toml":
        scenario = dlsim.load(path)
        title = scenario.name or path.stem
        about = "The beginning of a run, event by event."
        given = Lesson(path.stem, title, about, {title: scenario}, ())
    else:
        given = named(lesson)
    if html is not None:
        with replacing(html, DlsimError) as unfinished:
            unfinished.write_text(lesson_page(given), encoding="utf-8")
        print(f"{html}: {given.title}")
        return
    from dlsim.show.film import film
    from dlsim.show.quotes import rules

    traces = given.traces()
    print(f"{given.title}\n\n{given.about}")
    for name, trace in zip(given.films, traces, strict=True):
        print(f"\n{name}\n")
        for frame in film(trace).frames:
            rule = rules()[frame.rule].number
            print(f"{frame.time:>10}  {frame.say}. {frame.why} (rule {rule})")
    for question, answer in answered(given, traces):
        print(f"\n{question}\n  {answer}")
    print("\nThe rules are those of docs/model.md.")
