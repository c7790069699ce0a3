"""Processor sharing: the cores, shared equally by all processes that can run.

Every process gets the same rate, `Machine.rate` of how many there are, so it is enough to know how
much service one process has had since all began, the level: a process that arrives needing `s`
seconds is done when the level has risen by `s`. Between arrivals and departures the level rises
in a straight line, and only the process due next needs an alarm; each event costs O(log n).

The threads of one process share what the process gets; the same trick once more, inside each
process. With a switch interval they take turns instead, as at Python's lock: one computes, until it
is done or has computed for so long while others waited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TypeAlias

import simpy

from dlsim.engine.facts import PART
from dlsim.engine.processes.clock import happen

Who: TypeAlias = tuple[int, int]  # a rank, and a process of it
# Its own level when it is done, or what it wants; a number in the order of coming, and who waits.
Thread: TypeAlias = tuple[float, int, simpy.Event, int]


class Customer:
    """A process with work to do: its threads, and the level each of them has reached.

    With a switch `interval` at most one of the `threads` computes, and others are `waiting`.
    """

    def __init__(self, level: float, interval: float) -> None:
        self.threads: list[Thread] = []
        self.waiting: deque[Thread] = deque()
        self.interval = interval
        self.handing = inf  # own level at which the one that computes makes room
        self.level = 0.0
        self.seen = level  # the level outside when `self.level` was brought up to date
        self.version = 0  # entries of earlier versions in the queue of finishes are stale

    def add(self, thread: Thread) -> None:
        """One more thread, that wants something."""
        if self.threads and self.interval < inf:
            self.waiting.append(thread)
            if len(self.waiting) == 1:
                self.take_turns()
        else:
            heappush(self.threads, (self.level + thread[0], *thread[1:]))

    def catch_up(self, level: float) -> None:
        """Bring `self.level` up to date: the rise outside, divided among the threads."""
        if self.threads:
            self.level += (level - self.seen) / len(self.threads)
        self.seen = level

    def due(self) -> float:
        """The level outside at which the first thread will be done, or make room."""
        return self.seen + (self.next() - self.level) * len(self.threads)

    def next(self) -> float:
        """The own level at which that is."""
        return min(self.threads[0][0], self.handing)

    def reach(self, level: float) -> None:
        """Now it is, at this level outside."""
        self.level, self.seen = self.next(), level
        while self.threads and self.threads[0][0] <= self.level:
            happen(*heappop(self.threads)[2:])
        if self.level >= self.handing and self.threads:
            held = self.threads.pop()
            self.waiting.append((held[0] - self.level, *held[1:]))
        if self.waiting and not self.threads:
            first = self.waiting.popleft()
            self.threads.append((self.level + first[0], *first[1:]))
            self.handing = inf
            if self.waiting:
                self.take_turns()

    def take_turns(self) -> None:
        """The one that computes makes room after the interval, or a part of the least one wants.

        What is too short to bring the level on is no turn.
        """
        least = min(self.threads[0][0] - self.level, *(thread[0] for thread in self.waiting))
        handing = self.level + max(self.interval, least * PART)
        self.handing = handing if handing > self.level else inf


class Rates(dict[float, float]):
    """What each of so many customers gets, found out once for each number of them."""

    def __init__(self, rate: Callable[[float], float]) -> None:
        super().__init__()
        self._rate = rate

    def __missing__(self, present: float) -> float:
        found = self[present] = self._rate(present)
        return found


class Sharing:
    """Something shared equally among customers: with n of them, each gets `rate(n)` of it.

    `background` is the number of customers that are there besides, and want all they can get;
    `interval`: after how long threads of a customer take turns, if they do.
    """

    def __init__(
        self,
        env: simpy.Environment,
        rate: Callable[[float], float],
        background: float = 0.0,
        interval: float | None = None,
    ) -> None:
        self.env, self.interval = env, inf if interval is None else interval
        self._rates, self.background = Rates(rate), background
        self._customers: dict[Who, Customer] = {}
        self._finishes: list[tuple[float, int, int, Customer, Who]] = []
        self._number = count()
        self._level = 0.0
        self._since = env.now  # when the level was brought up to date
        self._alarm = 0  # the number of the alarm that counts; earlier ones are stale

    def serve(self, amount: float, customer: Who, turn: int, *, turns: bool = True) -> simpy.Event:
        """An event that happens when one more thread of `customer` has been served `amount` > 0.

        It happens for the one who has this `turn`. Threads of a customer take `turns`, if any do.
        """
        done = self.env.event()
        self._advance()
        interval = self.interval if turns else inf
        served = self._customers.setdefault(customer, Customer(self._level, interval))
        served.catch_up(self._level)
        served.add((amount, next(self._number), done, turn))
        self._queue(customer, served)
        self._set_alarm()
        return done

    def leave(self, customers: Iterable[Who]) -> None:
        """The customers go, whatever they still wanted; their events never happen."""
        self._advance()
        for customer in customers:
            served = self._customers.pop(customer, None)
            if served is not None:
                served.version += 1
        self._set_alarm()

    def crowd(self, by: float) -> None:
        """From now on there are so many more customers in the background."""
        self._advance()
        self.background += by
        self._set_alarm()

    def _rate(self) -> float:
        return self._rates[len(self._customers) + self.background]

    def _advance(self) -> None:
        """Bring the level up to this moment."""
        if self._customers:
            self._level += (self.env.now - self._since) * self._rate()
        self._since = self.env.now

    def _queue(self, number: Who, customer: Customer) -> None:
        customer.version += 1
        entry = (customer.due(), next(self._number), customer.version, customer, number)
        heappush(self._finishes, entry)

    def _set_alarm(self) -> None:
        """Wake up when the next customer is due."""
        finishes = self._finishes
        while finishes and finishes[0][2] != finishes[0][3].version:
            heappop(finishes)
        if len(finishes) > 64 and len(finishes) > 4 * len(self._customers):
            finishes[:] = [entry for entry in finishes if entry[2] == entry[3].version]
            heapify(finishes)
        self._alarm += 1
        if finishes:
            delay = max(0.0, finishes[0][0] - self._level) * (1 / self._rate())
            alarm = self.env.timeout(delay, self._alarm)
            alarm.callbacks.append(self._ring)

    def _ring(self, alarm: simpy.Event) -> None:
        if alarm.value != self._alarm:
            return
        # The level is what it was to be; computed from the time it might fall short of it.
        self._level, self._since = self._finishes[0][0], self.env.now
        while self._finishes and self._finishes[0][0] <= self._level:
            _, _, version, customer, number = heappop(self._finishes)
            if version != customer.version:
                continue
            customer.reach(self._level)
            if customer.threads:
                self._queue(number, customer)
            else:
                customer.version += 1
                del self._customers[number]
        self._set_alarm()
