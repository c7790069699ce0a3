"""The command line: `main`, `script` where it is the process, and what every command has in common.

A command is a function listed in `dlsim.cli.commands.COMMANDS`: its parameters are its arguments
and options, its docstring is its help. In: words. Out: text, files, and an exit status. Read
`commands.py`, then `parsing.py`, which calls one, and `files.py`, what they read and write.
"""

from __future__ import annotations

import _thread
import atexit
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

__all__ = ["main", "script"]

MISSED, REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141  # exit statuses
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def script() -> NoReturn:
    """Be the process: run what its command line asks for, and end with the exit status.

    Ctrl-C reaches the command even where Python drops the exception. Once more, while the process
    ends, it would only end that with a traceback.
    """
    sys.unraisablehook = _raised_in_vain
    args, sys.argv[1:] = sys.argv[1:], []  # the user's code, which may read its own, sees none
    status = main(args)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if status == INTERRUPTED:
        _end_at_once(status)
    sys.exit(status)


def _end_at_once(status: int) -> NoReturn:
    """End this process and those that simulate for it, which else would be waited for.

    Not by way of Python, which has the process killed by a signal instead where Ctrl-C came while
    it ran code from a text, as it does for each dataclass.
    """
    with suppress(Exception):
        if "joblib" in sys.modules:
            from joblib.externals.loky import reusable_executor

            if reusable_executor._executor is not None:
                reusable_executor._executor.shutdown(wait=True, kill_workers=True)
        atexit._run_exitfuncs()
        sys.stdout.flush()
    os._exit(status)


def _raised_in_vain(dropped: sys.UnraisableHookArgs) -> None:
    """Raise Ctrl-C once more, a moment later, where it was raised in a callback from C."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    again = threading.Timer(0.02, _thread.interrupt_main)
    again.daemon = True
    again.start()


def main(args: Sequence[str] | None = None) -> int:
    """Run the command that `args` (by default the process's) ask for; the exit status.

    What cannot be done is said in one line on stderr.
    """
    _open_streams()
    try:
        return _run(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:
        print("dlsim: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(args: Sequence[str]) -> int:
    # here, so that Ctrl-C is heeded while they are imported, too
    from dlsim.cli.checking import Missed
    from dlsim.cli.commands import COMMANDS
    from dlsim.cli.parsing import dispatch
    from dlsim.scenario import DlsimError
    from dlsim.scenario.errors import check_word

    try:
        for word in args:
            check_word(word)
        dispatch(COMMANDS, args)
        sys.stdout.flush()
    except Missed:
        return MISSED
    except DlsimError as error:
        return _refused(str(error))
    except MemoryError:
        return _refused("not enough memory for a run of this length")
    except BrokenPipeError:
        _give_up_stdout()
        return PIPE_CLOSED
    except OSError as error:
        if error.filename is not None:
            return _refused(f"{error.filename}: {error.strerror}")
        if error.errno not in NO_ROOM:
            raise
        _give_up_stdout()
        return _refused(f"output cannot be written: {error.strerror}")
    return 0


def _refused(reason: str) -> int:
    from dlsim.scenario.errors import readable

    print(f"dlsim: {readable(reason)}", file=sys.stderr)
    return REFUSED


def _give_up_stdout() -> None:
    """Let nothing more be written: Python flushes stdout once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Make stdout and stderr be there: Python has None for what is closed.

    A character that the encoding of stdout lacks is written as `?`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it stays open)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
