"""Processor sharing: the cores, shared equally by all processes that can run.

Every process gets the same rate, `Machine.rate` of how many there are, so it is enough to know how
much service one process has had since all began, the level: a process that arrives needing `s`
seconds is done when the level has risen by `s`. Between arrivals and departures the level rises
in a straight line, and only the process due next needs an alarm; each event costs O(log n).

The threads of one process share what the process gets, as Python's lock makes them; the same
trick once more, inside each process.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeAlias

import simpy

from dlsim.engine.processes.clock import happen

Who: TypeAlias = tuple[int, int]  # a rank, and a process of it


class Customer:
    """A process with work to do: its threads, and the level each of them has reached."""

    def __init__(self, level: float) -> None:
        self.threads: list[tuple[float, int, simpy.Event, int]] = []  # own level when done
        self.level = 0.0
        self.seen = level  # the level outside when `self.level` was brought up to date
        self.version = 0  # entries of earlier versions in the queue of finishes are stale

    def catch_up(self, level: float) -> None:
        """Bring `self.level` up to date: the rise outside, divided among the threads."""
        if self.threads:
            self.level += (level - self.seen) / len(self.threads)
        self.seen = level

    def due(self) -> float:
        """The level outside at which the first thread will be done."""
        return self.seen + (self.threads[0][0] - self.level) * len(self.threads)


class Sharing:
    """Something shared equally among customers: with n of them, each gets `rate(n)` of it.

    `background` is the number of customers that are there besides, and want all they can get.
    """

    def __init__(
        self, env: simpy.Environment, rate: Callable[[float], float], background: float = 0.0
    ) -> None:
        self.env = env
        self.rate, self.background = rate, background
        self._rates: dict[float, float] = {}  # by how many there are
        self._customers: dict[Who, Customer] = {}
        self._finishes: list[tuple[float, int, int, Customer, Who]] = []
        self._number = count()
        self._level = 0.0
        self._since = env.now  # when the level was brought up to date
        self._alarm = 0  # the number of the alarm that counts; earlier ones are stale

    def serve(self, amount: float, customer: Who, turn: int) -> simpy.Event:
        """An event that happens when one more thread of `customer` has been served `amount` > 0.

        It happens for the one who has this `turn`.
        """
        done = self.env.event()
        self._advance()
        served = self._customers.setdefault(customer, Customer(self._level))
        served.catch_up(self._level)
        heappush(served.threads, (served.level + amount, next(self._number), done, turn))
        self._queue(customer, served)
        self._set_alarm()
        return done

    def leave(self, customer: Who) -> None:
        """The customer goes, whatever it still wanted; its events never happen."""
        self._advance()
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
        present = len(self._customers) + self.background
        found = self._rates.get(present)
        if found is None:
            found = self._rates[present] = self.rate(present)
        return found

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
            customer.level, customer.seen = customer.threads[0][0], self._level
            while customer.threads and customer.threads[0][0] <= customer.level:
                happen(*heappop(customer.threads)[2:])
            if customer.threads:
                self._queue(number, customer)
            else:
                customer.version += 1
                del self._customers[number]
        self._set_alarm()
