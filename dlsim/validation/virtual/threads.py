"""Python's own threads, locks, sleeps and event loops in virtual time, for packages that use them.

`virtual_threads(clock)` puts them in place of the real ones: of the threads started meanwhile
exactly one runs at a time, and one that sleeps, waits for a lock or for its event loop hands over
to whoever is due next. All else (queues, semaphores, events, thread pools, asyncio) is Python's
own code, built on these. So packages run unmodified, deterministically, and wait for nothing real.
"""

from __future__ import annotations

import _thread
import queue
import selectors
import threading
import time
from asyncio import selector_events
from collections import deque
from collections.abc import Iterator
from concurrent.futures import thread as pools
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from dlsim.validation.virtual.clock import Clock, Terminated, Thread


class VirtualLock:
    """What `threading.Lock` is. Who waits longest has it next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken = False
        self._line: deque[Thread] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if it was not free, or not within `timeout` seconds."""
        if not self._taken:
            self._taken = True
            return True
        clock = self._clock
        if not blocking or timeout == 0 or clock.closed:
            return False
        me, deadline = clock.current, clock.now + timeout if timeout > 0 else None
        self._line.append(me)
        try:
            while me in self._line and not clock.closed:
                if deadline is not None and clock.now >= deadline:
                    break
                clock.wait(deadline)
        finally:
            kept = me not in self._line  # it was handed over
            if not kept:
                self._line.remove(me)
        return kept

    def release(self) -> None:
        """Give it to the next one in line."""
        if self._line:
            self._clock.wake(self._line.popleft())
        else:
            self._taken = False

    def locked(self) -> bool:
        """Whether someone has it."""
        return self._taken

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self.__init__(self._clock)  # type: ignore[misc]


class VirtualSelector(selectors.SelectSelector):
    """What an event loop waits with: for a time to come, or until another thread calls for it."""

    clock: Clock
    waiting: Thread | None = None

    def select(self, timeout: float | None = None) -> Any:
        """What is ready within `timeout` seconds."""
        clock = self.clock
        deadline = None if timeout is None else clock.now + max(timeout, 0.0)
        while not (ready := super().select(0)):
            if clock.closed or (deadline is not None and clock.now >= deadline):
                break
            self.waiting = clock.current
            clock.wait(deadline)
            self.waiting = None
        return ready


@contextmanager
def virtual_threads(clock: Clock) -> Iterator[None]:
    """Whoever starts a thread, waits, or asks for the time here does so on `clock`."""
    threads: dict[threading.Thread, Thread] = {}
    joining: dict[threading.Thread, list[Thread]] = {}

    def start(thread: threading.Thread) -> None:
        mine = threads[thread] = Thread(len(threads))
        clock.workers.append(mine)

        def run() -> None:
            mine.turn.acquire()
            known = threading._active  # type: ignore[attr-defined]
            known[threading.get_ident()] = thread
            thread._ident = threading.get_ident()  # type: ignore[attr-defined]
            try:
                if not mine.killed:
                    thread.run()
            except Terminated:
                pass
            finally:
                del known[threading.get_ident()]
                for each in joining.get(thread, ()):
                    clock.wake(each)
                clock.exit()

        _thread.start_new_thread(run, ())
        clock.wake(mine)

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread not in threads:
            return real_join(thread, timeout)
        deadline = None if timeout is None else clock.now + timeout
        while threads[thread].alive and not clock.closed:
            if deadline is not None and clock.now >= deadline:
                return None
            waiting = joining.setdefault(thread, [])
            waiting.append(clock.current)
            clock.wait(deadline)
            waiting.remove(clock.current)
        return None

    def is_alive(thread: threading.Thread) -> bool:
        return threads[thread].alive if thread in threads else real_alive(thread)

    def write_to_self(loop: Any) -> None:
        real_write(loop)
        if getattr(loop._selector, "waiting", None) is not None:
            clock.wake(loop._selector.waiting)

    real_join, real_alive = threading.Thread.join, threading.Thread.is_alive
    real_write = selector_events.BaseSelectorEventLoop._write_to_self  # type: ignore[attr-defined]
    selector = type("Selector", (VirtualSelector,), {"clock": clock})
    lock, now = (lambda: VirtualLock(clock)), (lambda: clock.now)
    with ExitStack() as stack:
        for where, name, instead in (
            (threading.Thread, "start", start),
            (threading.Thread, "join", join),
            (threading.Thread, "is_alive", is_alive),
            (threading, "Lock", lock),
            (threading, "_allocate_lock", lock),
            (threading, "RLock", threading._PyRLock),  # type: ignore[attr-defined]
            (threading, "_time", now),
            (queue, "SimpleQueue", queue._PySimpleQueue),  # type: ignore[attr-defined]
            (queue, "time", now),
            (time, "sleep", clock.sleep),
            (time, "time", now),
            (time, "monotonic", now),
            (selectors, "DefaultSelector", selector),
            (selector_events.BaseSelectorEventLoop, "_write_to_self", write_to_self),
        ):
            stack.enter_context(mock.patch.object(where, name, instead))
        try:
            yield
        finally:
            clock.close()
            for thread in threads:  # Python would join them when it ends
                pools._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
