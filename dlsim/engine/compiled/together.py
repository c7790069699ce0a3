"""The event loop of a job: all ranks on one clock, what those on a node share, where all meet.

Each rank is what it is alone (`loop.py`). Two tournaments say who is next: of all ranks, by when
someone acts in them, and of all nodes, by when something is due at what their ranks share. Who has
asked for something shared is known by rank and number; so whoever is served is found.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled import messages
from dlsim.engine.compiled.clock import main_process, next_one
from dlsim.engine.compiled.cores import (
    catch_up,
    look_again,
    next_served,
    serve,
    served,
    set_alarm,
)
from dlsim.engine.compiled.jit import event_loop, inlined
from dlsim.engine.compiled.loop import act, go_on
from dlsim.engine.compiled.meeting import look_at, look_at_node, meet
from dlsim.engine.compiled.network import advance_all, bring_up, look_at_reads
from dlsim.engine.compiled.settings import NONE, OWNER
from dlsim.engine.compiled.state import State, read
from dlsim.engine.native.arrays import Table


@inlined
def step(s: State, node: int) -> int:
    """Whoever is first in a rank goes on; returns WAIT, or what the main process returns for."""
    m = s.main[0]
    m.now, m.amount, why = s.job[0].now, 0.0, messages.WAIT
    if m.soon <= m.wake:
        m.who = next_one(s)
        act(s, m.who)
        if m.short_index != NONE:
            return messages.NOT_RECORDED
    else:
        m.wake = inf
        m.who = main_process(s)
        why = go_on(s)
    while m.amount > 0.0:
        if s.rules[0].networked and m.what == messages.STORAGE:
            advance_all(s)
            bring_up(s, node)
        serve(s)
    return why


@inlined
def ring(s: State, node: int, of_all: bool) -> None:
    """Something is due at what the ranks of a node share: whoever is done goes on.

    `of_all`: on nodes that are not full, the first read of all is done, and its like on this node.
    """
    x, what = s.sharing[messages.STORAGE], messages.STORAGE
    present = s.sharing[messages.CORES].present
    s.main[0].now = s.job[0].now
    if of_all:
        advance_all(s)
        s.network[0].level = max(s.network[0].level, s.network_due[node])
        x.seen = s.network[0].level
    elif s.sharing[messages.CORES].alarm == s.main[0].now:
        what = messages.CORES
    catch_up(s, what)
    who = next_served(s, what)
    while who != NONE:
        rank = who >> OWNER
        t = read(s.ranks[rank])
        t.main[0].now = s.main[0].now
        served(t, who & ((1 << OWNER) - 1))
        look_at(t, rank)
        who = next_served(s, what)
    set_alarm(s, what)
    if s.sharing[messages.CORES].present < present:
        all_look_again(s, node)


@inlined
def all_look_again(s: State, node: int) -> None:
    """A core may be free: whoever stands aside on the node looks in an instant."""
    if s.rules[0].slice > 0.0:
        for rank in range(node * s.job[0].ranks, (node + 1) * s.job[0].ranks):
            t = read(s.ranks[rank])
            t.main[0].now = s.job[0].now
            if look_again(t):
                look_at(t, rank)


@event_loop
def run_ranks(table: Table) -> int:
    """As `loop.run` for all ranks of a job; `job.current` is then the one that something is for.

    `table` is that of any rank: all have `job`, and where the others are, in common.
    At one moment alarms come first, then all others by their turns, and of equal turns by ranks.
    """
    s: State = read(table)
    j = s.job[0]
    for i in range(j.changed):
        look_at(read(s.ranks[s.changed[i]]), s.changed[i])
    j.changed = 0
    meet(s)  # whoever has joined since may be the last whom others wait for
    while True:
        rank, why, alarm = j.current, messages.WAIT, False
        node = rank // j.ranks
        if rank == NONE:
            rank, node = s.rank_first[1], s.node_first[1]
            soon, of_all = s.node_times[node], s.network[0].alarm
            moment = min(soon, of_all, s.rank_times[rank])
            if moment > j.until or moment == inf:
                return messages.NOTHING_LEFT
            j.now = moment
            alarm = soon == moment or of_all == moment
            if not alarm:
                node = rank // j.ranks
            elif soon > moment:
                node = s.network_first[1]
        t = read(s.ranks[node * j.ranks if alarm else rank])
        if alarm:
            ring(t, node, s.node_times[node] > j.now)
        else:
            present = t.sharing[messages.CORES].present
            why = step(t, node)
            if t.sharing[messages.CORES].present < present:  # workers were terminated
                all_look_again(t, node)
        if t.rules[0].networked:
            look_at_reads(t, node)
        look_at_node(t, node)
        if alarm:
            continue
        if why != messages.WAIT:
            j.current = rank
            t.main[0].wake = -inf
            return why
        # Where a main process fetches, it and its hands are one, and go on before any other does.
        alone = t.rules[0].workers == 0 and min(t.main[0].soon, t.main[0].wake) <= j.now
        j.current = rank if alone else NONE
        if not alone:
            look_at(t, rank)
