"""A multiprocessing context in virtual time, for `DataLoader(multiprocessing_context=...)`.

"Processes" are threads of which exactly one runs at a time. A thread that sleeps, waits for a
queue or exits hands over to whoever is due next; the clock then jumps to that moment. So torch's
own code runs unmodified, deterministically, and without waiting for anything real.

Who goes first at one moment is decided as in `dlsim.engine.processes.clock`: workers before the
main process, and by number among workers; messages that arrive at one moment are read in the
order of their senders' numbers.
"""

from __future__ import annotations

import queue
import threading
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count, cycle
from multiprocessing.context import BaseContext
from typing import Any

import torch.utils.data._utils.worker as torch_worker

MAIN_RANK = 1 << 40  # goes after every worker
FIRST_PID = 1 << 30  # torch looks at pids only when a child exits, and finds no such child


class Terminated(BaseException):
    """Raised inside a virtual process that is terminated."""


class Thread:
    """Something that runs on the virtual clock; `rank` says who goes first at one moment."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.turn = allocate_lock()  # a real one, also where `threading.Lock` is virtual
        self.turn.acquire()
        self.waiting = 0  # which of its waits it is in; earlier wake-ups are stale
        self.killed = False
        self.alive = True
        self.worker_info: Any = None


class Clock:
    """Virtual time, and whose turn it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self.main = self.current = Thread(MAIN_RANK)
        self.closed = False
        self.workers: list[Thread] = []
        self.mains: list[Thread] = []  # of several ranks, beside the one that began
        self._due: list[tuple[float, int, int, int, Thread]] = []
        self._number = count()

    @property
    def in_main(self) -> bool:
        """Whether a main process runs, rather than a worker."""
        return self.current.rank >= MAIN_RANK

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass for the calling thread."""
        self.wait(self.now + seconds)

    def after_others(self) -> None:
        """Let everyone who goes first at this moment do so."""
        self.wait(self.now)

    def wait(self, until: float | None = None) -> None:
        """Hand over until the moment `until`, or until woken."""
        if self.closed:
            return
        if until is not None:
            self.wake(self.current, until)
        self._hand_over()

    def wake(self, thread: Thread, moment: float | None = None) -> None:
        """End the present wait of `thread` at `moment` (now, if None)."""
        when = self.now if moment is None else moment
        heappush(self._due, (when, thread.rank, next(self._number), thread.waiting, thread))

    def _hand_over(self) -> None:
        leaving = self.current
        # Not `self.current`: whoever was given the turn may have passed it back by now.
        if self._pass_turn() is not leaving:
            leaving.turn.acquire()
        if leaving.killed:
            leaving.killed = False  # what it does on its way out may wait
            raise Terminated

    def _pass_turn(self) -> Thread:
        """Make the thread that is due next the current one, and say which it was."""
        leaving = self.current
        while True:
            if not self._due:
                raise RuntimeError("virtual clock: everyone waits, and nobody will wake anyone")
            moment, _, _, waiting, thread = heappop(self._due)
            if thread.alive and waiting == thread.waiting:
                break
        self.now = moment
        thread.waiting += 1
        if thread is leaving:
            return thread
        # torch keeps what get_worker_info() returns in a global of the process.
        leaving.worker_info = torch_worker._worker_info
        torch_worker._worker_info = thread.worker_info
        self.current = thread
        thread.turn.release()
        return thread

    def exit(self) -> None:
        """The calling thread ends; the next one takes over."""
        self.current.alive = False
        self._pass_turn()

    def close(self) -> None:
        """Terminate whoever still runs. From now on nothing waits, and time stands still."""
        for thread in (*self.workers, *self.mains):
            if thread.alive:
                thread.killed = True
                self.wake(thread)
                self.after_others()
        self.closed = True


class VirtualQueue:
    """What torch uses of `multiprocessing.Queue`; messages arrive `latency` seconds after put."""

    def __init__(
        self,
        clock: Clock,
        latency: float,
        on_put: Callable[[Any], object],
        on_get: Callable[[Any], object],
    ) -> None:
        self._clock = clock
        self._latency = latency
        self._on_put, self._on_get = on_put, on_get
        self._messages: list[tuple[float, int, int, Any, Any]] = []
        self._number = count()
        self._reader: Thread | None = None

    def put(self, message: Any) -> None:
        """Send a message."""
        clock = self._clock
        arrival = clock.now + self._latency
        label = self._on_put(message)
        entry = (arrival, clock.current.rank, next(self._number), label, message)
        heappush(self._messages, entry)
        if self._reader is not None:
            clock.wake(self._reader, arrival)

    def get(self, timeout: float | None = None) -> Any:
        """The next message; raises `queue.Empty` when none arrives within `timeout` seconds."""
        clock = self._clock
        deadline = None if timeout is None else clock.now + timeout
        if clock.in_main:
            clock.after_others()
        while not (self._messages and self._messages[0][0] <= clock.now):
            if deadline is not None and clock.now >= deadline:
                raise queue.Empty
            self._reader = clock.current
            if self._messages:
                clock.wake(clock.current, self._messages[0][0])
            clock.wait(deadline)
            self._reader = None
            if clock.in_main:
                clock.after_others()
        _, _, _, label, message = heappop(self._messages)
        self._on_get(label)
        return message

    def cancel_join_thread(self) -> None:
        """There is no thread to join."""

    def close(self) -> None:
        """There is nothing to close."""


class VirtualEvent:
    """What torch uses of `multiprocessing.Event`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set = False

    def set(self) -> None:
        """Set it, once everyone has done what they do at this moment."""
        self._clock.after_others()
        self._set = True

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set


class VirtualProcess:
    """What torch uses of `multiprocessing.Process`; starting takes the main process a while."""

    daemon = True

    def __init__(
        self,
        clock: Clock,
        number: int,
        start_cost: float,
        target: Callable[..., object],
        args: Sequence[Any],
        on_terminate: Callable[[], object],
    ) -> None:
        self.pid = FIRST_PID + number
        self._clock = clock
        self._start_cost = start_cost
        self._target, self._args = target, args
        self._on_terminate = on_terminate
        self._thread = Thread(number)
        self._joining: Thread | None = None

    def start(self) -> None:
        """Start it."""
        self._clock.sleep(self._start_cost)
        self._clock.workers.append(self._thread)
        threading.Thread(target=self._run, daemon=True).start()
        self._clock.wake(self._thread)

    def _run(self) -> None:
        self._thread.turn.acquire()
        try:
            if not self._thread.killed:
                self._target(*self._args)
        except Terminated:
            self._on_terminate()
        if self._joining is not None:
            self._clock.wake(self._joining)
        self._clock.exit()

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.alive

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        clock = self._clock
        deadline = None if timeout is None else clock.now + timeout
        while self._thread.alive and not clock.closed:
            if deadline is not None and clock.now >= deadline:
                return
            self._joining = clock.current
            clock.wait(deadline)
            self._joining = None
            clock.after_others()

    def terminate(self) -> None:
        """End it, whatever it is doing."""
        if self._thread.alive:
            self._thread.killed = True
            self._clock.wake(self._thread)


class VirtualContext(BaseContext):
    """The context to give a DataLoader with `num_workers` workers.

    `observer` is told what goes through the queues, and of workers that are terminated.
    """

    def __init__(
        self,
        clock: Clock,
        num_workers: int,
        *,
        worker_start: float,
        index_latency: float,
        observer: Any,
    ) -> None:
        self._clock = clock
        self._worker_start, self._latency = worker_start, index_latency
        self._observer = observer
        # An iterator makes the result queue first, then an index queue for each worker.
        self._queues = cycle(range(-1, num_workers))
        self._processes = cycle(range(num_workers))

    def Queue(self, maxsize: int = 0) -> Any:
        """The result queue, then the index queue of each worker in turn."""
        worker, seen = next(self._queues), self._observer
        if worker < 0:
            return VirtualQueue(self._clock, 0.0, seen.answered, seen.received)
        return VirtualQueue(
            self._clock,
            self._latency,
            lambda message: seen.sent(worker, message),
            lambda number: seen.taken(worker, number),
        )

    def Event(self) -> Any:
        """The event that tells workers to finish."""
        return VirtualEvent(self._clock)

    def Process(self, *, target: Callable[..., object], args: Sequence[Any]) -> Any:
        """The next worker."""
        return VirtualProcess(
            self._clock,
            next(self._processes),
            self._worker_start,
            target,
            args,
            self._observer.terminated,
        )
