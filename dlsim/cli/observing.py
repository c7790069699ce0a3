"""`dlsim observe`, of one process, or of all that torchrun started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import (
    check_drawable,
    check_torch,
    check_trace,
    check_traceable,
    check_writable,
    kept,
    report_run,
    watching,
)
from dlsim.cli.parsing import Count, File, OutFile
from dlsim.cli.progress import tell
from dlsim.cli.stepping import step_of

if TYPE_CHECKING:
    from dlsim.trace.observation import Observation
    from dlsim.validation.observing.rank import Rank

UNTOLD = 100  # batches of an epoch that nothing tells the end of


def observe(
    target: Annotated[Positional[str], arg(metavar="TARGET")],
    *,
    batches: Count = None,
    epochs: int = 1,
    step: str = "0 s",
    out: OutFile = None,
    csv: File = None,
    plot: File = None,
    trace: File = None,
) -> None:
    """Watch a real DataLoader at work: how fast it is, and how long its batches are waited for.

    Example: dlsim observe train.py:make_loader --batches 200 --step "50 ms" -o run.npz

    The loader runs as it is; it is watched through public hooks only. Needs torch.
    Under torchrun (torchrun --nproc-per-node 2 --no-python dlsim observe ...) every rank watches
    its own; they meet after each pause, and rank 0 writes and tells of them all as one job.

    Args:
        target: A DataLoader, or a function that makes one, as module:name or file.py:name.
        batches: Leave each epoch after so many batches.
            Not given: at its end; after 100 where nothing tells how many there are.
        epochs: Pass over the loader so often.
        step: Sleep so long for each batch, in place of the training step.
            Or call with each batch what train.py:step names.
        out: Write the whole trace here, as NPZ, for dlsim compare or NumPy.
        csv: Write a table here, one row for each batch.
        plot: Draw the run here: who did what when, and how full the buffer was.
        trace: Write Chrome Trace Event JSON here (.json, .json.gz), which Perfetto opens.
    """
    check_torch("observe")
    from dlsim import validation
    from dlsim.validation.observing.settings import length

    check_trace(out)
    check_writable(csv)
    check_drawable(plot)
    check_traceable(trace)
    _, training = step_of("observe", step)
    loader = validation.load_target(target)
    said, most = length(loader), batches

    def watch(rank: Rank | None, advance: Callable[[int], object]) -> Observation:
        return validation.observe(
            loader, step=training, batches=most, epochs=epochs, rank=rank, progress=advance
        )

    # A step of the user's own makes ranks meet as it does in training; a pause does not.
    with validation.of_job(meets=":" not in step) as rank:
        if said is None and batches is None:
            most = UNTOLD
            if rank is None or rank.rank == 0:
                tell(
                    f"{target} does not say how many batches it has, and may never end: it is left "
                    f"after {UNTOLD} (--batches N: after N)"
                )
        if rank is None:
            with kept(out), watching(target) as advance:
                found = watch(None, advance)
            tell_left(target, found)
            report_run(found, out, csv, plot, trace)
            return
        seen = of_rank(target, rank, out, watch)
    if seen is not None:
        tell_left(target, seen[0])
        report_run(validation.join(seen), out, csv, plot, trace)


def tell_left(target: str, seen: Observation) -> None:
    """Say so where the loader went on after its last batch."""
    if "left" in seen.meta.notes:
        tell(f"{target} was left {seen.meta.notes['left']} (--batches N: after N)")


def of_rank(
    target: str,
    rank: Rank,
    out: Path | None,
    watch: Callable[[Rank, Callable[[int], object]], Observation],
) -> list[Observation] | None:
    """What all ranks saw, on rank 0, which alone says how far it is; None on the others.

    Raises `DlsimError` where this rank's run ended by an error, or by Ctrl-C, which `out` then
    has by its number: the others are ended by torchrun.
    """
    from dlsim.validation.observing.target import tended

    mine = None if out is None else out.with_suffix(f".rank{rank.rank}.npz")
    name = f"{target}, rank {rank.rank}"
    with kept(mine), contextlib.ExitStack() as stack:
        if rank.rank == 0:
            advance = stack.enter_context(watching(name))
        else:
            again = stack.enter_context(tended(name))

            def advance(batches: int) -> object:
                return again()

        seen = watch(rank, advance)
    if seen.meta.problem is not None:
        where = ""
        if mine is not None:
            dlsim.save(seen, mine)
            where = f"; {mine} has what was seen"
        raise dlsim.DlsimError(f"{name}: {seen.meta.problem.message.rstrip('.')}{where}")
    return rank.gathered(seen)
