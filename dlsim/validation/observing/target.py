"""The loader that a command line names: `pkg.module:make_loader`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch.utils.data.dataloader
from torch.utils.data import DataLoader

from dlsim.scenario import DlsimError
from dlsim.validation.observing.problem import one_line
from dlsim.validation.observing.unwatchable import no_loader

HANGS = 120.0  # seconds without a batch

# Code in there is Python's, of packages, or ours.
NOT_THEIRS = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), "<frozen")

TORCHS = torch.utils.data.dataloader.__file__
GUARD = 'below `if __name__ == "__main__":`'


class TargetError(DlsimError):
    """A target that leads to no DataLoader: the message says which, and why."""


class _TooLong(KeyboardInterrupt):
    """The time is up. No Exception, as user code may catch those."""


def load_target(target: str, *, limit: float = 60.0) -> DataLoader[Any]:
    """The DataLoader that `target` names: `"pkg.module:name"` or `"path/to/file.py:name"`.

    The name is that of a DataLoader, or of something that returns one when called without
    arguments; or of something with a `train_dataloader`, or that returns it: a module, or a data
    module, of Lightning, which is set up to fit. Modules are also looked for in the current
    directory, a file's in its own.

    Raises `TargetError` where that fails: nothing of that name, an exception in user code (the
    message says which, and where), something else than a DataLoader, or more than `limit` seconds
    (which only the main thread can notice, and only between steps of Python code).
    """
    late = f"{target}: no loader after {limit:g} s; what trains belongs {GUARD}"
    with time_limit(late, limit):
        found, module = named(target)
        if not isinstance(found, DataLoader) and callable(found):
            found = called(target, module, found)
        if not isinstance(found, DataLoader) and hasattr(found, "train_dataloader"):
            found = called(target, module, for_training, found)
    if not isinstance(found, DataLoader):
        raise TargetError(f"{target}: {no_loader(found)}")
    return found


def for_training(found: Any) -> Any:
    """The loader of Lightning's data module, or module, after what comes before it in a fit."""
    for name, given in (("prepare_data", ()), ("setup", ("fit",))):
        if hasattr(found, name):
            getattr(found, name)(*given)
    return found.train_dataloader()


def load_step(target: str, *, limit: float = 60.0) -> Callable[[Any], object]:
    """The training step that `target` names, as `load_target` does it: to be called with a batch.

    Of a class, one is made, without arguments. Raises `TargetError` where there is nothing to
    call, as `load_target` does, and, from the step, for an exception in it.
    """
    with time_limit(f"{target}: no step after {limit:g} s", limit):
        found, module = named(target)
        if isinstance(found, type):
            found = called(target, module, found)
    if not callable(found):
        kind = type(found).__name__
        raise TargetError(f"{target}: expected a function to call with each batch, got {kind}")
    return lambda batch: called(target, module, found, batch)


def named(target: str) -> tuple[Any, ModuleType]:
    """What `target` names, and the module that it is in."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise TargetError(f"{target}: expected module:name or file.py:name")
    module = imported(target, where)
    try:
        return attrgetter(name)(module), module
    except AttributeError:
        raise TargetError(f"{target}: {where} has no {name}") from None


def called(target: str, module: ModuleType, function: Callable[..., Any], *given: Any) -> Any:
    """What the user's `function` returns; an exception in it becomes a `TargetError`."""
    try:
        return function(*given)
    except (Exception, SystemExit) as error:
        raise TargetError(f"{target}: {described(error, module)}") from None


def imported(target: str, where: str) -> ModuleType:
    """The module that `where` names, imported."""
    path = Path(where).resolve() if where.endswith(".py") else None
    if path is not None and not path.is_file():
        raise TargetError(f"{target}: there is no file {where}")
    name = where if path is None else path.stem
    # It stays on the path: workers that are spawned import the module again.
    directory = os.getcwd() if path is None else str(path.parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, SystemExit):
            hint = f"; what reads a command line, or ends the process, belongs {GUARD}"
        elif any(f.filename == TORCHS for f in traceback.extract_tb(error.__traceback__)):
            hint = f"; what loads batches belongs {GUARD}"
        raise TargetError(f"{target}: cannot be imported: {described(error)}{hint}") from None
    if path is not None and Path(module.__file__ or "").resolve() != path:
        raise TargetError(f"{target}: another module is called {name}, too; rename the file")
    return module


def described(error: BaseException, module: ModuleType | None = None) -> str:
    """The exception in one line, with the line of code it comes from (in `module`, if it can)."""
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    if isinstance(error, SyntaxError):
        return text  # Python says where in it
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if f.filename != __file__ and "importlib" not in f.filename
    ]
    if module is not None:
        theirs = [f for f in frames if f.filename == module.__file__]
    else:
        theirs = [f for f in frames if not f.filename.startswith(NOT_THEIRS)]
    if not frames:
        return text
    frame = (theirs or frames)[-1]
    return f"{text} ({frame.filename}, line {frame.lineno})"


@contextmanager
def tended(where: str) -> Iterator[Callable[[], object]]:
    """Turn what goes wrong with user code inside into a `TargetError` of one line about `where`.

    That is any exception, and that for two minutes the function is not called that this yields.
    """
    try:
        with (
            warnings.catch_warnings(),
            time_limit(f"no batch for {HANGS:g} s: it hangs", HANGS) as again,
        ):
            # Torch warns of what it then raises an exception for.
            warnings.filterwarnings("ignore", "Got pickle error", UserWarning)
            yield again
    except DlsimError as error:
        raise TargetError(f"{where}: {error}") from None
    except Exception as error:
        # One from a worker holds the worker's traceback as text.
        name, said = type(error).__name__, one_line(str(error) or "no message")
        said = said if str(error).startswith("Caught ") else f"{name}: {said}"
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)]
        place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
        raise TargetError(f"{where}: {said}{place}") from None


@contextmanager
def time_limit(complaint: str, limit: float) -> Iterator[Callable[[], object]]:
    """Raise `TargetError` in the main thread after `limit` seconds.

    They are counted anew whenever the function is called that this yields.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not hasattr(signal, "SIGALRM"):
        yield lambda: None
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    def begin() -> object:
        return signal.setitimer(signal.ITIMER_REAL, limit)

    before = signal.signal(signal.SIGALRM, ring)
    begin()
    try:
        yield begin
    except KeyboardInterrupt as error:
        if not isinstance(error, _TooLong) and not isinstance(error.__cause__, _TooLong):
            raise
        raise TargetError(complaint) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def remembering() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt, if Ctrl-C was pressed since.

    Python drops an exception in `__del__`, and there torch waits for its workers to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    pressed = False
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if before is signal.default_int_handler:  # else somebody wants it otherwise
        signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
