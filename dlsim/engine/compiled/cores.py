"""Processor sharing: cores and storage, shared equally by all who want something of them.

As in the SimPy engine, a level says how much each customer has been served since all began, and
one alarm rings when the first is due. A customer is a process; its threads, of which no process
has more than three, share what it gets, or with a switch interval take turns.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.clock import wait, wake
from dlsim.engine.compiled.gang import (
    catch_up_with,
    forget_last_step,
    join,
    leave_gang,
    meet,
    next_level,
    part_done,
    seldom,
)
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import CORES, STAND_ASIDE
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.ticking import (
    computes,
    fill,
    in_turns,
    line_up_beside,
    speed,
    stop,
    take_turns_on_cores,
    until_tick,
    wake_up,
)
from dlsim.engine.compiled.tournament import play
from dlsim.engine.facts import INSTANT, PART


@inlined
def serve(s: State) -> None:
    """Let who has asked for something, `main.amount`, wait for it as one of their customers."""
    m = s.main[0]
    if not s.rules[0].shared:
        wake(s, m.who, m.now + m.amount)
        m.amount = 0.0
        return
    what, customer = m.what, m.customer
    advance(s, what)
    x, c, threads = s.sharing[what], s.customers[what, customer], s.threads[what, customer]
    woken, helps = c.threads == 0, m.customers < m.gang
    if m.gang > 0 and m.by_chance and not helps:
        least = max(m.amount, s.rules[0].slice if m.slept else 0.0)
        m.amount += (seldom(s) - 1.0) * least
    if woken:
        c.level, c.handing = 0.0, inf
        x.present += 1
    elif computes(s, what, customer):
        catch_up_with(s, what, customer)
    c.seen = x.level
    if helps:
        forget_last_step(s, customer)
    thread = 0
    while c.threads > 0 and (threads[thread].done < inf or threads[thread].wants > 0.0):
        thread += 1
    threads[thread].who = s.rules[0].place + m.who
    if c.threads > 0 and what == CORES and take_any_turns(s, customer):
        line_up(s, what, customer, thread, m.amount)
        if c.waiting == 1:
            take_turns(s, what, customer)
    else:
        threads[thread].done = c.level + m.amount
        c.threads += 1
    level = x.level + m.amount  # of one thread alone
    if c.threads + c.waiting > 1:
        level = x.level + (next_level(s, what, customer) - c.level) * c.threads
    if m.gang > 0:
        join(s, customer, thread, not helps)
        level = inf if helps and m.by_chance else level
    if woken and helps and s.sharing[CORES].computing == len(s.cores):
        line_up_beside(s, customer)
    elif woken and in_turns(s, what):
        wake_up(s, customer)
    elif computes(s, what, customer):
        due(s, what, customer, level)
    if not helps:
        s.awaited[m.who] += 1
    m.customer += 1
    m.customers -= 1
    if m.customers == 0:
        m.amount, m.gang = 0.0, 0
    if m.gang == 0:
        set_alarm(s, what)


@inlined
def ask(s: State, customer: int, seconds: float) -> None:
    """Somebody asks for processor time, if any, as `customer`."""
    m = s.main[0]
    m.amount, m.what, m.customer, m.customers = seconds, CORES, customer, 1


@inlined
def customer_of(s: State, worker: int) -> int:
    """The customer that a worker is; the next ones are threads of its libraries."""
    return int(s.rules[0].base + worker * s.rules[0].gang)


@inlined
def beside(s: State, worker: int) -> int:
    """The customer that a worker's other thread is while it does not hold up the one that fetches.

    There is none where it always does.
    """
    return customer_of(s, worker + 1) - 1


@inlined
def take_any_turns(s: State, customer: int) -> bool:
    """Whether threads of a process take turns: not where its worker gives Python's lock back."""
    r = s.rules[0]
    return bool(r.switch_interval < inf and (r.lock == 1.0 or customer > writing(s)))


@inlined
def writing(s: State) -> int:
    """The customer that writes: it needs a core, but shares it with no thread of its process."""
    return customer_of(s, len(s.workers))


@inlined
def compute(s: State, seconds: float) -> None:
    """The main process, or its pin-memory thread, asks for processor time."""
    ask(s, writing(s) + 1, seconds)


@inlined
def served_first(s: State, then: int) -> int:
    """The main process waits for what it has asked for, if anything, and goes on with `then`."""
    return wait(s, then) if s.main[0].amount > 0.0 else then


@inlined
def spin(s: State, spinning: int) -> None:
    """The main process begins (1) or ends (0) a wait for the accelerator, on a core if it spins."""
    m, x = s.main[0], s.sharing[CORES]
    if s.rules[0].spin and m.spinning != spinning:
        advance(s, CORES)
        x.spinning += spinning - m.spinning
        m.spinning = spinning
        set_alarm(s, CORES)


@inlined
def advance(s: State, what: int) -> None:
    """Bring the level up to this moment."""
    x, now = s.sharing[what], s.main[0].now
    if x.present > 0 and now > x.since:
        x.level += (now - x.since) * speed(s, what)
    x.since = now


@inlined
def line_up(s: State, what: int, customer: int, thread: int, amount: float) -> None:
    """A thread that wants so much waits for its turn."""
    c, t = s.customers[what, customer], s.threads[what, customer, thread]
    t.done, t.wants, t.place = inf, amount, c.line
    c.line += 1
    c.waiting += 1


@inlined
def let_one_compute(s: State, what: int, customer: int) -> None:
    """Where no thread computes, the one that has waited longest does now."""
    c, threads = s.customers[what, customer], s.threads[what, customer]
    if c.threads > 0 or c.waiting == 0:
        return
    first = NONE
    for thread in range(3):
        waits = threads[thread].wants > 0.0
        if waits and (first == NONE or threads[thread].place < threads[first].place):
            first = thread
    threads[first].done, threads[first].wants = c.level + threads[first].wants, 0.0
    c.threads, c.handing = 1, inf
    c.waiting -= 1
    if c.waiting > 0:
        take_turns(s, what, customer)


@inlined
def take_turns(s: State, what: int, customer: int) -> None:
    """The one that computes makes room after the interval, or a part of the least one wants."""
    c, threads = s.customers[what, customer], s.threads[what, customer]
    least = next_level(s, what, customer) - c.level  # while `handing` is infinite
    for thread in range(3):
        if threads[thread].wants > 0.0:
            least = min(least, threads[thread].wants)
    handing = c.level + max(s.rules[0].switch_interval, least * PART)
    c.handing = handing if handing > c.level else inf


@inlined
def due(s: State, what: int, customer: int, level: float) -> None:
    """A customer is due at this level. Of those due at the same level, any may come first."""
    s.sharing[what].next = play(s.due[what], s.first_due[what], customer, level, False)


@inlined
def set_alarm(s: State, what: int) -> None:
    """Wake up when the next customer is due."""
    m, x, other = s.main[0], s.sharing[what], s.sharing[1 - what]
    alarm = inf
    if x.present > 0 and in_turns(s, what):
        fill(s, False)
        if x.apart:
            meet(s)
        delay, tick = max(0.0, x.next - x.level) * (1 / speed(s, what)), until_tick(s)
        x.ticking = tick < delay
        alarm = m.now + min(tick, delay)
    elif x.present > 0:
        alarm = m.now + max(0.0, x.next - x.level) * s.paces[what, x.present + x.spinning]
    x.alarm, m.alarm = alarm, min(alarm, other.alarm)


@inlined
def ring(s: State, what: int) -> None:
    """The alarm: whoever is done goes on."""
    present = s.sharing[what].present
    catch_up(s, what)
    who = next_served(s, what)
    while who != NONE:
        served(s, who)
        who = next_served(s, what)
    set_alarm(s, what)
    if in_turns(s, what) and s.sharing[what].present < present:
        look_again(s)


@inlined
def look_again(s: State) -> bool:
    """Whether the main process stands aside: it looks for a free core in an instant.

    Who goes on at this very moment has never been away.
    """
    m = s.main[0]
    aside = bool(m.doing == STAND_ASIDE)
    if aside:
        m.wake = min(m.wake, m.now + INSTANT)
    return aside


@inlined
def catch_up(s: State, what: int) -> None:
    """The level is what it was to be; computed from the time it might fall short of it.

    Unless it is a tick that has come.
    """
    x = s.sharing[what]
    if in_turns(s, what) and x.ticking:
        advance(s, what)
        take_turns_on_cores(s)
    else:
        x.level, x.since = x.next, s.main[0].now


@inlined
def next_served(s: State, what: int) -> int:
    """The next one who is done at this level, or NONE."""
    x, who = s.sharing[what], NONE
    while who == NONE and x.next <= x.level:
        customer = s.first_due[what, 1]
        c, threads = s.customers[what, customer], s.threads[what, customer]
        c.level, c.seen = next_level(s, what, customer), x.level
        if c.level >= c.limit:
            due(s, what, customer, inf)
            continue
        thread = 0
        for i in range(1, 3):
            if threads[i].done < threads[thread].done:
                thread = i
        c.threads -= 1
        if threads[thread].done <= c.level:
            threads[thread].done, who = inf, threads[thread].who
            if what == CORES:
                part_done(s, customer, thread)
        else:
            line_up(s, what, customer, thread, threads[thread].done - c.level)
        let_one_compute(s, what, customer)
        if c.threads > 0:
            due(s, what, customer, c.seen + (next_level(s, what, customer) - c.level) * c.threads)
        else:
            x.present -= 1
            c.lingers = False
            due(s, what, customer, inf)
            if in_turns(s, what):
                stop(s, customer)
    return int(who)


@inlined
def served(s: State, who: int) -> None:
    """Someone has got one of the things they wait for."""
    s.awaited[who] -= 1
    if s.awaited[who] == 0:
        wake(s, who, s.main[0].now)


@inlined
def leave_all(s: State, what: int) -> None:
    """Everyone of this rank goes, whatever they still wanted."""
    x, r = s.sharing[what], s.rules[0]
    if x.full:  # else what it has depends on other nodes, which are seen to later (network.py)
        advance(s, what)
    for customer in range(r.base, r.base + r.customers):
        c = s.customers[what, customer]
        if c.threads > 0:
            if in_turns(s, what):
                stop(s, customer)
            c.threads = c.waiting = 0
            leave_gang(s, customer)
            c.lingers = False
            x.present -= 1
            for thread in s.threads[what, customer]:
                thread.done, thread.wants = inf, 0.0
            due(s, what, customer, inf)
    if x.full:
        set_alarm(s, what)
