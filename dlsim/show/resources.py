"""Files that come with the package: what the page is made of, and the rules.

In a wheel all of them are inside the package; in a clone, documents are where people read them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@cache
def static(name: str) -> str:
    """The text of a file that the page is made of."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


def document(name: str) -> Path:
    """Where a page of the documentation is."""
    packed = HERE / "documents" / name
    return packed if packed.exists() else ROOT / "docs" / name
