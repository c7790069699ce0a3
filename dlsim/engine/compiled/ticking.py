"""Cores that are had in turns, by the rules of the SimPy engine's file of that name.

A customer that computes has a core; others, by their place, stand in line for the one they had.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.gang import catch_up_with, level_due
from dlsim.engine.compiled.jit import inlined, seldom
from dlsim.engine.compiled.messages import CORES
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State
from dlsim.engine.compiled.tournament import play
from dlsim.engine.facts import HOT, PATIENT


@inlined
def in_turns(s: State, what: int) -> bool:
    """Whether it is had in turns, not shared."""
    return bool(what == CORES and s.rules[0].slice > 0.0)


@inlined
def speed(s: State, what: int) -> float:
    """How fast the level rises."""
    x = s.sharing[what]
    if in_turns(s, what):
        present = x.present if x.computing == len(s.cores) else x.computing
        return float(present * s.rates[what, present + x.spinning] / x.computing)
    return float(s.rates[what, x.present + x.spinning])


@inlined
def computes(s: State, what: int, customer: int) -> bool:
    """Whether the customer is served, and does not stand in line."""
    return bool(not in_turns(s, what) or s.customers[what, customer].computing)


@inlined
def wake_up(s: State, customer: int) -> None:
    """Rule 1: a customer gets a core."""
    x, core = s.sharing[CORES], s.customers[CORES, customer].core
    all_busy = x.computing == len(s.cores)
    if core == NONE or (s.cores[core].who != NONE and not all_busy):
        core = 0
        for other in range(1, len(s.cores)):
            if all_busy and s.cores[other].waiting < s.cores[core].waiting:
                core = other
            if not all_busy and s.cores[core].who != NONE:
                core = other
    if s.cores[core].who != NONE:
        x.front -= 1
        hold(s, core, x.front)
    begin(s, customer, core)


@inlined
def line_up_beside(s: State, customer: int) -> None:
    """Rule 4: a thread that is woken for a step, or a sample, where all cores are busy."""
    x, c, first = s.sharing[CORES], s.customers[CORES, customer], customer
    while s.customers[CORES, first].together == 0:
        first -= 1
    core = s.customers[CORES, first].core
    if c.lingers:  # which meets the first by chance
        core = 0
        for other in range(1, len(s.cores)):
            if s.cores[other].waiting < s.cores[core].waiting:
                core = other
    remember(s, customer, core)
    x.back += 1
    c.place, c.left = x.back, -inf
    s.cores[core].waiting += 1


@inlined
def hold(s: State, core: int, place: int) -> None:
    """Who computes on the core stops, and stands in line at this place."""
    x, customer = s.sharing[CORES], s.cores[core].who
    c = s.customers[CORES, customer]
    catch_up_with(s, CORES, customer)
    x.apart = x.apart or c.member != NONE
    c.computing, c.place, c.left = False, place, s.main[0].now
    x.computing -= 1
    s.cores[core].who = NONE
    s.cores[core].waiting += 1
    x.next = play(s.due[CORES], s.first_due[CORES], customer, inf, False)


@inlined
def begin(s: State, customer: int, core: int) -> None:
    """The customer computes on the core from now on."""
    x, c = s.sharing[CORES], s.customers[CORES, customer]
    x.apart = x.apart or c.member != NONE
    c.computing, c.seen = True, x.level
    remember(s, customer, core)
    x.computing += 1
    s.cores[core].who = customer
    level = level_due(s, CORES, customer)
    x.next = play(s.due[CORES], s.first_due[CORES], customer, level, False)


@inlined
def remember(s: State, customer: int, core: int) -> None:
    """It is the core that the process had last: without workers the main process is two customers.

    One of them fetches, the other one does all else.
    """
    r, customers = s.rules[0], s.customers[CORES]
    customers[customer].core = core
    if r.workers == 0:
        fetching = customer - customer % r.customers
        other = fetching + len(s.workers) * r.gang + 1
        if customer == fetching:
            customers[other].core = core
        elif customer == other:
            customers[fetching].core = core


@inlined
def first_in_line(s: State, core: int) -> int:
    """Who has stood in line for the core longest."""
    first = NONE
    for customer in range(len(s.customers[CORES])):
        c = s.customers[CORES, customer]
        waits = c.threads > 0 and not c.computing and c.core == core
        if waits and (first == NONE or c.place < s.customers[CORES, first].place):
            first = customer
    return int(first)


@inlined
def take_turns_on_cores(s: State) -> None:
    """Rule 2, at a tick."""
    x = s.sharing[CORES]
    x.ticks, x.ticking = x.coming, False
    for core in range(len(s.cores)):
        if s.cores[core].waiting > 0:
            x.back += 1
            hold(s, core, x.back)
            take(s, first_in_line(s, core), core)
    fill(s, True)


@inlined
def take(s: State, customer: int, core: int) -> None:
    """Who stands in line computes on a core, perhaps another one."""
    s.cores[s.customers[CORES, customer].core].waiting -= 1
    begin(s, customer, core)


@inlined
def stop(s: State, customer: int) -> None:
    """The customer wants nothing any more."""
    c = s.customers[CORES, customer]
    if c.computing:
        c.computing = False
        s.sharing[CORES].computing -= 1
        s.cores[c.core].who = NONE
    else:
        s.cores[c.core].waiting -= 1


@inlined
def fill(s: State, at_tick: bool) -> None:
    """Rules 3 and 4: cores on which nobody computes get someone, if others wait."""
    x = s.sharing[CORES]
    if x.computing < min(x.present, len(s.cores)):
        fill_up(s, at_tick)


@seldom
def fill_up(s: State, at_tick: bool) -> None:
    """The same, where there is one of each."""
    for core in range(len(s.cores)):
        if s.cores[core].who == NONE and s.sharing[CORES].computing < s.sharing[CORES].present:
            who = next_on(s, core, at_tick)
            if who != NONE:
                take(s, who, core)
                s.cores[core].in_vain = 0
            elif at_tick:
                s.cores[core].in_vain += 1


@inlined
def next_on(s: State, core: int, at_tick: bool) -> int:
    """Who computes next on a core that is free, if anybody does."""
    who, longest = NONE, 0
    if s.cores[core].waiting > 0:
        return int(first_in_line(s, core))
    hot = 0.0 if at_tick and s.cores[core].in_vain >= PATIENT else HOT
    for other in range(len(s.cores)):
        if s.cores[other].waiting > longest:
            first = first_to_move(s, other, at_tick, hot)
            if first != NONE:
                who, longest = first, s.cores[other].waiting
    return int(who)


@inlined
def first_to_move(s: State, core: int, at_tick: bool, hot: float) -> int:
    """Whom another core that is free takes from the line of this one."""
    first, now = NONE, s.main[0].now
    for customer in range(len(s.customers[CORES])):
        c = s.customers[CORES, customer]
        waits = c.threads > 0 and not c.computing and c.core == core
        lingers = c.member != NONE or c.lingers
        moves = waits and (at_tick if lingers else now - c.left >= hot)
        if moves and (first == NONE or c.place < s.customers[CORES, first].place):
            first = customer
    return int(first)


@inlined
def until_tick(s: State) -> float:
    """Seconds until processes take turns; infinity where nobody waits."""
    m, x, r = s.main[0], s.sharing[CORES], s.rules[0]
    if x.present == x.computing:
        return inf
    x.coming = max(int(m.now / r.slice), x.ticks) + 1
    return float(max(0.0, x.coming * r.slice - m.now))
