"""Room on Python's stack of frames, for what is called while it is watched.

Since Python 3.11 frames lie in pieces of 16 KiB. A call that needs another piece maps it, and gives
it back when it returns (`_PyThreadState_BumpFramePointerSlow`, Python/pystate.c): where a loop is
at the end of a piece, each call in it costs some microseconds more. Which loop is, is luck, and
other luck in a process that is watched, which has more frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.utils.data import _utils

ROOMY = 1 << 16  # words of a frame

Function = TypeVar("Function", bound=Callable[..., Any])


def with_room(function: Function) -> Function:
    """`function`, above which code has room on the stack, however deep it calls.

    A frame as large as this one comes with a piece of its own, half of which is left.
    """
    roomy: Any = function
    roomy.__code__ = roomy.__code__.replace(co_stacksize=ROOMY)
    return function


module: Any = _utils.worker
torchs = module._worker_loop


@with_room
def worker_loop(*given: Any) -> None:
    """What a worker does, with room."""
    torchs(*given)


@contextmanager
def in_workers() -> Iterator[None]:
    """Workers that torch starts meanwhile have room for all that they do; torchdata's do not."""
    module._worker_loop = worker_loop
    try:
        yield
    finally:
        module._worker_loop = torchs
