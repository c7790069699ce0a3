"""Threads of a step, or a sample, that meet again and again, and wait for one another on a core.

Of a step, none is further ahead of one that has no core than from one meeting to the next. Those of
a sample meet by chance: all but the first keep cores busy, until it has computed for as much longer
as it seldom meets them. The main process, or a worker, is the first: what they do is over when all
have done their part.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import inf

from dlsim.engine.processes.cores import Customer, Thread, Who


class Gang:
    """The threads of one step, or sample.

    None of them is further ahead of one that has no core than by its `lead`. There may be `others`,
    that only keep cores busy.
    """

    def __init__(self, first: Who, lead: float, linger: float, others: Sequence[Who]) -> None:
        self.first, self.linger, self.lead, self.others = first, linger, lead, others
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


def seldom(present: float, cores: float) -> float:
    """How many times as long threads compute that meet by chance, among so many who stay on cores.

    Of the others as many have cores as there are, but for one: so often it is the one waited for.
    """
    return max((present - 1) / max(cores - 1, 1.0), 1.0)


def end(threads: list[Thread], number: int) -> float:
    """The own level at which the thread with this number is done; infinity if it waits."""
    return next((thread[0] for thread in threads if thread[1] == number), inf)
