"""Compilation, where numba is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def installed() -> bool:
    """Whether there is a compiler; finding out does not import it."""
    return find_spec("numba") is not None


def jit(function: Function) -> Function:
    """`function` compiled for the types it is called with; the result is kept on disk."""
    from numba import njit

    return cast(Function, njit(cache=True)(function))
