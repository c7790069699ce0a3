"""The command line: `main`, and what every command has in common.

A command is a function listed in `dlsim.cli.commands.COMMANDS`: its parameters are its arguments
and options, its docstring is its help.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dlsim.cli.commands import COMMANDS
from dlsim.cli.parsing import dispatch
from dlsim.scenario import DlsimError

__all__ = ["main"]

REFUSED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141  # exit statuses


def main(args: Sequence[str] | None = None) -> int:
    """Run the command that `args` (by default the process's) ask for; the exit status.

    What cannot be done is said in one line on stderr.
    """
    try:
        dispatch(COMMANDS, list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except DlsimError as error:
        print(f"dlsim: {error}", file=sys.stderr)
        return REFUSED
    except MemoryError:
        print("dlsim: not enough memory for a run of this length", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("dlsim: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0
