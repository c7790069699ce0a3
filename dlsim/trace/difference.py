"""Where two traces differ, if they do: the test of every claim of equality."""

from __future__ import annotations

import numpy as np

from dlsim.trace.job import JobTrace
from dlsim.trace.trace import MOMENTS, Problem, Trace

EXACT = ("worker", "size", "status", "order")


def difference(one: Trace, other: Trace, *, rtol: float = 1e-9) -> str | None:
    """The first difference between two traces in one line, or None where there is none.

    Compared are the order, workers, sizes and fates of all batches exactly; every moment of
    batches, epochs and (where both traces have them) samples to `rtol` relative; and the errors
    that the loop caught, and that ended it. Engines and versions may differ.
    """
    if len(one) != len(other):
        return f"{len(one)} batches sent, against {len(other)}"
    for name in EXACT:
        found = _first(getattr(one, name), getattr(other, name), None, name)
        if found:
            return found
    for name in MOMENTS:
        found = _first(getattr(one, name), getattr(other, name), rtol, name)
        if found:
            return found
    if one.stepped is not None and other.stepped is not None:
        found = _first(one.stepped, other.stepped, rtol, "stepped")
        if found:
            return found
    for name in ("first", "started", "primed", "ended"):
        found = _first(
            getattr(one.epochs, name), getattr(other.epochs, name), rtol, f"epochs.{name}"
        )
        if found:
            return found
    if one.samples is not None and other.samples is not None:
        for name in ("index", "batch", "worker", "started", "fetched"):
            found = _first(
                getattr(one.samples, name), getattr(other.samples, name), rtol, f"samples.{name}"
            )
            if found:
                return found
    for name in ("validation", "reading"):
        mine, theirs = getattr(one, name), getattr(other, name)
        found = None if mine is None or theirs is None else difference(mine, theirs, rtol=rtol)
        if found:
            return f"{name}: {found}"
    return _problems(one, other, rtol)


def _problems(one: Trace, other: Trace, rtol: float) -> str | None:
    if len(one.meta.caught) != len(other.meta.caught):
        return f"{len(one.meta.caught)} errors caught, against {len(other.meta.caught)}"
    for mine, theirs in zip(one.meta.caught, other.meta.caught, strict=True):
        if not _alike(mine, theirs, rtol):
            return f"caught {mine}, against {theirs}"
    a, b = one.meta.problem, other.meta.problem
    return None if _alike(a, b, rtol) else f"ended by {a}, against {b}"


def _alike(a: Problem | None, b: Problem | None, rtol: float) -> bool:
    if a is None or b is None:
        return a is b
    return (a.kind, a.batch) == (b.kind, b.batch) and abs(a.time - b.time) <= rtol * abs(a.time)


def _first(
    a: np.ndarray[tuple[int], np.dtype[np.generic]],
    b: np.ndarray[tuple[int], np.dtype[np.generic]],
    rtol: float | None,
    name: str,
) -> str | None:
    if a.shape != b.shape:
        return f"{name}: {a.size} entries, against {b.size}"
    same = a == b if rtol is None else np.isclose(a, b, rtol=rtol, atol=0.0, equal_nan=True)
    if bool(np.all(same)):
        return None
    at = int(np.argmin(same))
    mine, theirs = ("unknown" if x != x else repr(x) for x in (a[at].item(), b[at].item()))
    return f"{name}[{at}]: {mine}, against {theirs}"


def job_difference(one: JobTrace, other: JobTrace, *, rtol: float = 1e-9) -> str | None:
    """The first difference between the traces of the ranks of two jobs, or None."""
    if len(one) != len(other):
        return f"{len(one)} ranks, against {len(other)}"
    for rank, (mine, theirs) in enumerate(zip(one.ranks, other.ranks, strict=True)):
        found = difference(mine, theirs, rtol=rtol)
        if found is not None:
            return f"rank {rank}: {found}"
    return None
