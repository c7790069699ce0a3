"""What pinning and copying cost on this machine, measured one by one, without a loader.

Each measurement returns rows that JSON can say; all times are seconds, all sizes bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from tests.benchmarks.device.measuring import (
    called,
    cycles_per_second,
    forget_pinned,
    pace,
    pinning_all_the_time,
    threads,
    timed,
    until_done,
)

Row: TypeAlias = dict[str, Any]

SIZES = tuple(4**k << 10 for k in range(9))  # 1 KiB to 64 MiB
LARGE = SIZES[-1]
TENSORS = (1, 2, 5, 10, 20, 50)
SMALL = 4096
LONG = 0.02  # seconds of a kernel in whose shadow something happens


def measurements() -> dict[str, Callable[[], list[Row]]]:
    """All of them, in the order in which they are made."""
    return {
        "machine": machine,
        "first use": first_use,
        "pinning": pinning,
        "tensors": tensors,
        "python": python,
        "copies": copies,
        "overlap": overlap,
        "waiting": waiting,
        "queue": queue,
    }


def machine() -> list[Row]:
    """What the accelerator is called, and the versions."""
    properties = torch.cuda.get_device_properties(0)
    return [
        {
            "name": properties.name,
            "torch": torch.__version__.partition("+")[0],
            "cuda": torch.version.cuda,
            "python": sys.version.split()[0],
            "memory": properties.total_memory,
        }
    ]


FIRST_USE = """
import json, time
import torch
times = [time.perf_counter()]
torch.cuda.init(); torch.cuda.current_stream().synchronize(); times.append(time.perf_counter())
torch.zeros(1, device="cuda"); torch.cuda.synchronize(); times.append(time.perf_counter())
torch.zeros(1024).pin_memory(); times.append(time.perf_counter())
torch.zeros(1024).pin_memory(); times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""


def first_use() -> list[Row]:
    """What a new process takes to use the accelerator, and pinned memory, for the first time."""
    found = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True, timeout=120
    )
    names = ("context", "first tensor", "first pinned", "next pinned")
    return [dict(zip(names, json.loads(found.stdout.splitlines()[-1]), strict=True))]


def pinning() -> list[Row]:
    """Copying tensors into pinned memory: new memory, and memory that was used and freed before.

    In one thread, as torch's pin-memory thread does it, and in all, as the main process does it
    where there are no workers.
    """
    rows = []
    for size in SIZES:
        here = torch.full((size,), 1, dtype=torch.uint8)
        row: Row = {"bytes": size}
        with threads(1):
            row["new"], row["new_cpu"] = timed(here.pin_memory, 5, before=forget_pinned)
            here.pin_memory()
            row["used"], row["used_cpu"] = timed(here.pin_memory, 15)
        row["threads"], row["threads_cpu"] = timed(here.pin_memory, 15)
        row["copied"], _ = timed(here.clone, 15)
        rows.append(row)
    return rows


def tensors() -> list[Row]:
    """Pinning a batch of many small tensors, as torch does it to a dictionary."""
    rows = []
    with threads(1):
        for count in TENSORS:
            batch = {f"field{i}": torch.ones(SMALL, dtype=torch.uint8) for i in range(count)}
            pin_memory(batch)
            seconds, cpu = timed(partial(pin_memory, batch), 100)
            rows.append({"tensors": count, "seconds": seconds, "cpu": cpu})
    return rows


def python() -> list[Row]:
    """How fast Python runs in the main thread while another one pins; 1 is as fast as alone.

    `gap`: the longest time that it stood still.
    """
    here = torch.full((LARGE,), 1, dtype=torch.uint8)
    alone, gap = pace()
    rows = [{"beside": "nothing", "speed": 1.0, "gap": gap}]
    for name, before in (("used memory", None), ("new memory", forget_pinned)):
        with pinning_all_the_time(here, before):
            beside, gap = pace()
        rows.append({"beside": name, "speed": beside / alone, "gap": gap})
    return rows


def copies() -> list[Row]:
    """Copies to the accelerator, `non_blocking`, while it does nothing and while it is busy.

    `host`: how long the call takes; `device`: how long the copying. With `busy`, the stream has
    LONG seconds to do first: a call that waits for them takes at least so long. `blocking`: the
    call without `non_blocking`, the accelerator doing nothing.
    """
    rows = []
    cycles = cycles_per_second()
    for size in SIZES:
        there = torch.empty(size, dtype=torch.uint8, device="cuda")
        for pinned in (True, False):
            here = torch.full((size,), 1, dtype=torch.uint8)
            if pinned:
                here = here.pin_memory()
            copy = partial(there.copy_, here, non_blocking=True)
            row: Row = {"bytes": size, "pinned": pinned}
            row["host"], row["device"] = called(copy, 15)
            row["busy"], _ = called(copy, 3, before=partial(torch.cuda._sleep, int(cycles * LONG)))
            row["blocking"], _ = called(partial(there.copy_, here), 15)
            rows.append(row)
    return rows


def overlap() -> list[Row]:
    """A kernel of LONG seconds and copies of a large batch: in its stream, and in another one.

    `both`: seconds until both are done; `hidden`: the share of the copying that cost nothing.
    """
    rows = []
    there = torch.empty(LARGE, dtype=torch.uint8, device="cuda")
    other, cycles = torch.cuda.Stream(), int(cycles_per_second() * LONG)
    kernel = until_done(lambda: torch.cuda._sleep(cycles))
    for pinned in (True, False):
        here = torch.full((LARGE,), 1, dtype=torch.uint8)
        if pinned:
            here = here.pin_memory()

        def copy(here: torch.Tensor = here) -> None:
            there.copy_(here, non_blocking=True)

        def same() -> None:
            torch.cuda._sleep(cycles)
            copy()

        def apart() -> None:
            torch.cuda._sleep(cycles)
            with torch.cuda.stream(other):
                copy()

        alone = until_done(copy)
        for stream, work in (("the same", same), ("another", apart)):
            both = until_done(work)
            hidden = 1 - (both - kernel) / alone
            rows.append(
                {
                    "pinned": pinned,
                    "stream": stream,
                    "kernel": kernel,
                    "copy": alone,
                    "both": both,
                    "hidden": hidden,
                }
            )
    return rows


def waiting() -> list[Row]:
    """How much of a core the host uses while it waits for the accelerator."""
    cycles = int(cycles_per_second() * LONG)
    value = torch.zeros(1, device="cuda")
    rows = []
    for name, wait in (("synchronize", torch.cuda.synchronize), ("item", value.item)):

        def step(wait: Callable[[], object] = wait) -> None:
            torch.cuda._sleep(cycles)
            wait()

        seconds, cpu = timed(step, 10)
        rows.append({"by": name, "seconds": seconds, "cores": cpu / seconds})
    return rows


def queue() -> list[Row]:
    """How many kernels the host may be ahead before starting one more has to wait."""
    cycles = int(cycles_per_second() * 0.5e-3)
    torch.cuda.synchronize()
    times = []
    for _ in range(1500):
        began = time.perf_counter()
        torch.cuda._sleep(cycles)
        times.append(time.perf_counter() - began)
    torch.cuda.synchronize()
    waited = [i for i, seconds in enumerate(times) if seconds > 0.2e-3 and i > 10]
    first = waited[0] if waited else None
    return [{"ahead": first, "start": median(times[10:first])}]
