from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ (.+)\n((?:.|\n)*?)```", README)


@pytest.mark.parametrize(("command", "expected"), CONSOLE, ids=lambda text: text.splitlines()[0])
def test_output(command: str, expected: str) -> None:
    """Each command shown prints what is shown below it (which engine ran may differ)."""
    program, *args = shlex.split(command)
    call = [sys.executable, *(["-m", "dlsim"] if program == "dlsim" else []), *args]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=True)
    printed = re.sub(r"engine \w+", "engine simpy", done.stdout)
    shown, cut, _ = expected.partition("...\n")
    assert printed.startswith(shown) if cut else printed == shown


def test_python() -> None:
    """The Python shown runs."""
    (code,) = re.findall(r"```python\n((?:.|\n)*?)```", README)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert len(done.stdout.splitlines()) == 4


def test_links() -> None:
    """Every file the README points to is there."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
