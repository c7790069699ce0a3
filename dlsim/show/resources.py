"""Files that come with the package: what the page is made of, the rules, scenarios.

In a wheel all of them are inside the package. In a clone of the repository, the documents and
scenarios are where people read them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from dlsim.scenario.shipped import shipped

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@cache
def static(name: str) -> str:
    """The text of a file that the page is made of."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


def document(name: str) -> Path:
    """Where a page of the documentation is."""
    return _first(HERE / "documents" / name, ROOT / "docs" / name)


def presets() -> dict[str, Path]:
    """The scenarios that come with dlsim, by name."""
    return shipped()


def _first(*paths: Path) -> Path:
    return next((path for path in paths if path.exists()), paths[-1])
