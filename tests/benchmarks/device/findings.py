"""What the measurements in a folder say, as figures and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dlsim.scenario.units import duration, size
from dlsim.trace import epoch_times, load_trace
from dlsim.trace.observation import Observation
from dlsim.trace.summary import percent
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.predict import predict
from dlsim.validation.calibrating.scenario import calibration
from dlsim.validation.calibrating.steps import letting_go
from dlsim.validation.fidelity import errors
from dlsim.validation.fidelity.campaign import RUNS, transport
from dlsim.validation.fidelity.grid import Configuration
from dlsim.validation.fidelity.tables import Line, signed
from tests.benchmarks.device.runs import CALIBRATED, OBSERVED, VARIANTS, WORKS

HELD_OUT = max(OBSERVED)  # workers of the watched runs that are not calibrated on


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one measurement."""
    found: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return found


@dataclass(frozen=True)
class Watched:
    """The runs that were watched, by configuration."""

    folder: Path

    @cached_property
    def rows(self) -> errors.Rows:
        """The journal."""
        return errors.read(self.folder)

    @cached_property
    def runs(self) -> dict[Configuration, Observation]:
        """Each watched run."""
        found = {}
        for row in self.rows.values():
            if "file" in row:
                seen = load_trace(self.folder / RUNS / row["file"])
                assert isinstance(seen, Observation)
                found[errors.configuration_of(row)] = seen
        return found

    def of(self, work: str, *, pinned: bool, alone: bool = False) -> list[Observation]:
        """Those of a work, pinned or not, with workers or (`alone`) without."""
        return [
            seen
            for one, seen in self.runs.items()
            if (VARIANTS[one.workload].work, VARIANTS[one.workload].pinned) == (work, pinned)
            and (one.num_workers == 0) == alone
        ]

    def held_out(self) -> Iterator[tuple[str, float, float]]:
        """Of each variant, the predicted epoch of a watched run not calibrated on, and the seen."""
        for name in VARIANTS:
            seen = {one.num_workers: run for one, run in self.runs.items() if one.workload == name}
            known = [seen[workers] for workers in CALIBRATED]
            costs = transport(self.rows, accounts(known[0]).path)
            changes = {"loader.num_workers": HELD_OUT}
            predicted = predict(calibration(*known, transport=costs), changes, replications=5)
            yield name, predicted.epoch.value, float(epoch_times(seen[HELD_OUT])[0])


def over(runs: Sequence[Observation], figure: Callable[[Observation], Any]) -> float:
    """The median over runs of a figure of each; NaN without any."""
    return median([float(figure(seen)) for seen in runs]) if runs else float("nan")


def pin_seconds(seen: Observation) -> float:
    """What pinning the typical batch takes."""
    return float(np.nanmedian(seen.pin_cpu[seen.order]))


def batch_bytes(seen: Observation) -> float:
    """The size of a batch."""
    return float(np.nanmean(seen.tensor_bytes))


def outstanding(seen: Observation) -> int:
    """How many batches were sent and not returned at most."""
    order = seen.order
    sent = np.sort(seen.sent[~np.isnan(seen.sent)])
    # A call counts its batch as returned before it sends the next index list.
    before = np.searchsorted(sent, seen.returned[order], "right") - np.arange(1, len(order) + 1)
    return int(before.max())


def waiting_pinned(seen: Observation) -> int:
    """How many batches lay pinned and not returned at most."""
    pinned = np.sort(seen.pinned[seen.order])
    before = np.searchsorted(pinned, seen.returned[seen.order], "right")
    return int((before - np.arange(1, len(seen.order) + 1)).max())


def rate(seconds: float, count: float) -> str:
    """Bytes a second, in GB."""
    return f"{count / seconds / 1e9:.1f} GB/s"


def pinning_lines(watched: Watched) -> list[Line]:
    """What pinning a batch takes in real loaders: by the thread, and without workers."""
    lines: list[Line] = [
        ("batch", "tensors", "bytes", "pin-memory thread", "", "no workers", "receiving")
    ]
    for work in WORKS:
        runs, alone = (watched.of(work, pinned=True, alone=a) for a in (False, True))
        count = over(runs, batch_bytes)
        seconds = over(runs, pin_seconds)
        lines.append(
            (
                work,
                f"{over(runs, lambda seen: np.nanmean(seen.tensors)):g}",
                size(count),
                duration(seconds),
                rate(seconds, count),
                duration(over(alone, pin_seconds)),
                duration(over(runs, lambda seen: accounts(seen).receive.mean())),
            )
        )
    return lines


def step_lines(watched: Watched) -> list[Line]:
    """What a step takes: the accelerator, the host, and letting go of the batch before."""
    lines: list[Line] = [("", "accelerator", "host leaves it after", "ahead", "letting go before")]
    for name in VARIANTS:
        runs = [
            seen
            for one, seen in watched.runs.items()
            if one.workload == name and one.num_workers == HELD_OUT
        ]
        lines.append(
            (
                name,
                duration(over(runs, lambda seen: np.median(accounts(seen).device))),
                duration(over(runs, lambda seen: np.median(accounts(seen).host))),
                f"{over(runs, lambda seen: accounts(seen).ahead):g}",
                duration(over(runs, letting_go)),
            )
        )
    return lines


def memory_lines(folder: Path) -> list[Line]:
    """Pinning tensors by themselves, and copying them to the accelerator."""
    lines: list[Line] = [
        ("bytes", "pin: new", "used", "all threads", "copy: pinned", "call", "not pinned", "busy")
    ]
    copies = {(row["bytes"], row["pinned"]): row for row in read(folder, "copies")}
    for row in read(folder, "pinning"):
        pinned, plain = (copies[row["bytes"], which] for which in (True, False))
        lines.append(
            (
                size(row["bytes"]),
                *(duration(row[key]) for key in ("new", "used", "threads")),
                duration(pinned["device"]),
                duration(pinned["busy"]),
                duration(plain["host"]),
                duration(plain["busy"]),
            )
        )
    return lines


def overlap_lines(folder: Path) -> list[Line]:
    """How much of a copy hides behind a kernel."""
    lines: list[Line] = [("", "kernel", "copy", "both", "of the copy hidden")]
    for row in read(folder, "overlap"):
        name = f"{'pinned' if row['pinned'] else 'not pinned'}, {row['stream']} stream"
        times = (duration(row[key]) for key in ("kernel", "copy", "both"))
        lines.append((name, *times, percent(min(max(row["hidden"], 0.0), 1.0))))
    return lines


def variant_lines(
    cases: Sequence[errors.Case], held_out: Sequence[tuple[str, float, float]]
) -> list[Line]:
    """How far predictions of each variant are off, and of the watched run held out."""
    lines: list[Line] = [
        ("", "n", "median", "worst", "held", "spread", "watched: error", "watched / not")
    ]
    watched = {name: (predicted, seen) for name, predicted, seen in held_out}
    for name in [*VARIANTS, "all"]:
        some = [c for c in cases if name in ("all", c.configuration.workload)]
        off = np.abs([case.error for case in some])
        runs = sum(len(case.measured) for case in some)
        spreads = [case.spread for case in some if case.spread == case.spread]
        same = [case.epoch for case in some if case.configuration.num_workers == HELD_OUT]
        if name == "all":
            replayed = np.median([abs(p / s - 1) for p, s in watched.values()])
            last = (percent(float(replayed)), "")
        else:
            predicted, seen = watched[name]
            last = (signed(predicted / seen - 1), f"{seen / same[0]:.2f}")
        lines.append(
            (
                name,
                str(len(some)),
                percent(float(np.median(off))),
                percent(float(off.max())),
                percent(sum(case.held for case in some) / runs),
                percent(median(spreads) if spreads else float("nan")),
                *last,
            )
        )
    return lines
