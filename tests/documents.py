"""What the README and the documentation show, and whether it is so.

A `console` block is a command and what it prints, to the end or to a line `...`. A `python` block
runs; a `text` block right after it is what it prints. All run in the root of the repository.

`python -m tests.documents [docs/node.md …]` writes into all documents, or these, what is printed
now, and draws their pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

from dlsim.cli import main as main_of_dlsim

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CUT = "...\n"
_BLOCK = re.compile(
    r"```console\n\$ (?P<command>.+)\n(?P<printed>(?:.*\n)*?)```"
    r"|```python\n(?P<python>(?:.*\n)*?)```(?:\n\n```text\n(?P<text>(?:.*\n)*?)```)?"
)
_PLOT = re.compile(r"^dlsim .+ --plot docs/.+$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What is run, and what is `shown` to come of it; None if nothing is. `span`: where."""

    call: tuple[str, ...]
    shown: str | None
    span: tuple[int, int]

    @property
    def printed(self) -> str:
        """What it prints now (which engine ran may differ). Raises for what fails."""
        return re.sub(r"engine (compiled|simpy)", "engine simpy", output(*self.call))

    def holds(self, printed: str) -> bool:
        """Whether `printed` is what is shown."""
        if self.shown is None:
            return True
        shown, cut, _ = self.shown.partition(CUT)
        return printed.startswith(shown) if cut else printed == shown

    def updated(self, printed: str) -> str:
        """What should be shown: as many lines as before, if they were cut."""
        assert self.shown is not None
        shown, cut, _ = self.shown.partition(CUT)
        if not cut:
            return printed
        return "".join(printed.splitlines(keepends=True)[: shown.count("\n")]) + cut


@cache
def output(program: str, *args: str, typed: str = "") -> str:
    """What `dlsim ...`, `python SCRIPT ...` or `python -c CODE` prints at the root; or it raises.

    It runs in this process, where all that it loads is loaded already.
    """
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(io.StringIO()) as out,
        mock.patch("sys.stdin", io.StringIO(typed)),
        mock.patch("sys.argv", list(args)),
        mock.patch.dict("os.environ", COLUMNS="100"),
    ):
        if program == "dlsim":
            assert main_of_dlsim(args) == 0
        elif args[0] == "-c":
            exec(args[1], {"__name__": "__main__"})
        else:
            runpy.run_path(args[0], run_name="__main__")
    return out.getvalue()


def blocks(text: str) -> list[Block]:
    """All blocks of a document."""
    found = []
    for match in _BLOCK.finditer(text):
        if match["command"] is not None:
            call = tuple(shlex.split(match["command"]))
            found.append(Block(call, match["printed"], match.span(2)))
        else:
            call = ("python", "-c", match["python"])
            found.append(Block(call, match["text"], match.span("text")))
    return found


def main() -> None:
    """Write into each document what its blocks print now, and draw what it shows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="all, by default")
    for path in parser.parse_args().files:
        text = path.read_text(encoding="utf-8")
        for command in _PLOT.findall(text):
            output(*shlex.split(command))
        for block in reversed(blocks(text)):
            printed = block.printed
            if block.shown is not None and not block.holds(printed):
                start, end = block.span
                text = text[:start] + block.updated(printed) + text[end:]
                print(f"{path.name}: {shlex.join(block.call[-4:])[:80]}")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
