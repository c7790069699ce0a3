"""How long the host and the accelerator take for something, and Python meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import torch


def forget_pinned() -> None:
    """Give all pinned memory that is not in use back to the system."""
    torch._C._host_emptyCache()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def timed(
    call: Callable[[], object], times: int, before: Callable[[], object] | None = None
) -> tuple[float, float]:
    """The median seconds of a call, and those of the processor, of all threads."""
    seconds, cpu = [], []
    for _ in range(times):
        if before is not None:
            before()
        used, began = time.process_time(), time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return median(seconds), median(cpu)


def called(
    call: Callable[[], object], times: int, before: Callable[[], object] | None = None
) -> tuple[float, float]:
    """The median seconds of a call, and those of what it gave the accelerator to do."""
    host, device = [], []
    for _ in range(times):
        torch.cuda.synchronize()
        if before is not None:
            before()
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        began = time.perf_counter()
        call()
        host.append(time.perf_counter() - began)
        ended.record()
        ended.synchronize()
        device.append(started.elapsed_time(ended) / 1000)
    return median(host), median(device)


def until_done(work: Callable[[], object], times: int = 5) -> float:
    """The median seconds from beginning some work until the accelerator has done it."""

    def all_of_it() -> None:
        work()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return timed(all_of_it, times)[0]


def cycles_per_second() -> float:
    """How long `torch.cuda._sleep` sleeps, once the accelerator's clock is up."""
    for _ in range(3):
        _, seconds = called(partial(torch.cuda._sleep, 50_000_000), 3)
    return 50_000_000 / seconds


@contextmanager
def pinning_all_the_time(here: torch.Tensor, before: Callable[[], object] | None) -> Iterator[None]:
    """Meanwhile another thread pins a tensor again and again."""
    over = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        while not over.is_set():
            if before is not None:
                before()
            here.pin_memory()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def pace(seconds: float = 1.0) -> tuple[float, float]:
    """Turns a second of a loop in Python, and the longest time between two of them."""
    began = last = time.perf_counter()
    turns, gap = 0, 0.0
    while last - began < seconds:
        now = time.perf_counter()
        gap = max(gap, now - last)
        last = now
        turns += 1
    return turns / (last - began), gap
