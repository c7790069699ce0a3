"""One self-contained HTML page: text, tables and pictures (SVG), for screens and for paper.

Everything is in the page; nothing is loaded from elsewhere, and there is no script.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is black, white or grey in a picture goes with the page, by day and by night; the colours of
# what is shown are seen on both.
PAINTS = {
    "#000000": "--ink",
    "#333333": "--ink",
    "#4c4c4c": "--quiet",
    "#666666": "--quiet",
    "#d9d9d9": "--line",
    "#e6e6e6": "--line",
    "#ffffff": "--paper",
}
WIDTH = 4.2  # inches of pictures: on a phone's 360 pixels, letters of 8 points are 9 pixels high

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --quiet: #555; --line: #ddd;
  --soft: #f5f5f5; --answer: #eef4f9; --mark: #0072B2; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --ink: #e8e9ec; --quiet: #a3a9b5; --line: #3a3f47; --soft: #24282f;
    --answer: #1b2733; --mark: #4d9fdc; }
}
body { max-width: 78rem; margin: 0 auto; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; break-after: avoid; }
.about { color: var(--quiet); margin: .2rem 0 1rem; }
.answer { border-left: .35rem solid var(--mark); background: var(--answer); padding: .6rem 1rem; }
.answer p { margin: .3rem 0; }
.answer p:first-child { font-size: 1.1rem; font-weight: 600; }
section { display: grid; gap: 0 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
section > * { min-width: 0; }
section > p, section > ul, section > pre { grid-column: 1 / -1; }
p, ul { max-width: 60rem; }
figure { margin: 1rem 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); }
figcaption { color: var(--quiet); font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td:not(:first-child), th:not(:first-child) { text-align: right; }
table.text td:not(:first-child) { text-align: left; }
tr { break-inside: avoid; }
pre { background: var(--soft); padding: .6rem .8rem; font-size: .85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media print {
  @page { size: A4; margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  section { display: block; }
  figure svg { max-width: 24rem; }
  .answer, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def page(title: str, about: str, answer: Sequence[str], sections: Iterable[tuple[str, str]]) -> str:
    """A whole page: a title, a line about it, the answer, and sections of (heading, HTML)."""
    parts = "\n".join(
        f"<h2>{escape(name)}</h2>\n<section>{body}</section>" for name, body in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="about">{escape(about)}</p>
<div class="answer">{paragraphs(answer)}</div>
{parts}
</body>
</html>
"""


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=False)


def paragraphs(texts: Iterable[str]) -> str:
    """A paragraph for each text."""
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts if text)


def listed(texts: Iterable[str]) -> str:
    """A list of texts."""
    return "<ul>" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def code(text: str) -> str:
    """Text as it is, in a typewriter's face."""
    return f"<pre>{escape(text)}</pre>"


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), *, text: bool = False) -> str:
    """A table; all columns but the first are numbers, unless `text`."""
    head = "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr></thead>"
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    kind = ' class="text"' if text else ""
    return f"<table{kind}>{head if header else ''}<tbody>{body}</tbody></table>"


def figure(ax: Axes, caption: str) -> str:
    """A picture with what it shows in words; these also stand for it where it cannot be seen."""
    label = html.escape(caption)
    return (
        f'<figure>{svg(ax).replace("<svg ", f"""<svg role="img" aria-label="{label}" """, 1)}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def svg(ax: Axes) -> str:
    """The picture as an SVG element; the same picture is the same text."""
    import matplotlib

    drawn = ax.get_figure(root=True)
    assert drawn is not None
    drawn.set_figwidth(WIDTH)
    file = io.StringIO()
    # text stays text: smaller, and in the reader's own face
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dlsim"}):
        drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)  # as wide as the page allows
    for colour, name in PAINTS.items():
        text = re.sub(f"(fill|stroke): {colour}", rf"\1: var({name})", text)
    return text[text.index("<svg") :].strip()
