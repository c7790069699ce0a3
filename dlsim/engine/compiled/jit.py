"""Compilation. This is the only file that imports numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """`function` compiled for the types it is called with; the result is kept on disk."""
    from numba import config as numba_config
    from numba import njit

    config: Any = numba_config

    # Numba looks for changes in the file of a function only, not in those it calls.
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or Path(__file__).parent / "__pycache__") / _sources())
    try:
        return cast(Function, njit(cache=True)(function))
    finally:
        config.CACHE_DIR = before


@cache
def _sources() -> str:
    """A name for the present text of all compiled files."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return sha256(text).hexdigest()[:12]
