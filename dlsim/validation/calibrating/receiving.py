"""What the main process computes in `next()` in a run that was observed: receiving, and sending."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlsim.trace.observation import Observation
from dlsim.trace.trace import Floats
from dlsim.validation.calibrating.firsts import beyond

LEAST = 5  # batches that tell how unlike they are


def main_side(seen: Observation) -> dict[str, Any]:
    """CPU of receiving and of sending, for each batch returned; none without workers.

    `rebuild`: what of receiving is left when the batch has been read.

    Sending is the last thing that `next()` does, and another thread writes what is sent.
    """
    if seen.meta.scenario is None or not seen.meta.scenario.loader.num_workers:
        names = ("receive", "rebuild", "jitter", "put", "begin_next", "begin_receive")
        return dict.fromkeys(names, np.empty(0))
    order = seen.order
    began, used = beyond((seen.thread_returned - seen.thread_requested)[order], [0])
    received = np.where(np.isnan(seen.received), np.inf, seen.received)  # perhaps not in order
    rebuilt, rebuild = beyond(seen.rebuild_cpu, [int(received.argmin())])
    if seen.meta.scenario.loader.pin_memory and not np.isnan(seen.pinned).all():
        receive = by_pin_memory_thread(seen)
        alone = {"receive": receive, "rebuild": rebuild, "jitter": uneven(receive)}
        return {**alone, "put": used, "begin_next": began, "begin_receive": rebuilt}
    rebuilt = np.minimum(rebuilt, began)
    all_threads = np.diff(seen.cpu_returned[order], prepend=np.nan)
    beside = np.maximum(all_threads - np.diff(seen.thread_returned[order], prepend=np.nan), 0.0)
    beside = np.nan_to_num(beside, nan=float(np.nanmean(beside)) if len(order) > 1 else 0.0)
    sending = float(np.quantile((seen.returned - seen.received)[order], 0.25))
    put = np.minimum(sending, used / 2)
    receive = used - put
    return {
        "receive": receive,
        "rebuild": rebuild,
        "jitter": uneven(receive[by_themselves(seen)]),
        "put": put + np.minimum(beside, put),
        "begin_next": began - rebuilt,
        "begin_receive": rebuilt,
    }


def by_themselves(seen: Observation) -> Any:
    """Which calls, in order, received one batch and no other; not the first of an epoch.

    That one begins what later ones find begun.
    """
    order = seen.order
    received = np.sort(seen.received[~np.isnan(seen.received)])
    until, since = seen.returned[order], seen.requested[order]
    count = np.searchsorted(received, until, "right") - np.searchsorted(received, since, "left")
    return (count == 1) & (np.diff(seen.epoch_of(order), prepend=-1) == 0)


def uneven(seconds: Floats) -> Floats:
    """Relative to their mean; of fewer than `LEAST`, or of nothing, none is told."""
    mean = float(seconds.mean()) if len(seconds) >= LEAST else 0.0
    return seconds / mean if mean > 0 else np.empty(0)


def by_pin_memory_thread(seen: Observation) -> Floats:
    """What the pin-memory thread computes between two batches but for pinning: receiving them."""
    in_turn = seen.order[np.argsort(seen.pinned[seen.order])]
    now, then = in_turn[:-1], in_turn[1:]
    same = seen.epoch_of(now) == seen.epoch_of(then)  # else another thread
    between: Floats = (seen.pin_thread[then] - seen.pin_thread[now] - seen.pin_cpu[then])[same]
    return np.maximum(between, 0.0)
