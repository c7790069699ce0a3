"""What a second of a run can be spent for, and the words for it: the same wherever it is said.

A cause may have parts, named after a colon ("fetch: decode"); `group` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping

STEP = "step"
FETCH, COLLATE, STORAGE = "fetch", "collate", "storage"
CORE, CONTENTION, LOCK = "core", "contention", "lock"
HEAD_OF_LINE, SHARDS, LAST_ROUND = "head of line", "shards", "last round"
SEND, TAKE, TRANSPORT = "send", "take", "transport"
RECEIVE, PIN, COPY = "receive", "pin", "copy"
START, FIRST_BATCH = "start-up", "first batch"
STARTING, READY, HANDSHAKE = f"{START}: workers", f"{START}: ready", f"{START}: handshake"
AGAIN = f"{START}: made again"  # what a loader that resumes throws away
DRAINING, JOINING = "draining", "joining"
LOOP, BARRIER, RANK_0 = "loop", "barrier", "rank 0"
VALIDATION = "validation"
ERROR, TIMEOUT, WAITING = "error", "timeout", "waiting"

# Of two causes that take equally long, the first one is named.
WORDS = {
    SHARDS: "shards that are used up, which leaves workers without data",
    LAST_ROUND: "the last round, in which fewer batches are left than workers",
    HEAD_OF_LINE: "order, as slow batches keep back later ones",
    CORE: "cores, which too many processes want",
    LOCK: "Python's lock, which threads of a process share",
    CONTENTION: "contention, as busy cores slow each other down",
    STORAGE: "storage",
    FETCH: "fetching samples",
    COLLATE: "collating",
    SEND: "sending indices to workers",
    TAKE: "workers between two batches",
    TRANSPORT: "moving batches out of the workers",
    RECEIVE: "receiving batches in the main process",
    PIN: "pinning batches",
    COPY: "copying batches to the accelerator",
    BARRIER: "the barrier, where other ranks come later",
    RANK_0: "rank 0, which reads for all ranks",
    START: "starting workers",
    FIRST_BATCH: "the empty pipeline at the beginning of an epoch",
    DRAINING: "draining workers of what nobody wants any more",
    JOINING: "joining workers at the end of an epoch",
    ERROR: "an error",
    TIMEOUT: "a timeout",
    LOOP: "the training loop, between a step and the next batch",
    WAITING: "the loader, of which no more was observed",
    VALIDATION: "validation",
    STEP: "the training step",
}


def group(cause: str) -> str:
    """The cause without its part."""
    return cause.partition(": ")[0]


def grouped(found: Mapping[str, float]) -> dict[str, float]:
    """What is `found` of each cause, all parts of one taken together."""
    groups: dict[str, float] = {}
    for cause, value in found.items():
        groups[group(cause)] = groups.get(group(cause), 0.0) + value
    return groups


def greatest(found: Mapping[str, float]) -> str:
    """The group that has most of what is `found`; "" if there is nothing.

    What differs by less than a billionth is equal, and then the first in `WORDS` is named.
    """
    groups = grouped(found)
    most = max(groups.values(), default=0.0)
    order = {cause: place for place, cause in enumerate(WORDS)}
    near = [cause for cause, value in groups.items() if value > 0 and value >= most * (1 - 1e-9)]
    return min(near, key=lambda cause: order.get(cause, len(order)), default="")


def ranked(found: Mapping[str, float]) -> dict[str, float]:
    """What is `found`, the greatest first; of equals, as in `greatest`."""
    order = {cause: place for place, cause in enumerate(WORDS)}
    entries = found.items()
    by_rank = sorted(entries, key=lambda e: (-round(e[1], 12), order.get(group(e[0]), len(order))))
    return dict(by_rank)
