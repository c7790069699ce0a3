"""The command line: `main`, and what every command has in common.

A command is a function listed in `dlsim.cli.commands.COMMANDS`: its parameters are its arguments
and options, its docstring is its help.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

MISSED, REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141  # exit statuses
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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
