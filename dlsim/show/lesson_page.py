"""A lesson as one HTML file: nothing is loaded from elsewhere; every event is in it as text."""

from __future__ import annotations

import html
from typing import Any

import msgspec

from dlsim.report.html import escape
from dlsim.show.film import film
from dlsim.show.lesson import Lesson, answered
from dlsim.show.pictures import lanes, stretch
from dlsim.show.quotes import rules
from dlsim.show.resources import static
from dlsim.trace import Trace

# Nothing may be loaded, and nothing be sent: not even what a browser would ask for unasked.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

BEGIN = """const data = JSON.parse(document.getElementById("data").textContent);
dlsim.lesson(document.getElementById("lesson"), data);"""


def lesson_data(given: Lesson) -> dict[str, Any]:
    """All that a lesson shows: films, pictures, questions with answers, the rules."""
    traces = given.traces()
    return {
        "name": given.name,
        "title": given.title,
        "about": given.about,
        "films": [
            {"name": name, **shown(trace)} for name, trace in zip(given.films, traces, strict=True)
        ],
        "questions": [
            {"ask": ask, "answer": answer, "film": question.at[0], "batch": question.at[1]}
            for question, (ask, answer) in zip(
                given.questions, answered(given, traces), strict=True
            )
        ],
        "rules": rules_data(),
    }


def rules_data() -> dict[str, Any]:
    """The rules by name, as the film's frames refer to them."""
    return {name: msgspec.to_builtins(vars(rule)) for name, rule in rules().items()}


def shown(trace: Trace, batch: int = 0) -> dict[str, Any]:
    """A film, and the picture of who did what when beneath it."""
    made = film(trace, batch)
    return {"film": msgspec.to_builtins(made), "lanes": lanes(trace, *stretch(trace, made.during))}


def lesson_page(given: Lesson) -> str:
    """The lesson as a whole page."""
    data = lesson_data(given)
    # in a script element no text may look like its end
    script = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">
<link rel="icon" href="data:,">
<title>{escape(given.title)}</title>
<style>{static("style.css")}</style>
</head>
<body>
<main class="lesson" id="lesson">
<header><h1>{escape(given.title)}</h1><p>{escape(given.about)}</p></header>
<noscript>{_texts([each["film"] for each in data["films"]], list(given.films))}
{"".join(_asked(each) for each in data["questions"])}</noscript>
</main>
<script type="application/json" id="data">{script}</script>
<script>{static("chart.js")}{static("film.js")}{static("lesson.js")}</script>
<script>{BEGIN}</script>
</body>
</html>
"""


def _texts(films: list[dict[str, Any]], names: list[str]) -> str:
    """Every event of the films, for browsers that run no scripts."""
    parts = []
    for name, made in zip(names, films, strict=True):
        events = "".join(
            f"<li>{escape(frame['time'])}: {escape(frame['say'])}. {escape(frame['why'])}</li>"
            for frame in made["frames"]
        )
        parts.append(f"<h2>{escape(name)}</h2><ol>{events}</ol>")
    return "".join(parts)


def _asked(question: dict[str, Any]) -> str:
    return f"<p><b>{escape(question['ask'])}</b> {escape(question['answer'])}</p>"
