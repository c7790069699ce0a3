"""The path of a rank of a job in which rank 0 reads for all: what it, and all, wait for.

Ranks wait for each other at broadcasts, and then for rank 0. What that one waits for is on the path
of the loader that it reads (`Trace.reading`), which here takes the place of "rank 0" in its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dlsim.trace.causes import BARRIER, DRAINING, ERROR, JOINING, RANK_0, STEP, TIMEOUT, WAITING
from dlsim.trace.metrics import NAN, span
from dlsim.trace.stays import order_by_epoch
from dlsim.trace.trace import Trace
from dlsim.trace.walk import Piece, Walk

EDGES = (JOINING, DRAINING, ERROR, TIMEOUT, WAITING)


def rounds_path(trace: Trace) -> list[Piece]:
    """The pieces of the path of one rank, in order, without gaps."""
    own = [*_own(trace)]
    scenario = trace.meta.scenario
    if scenario is None or scenario.job.rank != 0:
        return own
    return [*_with_reading(trace, own)]


def _own(trace: Trace) -> Iterator[Piece]:
    """What the rank is at: at broadcasts, waiting for rank 0, in its steps."""
    begin, end = span(trace)
    at, number = begin, 0
    moments = [trace.requested, trace.sent, trace.received, trace.returned]
    stepped = trace.finished if trace.stepped is None else trace.stepped
    causes = (JOINING, RANK_0, BARRIER, RANK_0, STEP, BARRIER)
    for places in order_by_epoch(trace):
        for number in trace.order[places].tolist():
            for cause, column in zip(causes, (*moments, stepped, trace.finished), strict=True):
                until = min(float(column[number]), end)
                if until > at:
                    yield Piece(cause, at, until, number)
                    at = until
    if end > at:
        problem = trace.meta.problem
        yield Piece(JOINING if problem is None else RANK_0, at, end)


def _with_reading(trace: Trace, own: list[Piece]) -> Iterator[Piece]:
    """The path of the loader, and where that is outside of it, what the rank itself is at."""
    assert trace.reading is not None
    at = span(trace)[0]
    begins = [piece.begin for piece in own]

    def outside(end: float, reading: str) -> Iterator[Piece]:
        for piece in own[max(bisect_right(begins, at) - 1, 0) :]:
            if piece.begin >= end:
                break
            cause = reading if piece.cause == RANK_0 else piece.cause
            yield Piece(cause, max(piece.begin, at), min(piece.end, end), piece.batch)

    for piece in _reading(trace.reading):
        end = min(piece.end, span(trace)[1])
        if end <= at:
            continue
        if piece.cause == STEP or piece.cause in EDGES:
            yield from outside(end, BARRIER if piece.cause == STEP else piece.cause)
        else:
            yield Piece(piece.cause, at, end)
        at = end
    yield from outside(span(trace)[1], WAITING)


def _reading(trace: Trace) -> list[Piece]:
    """The path of the loader itself: a step is until its `next()` is called again."""
    asked = np.full(len(trace), NAN)
    for places in order_by_epoch(trace):
        order = trace.order[places]
        asked[order[:-1]] = trace.requested[order[1:]]
        asked[order[-1:]] = trace.returned[order[-1:]]
    walk = Walk(replace(trace, finished=asked))
    found = [
        p for e in reversed(range(len(trace.epochs.started))) for ps in walk.epoch(e) for p in ps
    ]
    return [*reversed([*found, *walk.taken()])]
