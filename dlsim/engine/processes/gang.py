"""Threads of a step that meet again and again, and wait for one another on a core.

None is further ahead of one that has no core than from one meeting to the next. The main process is
the first of them: its step is over when all have done theirs.
"""

from __future__ import annotations

from collections.abc import Container
from math import inf

from dlsim.engine.facts import MEETINGS
from dlsim.engine.processes.cores import Customer, Thread, Who


class Gang:
    """The threads of one step, each of which computes for `amount`."""

    def __init__(self, first: Who, amount: float, linger: float) -> None:
        self.first, self.linger = first, linger
        self.lead = amount / MEETINGS
        self.members: dict[Who, tuple[Customer, int]] = {}  # with the numbers of their threads

    def done(self, who: Who) -> bool:
        """Whether the thread of a member has done its part."""
        customer, number = self.members[who]
        return not any(thread[1] == number for thread in (*customer.threads, *customer.waiting))

    def meet(self, level: float, computing: Container[Who]) -> None:
        """How far each may go, now that those are `computing`."""
        for who, (one, _) in self.members.items():
            if who in computing:
                one.catch_up(level)
        left = {who: self._left(who) for who in self.members}
        for who, (one, number) in self.members.items():
            one.limit = inf
            for other, behind in left.items():
                absent = other not in computing and behind > 0
                if other == who:
                    continue
                if absent:
                    ahead = behind - left[who]
                    one.limit = min(one.limit, one.level + max(self.lead - ahead, 0.0))
                if who == self.first and (absent or behind > left[who]):
                    one.limit = min(one.limit, end(one.threads, number))

    def _left(self, who: Who) -> float:
        """What the thread of a member still wants."""
        customer, number = self.members[who]
        for thread in customer.waiting:
            if thread[1] == number:
                return thread[0]
        return end(customer.threads, number) - customer.level


def end(threads: list[Thread], number: int) -> float:
    """The own level at which the thread with this number is done; infinity if it waits."""
    return next((thread[0] for thread in threads if thread[1] == number), inf)
