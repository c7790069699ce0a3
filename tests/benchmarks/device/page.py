"""docs/device.md, from a folder of measurements."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlsim.scenario.units import duration, size
from dlsim.trace.summary import percent
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.steps import letting_go
from dlsim.validation.fidelity import errors
from dlsim.validation.fidelity.tables import case_lines, legend, markdown, replay_lines
from tests.benchmarks.device import costs
from tests.benchmarks.device.findings import (
    HELD_OUT,
    Watched,
    batch_bytes,
    memory_lines,
    outstanding,
    over,
    overlap_lines,
    pin_seconds,
    pinning_lines,
    rate,
    read,
    step_lines,
    variant_lines,
    waiting_pinned,
)
from tests.benchmarks.device.runs import CALIBRATED, DOUBLE, VARIANTS, WORKS

ROOT = Path(__file__).parent.parent.parent.parent

PAGE = """# Pinning, copying, and the accelerator

What a loader does beside an accelerator was measured on one machine with a GPU, and held against
what dlsim makes of it: {machine}.
This page is written by

    python -m tests.benchmarks.device FOLDER          (needs CUDA; about six minutes)
    python -m tests.benchmarks.device FOLDER --page

## What is true

- **Pinning takes time, in one thread.** The pin-memory thread needs {pin_pictures} for a batch of
  {bytes_pictures} and {pin_large} for one of {bytes_large}: {rate_large}, however many
  workers there are. That is slower than copying memory ({used_large} for {largest}), as the pages
  of shared memory that a worker has filled are new to the main process. Without workers torch pins
  with all threads, what is still in the cache: {alone_pictures} and {alone_large}.
- **New pinned memory is dear**: {new_small} for a single KiB, {new_large} for {largest}. Torch
  keeps it and uses it again: only the first batches of a process, or of a new size, pay for that.
- **Pinning does not hold the main process up**: meanwhile Python runs at {speed_used} of its
  speed, and at {speed_new} while memory is pinned anew.
- **The thread changes no order, and only the window bounds it.** It takes batches as they arrive.
  In all {pinned_runs} runs watched with it batches came in order, no more than a window of them was
  sent and not returned, and up to {most_pinned} of {window} lay pinned.
- **A pinned batch is copied by the accelerator alone**, at {copy_rate}. With `non_blocking=True`
  the call takes {call_pinned}, also while the accelerator has {long} of work to do first.
- **A batch that is not pinned is copied by the host**, `non_blocking` or not, at {plain_rate}, a
  {slower:.0f}th of the speed. Of tensors of 4 MiB and more the host even waits for the step before
  ({busy_plain} for {largest}); up to 1 MiB it does not.
- **In the stream of the steps no copy overlaps with a step.** In another stream all of it does.
- **Waiting costs a core.** In `loss.item()` or `synchronize()` the host spins: {spin:.2f} of one.
- **The host can be {queue} kernels ahead**; starting the next one then waits. A network of many
  kernels was {steps_ahead} steps ahead at most.
- **Letting go of a batch takes time, too**: before each step the one before is given back to the
  system, {free_large} for {bytes_large} of shared memory; by the main process, unless a
  thread pins.
- **The first use** of the accelerator by a process takes {context}. Torch starts it together with
  the first pin-memory thread; dlsim has it done before it watches.

## What dlsim makes of it

| in a scenario | here | in the simulation |
| --- | --- | --- |
| `costs.pin` | {pin_cost} | in the pin-memory thread; without workers, inside `next()` |
| `costs.copy_byte` | {copy_pinned:.1e} s pinned, {copy_plain:.1e} s not | in turn with the steps |
| `consumer.overlap_copy` | a stream of its own | beside the steps |
| `consumer.run_ahead` | 0 for `loss.item()` in every step | steps that the host does not wait for |
| `loader.pin_memory` | | without, the host waits for copies of tensors above 1 MiB |

`dlsim observe train.py:make_loader --step train.py:step` marks CUDA's stream before and after each
step, and times pinning in its thread; `dlsim calibrate` makes the keys above of it. Not simulated
are the core that waiting takes, pinned memory that is new, and, where there are workers, what the
host computes in a step that it does not wait for. The threads of the main process share one core,
as if pinning kept Python's lock.

## Predictions

Runs with {calibrated} workers of each kind were watched and calibrated on. Runs with other numbers
of workers, and with batches of twice the size and {double} workers, were predicted, and made.
Epochs take one to four seconds. watched: a run with {held_out} workers that was watched, but not
calibrated on. The last column holds it against runs of the same settings that were not watched.

{variants}

Where they miss:

- The machine was not the same all the time: of the same settings, watched runs took {ratio_low:.2f}
  to {ratio_high:.2f} times as long as others. Where they took longer, so does what was predicted
  from watched ones; the watched runs themselves are predicted better.
- **large**, in batches of twice the size: few batches, the first of them pinned into new memory.
- **dictionaries**: what it takes to rebuild twenty tensors depends on where the system wakes the
  two processes ([How far to trust a prediction](fidelity.md)).
- **training, ahead**: that launching holds the host back, runs do not tell in which it never got so
  far. The waits are then predicted in `next()`, not in the step; epochs take as long.

## Replays

Watched runs, simulated with their own costs as they were recorded.

{replays}

## In the loaders

What pinning the typical batch takes, with workers and without. receiving: what else the thread
computes for it.

{pinning}

What a step takes, with {held_out} workers: the accelerator, copying included; the host, from the
beginning of the step until it leaves it; how many steps it is ahead at most; and freeing the batch
before. A kernel takes 4 ms (small, dictionaries), 6 ms (pictures) or 10 ms (large); training is a
network of eight convolutions.

{steps}

## One by one

pin: into new pinned memory, and into memory used before, by one thread as in the pin-memory thread,
or by all. copy, pinned: what the accelerator takes; call: what the call takes while the accelerator
has {long} to do; not pinned: what the call takes, idle, and busy likewise.

{memory}

A kernel, and a copy of {largest}; each with what starting it and waiting for it take:

{overlap}

Pinning batches of many tensors of 4 KiB, by itself: {tensors}.

## Every configuration

{cases}

{legend}
"""


def figures(folder: Path, watched: Watched) -> dict[str, Any]:
    """What the text needs."""
    pins, copies = read(folder, "pinning"), read(folder, "copies")
    first, last = pins[0], pins[-1]
    pinned, plain = (
        next(row for row in copies if row["bytes"] == last["bytes"] and row["pinned"] == which)
        for which in (True, False)
    )
    speeds = {row["beside"]: row["speed"] for row in read(folder, "python")}
    use, tensors = read(folder, "first use")[0], read(folder, "tensors")
    with_thread = [
        seen
        for one, seen in watched.runs.items()
        if VARIANTS[one.workload].pinned and one.num_workers
    ]
    wide = [seen for seen in with_thread if seen.worker.max() + 1 == HELD_OUT]
    assert all((np.diff(seen.order) > 0).all() for seen in with_thread)
    assert all(outstanding(seen) <= 2 * (seen.worker.max() + 1) for seen in with_thread)
    found: dict[str, Any] = {"largest": size(last["bytes"]), "long": duration(costs.LONG)}
    for work in ("pictures", "large"):
        runs, alone = (watched.of(work, pinned=True, alone=a) for a in (False, True))
        found[f"pin_{work}"] = duration(over(runs, pin_seconds))
        found[f"alone_{work}"] = duration(over(alone, pin_seconds))
        found[f"bytes_{work}"] = size(over(runs, batch_bytes))
        found[f"rate_{work}"] = rate(over(runs, pin_seconds), over(runs, batch_bytes))
    per_byte = over(watched.of("large", pinned=True), lambda s: pin_seconds(s) / batch_bytes(s))
    per_tensor = over(watched.of("dictionaries", pinned=True), pin_seconds) / 20
    freeing = watched.of("large", pinned=False)
    training = [s for one, s in watched.runs.items() if one.workload == "training, pinned, ahead"]
    return found | {
        "used_large": duration(last["used"]),
        "new_small": duration(first["new"]),
        "new_large": duration(last["new"]),
        "speed_used": percent(min(speeds["used memory"], 1.0)),
        "speed_new": percent(min(speeds["new memory"], 1.0)),
        "pinned_runs": len(with_thread),
        "most_pinned": max(map(waiting_pinned, wide)),
        "window": 2 * HELD_OUT,
        "copy_rate": rate(pinned["device"], last["bytes"]),
        "call_pinned": duration(pinned["busy"]),
        "plain_rate": rate(plain["host"], last["bytes"]),
        "slower": plain["host"] / pinned["device"],
        "busy_plain": duration(plain["busy"]),
        "spin": max(row["cores"] for row in read(folder, "waiting")),
        "queue": read(folder, "queue")[0]["ahead"],
        "steps_ahead": max(accounts(seen).ahead for seen in training),
        "free_large": duration(over(freeing, letting_go)),
        "context": duration(use["context"] + use["first tensor"] + use["first pinned"]),
        "pin_cost": f"{duration(per_tensor)} a tensor and {1e9 * per_byte:.2f} ns a byte",
        "copy_pinned": pinned["device"] / last["bytes"],
        "copy_plain": plain["host"] / last["bytes"],
        "tensors": f"{duration(tensors[0]['seconds'])} for one, {duration(tensors[-1]['seconds'])} "
        f"for {tensors[-1]['tensors']}",
    }


def write(folder: Path) -> None:
    """Write docs/device.md."""
    warnings.simplefilter("ignore")
    watched = Watched(folder)
    found = errors.cases(folder, observed=CALIBRATED, jobs=-1)
    cases = sorted(found, key=lambda case: errors.order(case.configuration))
    held_out = list(watched.held_out())
    foreseen = [case for case in cases if case.clean]
    same = {c.configuration.workload: c.epoch for c in foreseen if is_held_out(c)}
    ratios = [seen / same[name] for name, _, seen in held_out if name in same]
    page = PAGE.format(
        machine=machine(folder, watched),
        calibrated=" and ".join(map(str, sorted(CALIBRATED))),
        double=DOUBLE,
        held_out=HELD_OUT,
        variants=markdown(variant_lines(foreseen, held_out)),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        replays=markdown(replay_lines(list(errors.replays(folder, jobs=-1)))),
        pinning=markdown(pinning_lines(watched)),
        steps=markdown(step_lines(watched)),
        memory=markdown(memory_lines(folder)),
        overlap=markdown(overlap_lines(folder)),
        cases=markdown(case_lines(cases)),
        legend="\n".join(
            f"- {line}" for line in legend(cases).splitlines() if not line.startswith("choice")
        ),
        **figures(folder, watched),
    )
    (ROOT / "docs/device.md").write_text(page, encoding="utf-8")


def is_held_out(case: errors.Case) -> bool:
    """Whether its settings are those of the watched runs that were not calibrated on."""
    one = case.configuration
    size = WORKS[VARIANTS[one.workload].work].batch_size
    return one.num_workers == HELD_OUT and one.batch_size == size


def machine(folder: Path, watched: Watched) -> str:
    """Where and when it was measured, and with what."""
    here, known = read(folder, "machine")[0], watched.rows["machine"]
    latest = max(row["at"] for row in watched.rows.values() if "at" in row)
    day = datetime.fromtimestamp(latest, UTC).date()
    return (
        f"{here['name']}, {known['cores']:g} cores, Python {here['python']}, "
        f"torch {here['torch']},\nCUDA {here['cuda']}, dlsim {known['versions']['dlsim']}, {day}"
    )
