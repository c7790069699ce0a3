"""Compilation. Only this file and `arrays.py` import numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` compiled for the types it is called with; the result is kept on disk."""
    return cast(Function, _compile(function, forceinline=False))


def inlined(function: Function) -> Function:
    """The same for what only compiled functions call: it becomes a part of each caller."""
    return cast(Function, _compile(function, forceinline=True))


def _compile(function: Callable[..., Any], *, forceinline: bool) -> object:
    import numba

    config: Any = numba.config
    njit: Any = numba.njit
    # Numba looks for changes in the file of a function only, not in those it calls.
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or Path(__file__).parent / "__pycache__") / _sources())
    try:
        # Nothing compiled here makes arrays, so nobody has to count who uses them (_nrt): that
        # would take ten times as long as all the rest.
        made: object = njit(
            cache=not forceinline,
            forceinline=forceinline,
            no_cpython_wrapper=forceinline,
            no_cfunc_wrapper=forceinline,
            error_model="numpy",
            _nrt=False,
        )(function)
        return made
    finally:
        config.CACHE_DIR = before


def kept() -> bool:
    """Whether anything that was compiled of the present text is on disk."""
    root = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "__pycache__"
    return (Path(root) / _sources()).is_dir()


@cache
def _sources() -> str:
    """A name for the present text of all compiled files."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return sha256(text).hexdigest()[:12]
