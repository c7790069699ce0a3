"""Compilation. Only this file and `arrays.py` import numba."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` compiled for the types it is called with; the result is kept on disk."""
    return cast(Function, _compile(function, cache=True))


def event_loop(function: Function) -> Function:
    """The same for one from an integer to an integer, at once.

    Most of its loops have one turn. What makes long ones faster would cost it a twentieth, and what
    is optimised beyond the first level makes it no faster, and a sixth of compiling.
    """
    with _settings(OPT=1, LOOP_VECTORIZE=0):
        return cast(Function, _compile(function, "int64(int64)", cache=True))


def inlined(function: Function) -> Function:
    """The same for what only compiled functions call: it becomes a part of each caller."""
    alone = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _as_part()}
    return cast(Function, _compile(function, forceinline=True, **alone))


@cache
def _as_part() -> type:
    """A compiler of what nobody calls but what is compiled later, and then optimised as a whole.

    Numba would optimise it, with all that it calls, and make machine code of it that is never run:
    as often as others call it, and more than half of the time that compiling takes.
    """
    import numba.core.codegen
    import numba.core.compiler

    core: Any = numba.core

    class Part(core.codegen.JITCodeLibrary):  # type: ignore[misc]
        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            self._ensure_finalized()
            return 0

        @property
        def codegen(self) -> Any:
            return SimpleNamespace(set_env=lambda name, env: None)  # of Python, which is not used

    class Parts(core.compiler.Compiler):  # type: ignore[misc]
        def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
            super().__init__(typing, target, Part(target.codegen(), "part"), *rest)

    return Parts


def _compile(function: Callable[..., Any], *signature: str, **options: Any) -> object:
    import numba

    njit: Any = numba.njit
    config: Any = numba.config
    root = _home() if options.get("cache") else None
    if root is None:
        options["cache"] = False
    # Numba looks for changes in the file of a function only, not in those it calls.
    with _settings(CACHE_DIR=str(root / _sources()) if root else config.CACHE_DIR):
        # Nothing compiled here makes arrays, so nobody has to count who uses them (_nrt): that
        # would take ten times as long as all the rest.
        made: object = njit(*signature, nogil=True, error_model="numpy", _nrt=False, **options)(
            function
        )
        return made


@contextmanager
def _settings(**wanted: object) -> Iterator[None]:
    """Numba's settings are these for a while."""
    import numba

    config: Any = numba.config
    before = {name: getattr(config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(config, name, type(before[name])(value))
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def kept(kernel: str) -> bool:
    """Whether this function, as `module.name`, is on disk, compiled of the present text."""
    root = _home()
    return root is not None and any((root / _sources()).rglob(f"{kernel}-*.nbi"))


def _home() -> Path | None:
    """Where what is compiled is kept: as numba is told, beside this file, or with one's caches.

    None where none of these can be written to: then nothing is kept.
    """
    given, caches = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    for root in (
        *([Path(given)] if given else []),
        Path(__file__).parent / "__pycache__",
        Path(caches or "~/.cache").expanduser() / "dlsim",
    ):
        with suppress(OSError, RuntimeError):  # the latter: there is no home
            root.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=root).close()
            return root
    return None


@cache
def _sources() -> str:
    """A name for the present text of all compiled files."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.with_name("sums.py")]
    text = b"".join(path.read_bytes() for path in files)
    return sha256(text).hexdigest()[:12]
