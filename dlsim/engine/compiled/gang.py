"""Threads of a step that meet, by the rules of the SimPy engine's file of that name.

They are customers with consecutive numbers, the first of which is the main process, or a worker.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import CORES
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.tournament import play
from dlsim.engine.facts import MEETINGS


@inlined
def catch_up_with(s: State, what: int, customer: int) -> None:
    """Bring the own level of a customer that computes up to date."""
    x, c = s.sharing[what], s.customers[what, customer]
    if c.threads > 0 and c.level < c.limit:
        c.level += (x.level - c.seen) / c.threads
    c.seen = x.level


@inlined
def next_level(s: State, what: int, customer: int) -> float:
    """The customer's own level when the first of its threads is done, makes room, or waits."""
    threads, c = s.threads[what, customer], s.customers[what, customer]
    done = min(threads[0].done, threads[1].done, threads[2].done)
    return float(min(done, c.handing, c.limit))


@inlined
def level_due(s: State, what: int, customer: int) -> float:
    """The level outside at which that is, if it computes and is brought up to date."""
    x, c = s.sharing[what], s.customers[what, customer]
    if c.level >= c.limit:
        return inf
    return float(x.level + (next_level(s, what, customer) - c.level) * c.threads)


@inlined
def forget_last_step(s: State, customer: int) -> None:
    """A thread that is wanted for a step does nothing else."""
    c, t = s.customers[CORES, customer], s.threads[CORES, customer, 0]
    t.done, t.wants = inf, 0.0
    c.threads, c.lingers = 0, False


@inlined
def join(s: State, customer: int, thread: int, first: bool) -> None:
    """A thread of the customer is one of those that meet."""
    m, c = s.main[0], s.customers[CORES, customer]
    c.member, c.linger = thread, m.linger
    c.lead = inf if m.by_chance else m.amount / MEETINGS
    if first:
        c.together = m.gang
    else:
        s.threads[CORES, customer, thread].who = NONE
    if not first and m.by_chance:  # it only keeps a core busy
        c.member, c.lingers = NONE, True
        s.threads[CORES, customer, thread].done = inf
    s.sharing[CORES].apart = True


@inlined
def seldom(s: State) -> float:
    """How many times as long those compute who meet by chance, among all who stay on cores."""
    m, x, r, among = s.main[0], s.sharing[CORES], s.rules[0], 0
    for one in range(len(s.customers[CORES])):
        c = s.customers[CORES, one]
        own = one >= m.customer and one < m.customer + m.gang
        if own or (c.threads > 0 and (c.member != NONE or c.lingers)):
            among += 1
    present = among + (r.background + x.spinning)
    return float(max((present - 1.0) / max(r.cores - 1.0, 1.0), 1.0))


@inlined
def leave_gang(s: State, customer: int) -> None:
    """It does not meet others any more."""
    c = s.customers[CORES, customer]
    c.member, c.limit = NONE, inf
    s.sharing[CORES].apart = True


@inlined
def part_done(s: State, customer: int, thread: int) -> None:
    """A thread has done what it wanted: if that was its part of a step, it lingers.

    If it was that of a sample, the others do.
    """
    c, t = s.customers[CORES, customer], s.threads[CORES, customer, thread]
    if c.member == thread:
        leave_gang(s, customer)
        if t.who == NONE:
            t.done, c.lingers = c.level + c.linger, True
            c.threads += 1
        elif c.lead == inf:
            for other in range(customer + 1, customer + c.together):
                begin_to_linger(s, other, c.linger)


@inlined
def begin_to_linger(s: State, customer: int, linger: float) -> None:
    """A thread that has kept a core busy, or stood in line for one, does so for no longer."""
    c = s.customers[CORES, customer]
    if c.computing:
        catch_up_with(s, CORES, customer)
    s.threads[CORES, customer, 0].done = c.level + linger
    if c.computing:
        due = level_due(s, CORES, customer)
        s.sharing[CORES].next = play(s.due[CORES], s.first_due[CORES], customer, due, False)


@inlined
def left(s: State, customer: int) -> float:
    """What the thread that meets others still wants."""
    c = s.customers[CORES, customer]
    t = s.threads[CORES, customer, c.member]
    return float(t.done - c.level if t.done < inf else t.wants)


@inlined
def meet(s: State) -> None:
    """How far each may go, now that those compute who do."""
    customers = s.customers[CORES]
    s.sharing[CORES].apart = False
    for first in range(len(customers)):
        beyond = first + customers[first].together
        for one in range(first, beyond):
            if customers[one].member != NONE and customers[one].computing:
                catch_up_with(s, CORES, one)
        for one in range(first, beyond):
            c = customers[one]
            if c.member != NONE:
                c.limit = limit(s, first, beyond, one)
                if c.computing:
                    due = level_due(s, CORES, one)
                    s.sharing[CORES].next = play(s.due[CORES], s.first_due[CORES], one, due, False)


@inlined
def limit(s: State, first: int, beyond: int, one: int) -> float:
    """The own level at which one of those who meet waits for the others."""
    customers = s.customers[CORES]
    c, own, found = customers[one], left(s, one), inf
    for other in range(first, beyond):
        if other == one or customers[other].member == NONE:
            continue
        behind = left(s, other)
        absent = not customers[other].computing and behind > 0.0
        if absent:
            found = min(found, c.level + max(c.lead - (behind - own), 0.0))
        if one == first and (absent or behind > own):
            found = min(found, s.threads[CORES, one, c.member].done)
    return float(found)
