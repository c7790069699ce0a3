from __future__ import annotations

import re
from pathlib import Path

import pytest

import dlsim
from tests.documents import FILES, ROOT, Block, blocks

SHOWN = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in FILES
    for number, block in enumerate(blocks(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("block", SHOWN)
def test_what_is_shown_is_printed(block: Block) -> None:
    """Each command and each piece of Python shown prints what is shown below it."""
    printed = block.printed
    if block.shown is not None and "..." not in block.shown.split("\n"):
        assert printed == block.shown
    assert block.holds(printed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    """Every file that a document points to is there."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert path != ROOT / "README.md" or links
    assert all(link.startswith("https://") or (path.parent / link).exists() for link in links)


def test_the_reference_has_every_public_name() -> None:
    """What the package itself offers is described on the page of all that can be called."""
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    described = re.findall(r"^\.\. auto\w+:: dlsim\.(\w+)$", page, re.MULTILINE)
    assert {*dlsim.__all__} <= {*described}


def test_blocks_are_found() -> None:
    """Commands, Python with and without output, and cuts are read as they are written."""
    text = "```console\n$ dlsim run a.toml\none\n...\n```\n```python\nx = 1\n```\n"
    text += "\n```python\nprint(2)\n```\n\n```text\n2\n```\n"
    command, silent, spoken = blocks(text)
    assert command.call == ("dlsim", "run", "a.toml")
    assert command.holds("one\ntwo\n")
    assert not command.holds("two\none\n")
    assert command.updated("three\ntwo\n") == "three\n...\n"
    assert silent.shown is None
    assert (spoken.shown, spoken.printed) == ("2\n", "2\n")
