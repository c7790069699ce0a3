"""What users have: a module of theirs in the directory in which they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def module_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> Iterator[Path]:
    """The file of a user's module `name` in `folder`, which is the current directory inside."""
    path = folder / f"{name}.py"
    path.write_text(source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    yield path
    sys.modules.pop(name, None)
