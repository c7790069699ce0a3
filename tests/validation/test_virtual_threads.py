"""Python's threads, queues, pools and event loops take no real time where they are virtual."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torch")

from dlsim.validation.virtual.clock import Clock
from dlsim.validation.virtual.threads import virtual_threads


def test_a_queue_between_threads() -> None:
    """An item that is put after an hour is there after an hour; a time limit strikes on time."""
    clock, seen = Clock(), []

    def wait() -> None:
        with pytest.raises(queue.Empty):
            items.get(timeout=10.0)
        seen.append(("gave up", time.monotonic()))
        seen.append((items.get(), time.monotonic()))

    with virtual_threads(clock):
        items: queue.Queue[str] = queue.Queue()
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(3600.0)
        items.put("item")
        thread.join()
        assert not thread.is_alive()
    assert seen == [("gave up", 10.0), ("item", 3600.0)]


def test_who_waits_longest_has_the_lock_next() -> None:
    """Three threads have a lock one after another, 5 s each, in the order of asking."""
    clock, seen = Clock(), []

    def hold(name: int) -> None:
        time.sleep(3 - name)
        with lock:
            time.sleep(5.0)
            seen.append((name, time.monotonic()))

    with virtual_threads(clock):
        lock = threading.Lock()
        threads = [threading.Thread(target=hold, args=(name,)) for name in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert seen == [(2, 6.0), (1, 11.0), (0, 16.0)]


def test_an_event_loop_and_its_pool() -> None:
    """Four tasks of 60 s on two threads, beside a timer of asyncio's: 2 minutes, in no time."""
    clock = Clock()

    async def all_of_them() -> float:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            work = [loop.run_in_executor(pool, time.sleep, 60.0) for _ in range(4)]
            await asyncio.sleep(30.0)
            between = loop.time()
            await asyncio.gather(*work)
        return between

    with virtual_threads(clock):
        between = asyncio.run(all_of_them())
        assert time.monotonic() == pytest.approx(120.0)
    assert between == pytest.approx(30.0)


def test_what_is_left_over_ends() -> None:
    """A thread that would sleep for ever is gone afterwards, and real threads are real again."""
    clock = Clock()
    with virtual_threads(clock):
        forever = threading.Thread(target=time.sleep, args=(1e12,), daemon=True)
        forever.start()
        time.sleep(1.0)
        assert forever.is_alive()
    assert not clock.workers[0].alive
    assert clock.now < 1e6
    real = threading.Thread(target=lambda: None)
    real.start()
    real.join()
