"""What one wants to know of a job: which rank all waited for, why, and what it cost.

Between two meetings each rank takes its own time: from when all went on until it comes again. The
slowest of them is what all take. *Barrier amplification* is how much longer that is than what
ranks take on average: 1 if all are alike and nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.trace.account import Account, account
from dlsim.trace.causes import BARRIER, FETCH, STEP, grouped, ranked
from dlsim.trace.critical_path import critical_path
from dlsim.trace.fetch_parts import fetch_shares
from dlsim.trace.job import JobTrace, Meetings, meetings
from dlsim.trace.metrics import NAN, ratio, span
from dlsim.trace.trace import Floats, Trace
from dlsim.trace.walk import Piece

OTHERS = 32  # ranks that one is compared with: to walk back through a thousand takes long


@dataclass(frozen=True, eq=False, kw_only=True)
class Lateness:
    """How ranks kept each other waiting.

    One value for each rank: `waited`, seconds at the barrier for others; `last`, at how many
    meetings it came last and was waited for; `kept`, seconds that the others waited for it then,
    all together. What it did until it came, `causes_of` says.

    `amplification`: seconds between meetings, over what the ranks took on average; NaN where they
    do not meet. `exchanged`: seconds in all from when the last had come until all went on.
    """

    waited: Floats
    last: Floats
    kept: Floats
    amplification: float
    exchanged: float
    meetings: int

    @property
    def worst(self) -> int:
        """The rank that the others waited for the longest."""
        return int(np.argmax(self.kept))


def lateness(job: JobTrace) -> Lateness:
    """How the ranks of `job` kept each other waiting."""
    met, ranks = meetings(job), len(job)
    if not len(met):
        nothing = np.zeros(ranks)
        return Lateness(
            waited=nothing,
            last=nothing,
            kept=nothing,
            amplification=NAN,
            exchanged=0.0,
            meetings=0,
        )
    waited: Floats = np.nan_to_num(met.waited)
    took = own_times(job, met)
    last = met.last
    lost = waited.sum(axis=1)
    slowest, mean = np.nanmax(took, axis=1).sum(), np.nanmean(took, axis=1).sum()
    return Lateness(
        waited=waited.sum(axis=0),
        last=np.bincount(last, lost > 0, ranks).astype(np.float64),
        kept=np.bincount(last, lost, ranks).astype(np.float64),
        amplification=ratio(float(slowest), float(mean)),
        exchanged=float(np.nansum(met.released - met.latest)),
        meetings=len(met),
    )


def job_epoch_times(job: JobTrace) -> Floats:
    """Seconds of each epoch, from when the first rank begins it until the last has left it."""
    started = np.array([trace.epochs.started for trace in job.ranks])
    ended = np.array([trace.epochs.ended for trace in job.ranks])
    times: Floats = ended.max(axis=0) - started.min(axis=0)
    return times


def exchanges(job: JobTrace) -> Floats:
    """Seconds of each meeting from when the last rank had come until the first one went on."""
    met = meetings(job)
    first = np.full(len(met), np.inf)
    for rank, trace in enumerate(job.ranks):
        there = met.batch[:, rank] >= 0
        first[there] = np.fmin(first[there], trace.finished[met.batch[there, rank]])
    found: Floats = np.maximum(first - np.nanmax(met.stepped, axis=1), 0.0)
    return found


def job_account(job: JobTrace) -> Account:
    """Where the time of all ranks went, added up: busy, in validation, or idle by cause.

    A rank that has left its last epoch, while others have not, waits for them as at a barrier.
    """
    each = [account(trace) for trace in job.ranks]
    spans = [span(trace) for trace in job.ranks]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    idle: dict[str, float] = {}
    path: dict[str, float] = {}
    for found, (first, last) in zip(each, spans, strict=True):
        outside = {BARRIER: (end - last) + (first - begin)}
        for sums, more in (
            (idle, found.idle),
            (path, found.path),
            (idle, outside),
            (path, outside),
        ):
            for cause, seconds in more.items():
                sums[cause] = sums.get(cause, 0.0) + seconds
    known = ranked({cause: seconds for cause, seconds in idle.items() if seconds > 0})
    busy, apart = (sum(getattr(found, n) for found in each) for n in ("busy", "validation"))
    return Account(len(job) * (end - begin), busy, known, path, apart)


def own_times(job: JobTrace, met: Meetings) -> Floats:
    """Seconds that each rank took for each meeting, from when all went on after the one before."""
    begin = min(span(trace)[0] for trace in job.ranks)
    before = np.append(begin, met.released[:-1])
    found: Floats = met.stepped - before[:, np.newaxis]
    return found


def causes_of(job: JobTrace, rank: int) -> dict[str, float]:
    """What a rank did before the meetings at which all waited for it, in seconds by cause.

    From when all went on after the one before; causes as in `critical_path`, the greatest first.
    """
    met = meetings(job)
    mine = (met.last == rank) & (np.nan_to_num(met.waited).sum(axis=1) > 0)
    before = np.append(-np.inf, met.released[:-1])
    return causes_between(job.ranks[rank], before[mine], met.latest[mine])


def causes_between(trace: Trace, begins: Floats, ends: Floats) -> dict[str, float]:
    """For each cause its seconds on the critical path inside these intervals, greatest first."""
    if not len(begins):
        return {}
    found: dict[str, float] = {}
    parts = fetch_shares(trace)
    for piece in critical_path(trace):
        seconds = _inside(piece, begins, ends)
        if seconds > 0 and piece.cause != BARRIER:
            for cause, share in parts.items() if piece.cause == FETCH else ((piece.cause, 1.0),):
                found[cause] = found.get(cause, 0.0) + share * seconds
    return ranked({cause: seconds for cause, seconds in found.items() if seconds > 0})


def _inside(piece: Piece, begins: Floats, ends: Floats) -> float:
    """Seconds of a piece that lie in the intervals, which are in order and do not overlap."""
    low = int(np.searchsorted(ends, piece.begin, side="right"))
    high = int(np.searchsorted(begins, piece.end, side="left"))
    cut = np.minimum(ends[low:high], piece.end) - np.maximum(begins[low:high], piece.begin)
    return float(np.maximum(cut, 0.0).sum())


def main_cause(why: dict[str, float], usual: dict[str, float]) -> str:
    """What a rank that came last spent more time on than ranks usually do; "step", if nothing.

    All parts of a cause taken together.
    """
    mine, others = grouped(why), grouped(usual)
    more = {cause: seconds - others.get(cause, 0.0) for cause, seconds in mine.items()}
    return max(more, key=lambda cause: more[cause], default=STEP)


def usual_causes(job: JobTrace, rank: int) -> dict[str, float]:
    """What other ranks did, on average, between the meetings to which `rank` came last.

    Of many, the average is that of `OTHERS` of them, evenly among all.
    """
    met = meetings(job)
    mine = met.last == rank
    begins = np.append(-np.inf, met.released[:-1])[mine]
    found: dict[str, float] = {}
    others = [other for other in range(len(job)) if other != rank]
    others = others[:: -(-len(others) // OTHERS)]
    for other in others:
        ends = np.nan_to_num(met.stepped[mine, other], nan=-np.inf)
        for cause, seconds in causes_between(job.ranks[other], begins, ends).items():
            found[cause] = found.get(cause, 0.0) + seconds / len(others)
    return found
