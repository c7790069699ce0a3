"""What two workers do: 24 rows, batches of 3, prefetch_factor 2.

python scenarios/multiworkers.py                who fetches what when, and what sends for more
python scenarios/multiworkers.py --iterable     every row twice, and the sharding that cures it
python scenarios/multiworkers.py --policy row   what it would cost to send for one row at a time
python scenarios/multiworkers.py --torch        a real DataLoader beside the simulated one
python scenarios/multiworkers.py --step         goes on at ENTER
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import dlsim
from dlsim.trace import Trace

ROWS, BATCH, WORKERS, PREFETCH = 24, 3, 2, 2
ROW_SECONDS, STEP_SECONDS = 1.0, 4.0


def scenario(sharding: str | None = None, scale: float = 1.0, **changes: Any) -> dlsim.Scenario:
    """A row takes 1 s to fetch, a batch 4 s to train on; all times `scale`."""
    fetch = [dlsim.Stage("row", wait=dlsim.Constant(scale * ROW_SECONDS))]
    return dlsim.replace(
        dlsim.Scenario(
            loader=dlsim.Loader(batch_size=BATCH, num_workers=WORKERS, prefetch_factor=PREFETCH),
            dataset=dlsim.MapDataset(ROWS, fetch)
            if sharding is None
            else dlsim.IterableDataset(ROWS, sharding, fetch),
            consumer=dlsim.Consumer(step=dlsim.Constant(scale * STEP_SECONDS)),
        ),
        changes,
    )


def story(trace: Trace, until: float = np.inf) -> Iterator[str]:
    """A line for each moment: what workers begin, what is ready, what the main process does."""
    yield f"{'time':>8}  {'worker 0':9} {'worker 1':9} {'ready':8} main process"
    samples = trace.samples
    assert samples is not None
    moments = [trace.sent, trace.arrived, trace.returned, trace.finished, samples.started]
    for now in np.unique(np.concatenate(moments)):
        if now > until:
            return
        workers = [worker_at(trace, worker, now) for worker in range(WORKERS)]
        ready = np.flatnonzero((trace.arrived <= now) & ~(trace.returned <= now) & (trace.size > 0))
        line = (
            f"{now:6.4g} s  {workers[0]:9} {workers[1]:9} {listed(ready):8} {main_at(trace, now)}"
        )
        yield line.rstrip()


def worker_at(trace: Trace, worker: int, now: float) -> str:
    """The row that a worker begins at this moment, if it does, or whether it is at one."""
    samples = trace.samples
    assert samples is not None
    mine = samples.worker == worker
    begun = samples.index[mine & (samples.started == now)]
    if len(begun):
        return f"row {begun[-1]}"
    busy = mine & (samples.started < now) & (samples.fetched > now)
    return "  :" if busy.any() else "idle"


def main_at(trace: Trace, now: float) -> str:
    """What the main process does at this moment."""
    did = [f"trained on batch {batch}" for batch in np.flatnonzero(trace.finished == now)]
    returned = np.flatnonzero(trace.returned == now)
    sent = np.flatnonzero(trace.sent == now)
    did += [f"next() returns batch {batch}" for batch in returned]
    if len(sent):
        scenario = trace.meta.scenario
        assert scenario is not None
        verb = "sends" if scenario.policy == "torch" else "assigns"
        batches, workers = ("batch", "worker") if len(sent) == 1 else ("batches", "workers")
        did.append(f"{verb} {batches} {listed(sent)} to {workers} {listed(trace.worker[sent])}")
    if (trace.requested == now).any() and not len(returned):
        did.append("next() waits")
    return ", ".join(did)


def listed(numbers: Any) -> str:
    """Numbers with spaces between them."""
    return " ".join(map(str, numbers))


def batches(trace: Trace) -> Iterator[str]:
    """A line for each batch returned: its worker and its rows."""
    samples = trace.samples
    assert samples is not None
    for batch in trace.order:
        rows = listed(samples.index[samples.batch == batch])
        yield f"{trace.returned[batch]:6.4g} s  worker {trace.worker[batch]}  rows {rows}"


def map_style() -> Iterator[str]:
    yield "A row takes 1 s to fetch, a batch of 3 rows takes 4 s to train on."
    yield ""
    trace = dlsim.simulate(scenario(), samples=True)
    yield from story(trace)
    yield ""
    yield "When the iterator is created, 2 workers x prefetch_factor 2 = 4 batches (12 rows) are"
    yield "sent for: whole batches, to the workers in turn. Worker 0 begins with row 0, worker 1"
    yield "with row 3. From then on, each batch that next() returns sends for one more, from the"
    yield "next worker in line. When 4 batches are ready, the workers are idle: nothing more is"
    yield "sent for until another one is consumed."
    yield ""
    yield f"{trace.end:g} s in all; training waited {dlsim.summarize(trace).stall:.1%} of the time."


def iterable_style() -> Iterator[str]:
    for sharding, what in (
        ("none", "An iterable-style dataset gets no indices. Each worker goes through all of it:"),
        ("split", "Sharded, as by a worker_init_fn or get_worker_info(), each has its half:"),
    ):
        trace = dlsim.simulate(scenario(sharding), samples=True)
        assert trace.samples is not None
        kept = np.isin(trace.samples.batch, trace.order)
        times = np.bincount(trace.samples.index[kept], minlength=ROWS).max()
        often = "once" if times == 1 else "twice"
        yield what
        yield ""
        yield from batches(trace)
        yield ""
        yield f"{kept.sum()} rows in {trace.end:g} s: each of the {ROWS} rows {often}."
        yield ""


def row_by_row() -> Iterator[str]:
    yield "The main process sends for one row at a time, and the next one when it is back. A"
    yield "message takes 0.25 s:"
    yield ""
    slow = {"costs.index_latency": 0.25, "policy": "row"}
    yield from story(dlsim.simulate(scenario(**slow), samples=True), until=9)
    yield "     ..."
    yield ""
    yield "The same rows, in the same order; but workers wait for every row, where torch's single"
    yield "message for a whole batch lies ready in their queue. Until the last batch is there, if"
    yield "nobody trains:"
    yield ""
    yield f"{'a message takes':>16} {'batch by batch':>15} {'row by row':>11}"
    for latency in (0.0, 0.001, 0.01, 0.1, 0.25, 1.0):
        last = [
            dlsim.simulate(
                scenario(**{"consumer.step": 0, "costs.index_latency": latency, "policy": policy})
            ).returned.max()
            for policy in ("torch", "row")
        ]
        more = last[1] / last[0] - 1
        yield f"{latency:>14g} s {last[0]:>13.4g} s {last[1]:>9.4g} s {more:>+8.1%}"


class Rows:
    """The map-style dataset, for a real DataLoader."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        time.sleep(self.seconds)
        return index


def beside_torch() -> Iterator[str]:
    from dlsim import validation

    watch = validation.observe  # says what to do if there is no torch
    from torch.utils.data import DataLoader

    scale = 0.1
    loader: Any = DataLoader(
        Rows(scale * ROW_SECONDS),  # type: ignore[arg-type]
        batch_size=BATCH,
        num_workers=WORKERS,
        prefetch_factor=PREFETCH,
    )
    yield f"A real DataLoader, with real sleeps ({scale * ROW_SECONDS:g} s for a row):"
    yield ""
    seen = watch(loader, step=lambda batch: time.sleep(scale * STEP_SECONDS))
    simulated = dlsim.simulate(scenario(scale=scale), samples=True)
    yield f"{'simulated':36} real"
    for ours, theirs in zip(batches(simulated), batches(seen), strict=True):
        yield f"{ours:36} {theirs}"
    yield ""
    yield str(validation.compare(simulated, seen))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--iterable", action="store_true", help="an iterable-style dataset")
    what.add_argument("--policy", choices=["torch", "row"], default="torch")
    what.add_argument("--torch", action="store_true", help="run a real DataLoader, too")
    parser.add_argument("--step", action="store_true", help="go on at ENTER")
    options = parser.parse_args()
    if options.torch:
        lines = beside_torch()
    elif options.iterable:
        lines = iterable_style()
    else:
        lines = row_by_row() if options.policy == "row" else map_style()
    for line in lines:
        if options.step and line:
            input(line)
        else:
            print(line)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        try:
            main()
        except dlsim.DlsimError as error:
            sys.exit(str(error))
