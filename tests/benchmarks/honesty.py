"""Whether answers are as sure as they say; writes `docs/honesty.md`, section by section.

    python -m tests.benchmarks.honesty                       all of it, in about an hour
    python -m tests.benchmarks.honesty flags --minutes 3     as much of it as that

Each section comes in pieces. What is finished is kept in `build/honesty.journal`, so that the same
command goes on where it was interrupted; a section is written when all of it is there, a table
also before, with what is missing. `--anew` begins from the beginning, as after a change of dlsim.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from dlsim.whatif.journal import Journal
from tests.benchmarks import advice, counterfactuals, coverage, flags, kills, numbers
from tests.benchmarks.speed import processor

ROOT = Path(__file__).parent.parent.parent
JOURNAL = ROOT / "build" / "honesty.journal"

# Of each section its title, and how many repetitions, scenarios or kills are usual. Its module has
# `pieces(count)`, functions by name that each make a row, and `lines(count, rows)`, its text.
SECTIONS: dict[str, tuple[str, ModuleType, int]] = {
    "coverage": ("Intervals hold the truth as often as they say", coverage, 1000),
    "numbers": ("Common random numbers narrow differences", numbers, 30),
    "advice": ("The advised configuration is the best", advice, 200),
    "counterfactuals": ("Changes gain what was promised", counterfactuals, 200),
    "flags": ("Only true disagreements are flagged", flags, 1000),
    "kills": ("A sweep that is killed goes on", kills, 50),
}
TABLES = ("coverage", "numbers", "kills")  # a line for each piece


def main() -> None:
    """Measure the sections asked for, print them, and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--count", type=int, help="repetitions, scenarios or kills")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--anew", action="store_true", help="forget what is there")
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "honesty.md")
    options = parser.parse_args()
    JOURNAL.parent.mkdir(exist_ok=True)
    if options.anew:
        JOURNAL.unlink(missing_ok=True)
    until = time.monotonic() + 60 * options.minutes
    with Journal(JOURNAL, {"dlsim": version("dlsim")}, of="benchmark") as journal:
        for name in options.sections or SECTIONS:
            title, module, usual = SECTIONS[name]
            text = section(name, module, options.count or usual, journal, until)
            if text is not None:
                print(f"## {title}\n\n{text}\n", flush=True)
                put(options.write, title, text)


def section(
    name: str, module: ModuleType, count: int, journal: Journal, until: float
) -> str | None:
    """The text of a section; None if time is up before all pieces are there, but for tables."""
    pieces = module.pieces(count)
    keys = {piece: f"{name} {count}: {piece}" for piece in pieces}
    for piece, key in keys.items():
        if key not in journal.rows and time.monotonic() < until:
            began = time.monotonic()
            journal.write(key, pieces[piece]())
            print(f"{key} ({time.monotonic() - began:.0f} s)", flush=True)
    rows = {piece: journal.rows[key] for piece, key in keys.items() if key in journal.rows}
    left = [piece for piece in keys if piece not in rows]
    missing = []
    if left:
        print(f"{name}: {len(left)} of {len(keys)} pieces are left", flush=True)
        if name not in TABLES or not rows:
            return None
        missing = [f"\nStill to be measured: {'; '.join(left)}."]
    return "\n".join([*module.lines(count, rows), *missing])


def head() -> str:
    """What the page begins with: what it is made with, and when."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("dlsim", "numpy", "scipy"))
    return f"""\
# How sure the answers are

Written by `python -m tests.benchmarks.honesty` on {date.today():%d %B %Y}: {processor()}, Python
{platform.python_version()}, {packages}. Nothing here depends on the machine or its speed. What
misses its goal is marked **missed**.
"""


def put(page: Path, title: str, text: str) -> None:
    """Put the section into the page, in the order of `SECTIONS`."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    found = dict(re.findall(r"^## ([^\n]*)\n\n(.*?)\n(?=\n## |\Z)", old, re.MULTILINE | re.DOTALL))
    found[title] = text
    parts: Iterator[str] = (
        f"## {title}\n\n{found[title]}\n" for title, _, _ in SECTIONS.values() if title in found
    )
    page.write_text("\n".join([head(), *parts]), encoding="utf-8")


if __name__ == "__main__":
    main()
