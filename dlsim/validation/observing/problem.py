"""What ended a watched run, if an exception did: where it was raised, and for which batch."""

from __future__ import annotations

import re

import numpy as np

from dlsim.trace.trace import PENDING, Problem
from dlsim.validation.observing.assemble import Assembly
from dlsim.validation.observing.probe import COLLATED, INIT, MAIN, POINTS, RAISED, TAKEN

# A worker is gone, in torch's words; it may raise this anywhere in the main process, even in the
# step.
DEAD = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


def problem_of(assembly: Assembly) -> Problem | None:
    """The exception that ended the loop, and the batch that answers for it."""
    failure, rows = assembly.log.failure, assembly.rows
    if failure is None:
        return None
    time = failure.time - assembly.zero
    dead = DEAD.search(failure.text)
    here = rows["batch"] >= assembly.first[-1]
    if dead is not None:
        pids = [int(pid) for pid in dead[1].split(",")]
        theirs = rows[here & np.isin(rows["process"], pids)]
        taken = np.setdiff1d(
            theirs["batch"][theirs["kind"] == TAKEN], theirs["batch"][theirs["kind"] == COLLATED]
        )
        batch = int(taken[0]) if len(taken) else MAIN
        return Problem("worker", one_line(failure.text), batch, time)
    if failure.text == "interrupted":
        return Problem("interrupt", "interrupted", MAIN, time)
    if "DataLoader timed out" in failure.text:
        return Problem("timeout", one_line(failure.text), MAIN, time)
    if assembly.log.sampler_raised:
        return Problem("sampler", one_line(failure.text), MAIN, time)
    kind, batch = raised(assembly)
    return Problem(kind, one_line(failure.text), batch, time)


def raised(assembly: Assembly) -> tuple[str, int]:
    """Where user code raised the exception that ended the loop, and for which batch."""
    rows = assembly.rows
    found = []
    for row in rows[rows["kind"] == RAISED]:
        batch = row["batch"]
        if row["what"] == INIT:  # before any batch; the first one is answered with it
            mine = (assembly.worker == row["worker"]) & (assembly.numbers >= assembly.first[-1])
            batch = assembly.numbers[mine][0] if mine.any() else MAIN
        if batch >= assembly.first[-1] and assembly.status[batch] == PENDING:
            time = 0.0 if assembly.setup.in_order else row["ended"]
            found.append((time, int(batch), POINTS[row["what"]]))
    if not found:
        return "loader", MAIN
    _, batch, kind = min(found)
    return kind, batch


def one_line(text: str) -> str:
    """The line of an exception's text, possibly with torch's traceback in it, that says what."""
    lines = text.strip().splitlines()
    code = [i for i, line in enumerate(lines[:-1]) if line.startswith("  ")]
    return lines[code[-1] + 1].strip() if code else lines[0].strip()
