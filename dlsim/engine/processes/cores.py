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
from dlsim.engine.processes.clock import Alarms

Who: TypeAlias = tuple[int, int]  # a rank, and a process of it
# Its own level when it is done, or what it wants; a number in the order of coming, and who waits.
Thread: TypeAlias = tuple[float, int, simpy.Event, int]


class Customer:
    """A process with work to do: its threads, and the level each of them has reached.

    With a switch `interval` at most one of the `threads` computes, and others are `waiting`.
    """

    __slots__ = (
        *("handing", "interval", "level", "seen", "threads", "version", "waiting"),
        *("left", "limit", "lingers", "meets"),
    )

    def __init__(self, level: float, interval: float) -> None:
        self.threads: list[Thread] = []
        self.waiting: deque[Thread] = deque()
        self.interval = interval
        self.handing = inf  # own level at which the one that computes makes room
        self.level = 0.0
        self.seen = level  # the level outside when `self.level` was brought up to date
        self.left = -inf  # when it last had to leave its core
        self.version = 0  # entries of earlier versions in the queue of finishes are stale
        self.meets = False  # one of its threads meets others (gang.py)
        self.limit = inf  # own level at which it waits for others, on its core
        self.lingers = False  # it computes nothing, until the next step

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
        if self.threads and self.level < self.limit:
            self.level += (level - self.seen) / len(self.threads)
        self.seen = level

    def due(self) -> float:
        """The level outside at which the first thread will be done, or make room."""
        if self.level >= self.limit:
            return inf
        return self.seen + (self.next() - self.level) * len(self.threads)

    def next(self) -> float:
        """The own level at which that is."""
        return min(self.threads[0][0], self.handing, self.limit)

    def reach(self, level: float) -> list[tuple[simpy.Event, int]]:
        """Now it is, at this level outside: who is done."""
        if len(self.threads) == 1 and not self.waiting and not self.meets:
            return [self.threads.pop()[2:]]
        done: list[tuple[simpy.Event, int]] = []
        self.level, self.seen = self.next(), level
        if self.level >= self.limit:
            return done
        while self.threads and self.threads[0][0] <= self.level:
            done.append(heappop(self.threads)[2:])
        if self.level >= self.handing and self.threads:
            held = self.threads.pop()
            self.waiting.append((held[0] - self.level, *held[1:]))
        if self.waiting and not self.threads:
            first = self.waiting.popleft()
            self.threads.append((self.level + first[0], *first[1:]))
            self.handing = inf
            if self.waiting:
                self.take_turns()
        return done

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
        alarms: Alarms | None = None,
    ) -> None:
        self.env, self.interval = env, inf if interval is None else interval
        self._alarms = Alarms(env) if alarms is None else alarms
        self._alarms.watch(self)
        self._rates, self.background = Rates(rate), background
        self._customers: dict[Who, Customer] = {}
        self._finishes: list[tuple[float, int, int, Customer, Who]] = []
        self._number = count()
        self._level = 0.0
        self._since = env.now  # when the level was brought up to date
        self.moment = inf  # when the next customer is due

    def serve(self, amount: float, customer: Who, turn: int, *, turns: bool = True) -> simpy.Event:
        """An event that happens when one more thread of `customer` has been served `amount` > 0.

        It happens for the one who has this `turn`. Threads of a customer take `turns`, if any do.
        """
        done = simpy.Event(self.env)
        self._advance()
        thread = (amount, next(self._number), done, turn)
        served = self._customers.get(customer)
        if served is None:
            served = Customer(self._level, self.interval if turns else inf)
            served.threads.append(thread)
            self._customers[customer] = served
        else:
            served.catch_up(self._level)
            served.add(thread)
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

    def _advance(self) -> None:
        """Bring the level up to this moment."""
        now = self.env.now
        if self._customers:
            self._level += (now - self._since) * self._rates[len(self._customers) + self.background]
        self._since = now

    def _queue(self, number: Who, customer: Customer) -> None:
        customer.version = version = customer.version + 1
        heappush(self._finishes, (customer.due(), next(self._number), version, customer, number))

    def _set_alarm(self) -> None:
        """Wake up when the next customer is due."""
        finishes = self._finishes
        while finishes and finishes[0][2] != finishes[0][3].version:
            heappop(finishes)
        if len(finishes) > 64 and len(finishes) > 4 * len(self._customers):
            finishes[:] = [entry for entry in finishes if entry[2] == entry[3].version]
            heapify(finishes)
        if not finishes:
            self.moment = inf
            return
        rate = self._rates[len(self._customers) + self.background]
        self.moment = self.env.now + max(0.0, finishes[0][0] - self._level) * (1 / rate)
        self._alarms.set()

    def ring(self) -> list[tuple[simpy.Event, int]]:
        """Those who are due go: their events, and turns."""
        done = []
        # The level is what it was to be; computed from the time it might fall short of it.
        finishes = self._finishes
        level = self._level = finishes[0][0]
        self._since = self.env.now
        while finishes and finishes[0][0] <= level:
            _, _, version, customer, number = heappop(finishes)
            if version != customer.version:
                continue
            done += customer.reach(level)
            if customer.threads:
                self._queue(number, customer)
            else:
                customer.version += 1
                del self._customers[number]
        self._set_alarm()
        return done
