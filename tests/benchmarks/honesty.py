"""Whether answers are as sure as they say; writes `docs/honesty.md`, section by section.

    python -m tests.benchmarks.honesty                      all of it, in about an hour
    python -m tests.benchmarks.honesty flags --count 1000 --write docs/honesty.md

A section's figures replace those that the page has; the other sections stay.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import advice, counterfactuals, coverage, flags, kills, numbers

HEAD = """\
# How sure the answers are

Each section is written by `python -m tests.benchmarks.honesty SECTION --write docs/honesty.md`.
Nothing here depends on the machine or its speed. What misses its goal is marked **missed**.
"""

# Of each section: its title, what makes its lines, and how many repetitions are usual.
SECTIONS: dict[str, tuple[str, Callable[[int], Iterator[str]], int]] = {
    "coverage": ("Intervals hold the truth as often as they say", coverage.lines, 1000),
    "numbers": ("Common random numbers narrow differences", numbers.lines, 20),
    "advice": ("The advised configuration is the best", advice.lines, 200),
    "counterfactuals": ("Changes gain what was promised", counterfactuals.lines, 200),
    "flags": ("Only true disagreements are flagged", flags.lines, 1000),
    "kills": ("A sweep that is killed goes on", kills.lines, 50),
}


def main() -> None:
    """Measure the sections asked for, print them, and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--count", type=int, help="repetitions, scenarios or kills")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    for name in options.sections or SECTIONS:
        title, lines, usual = SECTIONS[name]
        section = []
        for line in lines(options.count or usual):
            print(line, flush=True)
            section.append(line)
        if options.write:
            put(options.write, title, "\n".join(section))


def put(page: Path, title: str, text: str) -> None:
    """Put the section into the page, in the order of `SECTIONS`."""
    old = page.read_text(encoding="utf-8") if page.exists() else HEAD
    found = dict(re.findall(r"^## (.*)\n\n(.*?)\n(?=\n## |\Z)", old, re.MULTILINE | re.DOTALL))
    found[title] = text
    order = [title for title, _, _ in SECTIONS.values() if title in found]
    parts = [HEAD, *(f"## {title}\n\n{found[title]}\n" for title in order)]
    page.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
