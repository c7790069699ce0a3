"""Cores that are had in turns: each computes for one process at a time, and others stand in line.

The rules, which are about what Linux does where nothing is preferred:

1. Who wakes takes the core that it had last, or if that is busy, the first one that is not. If all
   are, it takes the one that it had last all the same (if it is new, that with the shortest line),
   and who computed there is first in line.
2. At every tick, on each core with a line, who computes goes to its end, and the first in it
   computes.
3. A core on which nobody computes any more takes the first in its line. Or else it takes of the
   longest one the first that has not computed for `HOT`, as what others need is in the cache of
   their core; but at a tick, if it has found nobody at `PATIENT` ones before, whoever is first.
4. A thread of a step, or a sample, that waits for others (gang.py) goes on computing; and so do
   those of the last one, for as long as they linger. It is taken from another line at ticks only.
   If all cores are busy when it is woken, it goes to the end of the line of the first of them; one
   of a sample to that of the shortest line. The first of a sample computes for as many times as
   long as it seldom finds the others on cores.

As long as no core is without work, all together get as much done as if they shared equally.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count
from math import ceil, inf

import simpy

from dlsim.engine.facts import HOT, INSTANT, MEETINGS, PATIENT
from dlsim.engine.processes.clock import ALARM, happen, until
from dlsim.engine.processes.cores import Customer, Rates, Who
from dlsim.engine.processes.gang import Gang, seldom
from dlsim.scenario import Machine

MOST = 1 << 16  # cores; nothing here wants more of them


class Ticking:
    """The cores of a machine, which has a limited number of them, and a tick."""

    def __init__(self, env: simpy.Environment, machine: Machine) -> None:
        self.env, self.machine, self.background = env, machine, machine.background
        self._rates = Rates(machine.rate)
        self.interval = inf if machine.switch_interval is None else machine.switch_interval
        cores = min(ceil(machine.cores or 1), MOST)
        self._computing: list[Who | None] = [None] * cores
        self._lines: list[deque[Who]] = [deque() for _ in range(cores)]
        self._in_vain = [0] * cores  # ticks at which it has looked for work
        self._customers: dict[Who, Customer] = {}
        self._core: dict[Who, int] = {}  # the one that each has, waits for, or had last
        self._number = count()
        self._level = 0.0  # what who computes has had since all began
        self._since = env.now  # when that was brought up to date
        self._next = inf  # the level at which the first one is due
        self._ticks, self._coming, self._ticking = 0, 0, False  # the alarm is for a tick
        self._alarm = 0
        self._gangs: dict[Who, Gang] = {}  # of those who have not done their part
        self._met = True  # how far they may go is known
        # Who wants to know that a customer has gone: until when, and in whose turn.
        self._asking: list[tuple[simpy.Event, float, int]] = []

    def serve(self, amount: float, customer: Who, turn: int, *, turns: bool = True) -> simpy.Event:
        """An event that happens when one more thread of `customer` has been served `amount` > 0.

        It happens for the one who has this `turn`. Threads of a customer take `turns`, if any do.
        """
        done = self.env.event()
        self._advance()
        woken, served = self._present(customer, turns)
        served.add((amount, next(self._number), done, turn))
        if woken:
            self._wake(customer)
        self._set_alarm()
        return done

    def serve_together(
        self,
        amount: float,
        customers: Sequence[Who],
        turn: int,
        linger: float,
        *,
        turns: bool = True,
        by_chance: bool = False,
        slept: bool = False,
    ) -> simpy.Event:
        """The same of several that meet: of the first, when all have done their part.

        Those that meet `by_chance` compute for as much longer as they seldom do; who has `slept`
        finds the others at the next turn at the earliest.
        """
        done = [self.env.event() for _ in customers]
        self._advance()
        if by_chance:
            spinning = {who for who, one in self._customers.items() if one.lingers}
            present = len({*spinning, *self._gangs, *customers}) + self.background
            least = max(amount, self.machine.slices if slept else 0.0)
            amount += (seldom(present, self.machine.cores or inf) - 1) * least
        lead, others = (inf, customers[1:]) if by_chance else (amount / MEETINGS, ())
        gang = Gang(customers[0], lead, linger, others)
        for who, event in zip(customers, done, strict=True):
            woken, served = self._present(who, turns)
            if who != gang.first:  # whatever is left of the last step
                served.threads.clear()
                served.lingers = who in others
            number, served.meets = next(self._number), True
            served.add((inf if who in others else amount, number, event, turn))
            if who not in others:
                gang.members[who] = served, number
                self._gangs[who] = gang
            if woken:
                self._wake(who, beside=gang.first)
        self._met = False
        self._set_alarm()
        return done[0]

    def _present(self, who: Who, turns: bool) -> tuple[bool, Customer]:
        """Who wants something more, brought up to date; and whether it wanted nothing until now."""
        served = self._customers.get(who)
        woken = served is None
        if served is None:
            interval = self.interval if turns else inf
            served = self._customers[who] = Customer(self._level, interval)
        elif self._computing[self._core[who]] == who:
            served.catch_up(self._level)
        return woken, served

    def leave(self, customers: Iterable[Who]) -> None:
        """The customers go, whatever they still wanted; their events never happen."""
        self._advance()
        for who in customers:
            if self._customers.pop(who, None) is None:
                continue
            self._leave_gang(who)
            core = self._core[who]
            if self._computing[core] == who:
                self._computing[core] = None
            else:
                self._lines[core].remove(who)
            self._tell_gone()
        self._set_alarm()

    def crowd(self, by: float) -> None:
        """From now on there are so many more customers in the background."""
        self._advance()
        self.background += by
        self._set_alarm()

    def tick(self) -> float:
        """The next moment at which processes take turns."""
        return (int(self.env.now / self.machine.slices) + 1) * self.machine.slices

    def full(self) -> bool:
        """Whether all cores are taken."""
        return len(self._customers) + self.background >= (self.machine.cores or inf)

    def apart(self, one: Who, other: Who) -> bool:
        """Whether both had a core already, and different ones last."""
        return len({self._core[who] for who in (one, other) if who in self._core}) == 2

    def gone(self, moment: float, turn: int) -> simpy.Event:
        """An event that happens when a customer has been gone for an instant, or at `moment`.

        It happens for the one who has this `turn`.
        """
        event = self.env.event()
        self._asking.append((event, moment, turn))
        until(self.env, moment, ALARM).callbacks.append(lambda _: self._answer(event, turn, 0.0))
        return event

    def _tell_gone(self) -> None:
        """A customer goes: who goes on at this very moment has never been away."""
        for event, moment, turn in self._asking:
            self._answer(event, turn, min(INSTANT, moment - self.env.now))
        self._asking.clear()

    def _answer(self, event: simpy.Event, turn: int, delay: float) -> None:
        if not event.triggered:
            happen(event, turn, delay)

    def _speed(self) -> float:
        """What who computes gets done in a second."""
        cores = len(self._computing)
        busy = cores - self._computing.count(None)
        present = len(self._customers) if busy == cores else busy
        return present * self._rates[present + self.background] / busy

    def _advance(self) -> None:
        """Bring the level up to this moment."""
        if self._customers:
            self._level += (self.env.now - self._since) * self._speed()
        self._since = self.env.now

    def _leave_gang(self, who: Who) -> Gang | None:
        gang = self._gangs.pop(who, None)
        if gang is not None:
            gang.members.pop(who)[0].limit = inf
            self._met = False
        return gang

    def _part_done(self, who: Who) -> None:
        """Rule 4: who has done its part of a step lingers, and so do the others of a sample."""
        gang = self._leave_gang(who)
        if gang is None:
            return
        for other in (who,) if who != gang.first else gang.others:
            customer = self._customers[other]
            if self._computing[self._core[other]] == other:
                customer.catch_up(self._level)
            end = customer.level + gang.linger
            customer.threads[:] = [(end, next(self._number), self.env.event(), ALARM)]
            customer.lingers = True

    def _wake(self, who: Who, beside: Who | None = None) -> None:
        """Rule 1; of a thread `beside` another one, rule 4."""
        lengths = [len(line) for line in self._lines]
        if beside is not None and who != beside and None not in self._computing:
            by_chance = self._customers[who].lingers
            core = lengths.index(min(lengths)) if by_chance else self._core[beside]
            self._core[who] = core
            self._lines[core].append(who)
            return
        had, busy = self._core.get(who), [one is not None for one in self._computing]
        if had is not None and (not busy[had] or all(busy)):
            core = had
        else:
            core = lengths.index(min(lengths)) if all(busy) else busy.index(False)
        if busy[core]:
            self._hold(core).appendleft(self._held(core))
        self._compute(who, core)

    def _held(self, core: int) -> Who:
        held = self._computing[core]
        assert held is not None
        return held

    def _hold(self, core: int) -> deque[Who]:
        """Who computes on the core stops; the line that it is to be put in."""
        held = self._customers[self._held(core)]
        held.catch_up(self._level)
        held.left = self.env.now
        self._met = self._met and self._held(core) not in self._gangs
        return self._lines[core]

    def _compute(self, who: Who, core: int) -> None:
        self._core[who], self._computing[core] = core, who
        self._customers[who].seen = self._level
        self._met = self._met and who not in self._gangs

    def _take_turns(self) -> None:
        """Rule 2."""
        for core, line in enumerate(self._lines):
            if line:
                self._hold(core).append(self._held(core))
                self._compute(line.popleft(), core)
        self._fill(at_tick=True)

    def _fill(self, *, at_tick: bool = False) -> None:
        """Rule 3, and rule 4."""
        for core, computing in enumerate(self._computing):
            if computing is None and any(self._lines):
                who = self._next_on(core, at_tick)
                if who is not None:
                    self._lines[self._core[who]].remove(who)
                    self._compute(who, core)
                    self._in_vain[core] = 0
                elif at_tick:
                    self._in_vain[core] += 1

    def _next_on(self, core: int, at_tick: bool) -> Who | None:
        """Who computes next on a core that is free, if anybody does."""
        if self._lines[core]:
            return self._lines[core][0]
        hot = 0.0 if at_tick and self._in_vain[core] >= PATIENT else HOT
        moving = [[who for who in line if self._moves(who, at_tick, hot)] for line in self._lines]
        firsts = [line[0] for line in moving if line]
        return max(firsts, key=lambda who: len(self._lines[self._core[who]]), default=None)

    def _moves(self, who: Who, at_tick: bool, hot: float) -> bool:
        """Whether a core that is free takes it from another one's line."""
        customer = self._customers[who]
        lingers = who in self._gangs or customer.lingers
        return at_tick if lingers else self.env.now - customer.left >= hot

    def _set_alarm(self) -> None:
        """Wake up when the next customer is due, or at a tick if that is sooner."""
        self._fill()
        if not self._met:
            for gang in {id(gang): gang for gang in self._gangs.values()}.values():
                gang.meet(self._level, {who for who in self._computing if who is not None})
            self._met = True
        self._alarm += 1
        self._ticking = False
        if not self._customers:
            return
        self._next = min(self._customers[who].due() for who in self._computing if who is not None)
        delay = max(0.0, self._next - self._level) * (1 / self._speed())
        if any(self._lines):
            tick = self.machine.slices
            self._coming = max(int(self.env.now / tick), self._ticks) + 1
            until = max(0.0, self._coming * tick - self.env.now)
            if until < delay:
                delay, self._ticking = until, True
        if delay == inf:
            return
        alarm = self.env.timeout(delay, self._alarm)
        alarm.callbacks.append(self._ring)

    def _ring(self, alarm: simpy.Event) -> None:
        if alarm.value != self._alarm:
            return
        if self._ticking:
            self._advance()
            self._ticks = self._coming
            self._take_turns()
        else:  # the level is what it was to be; computed from the time it might fall short of it
            self._level, self._since = self._next, self.env.now
        for core, who in enumerate(self._computing):
            while who is not None and self._customers[who].due() <= self._level:
                for done, turn in self._customers[who].reach(self._level):
                    happen(done, turn)
                if who in self._gangs and self._gangs[who].done(who):
                    self._part_done(who)
                if not self._customers[who].threads:
                    del self._customers[who]
                    self._computing[core] = who = None
                    self._tell_gone()
        self._set_alarm()
