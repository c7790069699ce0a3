"""Processor sharing: cores and storage, shared equally by all who want something of them.

As in the SimPy engine, a level says how much each customer has been served since all began, and
one alarm rings when the first is due. A customer is a process; its threads, of which no process
has more than three, share what it gets.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.clock import wake
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import CORES, GO_ON, WAIT
from dlsim.engine.compiled.state import State


@inlined
def serve(s: State, who: int) -> None:
    """Let someone wait for what they have asked for, `main.amount`, as all their customers."""
    m = s.main[0]
    what = m.what
    x = s.sharing[what]
    advance(s, what)
    for customer in range(m.customer, m.customer + m.customers):
        c, threads = s.customers[what, customer], s.threads[what, customer]
        if c.threads == 0:
            c.level = 0.0
            c.place = x.present
            x.present += 1
        else:
            c.level += (x.level - c.seen) / c.threads
        c.seen = x.level
        thread = 0
        while threads[thread].done < inf:
            thread += 1
        threads[thread].done, threads[thread].who = c.level + m.amount, who
        c.threads += 1
        c.due = c.seen + (first_done(s, what, customer) - c.level) * c.threads
        find_place(s, what, customer)
        s.awaited[who] += 1
    set_alarm(s, what)


@inlined
def compute(s: State, seconds: float) -> int:
    """The main process asks for processor time: WAIT, or GO_ON if that is none."""
    return ask(s, len(s.workers) + 1, seconds)


@inlined
def ask(s: State, customer: int, seconds: float) -> int:
    """Somebody asks for processor time as `customer`: WAIT, or GO_ON if that is none."""
    m = s.main[0]
    m.amount, m.what, m.customer, m.customers = seconds, CORES, customer, 1
    return WAIT if seconds > 0.0 else GO_ON


@inlined
def advance(s: State, what: int) -> None:
    """Bring the level up to this moment."""
    x, now = s.sharing[what], s.main[0].now
    if x.present > 0:
        x.level += (now - x.since) * x.rate
    x.since = now


@inlined
def first_done(s: State, what: int, customer: int) -> float:
    """The customer's own level when the first of its threads is done."""
    threads = s.threads[what, customer]
    return float(min(threads[0].done, threads[1].done, threads[2].done))


@inlined
def find_place(s: State, what: int, customer: int) -> None:
    """Move a customer up or down the heap, to where it belongs."""
    due, at = s.customers[what, customer].due, s.customers[what, customer].place
    while at > 0:
        above = s.present[what, (at - 1) // 2]
        if s.customers[what, above].due <= due:
            break
        s.present[what, at] = above
        s.customers[what, above].place = at
        at = (at - 1) // 2
    present = s.sharing[what].present
    while True:
        below = 2 * at + 1
        if below >= present:
            break
        child = s.present[what, below]
        if below + 1 < present:
            sibling = s.present[what, below + 1]
            if s.customers[what, sibling].due < s.customers[what, child].due:
                below, child = below + 1, sibling
        if s.customers[what, child].due >= due:
            break
        s.present[what, at] = child
        s.customers[what, child].place = at
        at = below
    s.present[what, at] = customer
    s.customers[what, customer].place = at


@inlined
def set_alarm(s: State, what: int) -> None:
    """Wake up when the next customer is due."""
    x = s.sharing[what]
    if x.present == 0:
        x.alarm = inf
        return
    customers = x.present + x.background
    x.rate = min(x.most, x.capacity / customers)
    busy = min(customers, x.capacity)
    if x.contention > 0.0 and busy > 1.0:
        x.rate /= 1.0 + x.contention * (busy - 1.0) / (x.capacity - 1.0)
    due = s.customers[what, s.present[what, 0]].due
    x.alarm = s.main[0].now + max(0.0, (due - x.level) / x.rate)


@inlined
def ring(s: State, what: int) -> None:
    """The alarm: whoever is done goes on."""
    x, now = s.sharing[what], s.main[0].now
    # The level is what it was to be; computed from the time it might fall short of it.
    x.level, x.since = s.customers[what, s.present[what, 0]].due, now
    while x.present > 0:
        customer = s.present[what, 0]
        c = s.customers[what, customer]
        if c.due > x.level:
            break
        c.level, c.seen = first_done(s, what, customer), x.level
        for thread in s.threads[what, customer]:
            if thread.done <= c.level:
                thread.done = inf
                c.threads -= 1
                served(s, thread.who)
        if c.threads > 0:
            c.due = c.seen + (first_done(s, what, customer) - c.level) * c.threads
        else:
            x.present -= 1
            if x.present == 0:
                break
            customer = s.present[what, x.present]
            s.customers[what, customer].place = 0
        find_place(s, what, customer)
    set_alarm(s, what)


@inlined
def served(s: State, who: int) -> None:
    """Someone has got one of the things they wait for."""
    s.awaited[who] -= 1
    if s.awaited[who] == 0:
        wake(s, who, s.main[0].now)


@inlined
def leave_all(s: State, what: int) -> None:
    """Everyone goes, whatever they still wanted."""
    x = s.sharing[what]
    advance(s, what)
    for customer in range(s.customers.shape[1]):
        s.customers[what, customer].threads = 0
        for thread in s.threads[what, customer]:
            thread.done = inf
    x.present = 0
    x.alarm = inf
