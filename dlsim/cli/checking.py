"""Exit statuses for scripts: `--check`."""

from __future__ import annotations


class Missed(Exception):
    """What was to be checked does not hold; why has been said."""


def held(
    check: bool, *, fits: bool | None, stall: float, max_stall: float | None, who: str = ""
) -> None:
    """Say whether a target is met; raise `Missed` where it is not, or batches do not fit.

    Training is idle for the share `stall` of the time, `max_stall` is wanted; of several
    configurations, `who` comes nearest to it, or holds it. Without `check`, nothing is raised.
    """
    from dlsim.trace.summary import percent

    missed = max_stall is not None and not stall <= max_stall
    if max_stall is not None:
        word = "Missed" if missed else "Held"
        if who:
            word += f" by all, least by {who}" if missed else f" by {who}"
        wanted = f"wanted: at most {percent(max_stall)}"
        print(f"\n{word}: training is idle {percent(stall)} of the time ({wanted}).")
    if check and (missed or fits is False):
        raise Missed
